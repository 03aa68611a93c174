from __future__ import annotations

import numpy as np
import pytest

from gptface_core.evaluation.intervals import wilson
from gptface_core.evaluation.statistics import LEAST, by_subgroup, difference, mcnemar


def test_mcnemars_test_counts_what_one_method_alone_could_do() -> None:
    first = np.array([True] * 10 + [False] * 2 + [True] * 30)
    second = np.array([False] * 10 + [True] * 2 + [True] * 30)
    found = mcnemar(first, second)
    assert (found.first_alone, found.second_alone) == (10, 2)
    assert found.p_value == pytest.approx(2 * (1 + 12 + 66) / 2**12)  # the binomial tail, by hand
    assert mcnemar(first, first).p_value == 1.0


def test_a_paired_difference_is_narrower_than_its_parts() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(size=400)
    value, low, high = difference(first + 0.1, first, rng)
    assert low == pytest.approx(value) and high == pytest.approx(value) and value == pytest.approx(0.1)


def test_a_small_subgroup_gets_its_count_and_no_percentage() -> None:
    success = np.array([True] * (LEAST - 5) + [False] * 5 + [True] * 3)
    found = by_subgroup(success, ["many"] * LEAST + ["few"] * 3)
    assert found["few"] == {"samples": 3}
    low, high = wilson(LEAST - 5, LEAST)
    assert found["many"] == {"samples": LEAST, "value": (LEAST - 5) / LEAST, "low": low, "high": high}
