"""The parts of a drawn face, without the hair, back to front. All lengths are face units (see `sample_web.draw`)."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from sample_web.draw import (
    HEAD_ASPECT,
    HEAD_DEPTH,
    Pen,
    Points,
    curve,
    curves,
    mirrored,
    moved,
    oval,
    rounded,
    smooth,
)
from sample_web.look import Look, mix, scaled

_WHITE = (248.0, 246.0, 242.0)
_SIDES = (-1, 1)
_CELLS = 48  # of the grid on which the shading is computed
_Grid = NDArray[np.floating]


def outline(look: Look) -> Points:
    """The silhouette (48, 2) of the head: an ellipse above, a squarer and narrower jaw below."""
    unit = oval(0.0, 0.0, 1.0, 1.0, sides=48)
    below = unit[:, 1:] > 0
    shape = np.sign(unit) * np.abs(unit) ** (2 / np.where(below, look.jaw, 2.0))
    return np.asarray(shape * (0.97, HEAD_ASPECT) * np.where(below, (look.cheek, 1.0), (1.0, 1.0)))


def body(pen: Pen, look: Look) -> None:
    """Neck, shoulders and clothes."""
    half = [(0.5, 1.7), (1.2, 1.88), (1.95, 2.2), (2.2, 4.2)]
    pen.fill(np.array([(-x, y) for x, y in reversed(half)] + half), look.clothes, None)
    neck = [(-0.55, 0.7), (-0.52, 1.72), (0.0, 2.05), (0.52, 1.72), (0.55, 0.7)]
    pen.fill(np.array(neck), scaled(look.skin, 0.80), None)
    accent = mix(look.clothes, (255.0, 255.0, 255.0) if sum(look.clothes) < 380 else (20.0, 20.0, 30.0), 0.55)
    if look.neckline == 0:
        collar = np.array([[-0.62, 1.62], [0.0, 2.1], [-0.5, 2.4], [-0.85, 1.78]])
        pen.fill(collar, accent, None)
        pen.fill(mirrored(collar), accent, None)
    elif look.neckline == 1:
        pen.stroke(curve((-0.62, 1.65), (0.0, 2.35), (0.62, 1.65)), accent, 0.12, None)


def head(pen: Pen, look: Look) -> None:
    """Ears and the bare head."""
    turn = math.sin(pen.pose.yaw)
    for side in _SIDES:
        # the ear on the side to which the head turns goes out of sight
        ear = oval(side * (0.98 - 0.12 * max(side * turn, 0)) - 0.1 * turn, 0.05, 0.15, 0.27, sides=16)
        pen.fill(ear, scaled(look.skin, 0.88), None)
    pen.fill(outline(look), look.skin, None)


def shade_head(pen: Pen, look: Look) -> None:
    """The relief that detectors look for: dark eye sockets, bright nose bridge and cheeks, shadow under the nose."""
    pen.flush()
    rows, cols = pen.canvas.shape[:2]
    tone = _relief(pen, look)
    gain = cv2.resize(np.clip(tone * 128, 0, 255).astype(np.uint8), (cols, rows), interpolation=cv2.INTER_LINEAR)
    shaded = cv2.multiply(pen.canvas, cv2.cvtColor(gain, cv2.COLOR_GRAY2RGB), scale=1 / 128)
    mask = np.zeros((rows, cols), dtype=np.uint8)
    stencil = Pen(mask, pen.pose)
    stencil.fill(outline(look), (255.0, 255.0, 255.0), None)
    stencil.flush()
    cv2.copyTo(shaded, mask, pen.canvas)


def _relief(pen: Pen, look: Look) -> _Grid:
    """Brightness of the head's skin on a coarse grid: Lambert's law on the ellipsoid, and soft spots."""
    rows, cols = pen.canvas.shape[:2]
    x, y = pen.pose.grid(rows, cols, _CELLS)
    depth = np.sqrt(np.maximum(1 - x * x - (y / HEAD_ASPECT) ** 2, 0.0))
    lambert = depth + x * look.light_x + y * (look.light_y / HEAD_ASPECT)
    # back from the picture to the coordinates of the turned head, in which the parts are symmetric
    fx = x * math.cos(pen.pose.yaw) - HEAD_DEPTH * depth * math.sin(pen.pose.yaw)
    side = np.abs(fx)

    def spot(away: _Grid, cx: float, cy: float, rx: float, ry: float) -> _Grid:
        return np.exp(-(((away - cx) / rx) ** 2) - ((y - cy) / ry) ** 2)

    soft = 0.14 * spot(side, 0.5, 0.38, 0.25, 0.22) + 0.20 * spot(fx, 0.0, 0.05, 0.10, 0.45)
    soft += 0.10 * spot(fx, 0.0, -0.65, 0.55, 0.22) - 0.28 * spot(side, look.eye_x, look.eye_y - 0.05, 0.27, 0.17)
    soft -= 0.13 * spot(fx, 0.0, look.eye_y + look.nose_length + 0.14, 0.2, 0.07)
    soft -= 0.13 * spot(fx, 0.0, look.mouth_y + 0.24, 0.2, 0.06)
    return np.asarray(look.skin_light + 0.26 * lambert + look.relief * soft, dtype=np.float32)


def age_lines(pen: Pen, look: Look, age: str) -> None:
    """Middle: folds beside the nose. Old: also lines on the forehead, at the eyes' corners and below the eyes."""
    if age == "young":
        return
    line = scaled(look.skin, 0.70 if age == "old" else 0.76)
    fold = curve((0.27, 0.36), (0.46, 0.5), (0.55, 0.78))
    pen.stroke(np.stack([fold, mirrored(fold)]), line, 0.035)
    if age == "middle":
        return
    heights = (-0.62, -0.74, -0.86)
    pen.stroke(curves([[(-0.42, y), (0.0, y - 0.05), (0.42, y)] for y in heights]), scaled(look.skin, 0.76), 0.03)
    x, y = look.eye_x + 0.27, look.eye_y
    crow = np.array([[[x, y + d * 0.4], [x + 0.15, y + d * 1.6]] for d in (-0.08, 0.02, 0.12)])
    pen.stroke(np.concatenate([crow, mirrored(crow)]), line, 0.025)
    bag = curve((0.24, y + 0.21), (look.eye_x, y + 0.34), (0.6, y + 0.2))
    pen.stroke(np.stack([bag, mirrored(bag)]), line, 0.03)


