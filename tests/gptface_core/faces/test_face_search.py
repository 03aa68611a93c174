"""Where the detector looks: views that map back, second looks that find more, batches that change nothing."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from gptface_core.errors import InputError
from gptface_core.faces import load_detector
from gptface_core.faces.detector import BatchDetector, Detector, Face, detect_many
from gptface_core.faces.network import Finds, ScrfdNetwork, joined, no_finds, overlaps, suppressed
from gptface_core.faces.scrfd import View, close_view, first_look_px, framed_view, whole_view
from sample_web.render import render_face, sample_attributes

MODEL = "models/buffalo_sc/det_500m.onnx"


@pytest.fixture(scope="module")
def detector(test_models: Path) -> BatchDetector:
    found = load_detector("insightface", root=test_models / "insightface")
    assert isinstance(found, BatchDetector)
    return found


def face(index: int, size_px: int = 256) -> NDArray[np.uint8]:
    return render_face(sample_attributes(index, 3), index, size_px)


def group(height: int, width: int, side: int, places: list[tuple[int, int]]) -> NDArray[np.uint8]:
    canvas = np.full((height, width, 3), 150, dtype=np.uint8)
    for index, (x, y) in enumerate(places):
        canvas[y : y + side, x : x + side] = face(index, side)
    return canvas


def corners(view: View, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Where the lit part of a view of a white picture lies, in pixels of the picture."""
    lit = np.argwhere(view.canvas.any(axis=2))
    edges = np.array([lit.min(axis=0)[::-1], lit.max(axis=0)[::-1] + 1])
    return np.asarray((edges - view.offset) / view.scale)


def white(shape: tuple[int, int]) -> NDArray[np.uint8]:
    return np.full((*shape, 3), 255, dtype=np.uint8)


@pytest.mark.parametrize("shape", [(100, 200), (700, 300), (1, 900), (1351, 2001)])
def test_whole_views_map_back_and_waste_little(shape: tuple[int, int]) -> None:
    view = whole_view(white(shape), 320)
    np.testing.assert_allclose(corners(view, shape), [[0, 0], [shape[1], shape[0]]], atol=1)
    assert max(view.canvas.shape) == 320 and all(side % 32 == 0 for side in view.canvas.shape[:2])
    assert min(view.canvas.shape[:2]) < 320 * min(shape) / max(shape) + 33


def test_framed_views_leave_room_on_all_sides() -> None:
    view = framed_view(white((300, 400)), 320, 0.5)
    np.testing.assert_allclose(corners(view, (300, 400)), [[0, 0], [400, 300]], atol=1)
    assert view.canvas.shape == (320, 320, 3) and not view.canvas[:50].any() and not view.canvas[:, :50].any()


@pytest.mark.parametrize("box", [[40, 60, 80, 100], [0, 0, 30, 40], [500, 300, 590, 395], [100, 50, 420, 380]])
def test_close_views_show_the_box_at_its_size_inside_the_picture(box: list[int]) -> None:
    picture = np.zeros((400, 600, 3), dtype=np.uint8)
    picture[box[1] : box[3], box[0] : box[2]] = 255
    view = close_view(picture, np.array(box, dtype=np.float32), 192, 96)
    lit = np.argwhere(view.canvas[:, :, 0] > 127)
    edges = np.array([lit.min(axis=0)[::-1], lit.max(axis=0)[::-1] + 1])
    np.testing.assert_allclose((edges - view.offset) / view.scale, np.reshape(box, (2, 2)), atol=2.5)
    assert abs(np.ptp(edges, axis=0).max() - 96) <= 2
    start, end = -view.offset / view.scale, (192 - view.offset) / view.scale
    if end[0] - start[0] < 400:
        assert start.min() >= -0.01 and end[0] <= 600.01 and end[1] <= 400.01


def test_the_first_look_grows_with_the_picture() -> None:
    sides = [first_look_px(white((100, longer))) for longer in (50, 320, 321, 640, 641, 5000)]
    assert sides == sorted(sides) and len(set(sides)) == 3


def test_overlapping_finds_are_one() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [20, 0, 30, 10]], dtype=np.float32)
    scores = np.array([0.6, 0.9, 0.7], dtype=np.float32)
    assert suppressed(boxes, scores).tolist() == [1, 2]
    np.testing.assert_allclose(overlaps(boxes[0], boxes), [1, 81 / 119, 0], rtol=1e-5)
    one = Finds(boxes[:1], np.zeros((1, 5, 2), np.float32), scores[:1])
    two = Finds(boxes[1:], np.zeros((2, 5, 2), np.float32), scores[1:])
    assert joined([one, no_finds(), two]).scores.tolist() == scores[1:].tolist()
    assert len(joined([])) == 0


