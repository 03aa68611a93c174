"""What tells copies of one photograph of a face from other photographs: a 64-bit hash and a thumbnail of the face.

Both are taken from the face in a fixed frame (turned, scaled and placed by its five points), so cutting a margin off
the picture, resizing it or putting it on a page changes them little. The hash finds candidates; the thumbnail, compared
by `likeness`, decides. Neither tells who someone is: another photograph of the same person is another face here.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gptface_core.faces.align import ARCFACE_POINTS, ARCFACE_PX, grey_warp, points_array, similarity

THUMB_PX = 16
MIN_FACE_PX = 32  # smaller faces are too blurred for their points to lie still
_SIDE = 32
_MARGIN = 0.14  # of ArcFace's crop, on each side: with more, a margin cut off shows; with less, small shifts do
_BITS = 64
_ROWS = 12
# The brightest fifth counts as one value: what a brighter copy has lost there is then missing in the original, too.
_CAP = 0.8


def face_fingerprint(rgb: NDArray[np.uint8], points: ArrayLike) -> tuple[str, bytes]:
    """Hash (16 hex digits) and thumbnail (16 x 16 grey values, row by row) of the face with these five points.

    Args:
        rgb: the picture, uint8 (H, W, 3).
        points: the five points in pixels of `rgb`, (5, 2) or flat (10,). The frame is their least-squares similarity to
            ArcFace's template, which lies stiller between copies than a frame of eyes and mouth alone.
    """
    target = (ARCFACE_POINTS / ARCFACE_PX + _MARGIN) / (1 + 2 * _MARGIN) * (2 * _SIDE)
    grey = grey_warp(rgb, similarity(points_array(points), target), 2 * _SIDE)
    return _hash(_means(grey, _SIDE)), _means(grey, THUMB_PX).tobytes()


def _means(grey: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Means of squares, rounded along x and then along y, as Pillow's `resize` with BOX: uint8 (side, side)."""
    factor = len(grey) // side
    across = (grey.reshape(len(grey), side, factor).sum(axis=2, dtype=np.uint16) + factor // 2) // factor
    down = (across.reshape(side, factor, side).sum(axis=1, dtype=np.uint16) + factor // 2) // factor
    return np.asarray(down, dtype=np.uint8)


def _hash(luma: NDArray[np.uint8]) -> str:
    """Signs, against their median, of the 64 lowest frequencies of the ranks of a 32 x 32 grey picture.

    As in `phash.perceptual_hash`, but low frequencies by their radius, which bear small shifts better, and of ranks
    instead of grey values, which bear brightness, contrast and clipping. In whole numbers, which floats hold without
    loss below 2**53 and multiply faster, so that every machine agrees.
    """
    counts = np.bincount(luma.reshape(-1), minlength=256)
    middle_ranks = 2 * np.cumsum(counts) - counts  # twice the mean rank of each grey value
    ranks = np.minimum(middle_ranks, int(_CAP * 2 * luma.size)).astype(np.float64)[luma]
    basis, rows, columns = _frequencies()
    low = (basis @ ranks @ basis.T)[rows, columns]
    ordered = np.sort(low)
    bits = 2 * low > ordered[_BITS // 2 - 1] + ordered[_BITS // 2]
    return np.packbits(bits).tobytes().hex()


@lru_cache(maxsize=1)
def _frequencies() -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """DCT-II rows 0..11 of size 32 times 2**14 (whole numbers); places of the 64 lowest frequencies but the mean."""
    scale = [math.sqrt(0.5), *[1.0] * (_ROWS - 1)]
    basis = [
        [round(scale[k] * math.cos(math.pi * (2 * x + 1) * k / (2 * _SIDE)) * 2**14) for x in range(_SIDE)]
        for k in range(_ROWS)
    ]
    places = sorted(((r, c) for r in range(_ROWS) for c in range(_ROWS)), key=lambda p: (p[0] ** 2 + p[1] ** 2, p))
    rows, columns = zip(*places[1 : _BITS + 1], strict=True)
    return np.array(basis, dtype=np.float64), np.array(rows), np.array(columns)
