"""Synthetic occluders over aligned crops, with the pixels that they cover: what mask removal is measured on."""

from __future__ import annotations

import numpy as np

from gptface_core.regions import Points, Region
from gptface_core.shards import Pictures

KINDS = ("mask", "bar", "patch")
_COLOURS = ((150, 200, 225), (235, 238, 240), (45, 50, 62), (170, 40, 60), (40, 110, 70), (60, 60, 150), (20, 20, 24))


def occlude(crop: Pictures, points: Points, kind: str, rng: np.random.Generator) -> tuple[Pictures, Region]:
    """A crop (P, P, 3) with an occluder of one colour, and its pixels (P, P).

    A face mask over nose, mouth and chin; a bar over the eyes; or a patch anywhere on the face, of an eighth to a fifth
    of the crop's side in half-width. Edges are a little soft, the colour varies in light and noise.
    """
    import cv2

    size = len(crop)
    shape = np.zeros((size, size), np.uint8)
    polygon = (_outline(kind, points / size, rng) * size).round().astype(np.int32)
    cv2.fillPoly(shape, [polygon], 255)
    weight = cv2.GaussianBlur(shape, (0, 0), size / 300).astype(np.float32)[..., None] / 255
    colour = np.array(_COLOURS[int(rng.integers(len(_COLOURS)))], np.float32)
    slope = rng.uniform(-0.12, 0.12, 2)
    at = (np.arange(size) + 0.5) / size - 0.5
    light = 1 + slope[0] * at[:, None] + slope[1] * at[None, :]
    paint = colour * light[..., None] + rng.normal(0, 3, (size, size, 1))
    covered = paint * weight + crop * (1 - weight)
    return covered.clip(0, 255).round().astype(np.uint8), shape > 0


def _outline(kind: str, marks: Points, rng: np.random.Generator) -> Points:
    """Corners (C, 2) as shares of the side."""
    eyes, mouth = (marks[0] + marks[1]) / 2, (marks[3] + marks[4]) / 2
    if kind == "mask":
        top, bottom, half = (eyes[1] + mouth[1]) / 2 - 0.02, mouth[1] + 0.17, 0.24
        x = mouth[0]
        corners = [(-half, top), (0, top - 0.04), (half, top), (0.9 * half, mouth[1]), (0.4 * half, bottom)]
        return np.array([(x + dx, y) for dx, y in [*corners, (-0.4 * half, bottom), (-0.9 * half, mouth[1])]])
    if kind == "bar":
        half_width, half_height = rng.uniform(0.18, 0.22), rng.uniform(0.06, 0.09)
        corners = [(-half_width, -half_height), (half_width, -half_height), (half_width, half_height)]
        return eyes + np.array([*corners, (-half_width, half_height)])
    centre = np.array([eyes[0] + rng.uniform(-0.12, 0.12), rng.uniform(eyes[1], mouth[1])])
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return np.asarray(centre + np.stack([np.cos(turn), np.sin(turn)], 1) * rng.uniform(0.12, 0.2, 2))