def nose(pen: Pen, look: Look) -> None:
    """Ridge, tip, wings and nostrils."""
    tip, w = look.eye_y + look.nose_length, look.nose_width
    ridge = curve((-0.13, look.eye_y + 0.12), (-0.12, tip - 0.25), (-w, tip - 0.04))
    pen.stroke(ridge, scaled(look.skin, 0.87), 0.04, 0.12)
    pen.fill(oval(0, tip - 0.04, w * 0.62, 0.11), scaled(look.skin, 1.08), 0.24)
    wing = curve((-w, tip - 0.05), (-w * 0.9, tip + 0.09), (-0.06, tip + 0.07), (0.0, tip + 0.09))
    pen.stroke(np.stack([wing, mirrored(wing)]), scaled(look.skin, 0.74), 0.045, 0.18)
    for side in _SIDES:
        pen.fill(oval(side * w * 0.5, tip + 0.05, 0.055, 0.035, sides=16), scaled(look.skin, 0.4), 0.18)


def mouth(pen: Pen, look: Look, smiling: bool) -> None:
    """Smiling: wide, open, teeth showing. Serious: shorter, closed and straight."""
    if smiling:
        _smile(pen, look)
        return
    y, w = look.mouth_y, look.mouth_width * 0.72
    upper = curve((-w, y + 0.02), (-w * 0.4, y - 0.11), (w * 0.4, y - 0.11), (w, y + 0.02))
    lower = curve((-w, y), (-w * 0.5, y + 0.15), (w * 0.5, y + 0.15), (w, y))
    pen.fill(upper, look.lips, 0.06)
    pen.fill(lower, scaled(look.lips, 1.08), 0.06)
    pen.stroke(curve((-w, y + 0.025), (0.0, y), (w, y + 0.025)), scaled(look.lips, 0.55), 0.035, 0.06)


