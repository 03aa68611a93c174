from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flows.steps.config import ConfigError
from flows.steps.edit import edit_photo, paste_crop
from gptface_core.faces.align import align_crop

# A turned face, so that the way back is not along the pixel grid.
POINTS = np.array([[120, 130], [170, 140], [142, 165], [118, 185], [160, 194]], dtype=np.float32)


@pytest.fixture
def photo() -> np.ndarray:
    """Smooth (so that two warps cost little) and different everywhere."""
    y, x = np.mgrid[0:300, 0:400].astype(np.float32)
    planes = [128 + 100 * np.sin(x / 40), 128 + 100 * np.cos(y / 50), 128 + 60 * np.sin((x + y) / 60)]
    return np.stack(planes, -1).astype(np.uint8)


def test_an_unchanged_crop_goes_back_to_where_it_came_from(photo: np.ndarray) -> None:
    crop = align_crop(photo, POINTS)
    back = paste_crop(photo, crop, np.ones(crop.shape[:2], bool), POINTS)
    assert np.abs(back.astype(int) - photo.astype(int)).max() <= 6


def test_only_the_region_changes(photo: np.ndarray) -> None:
    crop = align_crop(photo, POINTS)
    region = np.zeros(crop.shape[:2], bool)
    region[150:220, 60:200] = True
    painted = np.where(region[..., None], np.uint8(255), crop)
    edited = paste_crop(photo, painted, region, POINTS)
    changed = (edited != photo).any(-1)
    assert changed.any()
    # What changed lies where the region's own warp says, and every other byte is the photo's.
    expected = paste_crop(np.zeros_like(photo), np.full_like(crop, 255), region, POINTS).any(-1)
    assert not (changed & ~expected).any()
    assert changed.sum() > 0.5 * expected.sum()


@pytest.mark.parametrize(
    ("content", "says"), [(None, "no such picture"), (b"GIF89a is not all there is to it", "not a picture")]
)
def test_what_is_no_picture_is_named(tmp_path: Path, content: bytes | None, says: str) -> None:
    (tmp_path / "models" / "m").mkdir(parents=True)
    (tmp_path / "models" / "m" / "training.json").write_text("{}")
    photo = tmp_path / "photo.gif"
    if content is not None:
        photo.write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        edit_photo(photo, "smiling", "mouth", tmp_path, "", tmp_path / "out.png", "cascade", 0)
    assert not (tmp_path / "out.png").exists()


def test_a_picture_without_a_face_is_named(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "models" / "m").mkdir(parents=True)
    (tmp_path / "models" / "m" / "training.json").write_text("{}")
    Image.new("RGB", (200, 200), "white").save(tmp_path / "white.png")
    with pytest.raises(ConfigError, match="found no face"):
        edit_photo(tmp_path / "white.png", "smiling", "mouth", tmp_path, "", tmp_path / "out.png", "cascade", 0)
