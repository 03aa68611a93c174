"""Results by subgroup: a share with its interval where there are enough samples, a count alone where there are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gptface_core.evaluation.intervals import wilson

MINIMUM = 30  # below, an interval spans a third of the scale and a percentage misleads


def by_subgroup(
    right: npt.NDArray[np.float64], groups: Sequence[Mapping[str, str]], minimum: int = MINIMUM
) -> dict[str, dict[str, dict[str, Any]]]:
    """Mean of `right` by kind of group and group: `{"gender": {"female": {"samples", "value", "low", "high"}}}`.

    `right` (R,) is each item's share of right answers, NaN for an item without an answer that is known; `groups` are
    the items' own, and one that does not say belongs to none. A group with fewer samples than `minimum` has no `value`
    and no interval. Intervals are Wilson's, which are not too narrow for means of shares.
    """
    places: dict[str, dict[str, list[int]]] = {}
    for place, known in enumerate(groups):
        for kind, group in known.items() if np.isfinite(right[place]) else ():
            places.setdefault(kind, {}).setdefault(group, []).append(place)
    return {
        kind: {group: _share(right[members], minimum) for group, members in sorted(table.items())}
        for kind, table in sorted(places.items())
    }


def _share(right: npt.NDArray[np.float64], minimum: int) -> dict[str, Any]:
    if len(right) < minimum:
        return {"samples": len(right)}
    low, high = wilson(float(right.sum()), len(right))
    return {"samples": len(right), "value": float(right.mean()), "low": low, "high": high}
