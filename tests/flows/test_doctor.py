from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from flows.steps import doctor
from flows.steps.doctor import Verdict


def test_this_environment_is_sound(tmp_path: Path) -> None:
    verdicts = {check.name: check.verdict for check in doctor.examine(tmp_path)}
    required = ("Python", "Packages", "Back-port trap", "OpenCV trap", "DuckLake")
    assert [verdicts[name] for name in required] == [Verdict.OK] * len(required)


@pytest.mark.parametrize(
    ("trap", "check"), [("dataclasses", doctor.check_backport), ("opencv-python", doctor.check_opencv)]
)
def test_the_two_traps_are_found_and_mended(monkeypatch: pytest.MonkeyPatch, trap: str, check: object) -> None:
    real = metadata.version
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "1" if name == trap else real(name))
    found = check()  # type: ignore[operator]
    assert found.verdict is Verdict.BAD
    assert f"pip uninstall {trap}" in found.mend


def test_a_package_of_the_wrong_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: ["numpy>=99", "no-such-package", 'x; extra == "dev"'])
    found = doctor.check_packages()
    assert found.verdict is Verdict.BAD
    assert "numpy" in found.found
    assert "no-such-package missing" in found.found
    assert "x" not in found.found.split()


def test_a_prefect_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert doctor.check_prefect().verdict is Verdict.BAD
    monkeypatch.delenv("PREFECT_API_URL")
    assert doctor.check_prefect().verdict is Verdict.NOTE


def test_a_damaged_detector_pack_is_bad_and_a_missing_one_a_note(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GPTFACE_INSIGHTFACE_ROOT", str(tmp_path))
    missing = doctor.check_detector("buffalo_sc")
    assert missing.verdict is Verdict.NOTE
    assert "buffalo_sc.zip" in missing.mend
    folder = tmp_path / "models" / "buffalo_sc"
    folder.mkdir(parents=True)
    (folder / "det_500m.onnx").write_bytes(b"half a file")
    assert doctor.check_detector("buffalo_sc").verdict is Verdict.BAD


def test_providers_are_named_and_a_gpu_without_one_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for providers, verdict in (
        (["CUDAExecutionProvider", "CPUExecutionProvider"], Verdict.OK),
        (["CPUExecutionProvider"], Verdict.NOTE),
    ):
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda found=providers: found)
        check = doctor.check_providers()
        assert check.verdict is verdict
        assert ", ".join(providers) in check.found
        assert ("onnxruntime-gpu" in check.mend) == (verdict is Verdict.NOTE)
