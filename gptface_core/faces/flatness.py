"""How much of a face is flat colour: next to nothing in a photograph, most of it in a cartoon, a logo or clip art.

Skin in a photograph has gradients and noise; what is filled with one colour has neither. The idea is that of Athitsos,
Swain, Frankel: Distinguishing photographs and graphics on the World Wide Web (CAIVL 1997), told from the aligned face
alone, so that a white backdrop does not make a drawing of a portrait, and always at the same scale.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BLOCK_PX = 3
_LEVELS = 4  # by which colours in a flat block may differ: JPEG's own noise
_BLACK = 2  # up to this a pixel may be none of the picture's: the crop is black outside of it


def flatness(aligned: NDArray[np.uint8]) -> float | None:
    """Share of 3 px blocks of one colour, 0..1, in the crop of `align.arcface_crop`, uint8 (112, 112, 3).

    Black blocks do not count; None where hardly anything else is there.
    """
    import cv2

    # Extremes around every pixel, of which those around the blocks' middles are wanted: OpenCV is so fast at them that
    # this takes a small part of the time of reductions over blocks.
    block = np.ones((_BLOCK_PX, _BLOCK_PX), dtype=np.uint8)
    middles = tuple(slice(_BLOCK_PX // 2, size // _BLOCK_PX * _BLOCK_PX, _BLOCK_PX) for size in aligned.shape[:2])
    low, high = cv2.erode(aligned, block)[middles], cv2.dilate(aligned, block)[middles]
    shown = (high > _BLACK).any(axis=2)
    if shown.mean() < 0.25:
        return None
    flat = ((high - low) <= _LEVELS).all(axis=2)
    return float((flat & shown).sum() / shown.sum())
