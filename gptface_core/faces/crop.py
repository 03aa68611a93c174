"""The JPEG that goes into a shard: the same bytes for the same picture, points and library versions."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gptface_core.errors import InputError
from gptface_core.faces.align import CROP_PX, align_crop, ffhq_frame, points_array
from gptface_core.faces.decode import MAX_PIXELS, REDUCTIONS, Undecodable, decode_upright

JPEG_QUALITY = 95
CROP_VERSION = 1  # of the code from bytes and points to crop: raised with every change that moves a pixel
BLOCKS = 4
_SPARE = 1.5  # pixels of the picture per pixel of the crop that are always kept


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
    return encode_jpeg(cut_crop(data, points, size_px, max_pixels), quality)


def cut_crop(data: bytes, points: ArrayLike, size_px: int = CROP_PX, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """The same crop as it is before encoding, uint8 (size_px, size_px, 3) RGB."""
    picture = decode_upright(data, max_pixels, reduction=crop_reduction(points, size_px))
    if isinstance(picture, Undecodable):
        raise InputError(f"a picture of the corpus no longer decodes ({picture.reason}: {picture.detail})")
    return align_crop(picture.rgb, picture.from_full(points_array(points)), size_px)


def crop_reduction(points: ArrayLike, size_px: int = CROP_PX) -> int:
    """How much smaller (1, 2, 4, 8) the picture may be decoded for a crop of this face: only a face that is far larger
    than its crop has pixels to spare."""
    _, right, _ = ffhq_frame(points)
    side_px = 2 * float(np.hypot(*right))
    return next((k for k in REDUCTIONS if side_px >= k * _SPARE * size_px), 1)


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


def block_means(jpeg: bytes, blocks: int = BLOCKS) -> bytes:
    """Mean R, G, B of `blocks` x `blocks` squares of a crop, row by row, rounded: 3 * blocks**2 bytes.

    Tells whether another encoder made the same crop; read at an eighth of its size, so to about one level.
    """
    from PIL import Image

    with Image.open(io.BytesIO(jpeg)) as picture:
        picture.draft("RGB", (8 * blocks, 8 * blocks))
        small = picture.convert("RGB").resize((blocks, blocks), Image.Resampling.BOX)
    return small.tobytes()
