"""Is one model better than another? Both on the same faces, so the interval is of the difference, face by face.

Percentile bootstrap over faces (Efron and Tibshirani 1993, ch. 13). How hard a face is cancels out of a difference:
two models whose own intervals overlap can still be told apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from gptface_core.evaluation.intervals import bootstrap
from gptface_core.evaluation.rows import RowValues

# Below these a bootstrap says more than the faces can: 4 faces gained and none lost are beyond its interval, while an
# exact sign test gives them p = 0.06.
MIN_ROWS, MIN_CHANGED = 30, 10
DRAWS = 2000


@dataclass(frozen=True)
class Paired:
    """One metric of both models on the `rows` faces that both were measured on, `changed` of them with another value;
    of the difference a 95 % interval. For every metric more is better.
    """

    metric: str
    rows: int
    changed: int
    champion: float
    challenger: float
    difference: float
    low: float
    high: float

    def sentence(self) -> str:
        """For people: "itm_accuracy 0.812 against 0.744: +0.068 (95 % interval +0.031 to +0.105, 310 faces)"."""
        interval = f"95 % interval {self.low:+.3f} to {self.high:+.3f}, {self.rows:,} faces"
        return f"{self.metric} {self.challenger:.3f} against {self.champion:.3f}: {self.difference:+.3f} ({interval})"


@dataclass(frozen=True)
class Verdict:
    """Whether the challenger takes the champion's place, why, and the figure that decided it (None: not measured)."""

    promoted: bool
    why: str
    figure: Paired | None


def compare(
    champion: RowValues, challenger: RowValues, faces: Collection[str] | None = None, seed: int = 0
) -> list[Paired]:
    """Every metric that both have, over the rows of both that are among `faces` (None: all), in the order of names."""
    allowed = None if faces is None else frozenset(faces)
    found = []
    for metric in sorted(champion.keys() & challenger.keys()):
        shared = champion[metric].keys() & challenger[metric].keys()
        ids = sorted(shared if allowed is None else shared & allowed)
        if not ids:
            continue
        before, after = (np.array([values[metric][i] for i in ids]) for values in (champion, challenger))
        name = hashlib.blake2b(metric.encode(), digest_size=4).digest()
        rng = np.random.default_rng([seed, int.from_bytes(name, "big")])
        low, high = bootstrap(after - before, rng, DRAWS)
        means = (float(before.mean()), float(after.mean()), float((after - before).mean()))
        found.append(Paired(metric, len(ids), int((after != before).sum()), *means, low, high))
    return found


def judge(figures: list[Paired], deciding: str) -> Verdict:
    """Promoted only where the deciding metric is better beyond its interval and no other is worse beyond its own."""
    figure = next((each for each in figures if each.metric == deciding), None)
    if figure is None:
        measured = ", ".join(each.metric for each in figures) or "nothing"
        return Verdict(False, f"{deciding} was not measured of both models (only {measured})", None)
    if figure.rows < MIN_ROWS:
        return Verdict(False, f"{figure.rows} faces are too few to tell by {deciding}: {MIN_ROWS} are needed", figure)
    if figure.low <= 0 or figure.changed < MIN_CHANGED:
        few = f"only {figure.changed} faces with another answer, {MIN_CHANGED} are needed"
        kind = "worse" if figure.high < 0 else "not better beyond its interval" if figure.low <= 0 else few
        return Verdict(False, f"{kind}: {figure.sentence()}", figure)
    worse = [each for each in figures if each.high < 0 and each.rows >= MIN_ROWS]
    if worse:
        return Verdict(False, f"better by {deciding}, but worse: {worse[0].sentence()}", worse[0])
    return Verdict(True, f"better: {figure.sentence()}", figure)
