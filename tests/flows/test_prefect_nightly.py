"""A night: trains only on new faces, measures the last model on the same release, and says that nothing is promoted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.steps import nightly
from flows.steps.config import BuildConfig, EvaluateConfig, TrainConfig
from flows.steps.pipeline import BuildSummary, EvaluateSummary, TrainSummary
from flows.steps.runner import LocalRunner, WorkerPool

RUNNER = LocalRunner(WorkerPool(1))
CONFIG = BuildConfig(source="site:http://example.org/", root="r")


def _built(is_new: bool) -> BuildSummary:
    return BuildSummary(
        source=CONFIG.source,
        root="r",
        release=3,
        is_new=is_new,
        pairs=9,
        downloaded=8,
        with_face=7,
        kept=6,
        reasons={"kept": 6, "no_face": 3},
        samples={"train": 6},
        shards=1,
        detector="cascade",
        labels="",
        seconds=1.0,
    )


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stand-ins for build, training and evaluation that note what they were asked for."""
    calls: list[Any] = []

    def train(config: TrainConfig, _runner: Any) -> TrainSummary:
        calls.append(config)
        return TrainSummary(
            model=config.name, path="", preset=config.preset, release=config.release, seconds=1.0, metrics={}
        )

    def evaluate(config: EvaluateConfig, _runner: Any) -> EvaluateSummary:
        calls.append(config)
        value = 0.9 if config.model.startswith("night") else 0.8
        metrics: Any = {"itm_accuracy": {"value": value, "baseline": 0.5}}
        return EvaluateSummary(model=config.model, release=config.release, seconds=1.0, metrics=metrics, left_out={})

    monkeypatch.setattr(nightly, "build", lambda _config, _runner: _built(is_new=True))
    monkeypatch.setattr(nightly, "train", train)
    monkeypatch.setattr(nightly, "evaluate", evaluate)
    monkeypatch.setattr(nightly, "count_new_faces", lambda _root, _release: 5)
    monkeypatch.setattr(nightly, "last_model", lambda _root, _challenger: "old")
    return calls


def test_both_models_are_measured_on_the_new_release(calls: list[Any]) -> None:
    night = nightly.retrain(CONFIG, "demo", 0, RUNNER)
    assert [(type(call).__name__, call.release) for call in calls] == [
        ("TrainConfig", 3),
        ("EvaluateConfig", 3),
        ("EvaluateConfig", 3),
    ]
    assert night.comparison() == [
        {"metric": "itm_accuracy", "challenger": 0.9, "last model": 0.8, "baseline": 0.5},
    ]
    assert "5 new faces in release 3" in night.sentence()
    assert "measured beside old" in night.sentence()
    assert "Nothing was promoted" in night.sentence()


def test_first_model_has_none_to_compare_with(calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nightly, "last_model", lambda _root, _challenger: "")
    night = nightly.retrain(CONFIG, "demo", 0, RUNNER)
    assert night.last is None
    assert "the first model" in night.sentence()
    assert night.comparison()[0]["last model"] is None


@pytest.mark.parametrize("is_new", [True, False])
def test_without_new_faces_nothing_is_trained(calls: list[Any], monkeypatch: pytest.MonkeyPatch, is_new: bool) -> None:
    monkeypatch.setattr(nightly, "build", lambda _config, _runner: _built(is_new))
    monkeypatch.setattr(nightly, "count_new_faces", lambda _root, _release: 0 if is_new else 5)
    night = nightly.retrain(CONFIG, "demo", 0, RUNNER)
    assert not calls
    assert "nothing was trained" in night.sentence()
    assert night.comparison() == []


@pytest.mark.e2e
def test_new_faces_are_those_that_a_release_was_the_first_to_keep(built_root: Path) -> None:
    import warehouse

    with warehouse.connect(built_root) as con:
        row = con.execute("SELECT count(*) FROM corpus").fetchone()
    assert row is not None
    assert row[0] > 0
    assert nightly.count_new_faces(str(built_root), 1) == row[0]
    assert nightly.count_new_faces(str(built_root), 2) == 0
    assert nightly.last_model(str(built_root), "x") == ""
