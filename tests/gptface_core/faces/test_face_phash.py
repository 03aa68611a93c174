"""The perceptual hash: copies stay near, distinct portraits stay apart."""

from __future__ import annotations

import io
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from gptface_core.faces.decode import Picture, decode_upright
from gptface_core.faces.phash import grey_image, hamming, perceptual_hash
from sample_web.render import render_face, sample_attributes

NEAR = 3  # bits within which two pictures count as the same


def faces(count: int) -> list[NDArray[np.uint8]]:
    return [render_face(sample_attributes(i, 0), 13 * i + 1) for i in range(count)]


def jpeg(rgb: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, "JPEG", quality=quality)
    return np.asarray(Image.open(out))


def half(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(rgb).resize((rgb.shape[1] // 2, rgb.shape[0] // 2), Image.Resampling.LANCZOS))


def nearest(hashes: list[str]) -> int:
    return min(hamming(a, b) for a, b in combinations(hashes, 2))


def test_form() -> None:
    digest = perceptual_hash(faces(1)[0])
    assert len(digest) == 16 and int(digest, 16) >= 0
    assert hamming(digest, digest) == 0 and hamming("0" * 16, "f" * 16) == 64


def test_bits_are_fixed_for_all_time() -> None:
    """A stored hash must mean the same after an upgrade: these are written down, not computed."""
    ramp = (np.arange(96 * 64).reshape(64, 96) * 7 % 251).astype(np.uint8)
    assert perceptual_hash(np.repeat(ramp[:, :, None], 3, axis=2)) == RAMP_HASH


RAMP_HASH = "538d5105f3ad530f"


@pytest.mark.parametrize("change", [half, lambda rgb: jpeg(rgb, 40)], ids=["half size", "JPEG 40"])
def test_copies_stay_within_three_bits(change: object) -> None:
    assert callable(change)
    distances = [hamming(perceptual_hash(rgb), perceptual_hash(change(rgb))) for rgb in faces(40)]
    assert sum(distance <= NEAR for distance in distances) >= 39


def test_distinct_drawn_faces_stay_apart() -> None:
    assert nearest([perceptual_hash(rgb) for rgb in faces(80)]) > NEAR


def test_flat_pictures_have_a_hash() -> None:
    assert perceptual_hash(np.full((1, 1, 3), 7, dtype=np.uint8)) == "0" * 16


@pytest.mark.realdata
def test_distinct_portraits_stay_apart(test_data: Path) -> None:
    hashes = []
    for path in sorted((test_data / "congress" / "images").glob("*.jpg")):
        picture = decode_upright(path.read_bytes())
        assert isinstance(picture, Picture)
        hashes.append(perceptual_hash(picture.rgb))
    assert len(hashes) == 539
    assert nearest(hashes) > NEAR


@pytest.mark.parametrize("shape", [(1, 1), (37, 50)])
def test_the_fast_way_to_grey_is_pillows(shape: tuple[int, int]) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(grey_image(rgb)), np.asarray(Image.fromarray(rgb).convert("L")))
