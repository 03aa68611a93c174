"""Backgrounds and pictures without a face: gradients, soft clouds, stripes, shapes, landscapes."""

from __future__ import annotations

import cv2
import numpy as np

from sample_web.draw import Picture

# Wall paints: sand, sage, sky, lilac, slate, terracotta.
_PAINTS = ((222, 208, 184), (158, 184, 158), (160, 194, 222), (196, 178, 212), (104, 116, 134), (204, 148, 122))


def _clouds(rng: np.random.Generator, height: int, width: int, cells: int, low: int, high: int) -> Picture:
    """Smooth colour noise with `cells` patches along each side."""
    coarse = rng.integers(low, high, (cells, cells, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def paint_background(rng: np.random.Generator, height: int, width: int) -> Picture:
    """uint8 (height, width, 3) RGB behind a face: a painted wall in soft light, now and then a curtain or a floor.

    Calm on purpose: as in most real portraits, what surrounds the face can be told from its neighbours, so that a small
    model spends itself on the face. Colour, light and the person alone make no two alike.
    """
    canvas = _lit_wall(rng, height, width)
    kind = int(rng.integers(6))
    if kind == 0:  # a curtain at one side
        edge = int(width * rng.uniform(0.12, 0.3))
        left = slice(0, edge) if rng.random() < 0.5 else slice(width - edge, width)
        canvas[:, left] = _lit_wall(rng, height, width)[:, left]
    elif kind == 1:  # a floor, or the edge of a table
        y = int(height * rng.uniform(0.6, 0.85))
        canvas[y:] = _lit_wall(rng, height, width)[y:]
    return canvas


def _lit_wall(rng: np.random.Generator, height: int, width: int) -> Picture:
    """One of a few paints, lighter towards one side."""
    paint = np.array(_PAINTS[int(rng.integers(len(_PAINTS)))], dtype=np.float32) * rng.uniform(0.94, 1.06)
    angle, depth = rng.uniform(0, 2 * np.pi), rng.uniform(0.04, 0.14)
    xs, ys = np.linspace(-1, 1, 32, dtype=np.float32), np.linspace(-1, 1, 32, dtype=np.float32)
    light = 1 + depth * (xs[None, :] * np.cos(angle) + ys[:, None] * np.sin(angle)).astype(np.float32)
    coarse = np.clip(light[:, :, None] * paint, 0, 255).astype(np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def paint_no_face(rng: np.random.Generator, height: int, width: int) -> Picture:
    """uint8 (height, width, 3) RGB without a face: a texture, a landscape or paper shapes."""
    kind = int(rng.integers(3))
    if kind == 0:
        canvas = _texture(rng, height, width)
    elif kind == 1:
        canvas = _landscape(rng, height, width)
    else:
        canvas = _paper(rng, height, width)
    noise = cv2.cvtColor(rng.integers(0, 256, (height, width), dtype=np.uint8), cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.addWeighted(canvas, 1.0, noise, 6 / 128, -6.0), dtype=np.uint8)


def _texture(rng: np.random.Generator, height: int, width: int) -> Picture:
    """Waves of colour."""
    canvas = _clouds(rng, height, width, int(rng.integers(5, 14)), 30, 220)
    xs, ys = np.linspace(0, 1, width), np.linspace(0, 1, height)
    fx, fy = rng.uniform(4, 30, 2)
    waves = np.sin(2 * np.pi * (fx * xs[None, :] + fy * ys[:, None])) * 30
    return np.clip(canvas + waves[:, :, None], 0, 255).astype(np.uint8)


def _landscape(rng: np.random.Generator, height: int, width: int) -> Picture:
    """A sky and three ranges of hills."""
    top, bottom = rng.integers(120, 200, 3), rng.integers(200, 250, 3)
    t = np.linspace(0, 1, height)[:, None, None]
    canvas = np.broadcast_to(top * (1 - t) + bottom * t, (height, width, 3)).astype(np.uint8).copy()
    xs = np.arange(0, width + 8, 8)
    for k in range(3):
        phase, waves = rng.uniform(0, 6.28, 3), rng.uniform(1, 5, 3)
        ridge = height * (0.45 + 0.17 * k) + sum(
            height * 0.04 * np.sin(p + 6.28 * w * xs / width) for p, w in zip(phase, waves, strict=True)
        )
        hill = np.concatenate([np.stack([xs, ridge], axis=1), [[width, height], [0, height]]]).astype(np.int32)
        green = (int(rng.integers(20, 90)), int(rng.integers(70, 150)) - 20 * k, int(rng.integers(20, 90)))
        cv2.fillPoly(canvas, [hill], green, cv2.LINE_AA)
    return canvas


def _paper(rng: np.random.Generator, height: int, width: int) -> Picture:
    """Triangles of coloured paper on a plain ground."""
    canvas = _clouds(rng, height, width, 3, 150, 235)
    for colour in rng.integers(20, 240, (int(rng.integers(6, 16)), 3)).tolist():
        centre = rng.uniform(0, 1, 2) * (width, height)
        corners = centre + rng.uniform(-0.3, 0.3, (3, 2)) * (width, height)
        cv2.fillConvexPoly(canvas, corners.astype(np.int32), colour, cv2.LINE_AA)
    return canvas
