"""The version of the crop: pixels that move without it would make every manifest a lie."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from gptface_core.faces.align import align_crop
from gptface_core.faces.crop import BLOCKS, CROP_VERSION, block_means, encode_jpeg

cv2 = pytest.importorskip("cv2")
POINTS = [(210.0, 180.0), (300.5, 196.25), (251.0, 240.0), (207.5, 281.0), (286.0, 295.0)]
# CROP_VERSION -> (OpenCV, sha256 of the crop's pixels). Where this fails: raise CROP_VERSION and add a line.
KNOWN = {1: ("4.14.0", "2c8d0f75b2d2de85418e88c573b853f3df7f74c5d7a7bb0a00105f76023b776d")}


def crop() -> np.ndarray:
    ys, xs = np.mgrid[0:480, 0:520]
    rgb = np.stack([xs * 255 // 519, ys * 255 // 479, (xs * 7 + ys * 13) % 256], axis=-1).astype(np.uint8)
    return align_crop(rgb, np.array(POINTS))


def test_no_pixel_of_a_crop_moves_without_a_new_version() -> None:
    opencv, sha256 = KNOWN[CROP_VERSION]
    if cv2.__version__ != opencv:
        pytest.skip(f"known for OpenCV {opencv}, this is {cv2.__version__}")
    assert hashlib.sha256(crop().tobytes()).hexdigest() == sha256


def test_block_means_are_those_of_the_picture() -> None:
    rgb = crop()
    side = len(rgb) // BLOCKS
    wanted = rgb.reshape(BLOCKS, side, BLOCKS, side, 3).mean(axis=(1, 3))
    found = np.frombuffer(block_means(encode_jpeg(rgb)), np.uint8).reshape(BLOCKS, BLOCKS, 3)
    assert np.abs(found - wanted).max() <= 2


def test_block_means_tell_a_mirrored_crop() -> None:
    rgb = crop()
    one, other = (np.frombuffer(block_means(encode_jpeg(picture)), np.uint8) for picture in (rgb, rgb[:, ::-1].copy()))
    assert np.abs(one.astype(int) - other).max() > 20


def test_block_means_are_of_a_jpeg_of_any_size() -> None:
    out = io.BytesIO()
    Image.new("RGB", (64, 64), (10, 100, 200)).save(out, "JPEG", quality=95)
    assert np.abs(np.frombuffer(block_means(out.getvalue()), np.uint8).reshape(-1, 3) - [10, 100, 200]).max() <= 2
