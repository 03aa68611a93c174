"""Model packs: found, checked, and never downloaded behind anyone's back."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from gptface_core.errors import InputError
from gptface_core.faces.packs import ROOT_VARIABLE, find_pack, how_to_get, pack_folder


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
