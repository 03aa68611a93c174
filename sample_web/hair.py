"""Hair and beard of a drawn face. All lengths are face units (see `sample_web.draw`)."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from sample_web.draw import Pen, Points, curves, mirrored, oval, smooth
from sample_web.look import Look, mix, scaled

_Half = tuple[tuple[float, float], ...]  # the right half of a symmetric line, from the ear to the middle

_TOP: _Half = ((1.04, -0.1), (1.1, -0.55), (0.98, -1.1), (0.6, -1.5), (0.0, -1.62))
_LONG_TOP: _Half = ((1.14, 0.9), (1.14, -0.5), (1.0, -1.15), (0.6, -1.52), (0.0, -1.64))
# where the hair ends over the forehead
_LINES: dict[str, _Half] = {
    "short": ((0.95, -0.2), (0.86, -0.66), (0.6, -0.92), (0.2, -0.86), (0.0, -0.86)),
    "fringe": ((0.95, -0.1), (0.84, -0.5), (0.6, -0.62), (0.2, -0.66), (0.0, -0.62)),
    "long": ((0.94, 0.9), (0.86, -0.2), (0.66, -0.78), (0.16, -1.06), (0.0, -1.12)),
    "curly": ((0.95, -0.2), (0.82, -0.66), (0.45, -0.78), (0.2, -0.72), (0.0, -0.76)),
    "bun": ((0.95, -0.25), (0.82, -0.82), (0.4, -1.0), (0.2, -1.02), (0.0, -1.02)),
    "receding": ((0.96, -0.15), (0.88, -0.8), (0.62, -1.14), (0.24, -0.98), (0.0, -0.94)),
}
_SIDE_LINE: _Half = (
    (0.95, -0.2),
    (0.85, -0.58),
    (0.5, -0.66),
    (0.0, -0.84),
    (-0.5, -1.12),
    (-0.86, -0.8),
    (-0.95, -0.2),
)


def _whole(half: _Half) -> list[tuple[float, float]]:
    """A line from the right ear to the left one."""
    return [*half, *((-x, y) for x, y in reversed(half[:-1]))]


@cache
def _cap(style: str) -> Points:
    """The hair on top of the head as a polygon (N, 2)."""
    top = _whole(_LONG_TOP if style == "long" else _TOP)
    line = list(_SIDE_LINE) if style == "side" else _whole(_LINES[style])
    return smooth([*reversed(line), *top])


def hair_behind(pen: Pen, look: Look) -> None:
    """What of the hair lies behind the head."""
    dark = scaled(look.hair, 0.74)
    if look.hair_style == "long":
        half = ((0.95, 1.75), (1.24, 1.6), (1.26, 0.4), (1.2, -0.7), (0.7, -1.5), (0.0, -1.6))
        pen.fill(smooth(_whole(half)), dark, None)
    elif look.hair_style == "curly":
        for k in range(11):
            angle = math.pi * (1.08 * k / 10 - 0.04)
            pen.fill(oval(-1.02 * math.cos(angle), -0.35 - 1.0 * math.sin(angle), 0.38, 0.38, sides=16), dark, None)
    elif look.hair_style == "bun":
        pen.fill(oval(0, -1.58, 0.44, 0.36), dark, None)


def hair_front(pen: Pen, look: Look) -> None:
    """The hair on top of the head, with strands."""
    pen.fill(_cap(look.hair_style), look.hair, None)
    if look.hair_style == "curly":
        for k in range(9):
            angle = math.pi * k / 8
            pen.fill(
                oval(-0.92 * math.cos(angle), -0.52 - 0.8 * math.sin(angle), 0.28, 0.25, sides=16), look.hair, None
            )
    shine, dark = mix(look.hair, (255.0, 255.0, 255.0), 0.16), scaled(look.hair, 0.78)
    for colour, columns in ((shine, (-0.66, -0.1, 0.44)), (dark, (-0.4, 0.2, 0.7))):
        strands = [[(x * 0.8, -1.52 + x * x * 0.4), (x * 1.1, -1.36), (x * 1.2, -1.06 + x * x * 0.5)] for x in columns]
        pen.stroke(curves(strands), colour, 0.04, None)


def beard(pen: Pen, look: Look) -> None:
    """A full beard with moustache: from ear to ear, below the cheeks."""
    low = look.mouth_y
    outer = [(0.0, 1.53), (0.4, 1.46), (0.78, 1.16), (0.98, 0.62), (1.0, 0.12)]
    inner = [(0.88, 0.16), (0.74, 0.5), (0.55, low - 0.06), (0.3, low - 0.22), (0.0, low - 0.26)]
    right = smooth(outer + inner)
    # the outer edge follows the silhouette of the head, which does not turn with it
    for half in (right, mirrored(right)):
        pen.fill(half, look.beard, None if abs(pen.pose.yaw) < 0.03 else 0.0)
    middle = np.array([(-0.5, low - 0.15), (0.5, low - 0.15), (0.62, 1.3), (0.0, 1.54), (-0.62, 1.3)])
    pen.fill(middle, look.beard)
    k = np.arange(-4, 5)
    roots = np.stack([k * 0.15, np.full(9, low + 0.34)], axis=1)
    ends = np.stack([k * 0.14, low + 0.62 - 0.02 * np.abs(k)], axis=1)
    strands = np.stack([roots, (roots + ends) / 2 * (1.06, 1.0), ends], axis=1)
    pen.stroke(curves(strands), mix(look.beard, look.hair, 0.3), 0.02)
