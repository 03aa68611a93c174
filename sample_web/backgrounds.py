"""Backgrounds and pictures without a face: gradients, soft clouds, stripes, shapes, landscapes."""

from __future__ import annotations

import cv2
import numpy as np

from sample_web.draw import Picture


def _clouds(rng: np.random.Generator, height: int, width: int, cells: int, low: int, high: int) -> Picture:
    """Smooth colour noise with `cells` patches along each side."""
    coarse = rng.integers(low, high, (cells, cells, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def paint_background(rng: np.random.Generator, height: int, width: int) -> Picture:
    """uint8 (height, width, 3) RGB behind a face: busy enough that no two are alike, nothing in it like a face."""
    base = int(rng.integers(40, 170))
    canvas = _clouds(rng, height, width, int(rng.integers(2, 6)), base, base + 70)
    kind = int(rng.integers(4))
    colours = rng.integers(40, 230, (8, 3)).tolist()
    if kind == 0:  # a wall with vertical or slanted bands
        slant, n = int(rng.integers(-width // 2, width // 2)), int(rng.integers(2, 5))
        for i in range(n):
            x, w = int(rng.integers(0, width)), int(rng.integers(width // 16, width // 4))
            band = np.array([[x, 0], [x + w, 0], [x + w + slant, height], [x + slant, height]], dtype=np.int32)
            cv2.fillConvexPoly(canvas, band, colours[i], cv2.LINE_AA)
    elif kind == 1:  # frames on a wall
        for i in range(int(rng.integers(2, 6))):
            x, y = int(rng.integers(-width // 8, width)), int(rng.integers(-height // 8, height))
            w, h = int(rng.integers(width // 10, width // 3)), int(rng.integers(height // 10, height // 3))
            cv2.rectangle(canvas, (x, y), (x + w, y + h), colours[i], -1)
    elif kind == 2:  # a horizon
        y = int(rng.integers(height // 4, 3 * height // 4))
        canvas[y:] = (canvas[y:].astype(np.uint16) + np.array(colours[0], dtype=np.uint16)) // 2
    return canvas


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
