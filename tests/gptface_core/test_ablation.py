"""Ablations: one thing changed at a time, resumable, compared seed by seed and face by face."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gptface_core.ablation import ARMS, SUITES, WHOLE, ablate, arm_preset, compare
from gptface_core.config import load_preset
from gptface_core.errors import InputError
from gptface_core.masking import image_scattered, text_spans
from tests.gptface_core.micro import micro_preset, write_corpus


@pytest.mark.e2e
def test_a_suite_trains_what_is_missing_and_keeps_numbers_alone(tmp_path: Path) -> None:
    shards, labels = write_corpus(tmp_path)
    told: list[str] = []

    def run() -> list[str]:
        told.clear()
        found = ablate(
            shards, labels, tmp_path / "out", micro_preset(), "quick", (0,), None, lambda a, _: told.append(a)
        )
        return [f"{each.arm} {each.metric}" for each in found]

    compared = run()
    assert told == list(SUITES["quick"])
    assert "clean-itm itm_accuracy" in compared and "scattered probe_balanced_accuracy" in compared
    assert "milm itm_accuracy" not in compared, "an arm that never learns to match says nothing about matching"
    assert "scattered mim_gain_nats" not in compared, "it would be measured under another law of masks"
    files = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    arms = {f"{arm}-s0.{kind}" for arm in SUITES["quick"] for kind in ("json", "npz")}
    assert files == {"ablations.json"} | arms, "pictures of faces, tokens and weights are gone"
    row = json.loads((tmp_path / "out" / "rows" / "milm-s0.json").read_text())
    assert row["metrics"]["inpaint_gain_db"]["low"] <= row["metrics"]["inpaint_gain_db"]["value"]
    assert row["key"]["changes"]["training"]["weight_itm"] == 0
    (tmp_path / "out" / "rows" / "clean-itm-s0.json").unlink()
    before = (tmp_path / "out" / "rows" / "clean-itm-s0.npz").read_bytes()
    assert run() == compared and told == ["clean-itm"]
    again = np.load(tmp_path / "out" / "rows" / "clean-itm-s0.npz")
    (tmp_path / "before.npz").write_bytes(before)
    for name, values in np.load(tmp_path / "before.npz").items():
        np.testing.assert_array_equal(again[name], values, f"{name}: the same arm, the same values")


def test_every_arm_is_a_preset_that_differs_in_its_changes_alone(tmp_path: Path) -> None:
    base = load_preset("demo")
    for name in ARMS:
        preset = arm_preset(base, name, tmp_path)
        assert preset.tokenizer.source == str(tmp_path) and preset.model == base.model
        assert (preset.training == base.training) is ("training" not in ARMS[name].changes)
        assert (preset.masking == base.masking) is ("masking" not in ARMS[name].changes)


def test_the_arm_without_spans_hides_single_words() -> None:
    law, rng = arm_preset(load_preset("demo"), "scattered", Path("t")).masking, np.random.default_rng(0)
    assert law.block_share == 0 and image_scattered(64, rng).any()
    runs = [len(run) for _ in range(200) for run in _runs(text_spans(40, law, rng) != 0)]
    assert np.mean(runs) < 1.4, "words side by side are hidden by chance alone"
    spans = load_preset("demo").masking
    assert np.mean([len(run) for _ in range(200) for run in _runs(text_spans(40, spans, rng) != 0)]) > 2


def _runs(flags: np.ndarray) -> list[np.ndarray]:
    return [part for part in np.split(flags, np.flatnonzero(np.diff(flags)) + 1) if part[0]]


def test_a_gain_counts_over_seeds_and_faces() -> None:
    rng = np.random.default_rng(0)
    arm = rng.random((3, 200))
    better = compare("milm", "m", list(arm + 0.1 + rng.normal(0, 0.05, arm.shape)), list(arm))
    assert 0.08 < better.low < better.difference < better.high < 0.12 and (better.seeds, better.faces) == (3, 200)
    noise = compare("milm", "m", list(arm + rng.normal(0, 0.3, arm.shape)), list(arm))
    assert noise.low < 0 < noise.high
    torn = compare("milm", "m", list(arm + np.array([[0.2], [-0.1], [0.0]])), list(arm))
    assert torn.low < 0 < torn.high, "200 faces do not make up for seeds that disagree"


def test_what_cannot_be_asked_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no suite 'all': choose quick or full"):
        ablate(tmp_path, None, tmp_path, suite="all")
    with pytest.raises(InputError, match="no seeds"):
        ablate(tmp_path, None, tmp_path, seeds=())
    assert WHOLE in SUITES["quick"] and set(SUITES["full"]) == set(ARMS)
