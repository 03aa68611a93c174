"""Embeddings: aligned as InsightFace aligns, the same in batches, near for one person; and the hint of occlusion."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gptface_core.errors import InputError
from gptface_core.faces import load_detector
from gptface_core.faces.align import arcface_crop
from gptface_core.faces.embed import Embedder, describe_embedder
from gptface_core.faces.occlusion import occlusion_hint
from gptface_core.faces.packs import find_embedder
from sample_web.render import render_face, sample_attributes

PACK = "test_sc"


@pytest.fixture(scope="module")
def embedder(test_models: Path) -> Embedder:
    return Embedder(PACK, test_models / "insightface")


@pytest.fixture(scope="module")
def crops(test_models: Path) -> NDArray[np.uint8]:
    detector = load_detector("insightface", root=test_models / "insightface")
    pictures = [render_face(sample_attributes(index, 2), index) for index in range(20)]
    return np.stack([arcface_crop(rgb, detector.detect(rgb)[0].points) for rgb in pictures])


@pytest.mark.realdata
def test_vectors_have_unit_length_and_do_not_depend_on_the_batch(embedder: Embedder, crops: NDArray[np.uint8]) -> None:
    together = embedder.embed(crops)
    assert len(crops) > embedder.batch and together.shape[0] == len(crops) and together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(together, np.concatenate([embedder.embed(crop[None]) for crop in crops]), atol=1e-4)
    assert len(embedder.embed(crops[:0])) == 0


@pytest.mark.realdata
def test_vectors_are_insightfaces(embedder: Embedder, crops: NDArray[np.uint8], test_models: Path) -> None:
    from insightface.model_zoo.arcface_onnx import ArcFaceONNX

    path, _ = find_embedder(PACK, test_models / "insightface")
    theirs = ArcFaceONNX(str(path)).get_feat([crop[:, :, ::-1].copy() for crop in crops[:4]])
    theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
    np.testing.assert_allclose(embedder.embed(crops[:4]), theirs, atol=1e-4)


@pytest.mark.realdata
def test_alignment_is_insightfaces_where_nothing_is_shrunk(test_models: Path) -> None:
    from insightface.utils.face_align import norm_crop

    rgb = render_face(sample_attributes(3, 2), 3)
    (face,) = load_detector("insightface", root=test_models / "insightface").detect(rgb)
    assert 30 < face.points[1, 0] - face.points[0, 0] < 70
    theirs = norm_crop(rgb, face.points).astype(int)
    assert np.abs(arcface_crop(rgb, face.points).astype(int) - theirs).mean() < 0.1


@pytest.mark.realdata
def test_description_names_the_model_before_it_is_loaded(embedder: Embedder, test_models: Path) -> None:
    described = describe_embedder(PACK, test_models / "insightface")
    assert embedder.describe() == described == "insightface:test_sc/mobilefacenet_128d_dynbatch:363229ee"


@pytest.mark.realdata
def test_a_pack_without_recogniser_is_one_clear_line(test_models: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with pytest.raises(InputError, match=r"should hold one recogniser beside its detector, found none"):
        Embedder("buffalo_sc", test_models / "insightface")


@pytest.mark.realdata
def test_masks_are_hinted_at_bare_faces_are_not(test_models: Path) -> None:
    detector = load_detector("insightface", root=test_models / "insightface")
    hints: dict[bool, list[float]] = {True: [], False: []}
    for index in range(25):
        for masked in hints:
            attributes = replace(sample_attributes(index, 3), face_mask=masked, eyeglasses=False)
            rgb = render_face(attributes, index)
            faces = detector.detect(rgb)
            hints[masked] += [occlusion_hint(arcface_crop(rgb, face.points)) for face in faces[:1]]
    assert np.mean([hint > 0.5 for hint in hints[True]]) > 0.9
    assert np.mean([hint > 0.5 for hint in hints[False]]) < 0.3


def test_a_plain_skin_has_no_hint_and_dark_bars_over_the_eyes_do() -> None:
    skin = np.full((112, 112, 3), (205, 160, 130), dtype=np.uint8)
    assert occlusion_hint(skin) == 0
    glasses, mask = skin.copy(), skin.copy()
    glasses[44:66, 20:92] = 15
    mask[62:] = (120, 170, 220)
    assert occlusion_hint(glasses) > 0.9 and occlusion_hint(mask) > 0.9
