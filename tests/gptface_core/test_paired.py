"""Paired comparison of two models: who is promoted, and what each face adds to a figure."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from gptface_core.errors import InputError
from gptface_core.evaluation import evaluate
from gptface_core.evaluation.paired import MIN_ROWS, compare, judge
from gptface_core.evaluation.rows import RowValues, load_rows, mean_rows, save_rows

from .conftest import Micro


def figures(metric: str, values: list[float]) -> RowValues:
    return {metric: {f"{n:04d}": value for n, value in enumerate(values)}}


def coins(share: float, count: int = 400, seed: int = 0) -> list[float]:
    return [float(u < share) for u in np.random.default_rng(seed).random(count)]


def changed(before: list[float], gained: int, lost: int) -> list[float]:
    """Right on so many faces more, and wrong on so many that were right."""
    after = list(before)
    for right, count in ((0.0, gained), (1.0, lost)):
        for face in [n for n, value in enumerate(before) if value == right][:count]:
            after[face] = 1 - right
    return after


def test_a_difference_on_the_same_faces_is_seen_where_two_intervals_overlap() -> None:
    # 400 faces, the challenger right on 16 more and wrong on none: 0.70 against 0.74, whose own intervals overlap.
    before = coins(0.7)
    after = changed(before, 16, 0)
    (figure,) = compare(figures("itm_accuracy", before), figures("itm_accuracy", after))
    assert figure.difference == pytest.approx(16 / 400)
    assert 0.02 < figure.low < figure.difference < figure.high < 0.065
    verdict = judge([figure], "itm_accuracy")
    assert verdict.promoted and "better: itm_accuracy" in verdict.why


def test_interval_is_that_of_the_normal_law_for_many_faces() -> None:
    before, after = coins(0.6, 2000, 1), coins(0.7, 2000, 2)
    (figure,) = compare(figures("m", before), figures("m", after))
    difference = np.array(after) - np.array(before)
    half = 1.96 * difference.std() / np.sqrt(len(difference))
    assert figure.low == pytest.approx(figure.difference - half, abs=0.004)
    assert figure.high == pytest.approx(figure.difference + half, abs=0.004)


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (coins(0.8), coins(0.5, seed=3), r"^worse: m 0\.\d+ against 0\.\d+: -0\.\d+ \(95 % interval -0"),
        (coins(0.7), changed(coins(0.7), 14, 8), "not better beyond its interval"),
        (coins(0.7), changed(coins(0.7), 5, 0), "only 5 faces with another answer"),
        (coins(0.7), coins(0.7), "not better beyond its interval"),
        (coins(0.1, MIN_ROWS - 1), [1.0] * (MIN_ROWS - 1), "29 faces are too few"),
    ],
)
def test_a_challenger_that_is_not_better_is_rejected_with_the_figure(
    before: list[float], after: list[float], why: str
) -> None:
    verdict = judge(compare(figures("m", before), figures("m", after)), "m")
    assert not verdict.promoted
    assert re.search(why, verdict.why), verdict.why


def test_better_in_one_and_worse_in_another_is_rejected_by_the_other() -> None:
    before = figures("m", coins(0.5)) | figures("guarded", coins(0.9))
    after = figures("m", coins(0.8, seed=4)) | figures("guarded", coins(0.6, seed=5))
    verdict = judge(compare(before, after), "m")
    assert not verdict.promoted
    assert "better by m, but worse: guarded" in verdict.why
    assert verdict.figure is not None and verdict.figure.metric == "guarded"


def test_only_faces_of_both_and_of_the_frozen_split_count() -> None:
    before, after = figures("m", [1.0] * 100), figures("m", [0.0] * 60)
    frozen = {f"{n:04d}" for n in range(20, 90)}
    (figure,) = compare(before, after, frozen)
    assert figure.rows == 40  # 20 to 59
    assert compare(before, after, set()) == []
    assert "was not measured" in judge([], "m").why


def test_the_same_faces_give_the_same_interval_whatever_else_is_measured() -> None:
    before, after = figures("m", coins(0.5)), figures("m", coins(0.6, seed=1))
    alone = compare(before, after)
    beside = compare(before | figures("a", [1.0] * 50), after | figures("a", [0.0] * 50))
    assert beside[1:] == alone


def test_rows_of_parts_average_to_the_mean_of_the_parts() -> None:
    parts = {"glasses": {"a": 1.0, "b": 0.0, "c": 2.0}, "beard": {"b": 1.0, "d": 0.0}}
    together = mean_rows(parts)
    assert np.mean(list(together.values())) == pytest.approx((1.0 + 0.5) / 2)


def test_rows_come_back_and_damaged_ones_are_one_line(tmp_path: Path) -> None:
    rows: RowValues = {"m": {"a": 0.5, "b": 1.0}, "n": {}}
    save_rows(tmp_path, rows)
    assert load_rows(tmp_path) == rows
    (tmp_path / "rows.npz").write_bytes(b"PK nonsense")
    with pytest.raises(InputError, match=r"rows\.npz cannot be read .*: evaluate the model again"):
        load_rows(tmp_path)
    with pytest.raises(InputError, match="evaluate the model again"):
        load_rows(tmp_path / "nowhere")


@pytest.mark.e2e
def test_each_faces_values_average_to_the_figure(micro: Micro, tmp_path: Path) -> None:
    results = evaluate(micro.model_dir, micro.shards, micro.labels, tmp_path)
    rows = load_rows(tmp_path)
    assert set(rows) == set(results["metrics"])
    for name, metric in results["metrics"].items():
        assert np.mean(list(rows[name].values())) == pytest.approx(metric["value"]), name
    assert "per_row" not in json.dumps(results)
    assert compare(rows, load_rows(tmp_path))[0].difference == 0
