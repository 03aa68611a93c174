"""The JPEG that goes into a shard: the same bytes for the same picture, points and library versions."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gptface_core.errors import InputError
from gptface_core.faces.align import CROP_PX, align_crop
from gptface_core.faces.decode import MAX_PIXELS, Undecodable, decode_upright

JPEG_QUALITY = 95


def encode_crop(
    data: bytes, points: ArrayLike, size_px: int = CROP_PX, quality: int = JPEG_QUALITY, max_pixels: int = MAX_PIXELS
) -> bytes:
    """Picture file -> JPEG of the aligned face, 4:4:4, without EXIF, XMP or ICC.

    Args:
        data: the original bytes of the picture.
        points: the five points of the face in pixels of the upright picture, (5, 2) or flat (10,).

    Raises:
        InputError: the bytes do not decode (they did at detection, so they have changed since).
    """
    picture = decode_upright(data, max_pixels)
    if isinstance(picture, Undecodable):
        raise InputError(f"a picture of the corpus no longer decodes ({picture.reason}: {picture.detail})")
    return encode_jpeg(align_crop(picture.rgb, points, size_px), quality)


def encode_jpeg(rgb: NDArray[np.uint8], quality: int = JPEG_QUALITY) -> bytes:
    """uint8 (H, W, 3) RGB -> JPEG bytes without chroma subsampling and without metadata."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(rgb).save(out, format="JPEG", quality=quality, subsampling=0, optimize=False)
    return out.getvalue()


def encoder_version() -> str:
    """Versions that decide the bytes of a crop, e.g. `pillow 12.0 libjpeg-turbo 3.1 opencv 4.12`."""
    import cv2
    import PIL
    from PIL import features

    jpeg = features.version_feature("libjpeg_turbo") or features.version_codec("jpg")
    return f"pillow {PIL.__version__} libjpeg-turbo {jpeg} opencv {cv2.__version__}"
