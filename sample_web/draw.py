"""A pen that draws in face coordinates: shapes of a turned head, projected to pixels and anti-aliased.

Face coordinates: the head is an ellipsoid of half-width 1 and half-height `HEAD_ASPECT` around (0, 0), x to the right
of the picture, y down. Yaw turns it about its vertical axis (so that eyes, nose and mouth shift with their depth),
roll turns the picture plane.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Points = NDArray[np.float64]  # (..., N, 2)
Picture = NDArray[np.uint8]  # (H, W, 3) RGB
Colour = tuple[float, float, float]  # RGB, 0..255

HEAD_ASPECT = 1.32
HEAD_DEPTH = 0.9  # half-depth of the head ellipsoid
_SHIFT = 4  # cv2 takes fixed-point coordinates: 1/16 px
_SAMPLES = 12  # points along a curve


@dataclass(frozen=True)
class Pose:
    """Where the head stands in the picture: centre and unit in pixels, yaw and roll in radians."""

    x_px: float
    y_px: float
    unit_px: float
    yaw: float
    roll: float

    def project(self, points: Points, lift: NDArray[np.float64]) -> Points:
        """Face coordinates (N, 2) to pixels (N, 2); `lift` (N,) is depth above the skin, NaN where flat."""
        x, y = points[:, 0], points[:, 1]
        depth = HEAD_DEPTH * np.sqrt(np.maximum(1 - x * x - (y / HEAD_ASPECT) ** 2, 0.0)) + lift
        x = np.where(np.isnan(lift), x, x * math.cos(self.yaw) + depth * math.sin(self.yaw))
        cos, sin = math.cos(self.roll) * self.unit_px, math.sin(self.roll) * self.unit_px
        return np.stack([self.x_px + x * cos - y * sin, self.y_px + x * sin + y * cos], axis=1)

    def grid(self, height: int, width: int, cells: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Flat face coordinates, x and y, (cells, cells) each, of the centres of a grid over a picture."""
        xs = (np.arange(cells, dtype=np.float32) + 0.5) * (width / cells) - self.x_px
        ys = (np.arange(cells, dtype=np.float32) + 0.5) * (height / cells) - self.y_px
        cos, sin = math.cos(self.roll) / self.unit_px, math.sin(self.roll) / self.unit_px
        x = xs[None, :] * cos + ys[:, None] * sin
        y = ys[:, None] * cos - xs[None, :] * sin
        return x.astype(np.float32), y.astype(np.float32)


@cache
def _circle(sides: int) -> Points:
    angle = 2 * math.pi * np.arange(sides) / sides
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


@cache
def _bernstein(knots: int) -> NDArray[np.float64]:
    """Bernstein basis (_SAMPLES, knots) of the Bezier curves."""
    t = np.linspace(0.0, 1.0, _SAMPLES)[:, None]
    k = np.arange(knots)
    binomial = np.array([math.comb(knots - 1, int(i)) for i in k])
    return np.asarray(binomial * t**k * (1 - t) ** (knots - 1 - k))


def oval(x: float, y: float, rx: float, ry: float, sides: int = 28) -> Points:
    """Points (sides, 2) of an ellipse."""
    return _circle(sides) * (rx, ry) + (x, y)


def rounded(x: float, y: float, rx: float, ry: float, power: float) -> Points:
    """Points (28, 2) of a superellipse: power 2 is an ellipse, more is squarer. The first half is the lower one."""
    unit = _circle(28)
    return np.sign(unit) * np.abs(unit) ** (2 / power) * (rx, ry) + (x, y)


def curve(*knots: tuple[float, float]) -> Points:
    """Points (n, 2) of the Bezier curve over the knots."""
    return np.asarray(_bernstein(len(knots)) @ np.array(knots, dtype=np.float64))


def curves(knots: ArrayLike) -> Points:
    """Points (K, n, 2) of K Bezier curves over knots (K, M, 2)."""
    array = np.asarray(knots, dtype=np.float64)
    return np.asarray(_bernstein(array.shape[1]) @ array)


