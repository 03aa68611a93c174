"""95 % intervals: Wilson for shares, percentile bootstrap for means."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Z95 = 1.959963984540054


def wilson(successes: float, count: int) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share; `successes` may hold halves (ties)."""
    if count == 0:
        return (0.0, 1.0)
    share, z2 = successes / count, Z95**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z95 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return (max(0.0, centre - half), min(1.0, centre + half))


def bootstrap(values: npt.NDArray[np.float64], rng: np.random.Generator, draws: int = 1000) -> tuple[float, float]:
    """Percentile interval of the mean of `values` (R,)."""
    means = values[rng.integers(len(values), size=(draws, len(values)))].mean(1)
    return percentiles(means)


def percentiles(draws: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 % of drawn values."""
    low, high = np.percentile(draws, [2.5, 97.5])
    return (float(low), float(high))
