"""Bytes of unknown origin -> upright RGB pixels, or the reason why not. Never an exception."""

from __future__ import annotations

import io
import re
import struct
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 50_000_000
# Reasons, as in warehouse.schema.Reason.
NOT_AN_IMAGE, TRUNCATED_IMAGE, TOO_MANY_PIXELS = "not_an_image", "truncated_image", "too_many_pixels"

# What browsers show and people publish photographs in. Pillow knows many more, some of which run other programs (EPS),
# open nested files (ICO) or are decoded by little-tested code.
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "TIFF", "JPEG2000")
_ORIENTATION_TAG = 0x0112  # EXIF 2.32, section 4.6.4


@dataclass(frozen=True, eq=False)
class Picture:
    """An upright picture: uint8 (H, W, 3) RGB, and the format it came in (lower case)."""

    rgb: NDArray[np.uint8]
    format: str

    @property
    def width_px(self) -> int:
        return int(self.rgb.shape[1])

    @property
    def height_px(self) -> int:
        return int(self.rgb.shape[0])


@dataclass(frozen=True)
class Undecodable:
    """Why there is no picture: a reason of the closed enum, and what the decoder said."""

    reason: str
    detail: str


def decode_upright(data: bytes, max_pixels: int = MAX_PIXELS) -> Picture | Undecodable:
    """Decode the first frame, turned as its EXIF orientation says, on white where it is transparent.

    The number of pixels is read from the header and refused before anything is decoded. Colour profiles are ignored:
    values are taken as sRGB.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of broken EXIF and the like, once per odd picture
        return _decode(data, max_pixels)


def _decode(data: bytes, max_pixels: int) -> Picture | Undecodable:
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        return Undecodable(TOO_MANY_PIXELS, _one_line(error))
    except Exception as error:  # noqa: BLE001 row boundary: hostile bytes make decoders raise nearly any type
        return Undecodable(NOT_AN_IMAGE, _one_line(error))
    width, height = image.size
    if width * height > max_pixels:
        return Undecodable(TOO_MANY_PIXELS, f"{width} x {height} pixels, {max_pixels} allowed")
    if width < 1 or height < 1:
        return Undecodable(NOT_AN_IMAGE, f"{width} x {height} pixels")
    try:
        image.load()
        rgb = np.array(_upright(_to_rgb(image), _orientation(image)), dtype=np.uint8)
    except MemoryError as error:
        return Undecodable(TOO_MANY_PIXELS, _one_line(error))
    except Exception as error:  # noqa: BLE001 row boundary, as above: the header was sound, the rest is not
        return Undecodable(TRUNCATED_IMAGE, _one_line(error))
    if rgb.shape[0] * rgb.shape[1] > max_pixels:
        return Undecodable(TOO_MANY_PIXELS, f"{rgb.shape[1]} x {rgb.shape[0]} pixels, more than the header said")
    return Picture(rgb, "jpeg" if image.format == "MPO" else (image.format or "").lower())


def _one_line(error: BaseException) -> str:
    """Type and message without memory addresses, so that the same bytes always give the same words."""
    text = re.sub(r" <[^>]* at 0x[0-9a-f]+>", "", f"{type(error).__name__}: {error}")
    return " ".join(text.split())[:200]


def _to_rgb(image: Image) -> Image:
    """8-bit RGB of any mode; transparency becomes white, the ground of most pages."""
    from PIL import Image

    if image.mode.startswith("I;16"):  # Pillow clips 16 bits to 8, it does not scale them
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        return Image.fromarray(_stretch(np.asarray(image, dtype=np.float64))).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        opaque = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque).convert("RGB")
    return image.convert("RGB")


def _stretch(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Values of no agreed range (32-bit integers, floats) stretched to 0..255."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    unit = np.nan_to_num((values - low) / max(high - low, 1e-12))
    return np.round(unit * 255).astype(np.uint8)


def _orientation(image: Image) -> int:
    """EXIF orientation 1..8; 1 where there is none or the block is broken (browsers show such pictures as they lie)."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, SyntaxError, struct.error):
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(image: Image, orientation: int) -> Image:
    from PIL.Image import Transpose

    turn = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(orientation)
    return image if turn is None else image.transpose(turn)
