"""`gptface evaluate`: what its options become, and which figures are rows of the lake."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.cli import main
from flows.steps import model, pipeline, shard
from flows.steps.config import ConfigError, EvaluateConfig, from_dict
from flows.steps.pipeline import EvaluateSummary
from flows.steps.runner import LocalRunner, WorkerPool
from gptface_core.evaluation_options import EvaluationOptions

MEASURED = {"success": {"value": 0.7, "baseline": None, "low": None, "high": None, "samples": None}}


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["gptface", "evaluate", *words])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


def test_options_become_the_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[EvaluateConfig] = []

    def stand_in(config: EvaluateConfig, _: object) -> EvaluateSummary:
        asked.append(config)
        return EvaluateSummary("m", 1, 0.0, {}, {})

    monkeypatch.setattr(pipeline, "evaluate", stand_in)
    words = ("--suite", "full", "--only", "editing", "--only", "itm", "--alphas", "0.1,3", "--split", "val")
    assert run(monkeypatch, "--root", str(tmp_path), *words, "--face-models", "faces") == 0
    [config] = asked
    options = config.options
    assert (options.suite, options.only, options.alphas) == ("full", ("editing", "itm"), (0.1, 3.0))
    assert (options.split, options.face_models, options.data) == ("val", "faces", "")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--suite", "slow"), "no suite 'slow': choose quick or full"),
        (("--split", "train"), "no split 'train' to measure on: choose val or test"),
        (("--alphas", "much"), "--alphas much: give numbers with commas between them, as 0.1,0.3,1"),
        (("--faces", "0"), "faces 0: choose at least 1"),
    ],
)
def test_what_does_not_fit_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], says: str
) -> None:
    assert run(monkeypatch, *words) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert says in said and "Traceback" not in said


def test_unknown_parameters_of_the_flow_are_errors() -> None:
    assert from_dict(EvaluateConfig, {"options": {"suite": "full", "alphas": [0.1]}}).options.alphas == (0.1,)
    with pytest.raises(ConfigError, match="unknown parameter 'speed'"):
        from_dict(EvaluateConfig, {"speed": 1})


def test_figures_are_rows_named_by_their_benchmark_and_headlines_stand_once() -> None:
    numbers = {"value": 0.7, "baseline": 0.1, "low": 0.6, "high": 0.8, "samples": 200}
    figures = [
        {"benchmark": "itm", "metric": "itm_accuracy", **numbers},
        {"benchmark": "editing", "metric": "success_beard", **numbers, "seed": 0, "details": {"prompt": "no beard"}},
    ]
    assert model.rows_of(figures, {"itm_accuracy": {}}) == {"editing_success_beard": numbers}


@pytest.mark.parametrize(("split", "registered"), [("test", 1), ("val", 0)])
def test_what_is_measured_while_tuning_is_no_result_of_the_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, split: str, registered: int
) -> None:
    rows: list[object] = []
    monkeypatch.setattr(shard, "resolve_release", lambda *_: 1)
    monkeypatch.setattr(model, "resolve_model", lambda *_: tmp_path / "m")
    monkeypatch.setattr(model, "evaluate", lambda *_: model.Evaluated(MEASURED, {}))
    monkeypatch.setattr(model, "register_evaluation", lambda *arguments: rows.append(arguments))
    with WorkerPool() as pool:
        summary = pipeline.evaluate(
            EvaluateConfig(str(tmp_path), options=EvaluationOptions(split=split)), LocalRunner(pool)
        )
    assert summary.metrics == MEASURED and len(rows) == registered
