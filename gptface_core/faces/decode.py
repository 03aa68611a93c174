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

from gptface_core.faces.jpeg import read_jpeg

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 50_000_000
REDUCTIONS = (8, 4, 2, 1)  # what a JPEG can be decoded at, smallest picture first
# Reasons, as in warehouse.schema.Reason.
NOT_AN_IMAGE, TRUNCATED_IMAGE, TOO_MANY_PIXELS = "not_an_image", "truncated_image", "too_many_pixels"

# What browsers show and people publish photographs in. Pillow knows many more, some of which run other programs (EPS),
# open nested files (ICO) or are decoded by little-tested code.
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "TIFF", "JPEG2000")
_ORIENTATION_TAG = 0x0112  # EXIF 2.32, section 4.6.4


@dataclass(frozen=True, eq=False)
class Picture:
    """An upright picture: uint8 (H, W, 3) RGB, and the format it came in (lower case).

    `width_px` and `height_px` are those of the whole picture; `rgb` may be `reduction` (1, 2, 4 or 8) times smaller,
    with its corner at `origin_px` of the whole one (not 0 where the last, incomplete block was turned to the front).
    """

    rgb: NDArray[np.uint8]
    format: str
    width_px: int
    height_px: int
    reduction: int = 1
    origin_px: tuple[int, int] = (0, 0)

    def to_full(self, points: NDArray[np.floating]) -> NDArray[np.float32]:
        """Points (..., 2) of `rgb` in pixels of the whole picture."""
        return np.asarray(points * self.reduction + np.array(self.origin_px), dtype=np.float32)

    def from_full(self, points: NDArray[np.floating]) -> NDArray[np.float32]:
        """Points (..., 2) of the whole picture in pixels of `rgb`."""
        return np.asarray((points - np.array(self.origin_px)) / self.reduction, dtype=np.float32)


@dataclass(frozen=True)
class Undecodable:
    """Why there is no picture: a reason of the closed enum, and what the decoder said."""

    reason: str
    detail: str


def decode_upright(
    data: bytes, max_pixels: int = MAX_PIXELS, *, enough_px: int | None = None, reduction: int = 1
) -> Picture | Undecodable:
    """Decode the first frame, turned as its EXIF orientation says, on white where it is transparent.

    The number of pixels is read from the header and refused before anything is decoded. Colour profiles are ignored:
    values are taken as sRGB. A JPEG may be decoded 2, 4 or 8 times smaller, which saves memory and time (its inverse
    DCT scales): `reduction` times, or with `enough_px` as often as leaves its longer side so many pixels.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of broken EXIF and the like, once per odd picture
        return _decode(data, max_pixels, enough_px, reduction)


def _decode(data: bytes, max_pixels: int, enough_px: int | None, reduction: int) -> Picture | Undecodable:
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
        if enough_px is not None:
            reduction = _reduction(max(image.size), enough_px)
        rgb = read_jpeg(data, image, reduction)
        if rgb is None:
            reduction = 1
            image.load()
            rgb = np.array(_to_rgb(image), dtype=np.uint8)
            height, width = rgb.shape[:2]  # what was decoded counts, not what the header said
        orientation = _orientation(image)
    except MemoryError as error:
        return Undecodable(TOO_MANY_PIXELS, _one_line(error))
    except Exception as error:  # noqa: BLE001 row boundary, as above: the header was sound, the rest is not
        return Undecodable(TRUNCATED_IMAGE, _one_line(error))
    if rgb.shape[0] * rgb.shape[1] > max_pixels:
        return Undecodable(TOO_MANY_PIXELS, f"{rgb.shape[1]} x {rgb.shape[0]} pixels, more than the header said")
    return _picture(
        rgb, "jpeg" if image.format == "MPO" else (image.format or "").lower(), width, height, reduction, orientation
    )


def _picture(rgb: NDArray[np.uint8], name: str, width: int, height: int, reduction: int, orientation: int) -> Picture:
    """The picture, upright; `width` and `height` are those of the whole picture as it is stored."""
    extra = (rgb.shape[1] * reduction - width, rgb.shape[0] * reduction - height)
    if orientation >= 5:
        width, height, extra = height, width, extra[::-1]
    turned, flipped = _upright(rgb, orientation)
    origin = (-extra[0] if flipped[0] else 0, -extra[1] if flipped[1] else 0)
    return Picture(turned, name, width, height, reduction, origin)


def _reduction(longer_px: int, enough_px: int) -> int:
    """The largest of 1, 2, 4, 8 that leaves `enough_px` of the longer side."""
    return next((k for k in REDUCTIONS if longer_px >= k * enough_px), 1)


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


def _upright(rgb: NDArray[np.uint8], orientation: int) -> tuple[NDArray[np.uint8], tuple[bool, bool]]:
    """Turned as EXIF 2.32 says: at most a transposition, then flips of x and y, which are told too."""
    flip_x, flip_y = orientation in (2, 3, 6, 7), orientation in (3, 4, 7, 8)
    if orientation >= 5:
        rgb = rgb.transpose(1, 0, 2)
    rgb = rgb[:, ::-1] if flip_x else rgb
    rgb = rgb[::-1] if flip_y else rgb
    return np.ascontiguousarray(rgb), (flip_x, flip_y)
