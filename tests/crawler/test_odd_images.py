"""Real odd pictures decode to what a browser shows: orientation, frames, colours, alpha.

tests/gptface_core/faces/test_face_decode.py has the reasons of those that do not decode, and the rotated portraits.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from gptface_core.faces.decode import Picture, decode_upright

pytestmark = pytest.mark.realdata


@pytest.fixture
def folder(test_data: Path) -> Path:
    return test_data / "odd-images"


def decoded(folder: Path, name: str) -> NDArray[np.uint8]:
    picture = decode_upright((folder / name).read_bytes())
    assert isinstance(picture, Picture), (name, picture)
    return picture.rgb


def difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Mean absolute difference in grey levels; infinite where the sizes differ."""
    return float(np.abs(a.astype(np.int16) - b).mean()) if a.shape == b.shape else float("inf")


def test_small_pictures_of_all_orientations_are_the_same(folder: Path) -> None:
    upright = decoded(folder, "pillow__hopper.jpg")
    files = sorted(folder.glob("pillow__hopper_orientation_*"))
    differences = {file.name: difference(decoded(folder, file.name), upright) for file in files}
    assert len(differences) == 10
    assert max(differences.values()) < 10, differences
    assert difference(upright[:, ::-1], upright) > 30


def test_avif_orientation(folder: Path) -> None:
    assert decoded(folder, "pillow__avif_rot1mir0.avif").shape == (427, 640, 3)


@pytest.mark.parametrize("name", ["hopper.bmp", "hopper.gif", "hopper.webp", "avif_hopper.avif", "hopper_gray.jpg"])
def test_formats_agree(folder: Path, name: str) -> None:
    grey = [cv2.cvtColor(decoded(folder, f"pillow__{n}"), cv2.COLOR_RGB2GRAY) for n in ("hopper.jpg", name)]
    assert difference(*grey) < 8


def test_cmyk_is_not_inverted(folder: Path) -> None:
    red = decoded(folder, "pillow__pil_sample_cmyk.jpg")[0, 0]
    assert red[0] > 200
    assert max(red[1:]) < 60


RGBA = ["pillow__transparent.webp", "sharp__with-alpha.png", "sharp__bggn4a16.png"]


@pytest.mark.parametrize("name", RGBA)
def test_transparency_lies_on_white_and_sixteen_bits_are_scaled(folder: Path, name: str) -> None:
    raw = cv2.imread(str(folder / name), cv2.IMREAD_UNCHANGED)
    assert raw.shape[2] == 4
    values = raw.astype(np.float64) / np.iinfo(raw.dtype).max
    opacity = values[..., 3:]
    assert opacity.min() < 1
    expected = 255 * (values[..., 2::-1] * opacity + 1 - opacity)
    assert difference(decoded(folder, name), np.round(expected).astype(np.uint8)) < 2


def test_the_first_frame_is_taken(folder: Path) -> None:
    first, other = (decoded(folder, f"pillow__iss634.{kind}") for kind in ("gif", "webp"))
    assert difference(first, other) < 12
