"""Framing by a detector's points: the portrait's own face, one detection for all runs, nothing made up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gptface_core.datasets import FaceItem, FaceSet, align
from gptface_core.datasets.framing import find_points, main_face
from gptface_core.errors import InputError
from gptface_core.faces.detector import Face
from tests.gptface_core.small_sets import picture

POINTS = np.array([[80, 90], [120, 90], [100, 115], [84, 135], [116, 135]], np.float32)


class Files:
    def read(self, file: str) -> bytes:
        return b"no picture" if file == "broken.jpg" else picture(int(file[:-4]), 200)


class Counting:
    """Finds one face in every second picture it is shown."""

    def __init__(self, name: str = "counting") -> None:
        self.seen, self.name = 0, name

    def describe(self) -> str:
        return self.name

    def detect(self, rgb: NDArray[np.uint8]) -> list[Face]:
        self.seen += 1
        box = np.array([60, 60, 140, 150], np.float32)
        return [Face(box, POINTS, 0.9)] if self.seen % 2 else []


def faces(count: int = 4, broken: bool = False) -> FaceSet:
    names = [f"{number}.jpg" for number in range(count)] + ["broken.jpg"] * broken
    return FaceSet("loose", tuple(FaceItem(name, name, "train") for name in names), Files(), framed=False)


def test_items_without_a_face_are_left_out_and_crops_are_a_releases(tmp_path: Path) -> None:
    from gptface_core.faces.crop import encode_crop

    framed = align(faces(broken=True), Counting(), tmp_path)
    assert [item.id for item in framed.items] == ["0.jpg", "2.jpg"] and framed.framed
    assert framed.read(framed.items[1]) == encode_crop(picture(2, 200), POINTS), "as a release cuts its shards"
    assert framed.picture(framed.items[0], 64).shape == (64, 64, 3)
    assert align(framed, None) is framed


def test_one_detection_serves_later_runs_and_another_detector_its_own(tmp_path: Path) -> None:
    first, again, other = Counting(), Counting(), Counting("another version")
    points = find_points(faces(), first, tmp_path)
    assert first.seen == 4 and points["1.jpg"] is None
    assert find_points(faces(), again, tmp_path) == points and again.seen == 0
    find_points(faces(6), again, tmp_path)
    assert again.seen == 2, "only what is new"
    find_points(faces(), other, tmp_path)
    assert other.seen == 4


def test_notes_that_are_damaged_are_made_anew(tmp_path: Path) -> None:
    (tmp_path / "loose-points.json").write_text('{"maker": "counting", "no')
    detector = Counting()
    find_points(faces(), detector, tmp_path)
    assert detector.seen == 4


def test_a_loose_set_needs_points_from_somewhere() -> None:
    with pytest.raises(InputError, match="loose has to be aligned and brings no points: name a detector"):
        align(faces(), None)


def test_a_portrait_is_of_the_face_in_its_middle() -> None:
    def face(x: float, y: float, size: float) -> Face:
        return Face(np.array([x, y, x + size, y + size], np.float32), POINTS, 0.9)

    large_aside, middle, smaller_middle = face(0, 0, 90), face(80, 80, 60), face(90, 90, 30)
    assert main_face([large_aside, middle, smaller_middle], (200, 200, 3)) is middle
    near, far = face(110, 20, 20), face(0, 0, 30)
    assert main_face([far, near], (200, 200, 3)) is near and main_face([], (200, 200, 3)) is None
