"""A night: what it trains on, on which faces it compares, who is the champion in the end, and what it says of that."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from flows.steps import nightly
from flows.steps.champions import read_history, rollback, settle
from flows.steps.config import DECIDING, BuildConfig, ConfigError, EvaluateConfig, Metric, NightConfig, TrainConfig
from flows.steps.layout import Layout
from flows.steps.model import champion, check_name, chosen_model, resolve_model
from flows.steps.nightly import NightSummary, Reigning
from flows.steps.pipeline import BuildSummary, EvaluateSummary, TrainSummary
from flows.steps.runner import LocalRunner, WorkerPool
from gptface_core.evaluation.registry import benchmarks
from gptface_core.evaluation.rows import RowValues, save_rows
from tests.flows.lake_models import add_model
from tests.warehouse.literal_crawls import Shot, write_crawl
from warehouse import connect
from warehouse.publish import publish
from warehouse.rules import RuleParameters

pytestmark = pytest.mark.e2e  # several releases each
RUNNER = LocalRunner(WorkerPool(1))
RULES = RuleParameters(test_share=0.6)
NIGHTLY = 90  # new pictures of a night


class Nights:
    """A root on which nights are simulated: releases and decisions are real, training and measuring are stood in for.

    `skill` is the share of faces on which the next trained model is right.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.skill = root, 0.6
        self.trained: list[TrainConfig] = []
        self.measured: list[tuple[str, int]] = []
        self._skills: dict[str, float] = {}

    def publish(self, pictures: int = NIGHTLY) -> None:
        """One more release, with so many more pictures."""
        number = len(list(self.root.glob("raw/x/g*"))) + 1
        shots = [Shot(f"n{number}-{i}", page=f"p{number}") for i in range(pictures)]
        publish(self.root, [write_crawl(self.root / f"raw/x/g{number:03d}", shots)], RULES)

    def build(self, config: BuildConfig, _runner: Any) -> BuildSummary:
        with connect(self.root) as con:
            row = con.execute("SELECT max(release) FROM releases").fetchone()
        assert row is not None
        counts = {"pairs": 9, "downloaded": 8, "with_face": 7, "kept": 6, "reasons": {"kept": 6}, "samples": {}}
        more: dict[str, Any] = {"shards": 1, "detector": "cascade", "labels": "", "seconds": 1.0}
        return BuildSummary(source=config.source, root=str(self.root), release=row[0], is_new=True, **counts, **more)

    def train(self, config: TrainConfig, _runner: Any) -> TrainSummary:
        self.trained.append(config)
        if not (self.root / "models" / config.name).is_dir():
            add_model(self.root, config.name, config.release, day=config.release)
            self._skills[config.name] = self.skill
        return TrainSummary(config.name, "", config.preset, config.release, 1.0, {})

    def evaluate(self, config: EvaluateConfig, _runner: Any) -> EvaluateSummary:
        self.measured.append((config.model, config.release))
        save_rows(self.root / "models" / config.model / "evaluation", self._rows(config))
        return EvaluateSummary(config.model, config.release, 1.0, {"itm_accuracy": {"value": 0.5}}, {})

    def _rows(self, config: EvaluateConfig) -> RowValues:
        with connect(self.root, at=config.release) as con:
            faces = con.execute("SELECT row_id FROM corpus WHERE split = 'test' ORDER BY row_id").fetchall()
        luck = np.random.default_rng(len(faces)).random(len(faces))
        skill = self._skills.get(config.model, 0.6)
        return {"itm_accuracy": {row: float(u < skill) for (row,), u in zip(faces, luck, strict=True)}}

    def night(self, **settings: Any) -> NightSummary:
        build = BuildConfig(source="site:http://example.org/", root=str(self.root))
        return nightly.retrain(NightConfig(build, "micro", min_new_rows=50, **settings), RUNNER)

    def champion(self) -> str | None:
        return champion(Layout(self.root))


@pytest.fixture
def nights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nights:
    nights = Nights(tmp_path)
    for name in ("build", "train", "evaluate"):
        monkeypatch.setattr(nightly, name, getattr(nights, name))
    monkeypatch.setattr(nightly, "ensure_shards", lambda *_: None)
    nights.publish()
    return nights


def test_three_nights_promote_and_reject_beyond_the_interval(nights: Nights) -> None:
    first = nights.night()
    assert first.decision is not None and first.decision.promoted
    assert "there is none to compare it with" in first.sentence()
    assert first.comparison() == []
    assert nights.champion() == "night-micro-r00001-s0"

    nights.publish()
    nights.skill = 0.9
    second = nights.night(steps=7, learning_rate=1e-4)
    assert nights.trained[1].init_from == "night-micro-r00001-s0"
    assert (nights.trained[0].steps, nights.trained[1].steps, nights.trained[1].learning_rate) == (0, 7, 1e-4)
    assert nights.measured[1:] == [("night-micro-r00002-s0", 1), ("night-micro-r00001-s0", 1)], "not the same faces"
    assert nights.champion() == "night-micro-r00002-s0"
    (row,) = second.comparison()
    assert row["metric"] == "itm_accuracy" and float(row["low"]) > 0
    assert re.search(r"Promoted; better: itm_accuracy 0\.\d+ against 0\.\d+: \+0\.\d+ \(95 % ", second.sentence())

    nights.publish()
    nights.skill = 0.5
    third = nights.night()
    assert third.decision is not None and not third.decision.promoted
    assert third.decision.test_release == 2
    assert nights.champion() == "night-micro-r00002-s0"
    assert "Rejected, night-micro-r00002-s0 stays; worse: itm_accuracy 0." in third.sentence()

    fourth = nights.night()
    assert fourth.decision is None and len(nights.trained) == 3, "what was rejected is not trained on again"
    assert [each.action for each in read_history(Layout(nights.root))] == ["keep", "promote", "promote"]
    told = read_history(Layout(nights.root))[0]
    assert told.decided_by == "nightly-retrain" and told.figures["paired"][0]["high"] < 0
    assert rollback(Layout(nights.root), "by hand").champion == "night-micro-r00001-s0"


