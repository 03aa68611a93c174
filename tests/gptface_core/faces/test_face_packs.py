"""Model packs: found, checked, and never downloaded behind anyone's back."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from gptface_core.errors import InputError
from gptface_core.faces.embed import Embedder
from gptface_core.faces.packs import ROOT_VARIABLE, find_embedder, find_pack, how_to_get, pack_folder


def put(root: Path, pack: str, *names: str) -> Path:
    folder = root / "models" / pack
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(b"not a model")
    return folder


def test_default_root_is_insightfaces_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(ROOT_VARIABLE, raising=False)
    assert pack_folder("buffalo_sc") == Path.home() / ".insightface" / "models" / "buffalo_sc"
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    assert pack_folder("buffalo_sc") == tmp_path / "models" / "buffalo_sc"
    assert pack_folder("buffalo_sc", tmp_path / "given") == tmp_path / "given" / "models" / "buffalo_sc"


def test_missing_pack_says_where_to_get_it_and_on_what_terms(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no InsightFace pack 'buffalo_sc'.*buffalo_sc\.zip.*non-commercial"):
        find_pack("buffalo_sc", tmp_path)
    assert not list(tmp_path.iterdir())
    assert str(tmp_path) in how_to_get("buffalo_sc", tmp_path)


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".hidden"])
def test_pack_names_are_names(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no name of a model pack"):
        pack_folder(name, tmp_path)


@pytest.mark.parametrize("pack", ["buffalo_sc", "mine"])
def test_half_unzipped_pack_is_refused(tmp_path: Path, pack: str) -> None:
    put(tmp_path, pack, "w600k_mbf.onnx")
    with pytest.raises(InputError, match=r"one detector.*found none"):
        find_pack(pack, tmp_path)


def test_damaged_pack_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "buffalo_sc", "det_500m.onnx")
    with pytest.raises(InputError, match=r"damaged or another version \(sha256 .*should be 5e4447f5\)"):
        find_pack("buffalo_sc", tmp_path)


def test_two_detectors_in_one_pack_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "mine", "det_10g.onnx", "scrfd_10g.onnx")
    with pytest.raises(InputError, match=r"found det_10g\.onnx, scrfd_10g\.onnx"):
        find_pack("mine", tmp_path)


def test_unknown_pack_is_taken_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    put(tmp_path, "mine", "det_10g.onnx", "w600k_r50.onnx")
    found = find_pack("mine", tmp_path)
    assert found.detector.name == "det_10g.onnx"
    assert found.sha256[:8] in caplog.text


@pytest.mark.realdata
@pytest.mark.parametrize("pack", ["buffalo_sc", "test_sc"])
def test_real_packs_pass(test_models: Path, pack: str, caplog: pytest.LogCaptureFixture) -> None:
    found = find_pack(pack, test_models / "insightface")
    assert found.sha256.startswith("5e4447f5") and not caplog.records


def model(path: Path, side_px: int, *outputs: str) -> None:
    """An ONNX model of crops with `side_px` that gives the mean colour under each name, listing a weight as input."""
    from onnx import TensorProto, helper, numpy_helper, save

    def value(name: str, *shape: int | str) -> object:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    nodes = [helper.make_node("GlobalAveragePool", ["crop"], ["mean"])]
    nodes += [helper.make_node("Flatten", ["mean"], [name]) for name in outputs]
    weight = numpy_helper.from_array(np.zeros(1, np.float32), "weight")
    inputs = [value("crop", "n", 3, side_px, side_px), value("weight", 1)]
    graph = helper.make_graph(nodes, "small", inputs, [value(name, "n", 3) for name in outputs], [weight])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def put_large_pack(root: Path) -> Path:
    """As buffalo_l and buffalo_s are laid out: landmarks in 3D and 2D, age, and the recogniser."""
    folder = put(root, "large", "det_10g.onnx")
    for name, side_px in (("1k3d68", 192), ("2d106det", 192), ("genderage", 96), ("w600k_r50", 112)):
        model(folder / f"{name}.onnx", side_px, "vector")
    return folder


def test_of_several_models_the_recogniser_is_found_by_what_it_takes_and_gives(tmp_path: Path) -> None:
    folder = put_large_pack(tmp_path)
    model(folder / "quality.onnx", 112, "one", "two")  # of the same crops, but not a vector
    assert find_embedder("large", tmp_path)[0] == folder / "w600k_r50.onnx"
    vectors = Embedder("large", tmp_path).embed(np.full((2, 112, 112, 3), (200, 90, 180), np.uint8))
    assert vectors.shape == (2, 3)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_pack_with_two_recognisers_or_a_damaged_file_is_refused(tmp_path: Path) -> None:
    folder = put_large_pack(tmp_path)
    model(folder / "glintr100.onnx", 112, "vector")
    with pytest.raises(InputError, match=r"one recogniser .*found glintr100\.onnx, w600k_r50\.onnx"):
        find_embedder("large", tmp_path)
    (folder / "glintr100.onnx").write_bytes(b"half a file")
    with pytest.raises(InputError, match=r"glintr100\.onnx is damaged or no ONNX model"):
        find_embedder("large", tmp_path)