def _smile(pen: Pen, look: Look) -> None:
    y, w = look.mouth_y, look.mouth_width * 1.1
    top = curve((-w, y - 0.14), (0.0, y + 0.02), (w, y - 0.14))
    bottom = curve((w, y - 0.14), (0.0, y + 0.62), (-w, y - 0.14))
    pen.fill(np.concatenate([moved(top, 0.0, -0.05), moved(bottom, 0.0, 0.05)]), look.lips, 0.06)
    pen.fill(np.concatenate([top, bottom]), (70.0, 18.0, 24.0), 0.06)
    teeth = curve((w * 0.93, y - 0.11), (0.0, y + 0.42), (-w * 0.93, y - 0.11))
    pen.fill(np.concatenate([moved(top * np.array([0.93, 1.0]), 0.0, 0.01), teeth]), _WHITE, 0.06)
    corner = curve((w * 1.02, y - 0.24), (w * 1.18, y - 0.14), (w * 1.1, y - 0.02))
    pen.stroke(np.stack([corner, mirrored(corner)]), scaled(look.skin, 0.74), 0.035)


def eyes(pen: Pen, look: Look, smiling: bool) -> None:
    """Eyes with lids; a smile narrows them a little."""
    r, y = look.eye_size, look.eye_y
    white = mix(_WHITE, scaled(look.skin, 0.9), 0.35)  # in the shadow of the brows
    for side in _SIDES:
        x = side * look.eye_x
        ix = x + look.gaze * r * 0.5
        pen.fill(oval(x, y, r, r * (0.50 if smiling else 0.60)), white, 0.02)
        pen.fill(oval(ix, y, r * 0.54, r * 0.56, sides=16), look.iris, 0.02)
        pen.fill(oval(ix, y, r * 0.28, r * 0.3, sides=16), (12.0, 10.0, 12.0), 0.02)
        pen.fill(oval(ix + 0.04, y - 0.035, 0.028, 0.028, sides=16), (255.0, 255.0, 255.0), 0.02)
        high = y - r * 0.95
        lid = curve((x - r * 1.1, y + 0.03), (x - r * 0.5, high), (x + r * 0.5, high), (x + r * 1.1, y + 0.03))
        pen.stroke(lid, (28.0, 20.0, 20.0), 0.055, 0.02)
        pen.stroke(curve((x - r, y + 0.03), (x, y + r * 1.1), (x + r, y + 0.03)), scaled(look.skin, 0.6), 0.025, 0.02)


def brows(pen: Pen, look: Look) -> None:
    """Brows: dark at any hair colour, so that they tell nothing and detectors see them."""
    x, y = look.eye_x, look.eye_y - look.brow_lift
    brow = curve((x - 0.22, y + 0.05 + look.brow_tilt), (x, y - 0.06), (x + 0.26, y + 0.05 - look.brow_tilt))
    pen.stroke(np.stack([brow, mirrored(brow)]), look.brow, 0.085)


def face_mask(pen: Pen, look: Look) -> None:
    """A medical mask over nose, mouth and chin, with ear loops."""
    y, fold = look.eye_y + 0.26, scaled(look.mask, 0.82)
    loops = np.array([[[0.66, y + 0.12], [0.99, -0.12]], [[0.62, 0.98], [0.99, 0.25]]])
    pen.stroke(np.concatenate([loops, mirrored(loops)]), fold, 0.05)
    half = [(0.0, y - 0.1), (0.3, y - 0.04), (0.76, y + 0.06), (0.76, 0.86), (0.42, 1.26), (0.0, 1.4)]
    pen.fill(smooth(half + [(-x, y) for x, y in reversed(half[1:-1])]), look.mask, 0.1)
    pen.stroke(curves([[(-0.64, h), (0.0, h + 0.06), (0.64, h)] for h in (0.46, 0.66, 0.86)]), fold, 0.03, 0.1)


def eyeglasses(pen: Pen, look: Look) -> None:
    """A bold frame, heavier above ("browline"); the tinted lenses let the eyes be seen."""
    y, w, rx, ry = look.eye_y, look.frame_width, 0.30, 0.235
    for side in _SIDES:
        lens = rounded(side * (look.eye_x + 0.01), y, rx, ry, look.frame_shape)
        pen.glaze(lens, (40.0, 45.0, 60.0), 0.3, 0.1)
        pen.stroke(lens, look.frame, w * 0.7, 0.1, closed=True)
        pen.stroke(lens[14:], look.frame, w * 1.15, 0.1)
        pen.stroke(np.array([[side * (look.eye_x + rx), y - 0.08], [side * 0.98, y - 0.1]]), look.frame, w * 0.75)
    pen.stroke(curve((-0.12, y - 0.12), (0.0, y - 0.16), (0.12, y - 0.12)), look.frame, w * 0.7, 0.1)
