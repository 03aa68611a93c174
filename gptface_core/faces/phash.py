"""64-bit perceptual hash: nearly the same picture, nearly the same bits."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

_SIDE = 32
_KEEP = 8
_ENOUGH_PX = 256  # of the shorter side: each of the 32 x 32 cells is still the mean of hundreds of pixels


def perceptual_hash(rgb: NDArray[np.uint8]) -> str:
    """16 hex digits: signs, against their median, of 8 x 8 low frequencies of the DCT of a 32 x 32 grey picture.

    pHash's DCT hash (Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010, section 3.2.1),
    with coefficients 1..8 of rows and columns, so without the mean and the plain gradients. Here in integers all the
    way (Pillow's 8-bit resampling, a DCT matrix in 14-bit fixed point), so every machine gives the same bits.
    `rgb` is uint8 (H, W, 3); of a large picture every k-th pixel of every k-th row counts.
    """
    from PIL import Image

    step = max(1, min(rgb.shape[:2]) // _ENOUGH_PX)
    if step > 1:
        rgb = np.stack([rgb[step // 2 :: step, step // 2 :: step, channel] for channel in range(3)], axis=-1)
    small = grey_image(rgb).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR, reducing_gap=None)
    luma = np.asarray(small, dtype=np.int64)
    basis = _dct_rows()
    low = (basis @ luma @ basis.T).reshape(-1)
    ordered = np.sort(low)
    # Twice the median, so that it stays an integer.
    bits = 2 * low > ordered[len(ordered) // 2 - 1] + ordered[len(ordered) // 2]
    return np.packbits(bits).tobytes().hex()


def grey_image(rgb: NDArray[np.uint8]) -> Image:
    """Pillow's grey of a picture, uint8 (H, W, 3), as `Image.fromarray(rgb).convert("L")` in half the time.

    Pillow takes pixels of four bytes as they lie in memory, and OpenCV spreads three to four faster.
    """
    import cv2
    from PIL import Image

    height, width = rgb.shape[:2]
    spread = cv2.cvtColor(rgb, cv2.COLOR_RGB2RGBA)
    return Image.frombuffer("RGBX", (width, height), spread, "raw", "RGBX", 0, 1).convert("L")


@cache
def _dct_rows() -> NDArray[np.int64]:
    """Rows 1..8 of the DCT-II matrix of size 32 (scaled by 2**14), int64 (8, 32)."""
    rows = [
        [round(math.cos(math.pi * (2 * x + 1) * k / (2 * _SIDE)) * 2**14) for x in range(_SIDE)]
        for k in range(1, _KEEP + 1)
    ]
    return np.array(rows, dtype=np.int64)


def hamming(a: str, b: str) -> int:
    """Number of bits in which two hashes (hex digits) differ."""
    return (int(a, 16) ^ int(b, 16)).bit_count()
