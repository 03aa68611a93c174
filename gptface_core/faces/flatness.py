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
    rows, columns = (size // _BLOCK_PX * _BLOCK_PX for size in aligned.shape[:2])
    whole = np.ascontiguousarray(aligned[:rows])
    low, high = (_over_blocks(pick, whole) for pick in (np.minimum, np.maximum))
    lit, flat = high > _BLACK, (high - low) <= _LEVELS
    # A block's three channels are neighbours, and the next block comes nine values later.
    blocks = slice(0, columns * 3, _BLOCK_PX * 3)
    shown = (lit[:, :-2] | lit[:, 1:-1] | lit[:, 2:])[:, blocks]
    flat = (flat[:, :-2] & flat[:, 1:-1] & flat[:, 2:])[:, blocks]
    count = np.count_nonzero(shown)
    if count < 0.25 * shown.size:
        return None
    return np.count_nonzero(flat & shown) / count


def _over_blocks(pick: np.ufunc, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The extremes, per channel, of three rows and of three pixels from each one on: whole rows at a time, which costs
    less than blocks one by one, though two of three results are not wanted."""
    rows = rgb.reshape(len(rgb) // _BLOCK_PX, _BLOCK_PX, -1)
    line = pick(pick(rows[:, 0], rows[:, 1]), rows[:, 2])
    return np.asarray(pick(pick(line[:, :-6], line[:, 3:-3]), line[:, 6:]))
