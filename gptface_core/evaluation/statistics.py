"""Statistics that benchmarks share: paired tests, and shares by subgroup."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gptface_core.evaluation import subgroups
from gptface_core.evaluation.intervals import bootstrap

LEAST = 20  # samples below which a subgroup gets no percentage
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Paired:
    """Two methods on the same samples: how often one alone succeeded, and how likely so uneven a split is by chance."""

    first_alone: int
    second_alone: int
    p_value: float


def mcnemar(first: Flags, second: Flags) -> Paired:
    """McNemar's exact test (1947, binomial): two-sided, on the pairs where just one of the two succeeded."""
    from scipy.stats import binomtest

    alone = int((first & ~second).sum()), int((second & ~first).sum())
    p_value = float(binomtest(alone[0], sum(alone)).pvalue) if sum(alone) else 1.0
    return Paired(*alone, p_value)


def difference(
    first: npt.NDArray[np.float64], second: npt.NDArray[np.float64], rng: np.random.Generator
) -> tuple[float, float, float]:
    """Mean of first - second on the same samples, with its bootstrap interval: (value, low, high)."""
    gaps = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    return (float(gaps.mean()), *bootstrap(gaps, rng))


def by_subgroup(success: Flags, groups: Sequence[Hashable]) -> dict[str, dict[str, Any]]:
    """Share of successes with Wilson's interval by group; a group under LEAST samples has its count alone."""
    kind = "group"
    return subgroups.by_subgroup(success.astype(np.float64), [{kind: str(group)} for group in groups], LEAST).get(
        kind, {}
    )
