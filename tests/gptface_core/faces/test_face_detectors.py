"""Both detectors on drawn faces and, where the test data is, on real portraits."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gptface_core.errors import InputError
from gptface_core.faces import load_detector
from gptface_core.faces.align import ffhq_frame
from gptface_core.faces.decode import Picture, decode_upright
from gptface_core.faces.detector import Detector, describe_detector, make_faces, resolve_detector
from gptface_core.faces.network import open_session
from sample_web.render import Attributes, render_face, sample_attributes

PACK_FILE = "models/buffalo_sc/det_500m.onnx"


@pytest.fixture(scope="module")
def cascade() -> Detector:
    return load_detector("cascade")


@pytest.fixture(scope="module")
def insightface(test_models: Path) -> Detector:
    return load_detector("insightface", root=test_models / "insightface")


@pytest.fixture(scope="module")
def frontal() -> list[tuple[Attributes, NDArray[np.uint8]]]:
    """Drawn frontal faces without a mask, ten of each skin tone."""
    chosen: dict[int, list[tuple[Attributes, NDArray[np.uint8]]]] = {tone: [] for tone in range(6)}
    for index in range(400):
        attributes = sample_attributes(index, 5)
        same = chosen[attributes.skin_tone]
        if attributes.frontal and not attributes.face_mask and len(same) < 10:
            same.append((attributes, render_face(attributes, index)))
    return [item for tone in chosen.values() for item in tone]


def portraits(test_data: Path, step: int = 1) -> list[NDArray[np.uint8]]:
    pictures = []
    for path in sorted((test_data / "congress" / "images").glob("*.jpg"))[::step]:
        picture = decode_upright(path.read_bytes())
        assert isinstance(picture, Picture)
        pictures.append(picture.rgb)
    return pictures


def counts(detector: Detector, pictures: list[NDArray[np.uint8]]) -> list[int]:
    return [len(detector.detect(rgb)) for rgb in pictures]


def check_faces(detector: Detector, rgb: NDArray[np.uint8]) -> None:
    (face,) = detector.detect(rgb)
    height, width = rgb.shape[:2]
    assert face.box.shape == (4,) and face.points.shape == (5, 2) and 0.5 <= face.score <= 1
    assert 0 <= face.box[0] < face.box[2] <= width and 0 <= face.box[1] < face.box[3] <= height
    left_eye, right_eye, nose, left_mouth, right_mouth = face.points
    assert left_eye[0] < nose[0] < right_eye[0] and left_mouth[0] < right_mouth[0]
    assert left_eye[1] < nose[1] < left_mouth[1]
    again = detector.detect(rgb)[0]
    assert again.box.tobytes() == face.box.tobytes() and again.points.tobytes() == face.points.tobytes()


def test_cascade_finds_drawn_frontal_faces_of_every_skin_tone(
    cascade: Detector, frontal: list[tuple[Attributes, NDArray[np.uint8]]]
) -> None:
    assert len(frontal) == 60
    found = counts(cascade, [rgb for _, rgb in frontal])
    assert found.count(1) >= 57
    for tone in range(6):
        assert sum(n == 1 for n, (a, _) in zip(found, frontal, strict=True) if a.skin_tone == tone) >= 9
    check_faces(cascade, frontal[found.index(1)][1])


def test_cascade_finds_nothing_where_there_is_nothing(cascade: Detector) -> None:
    rng = np.random.default_rng(0)
    empty = [
        np.zeros((200, 300, 3), dtype=np.uint8),
        rng.integers(0, 256, (256, 256, 3), dtype=np.uint8),
        np.full((1, 1, 3), 9, dtype=np.uint8),
        np.full((1, 3000, 3), 9, dtype=np.uint8),
        np.full((3000, 2, 3), 9, dtype=np.uint8),
    ]
    assert counts(cascade, empty) == [0] * len(empty)


@pytest.mark.realdata
def test_insightface_finds_drawn_faces(
    insightface: Detector, frontal: list[tuple[Attributes, NDArray[np.uint8]]]
) -> None:
    found = counts(insightface, [rgb for _, rgb in frontal])
    assert found.count(1) >= 59
    check_faces(insightface, frontal[0][1])


@pytest.mark.realdata
def test_insightface_finds_one_face_per_portrait(insightface: Detector, test_data: Path) -> None:
    assert counts(insightface, portraits(test_data, step=9)) == [1] * 60


@pytest.mark.realdata
@pytest.mark.slow
def test_insightface_finds_one_face_in_every_portrait(insightface: Detector, test_data: Path) -> None:
    found = counts(insightface, portraits(test_data))
    assert len(found) == 539 and found.count(1) >= 535


@pytest.mark.realdata
def test_cascade_finds_portraits_and_frames_them_like_insightface(
    cascade: Detector, insightface: Detector, test_data: Path
) -> None:
    pictures = portraits(test_data, step=20)
    pairs = [(a[0], b[0]) for a, b in ((cascade.detect(p), insightface.detect(p)) for p in pictures) if len(a) == 1]
    assert len(pairs) >= 0.9 * len(pictures)
    for ours, reference in pairs:
        centre, right, _ = ffhq_frame(ours.points)
        wanted, wanted_right, _ = ffhq_frame(reference.points)
        side = 2 * float(np.hypot(*wanted_right))
        assert float(np.hypot(*(centre - wanted))) < 0.06 * side
        assert 0.8 < float(np.hypot(*right)) * 2 / side < 1.25


@pytest.mark.realdata
@pytest.mark.parametrize("side", [120, 320, 1500])
def test_insightface_finds_faces_that_fill_the_picture(insightface: Detector, test_data: Path, side: int) -> None:
    import cv2

    for picture in portraits(test_data, step=60):
        box = insightface.detect(picture)[0].box.astype(int)
        tight = picture[max(0, box[1]) : box[3], max(0, box[0]) : box[2]]
        ratio = side / max(tight.shape[:2])
        enlarged = np.asarray(cv2.resize(tight, None, fx=ratio, fy=ratio), dtype=np.uint8)
        assert counts(insightface, [enlarged]) == [1]


@pytest.mark.realdata
def test_insightface_takes_any_shape(insightface: Detector) -> None:
    shapes = [(1, 1), (1, 3000), (3000, 2), (33, 700)]
    assert counts(insightface, [np.full((*shape, 3), 128, dtype=np.uint8) for shape in shapes]) == [0] * 4


@pytest.mark.realdata
def test_session_runs_on_the_provider_asked_for(test_models: Path) -> None:
    path = test_models / "insightface" / PACK_FILE
    assert open_session(path).get_providers()[0] == "CPUExecutionProvider"
    with pytest.raises(InputError, match="NoSuchExecutionProvider"):
        open_session(path, "NoSuchExecutionProvider")


@pytest.mark.realdata
def test_description_is_known_before_loading(insightface: Detector, test_models: Path) -> None:
    root = test_models / "insightface"
    text = "insightface:buffalo_sc/det_500m:5e4447f5:size=auto3:score=0.5"
    assert insightface.describe() == describe_detector("insightface", root=root) == text
    fixed = describe_detector("insightface", root=root, det_size=640, min_score=0.6)
    assert fixed.endswith("size=640:score=0.6")


@pytest.mark.realdata
@pytest.mark.parametrize("options", [{"det_size": 100}, {"det_size": 0}, {"min_score": 0.0}, {"min_score": 1.5}])
def test_impossible_parameters_are_input_errors(test_models: Path, options: dict[str, float]) -> None:
    (name,) = options
    with pytest.raises(InputError, match=name):
        load_detector("insightface", root=test_models / "insightface", **options)  # type: ignore[arg-type]


def test_unknown_detector_is_one_clear_line() -> None:
    with pytest.raises(InputError, match=r"^no detector 'foo': choose insightface, cascade or auto$"):
        load_detector("foo")


def test_auto_takes_the_cascade_and_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert resolve_detector("auto", root=tmp_path) == "cascade"
    assert sum("cascade" in record.message for record in caplog.records) == 1
    assert describe_detector("auto", root=tmp_path) == "cascade:haarcascade_frontalface_alt2"


@pytest.mark.realdata
def test_auto_takes_insightface_where_its_pack_is(test_models: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert resolve_detector("auto", root=test_models / "insightface") == "insightface"
    assert "non-commercial" in caplog.text


def test_faces_are_clipped_and_sorted_by_size() -> None:
    boxes = np.array([[-5, -5, 10, 10], [10, 10, 90, 200], [200, 0, 300, 50]], dtype=np.float32)
    faces = make_faces(boxes, np.zeros((3, 5, 2), dtype=np.float32), [0.6, 0.7, 0.8], (100, 100, 3))
    assert [face.box.tolist() for face in faces] == [[10, 10, 90, 100], [0, 0, 10, 10]]
    assert [face.face_px for face in faces] == [80, 10]