@pytest.mark.realdata
def test_a_batch_gives_what_single_pictures_give(test_models: Path) -> None:
    path = test_models / "insightface" / MODEL
    canvases = [whole_view(rgb, 256).canvas for rgb in (face(1), face(2), white((256, 256)), face(4), face(5))]
    single, batched = ScrfdNetwork(path).find(canvases, 0.1), ScrfdNetwork(path, batch=4).find(canvases, 0.1)
    assert [len(finds) for finds in single] == [len(finds) for finds in batched]
    assert sum(len(finds) for finds in single) >= 4 and len(single[2]) == 0
    for one, many in zip(single, batched, strict=True):
        np.testing.assert_allclose(many.boxes, one.boxes, atol=1e-3)
        np.testing.assert_allclose(many.points, one.points, atol=1e-3)
        np.testing.assert_allclose(many.scores, one.scores, atol=1e-5)


@pytest.mark.realdata
def test_pictures_of_all_shapes_together_are_found_as_one_by_one(detector: BatchDetector, test_models: Path) -> None:
    batched = load_detector("insightface", root=test_models / "insightface", batch=8)
    pictures = [
        face(6),
        face(7, 500),
        group(600, 900, 150, [(50, 60), (400, 200), (700, 380)]),
        white((64, 90)),
        face(8),
    ]
    together, apart = detect_many(batched, pictures), [detector.detect(rgb) for rgb in pictures]
    assert [len(faces) for faces in together] == [len(faces) for faces in apart] == [1, 1, 3, 0, 1]
    for a, b in zip(chain.from_iterable(together), chain.from_iterable(apart), strict=True):
        np.testing.assert_allclose(a.box, b.box, atol=0.05)
        assert a.score == pytest.approx(b.score, abs=1e-4)


@pytest.mark.realdata
def test_the_network_finds_what_insightfaces_own_class_finds(test_models: Path) -> None:
    from insightface.model_zoo.scrfd import SCRFD

    network = ScrfdNetwork(test_models / "insightface" / MODEL)
    canvas = whole_view(group(640, 640, 220, [(10, 20), (330, 40), (180, 380)]), 640).canvas
    theirs = SCRFD(model_file=str(test_models / "insightface" / MODEL))
    boxes, points = theirs.detect(canvas[:, :, ::-1].copy(), input_size=(640, 640), det_thresh=0.3)
    (ours,) = network.find([canvas], 0.3)
    assert len(ours) >= 3
    np.testing.assert_allclose(ours.boxes, boxes[:, :4], atol=0.02)
    np.testing.assert_allclose(ours.points, points, atol=0.02)
    np.testing.assert_allclose(ours.scores, boxes[:, 4], atol=1e-4)


@pytest.mark.realdata
def test_small_faces_in_a_large_picture_are_found(detector: BatchDetector, test_models: Path) -> None:
    places = [(60 + 300 * column, 80 + 330 * row) for column in range(7) for row in range(4)]
    picture = group(1500, 2200, 140, places)
    faces = detector.detect(picture)
    assert len(faces) >= 0.85 * len(places)
    coarse = load_detector("insightface", root=test_models / "insightface", det_size=320)
    assert not coarse.detect(picture)  # so it is the second look that finds them


@pytest.mark.realdata
def test_doubtful_faces_are_looked_at_again(detector: BatchDetector, test_models: Path) -> None:
    coarse = load_detector("insightface", root=test_models / "insightface", det_size=256)
    halves = [np.asarray(cv2.resize(face(i, 200), (300, 300))[:, :150], dtype=np.uint8) for i in range(20)]
    assert sum(map(len, detector.detect_many(halves))) > sum(len(coarse.detect(rgb)) for rgb in halves)


@pytest.mark.realdata
def test_a_batch_of_no_size_is_refused(test_models: Path) -> None:
    with pytest.raises(InputError, match="batch 0"):
        load_detector("insightface", root=test_models / "insightface", batch=0)


def test_detectors_without_batches_are_asked_one_by_one() -> None:
    class Single:
        def describe(self) -> str:
            return "single"

        def detect(self, rgb: NDArray[np.uint8]) -> list[Face]:
            return [Face(np.full(4, rgb[0, 0, 0], dtype=np.float32), np.zeros((5, 2), np.float32), 0.5)]

    detector: Detector = Single()
    found = detect_many(detector, [np.full((2, 2, 3), value, dtype=np.uint8) for value in (3, 9)])
    assert [faces[0].box[0] for faces in found] == [3, 9]