def smooth(corners: ArrayLike) -> Points:
    """A closed polygon with its corners rounded off (Chaikin's corner cutting, twice): (N, 2) to (4 N, 2)."""
    points = np.asarray(corners, dtype=np.float64)
    for _ in range(2):
        following = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following], axis=1).reshape(-1, 2)
    return points


def moved(points: Points, x: float, y: float) -> Points:
    """The points, shifted."""
    return points + np.array([x, y])


def mirrored(points: Points) -> Points:
    """The points, left and right exchanged."""
    return points * np.array([-1.0, 1.0])


@dataclass(frozen=True)
class _Shape:
    """One recorded shape: `points` (N, 2) or, for several lines at once, (K, N, 2)."""

    points: Points
    lift: float | None
    colour: Colour
    width: float = 0.0  # of a line; 0 is a filled polygon
    closed: bool = False
    opacity: float = 1.0


class Pen:
    """Draws on one picture, in place: shapes are recorded, `flush` projects all of them at once and draws them."""

    def __init__(self, canvas: NDArray[np.uint8], pose: Pose) -> None:
        self.canvas = canvas
        self.pose = pose
        self._shapes: list[_Shape] = []

    def fill(self, points: Points, colour: Colour, lift: float | None = 0.0) -> None:
        """A filled polygon (N, 2) in face coordinates."""
        self._shapes.append(_Shape(points, lift, colour))

    def stroke(
        self, points: Points, colour: Colour, width: float, lift: float | None = 0.0, closed: bool = False
    ) -> None:
        """A line along the points (N, 2), or several (K, N, 2); `width` in face units, at least one pixel."""
        self._shapes.append(_Shape(points, lift, colour, width, closed))

    def glaze(self, points: Points, colour: Colour, opacity: float, lift: float | None = 0.0) -> None:
        """A see-through polygon: blended over what is there."""
        self._shapes.append(_Shape(points, lift, colour, opacity=opacity))

    def flush(self) -> None:
        """Draw what has been recorded, in its order."""
        shapes, self._shapes = self._shapes, []
        if not shapes:
            return
        flat = [shape.points.reshape(-1, 2) for shape in shapes]
        lifts = [np.nan if shape.lift is None else shape.lift for shape in shapes]
        pixels = self.pose.project(np.concatenate(flat), np.repeat(lifts, [len(points) for points in flat]))
        fixed = np.rint(pixels * (1 << _SHIFT)).astype(np.int32)
        start = 0
        for shape, points in zip(shapes, flat, strict=True):
            self._draw(shape, fixed[start : start + len(points)].reshape(shape.points.shape))
            start += len(points)

    def _draw(self, shape: _Shape, fixed: NDArray[np.int32]) -> None:
        if shape.width:
            lines = [fixed] if fixed.ndim == 2 else list(fixed)
            thickness = max(1, round(shape.width * self.pose.unit_px))
            cv2.polylines(self.canvas, lines, shape.closed, shape.colour, thickness, cv2.LINE_AA, _SHIFT)
        elif shape.opacity < 1:
            self._blend(shape, fixed)
        else:
            cv2.fillPoly(self.canvas, [fixed], shape.colour, cv2.LINE_AA, _SHIFT)

    def _blend(self, shape: _Shape, fixed: NDArray[np.int32]) -> None:
        (x, y, w, h), (rows, cols) = cv2.boundingRect(fixed >> _SHIFT), self.canvas.shape[:2]
        x0, y0, x1, y1 = max(x - 1, 0), max(y - 1, 0), min(x + w + 2, cols), min(y + h + 2, rows)
        if x0 >= x1 or y0 >= y1:
            return
        part = self.canvas[y0:y1, x0:x1]
        over = part.copy()
        corner = np.array([x0, y0], dtype=np.int32) * (1 << _SHIFT)
        cv2.fillPoly(over, [fixed - corner], shape.colour, cv2.LINE_AA, _SHIFT)
        part[:] = cv2.addWeighted(over, shape.opacity, part, 1 - shape.opacity, 0.0)
