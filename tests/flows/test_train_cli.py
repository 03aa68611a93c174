"""`gptface train`: what its options become, and how a training that stops is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.cli import main
from flows.steps import model, pipeline
from flows.steps.config import ConfigError, TrainConfig, from_dict
from gptface_core.errors import TrainingError, TrainingInterrupted


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr("sys.argv", ["gptface", "train", *words])
    main()


@pytest.mark.parametrize(
    ("error", "code"),
    [(TrainingInterrupted("stopped by SIGTERM after main step 2 of 4, saved", 15), 143), (TrainingError("nan"), 1)],
)
def test_a_training_that_stops_is_one_line_and_no_success(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, code: int, tmp_path: Path
) -> None:
    def stop(*_: object) -> None:
        raise error

    monkeypatch.setattr(pipeline, "train", stop)
    with pytest.raises(SystemExit) as left:
        run(monkeypatch, "--root", str(tmp_path))
    assert left.value.code == code
    said = capsys.readouterr().err
    assert str(error) in said and "Traceback" not in said


def test_a_process_that_is_not_the_first_takes_no_lock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    joined: list[TrainConfig] = []
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(model, "join_training", joined.append)
    with pytest.raises(SystemExit) as left:
        run(monkeypatch, "--root", str(tmp_path), "--device", "cpu", "--no-compile", "--checkpoint-every", "7")
    assert left.value.code == 0
    [config] = joined
    assert (config.options.device, config.options.compile, config.options.checkpoint_every) == ("cpu", False, 7)
    assert list(tmp_path.iterdir()) == []


def test_options_of_a_flow_are_checked() -> None:
    assert from_dict(TrainConfig, {"options": {"wandb": True}}).options.wandb
    with pytest.raises(ConfigError, match="unknown parameter 'gpu'"):
        from_dict(TrainConfig, {"options": {"gpu": 1}})
    with pytest.raises(ConfigError, match="unknown stage 'x'"):
        TrainConfig(stage="x")