def test_new_rows_add_up_over_nights_until_they_are_enough(nights: Nights) -> None:
    nights.night()
    nights.publish(30)
    few = nights.night()
    assert few.decision is None and few.new_rows == 30
    assert nightly.count_new_rows(Layout(nights.root), 0) == NIGHTLY + 30
    assert "30 new faces, 50 are needed: release 2 stands, nothing was trained." in few.sentence()
    nights.publish(30)
    enough = nights.night()
    assert (enough.new_rows, enough.trained is not None) == (60, True)
    assert "No new faces" in nights.night().sentence()


@pytest.mark.slow
def test_a_night_that_was_killed_before_its_decision_is_decided_the_next(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights.night()
    nights.publish()
    nights.skill = 0.95
    with monkeypatch.context() as patch:
        patch.setattr(nightly, "_compare", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            nights.night()
    assert nights.champion() == "night-micro-r00001-s0"
    assert nights.night().decision is not None
    assert nights.champion() == "night-micro-r00002-s0"


@pytest.mark.slow
def test_a_first_night_that_was_killed_has_no_champion_to_compare_with(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(nightly, "_write_down", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            nights.night()
    assert nightly.read_reigning(Layout(nights.root)) is None, "a model must not be measured against itself"
    nights.night()
    assert nights.champion() == "night-micro-r00001-s0"


def test_the_newest_model_stands_for_the_champion_until_one_was_promoted(nights: Nights) -> None:
    add_model(nights.root, "old", 1, day=1)
    nights.publish()
    nights.skill = 0.99
    decision = nights.night().decision
    assert decision is not None and (decision.champion, decision.test_release) == ("old", 1)
    assert nights.trained[0].init_from == "old"
    assert nights.champion() == "night-micro-r00002-s0"


@pytest.mark.slow
def test_from_nothing_takes_no_weights_of_the_champion(nights: Nights) -> None:
    nights.night()
    nights.publish()
    nights.night(from_champion=False, steps=7)
    assert (nights.trained[1].init_from, nights.trained[1].steps) == ("", 0)


def test_frozen_faces_are_those_of_then_that_are_there_still(nights: Nights) -> None:
    layout = Layout(nights.root)
    with connect(nights.root) as con:
        first = {row[0] for row in con.execute("SELECT row_id FROM corpus WHERE split = 'test'").fetchall()}
    nights.publish()
    assert nightly.frozen_faces(layout, 1, 2) == first
    with connect(nights.root, read_only=False) as con:
        con.execute("UPDATE history.corpus SET release_to = 2 WHERE row_id = ?", [min(first)])
    assert nightly.frozen_faces(layout, 1, 2) == first - {min(first)}
    assert nightly.frozen_faces(layout, 1, 1) == first


def test_commands_take_the_champion_and_no_alias_dangles(nights: Nights, caplog: pytest.LogCaptureFixture) -> None:
    layout = Layout(nights.root)
    nights.night()
    newer = add_model(nights.root, "newer", 1, day=9)
    reigning = layout.models / "night-micro-r00001-s0"
    assert resolve_model(layout, "") == reigning
    assert resolve_model(layout, "newer") == newer
    with pytest.raises(ConfigError, match="is the champion, which this would train over: choose another name"):
        check_name(layout, reigning.name, 2, TrainConfig(name=reigning.name))

    reigning.rename(layout.models / "moved-away")
    assert chosen_model(layout) in (newer, layout.models / "moved-away")
    assert "has no folder any more" in caplog.text
    settle(layout)
    assert nights.champion() is None
    told = read_history(layout)[0]
    assert (told.action, told.why, told.champion) == ("retire", "its folder is gone", None)
    with pytest.raises(ValueError, match="no model has been champion yet"):
        rollback(layout, "")


@pytest.mark.slow
def test_after_a_champion_is_gone_the_one_before_is_to_be_beaten(nights: Nights) -> None:
    nights.night()
    nights.publish()
    nights.skill = 0.95
    nights.night()
    shutil.rmtree(nights.root / "models" / "night-micro-r00002-s0")
    settle(Layout(nights.root))
    assert nightly.read_reigning(Layout(nights.root)) == Reigning("night-micro-r00001-s0", 1)


def test_bad_settings_are_one_line() -> None:
    build = BuildConfig(source="sample:100")
    with pytest.raises(ConfigError, match="min_new_rows=0: must be at least 1"):
        NightConfig(build, min_new_rows=0)
    with pytest.raises(ConfigError, match="unknown metric 'accuracy': choose from itm_accuracy, mim_gain_nats, "):
        NightConfig(build, metric="accuracy")
    with pytest.raises(ConfigError, match="steps=-1"):
        replace(NightConfig(build), steps=-1)


def test_every_figure_of_single_faces_may_decide() -> None:
    quick = {each.headline for each in benchmarks().values() if each.headline and "quick" in each.suites}
    assert set(DECIDING) == quick == set(get_args(Metric))
