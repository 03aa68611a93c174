"""The face's hash and thumbnail: the same for copies of one picture, whatever stands around the face."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from gptface_core.faces.facehash import THUMB_PX, face_fingerprint
from gptface_core.faces.phash import hamming
from sample_web.render import render_face, sample_attributes

# About where `render_face` draws eyes, nose and mouth at 256 px: the same for all, as only the frame matters here.
POINTS = np.array([[98.0, 112], [158, 112], [128, 145], [104, 178], [152, 178]])
Pixels = NDArray[np.uint8]


def drawn(index: int) -> Pixels:
    return render_face(sample_attributes(index, 0), 13 * index + 1)


def half(rgb: Pixels) -> tuple[Pixels, NDArray[np.float64]]:
    small = Image.fromarray(rgb).resize((rgb.shape[1] // 2, rgb.shape[0] // 2), Image.Resampling.LANCZOS)
    return np.asarray(small), POINTS / 2


def cut(rgb: Pixels) -> tuple[Pixels, NDArray[np.float64]]:
    return rgb[12:-12, 13:-13], POINTS - np.array([13, 12])  # 5 % of every side


def on_a_page(rgb: Pixels) -> tuple[Pixels, NDArray[np.float64]]:
    page = np.full((600, 700, 3), 240, dtype=np.uint8)
    page[300:556, 50:306] = rgb
    return page, POINTS + np.array([50, 300])


def brighter(rgb: Pixels) -> tuple[Pixels, NDArray[np.float64]]:
    return np.clip(rgb * 1.3, 0, 255).astype(np.uint8), POINTS


def correlation(a: bytes, b: bytes) -> float:
    return float(np.corrcoef([np.frombuffer(thumb, dtype=np.uint8) for thumb in (a, b)])[0, 1])


@pytest.mark.parametrize("change", [half, cut, on_a_page, brighter])
def test_copies_keep_hash_and_thumbnail(change: object) -> None:
    assert callable(change)
    for index in range(10):
        rgb = drawn(index)
        (hash_a, thumb_a), (hash_b, thumb_b) = face_fingerprint(rgb, POINTS), face_fingerprint(*change(rgb))
        assert hamming(hash_a, hash_b) <= 6
        assert correlation(thumb_a, thumb_b) >= 0.975


def test_other_faces_differ() -> None:
    first = face_fingerprint(drawn(0), POINTS)
    others = [face_fingerprint(drawn(index), POINTS) for index in range(1, 20)]
    assert all(hamming(first[0], digest) > 6 or correlation(first[1], thumb) < 0.975 for digest, thumb in others)


def test_form_and_bits_are_fixed_for_all_time() -> None:
    """A stored hash must mean the same after an upgrade: it is written down, not computed."""
    ramp = (np.arange(96 * 64).reshape(64, 96) * 7 % 251).astype(np.uint8)
    digest, thumb = face_fingerprint(np.repeat(ramp[:, :, None], 3, axis=2), POINTS / 4)
    assert digest == RAMP_HASH and len(thumb) == THUMB_PX**2


RAMP_HASH = "aa39ae5755695053"


def test_a_flat_picture_has_a_hash() -> None:
    digest, thumb = face_fingerprint(np.full((50, 40, 3), 9, dtype=np.uint8), POINTS / 8)
    assert digest == "0" * 16 and set(thumb) == {9}
