"""What attribute and expression benchmarks share: targets, scores with intervals, and figures.

A problem has one or several columns of the same classes: eight attributes of two, or one expression of seven. Scores
are the mean over columns of accuracy and of mean-class (balanced) accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gptface_core.datasets import FaceSet
from gptface_core.datasets.faceset import UNKNOWN_CLASS
from gptface_core.errors import InputError
from gptface_core.evaluation.figure import Figure
from gptface_core.evaluation.intervals import percentiles
from gptface_core.evaluation.resampling import (
    Numbers,
    Weights,
    accuracy,
    confusions,
    draw_weights,
    mean_class_accuracy,
)
from gptface_core.evaluation.subgroups import by_subgroup

ABSENT_PRESENT = ("absent", "present")


@dataclass(frozen=True)
class Problem:
    """`balanced` is what mean-class accuracy is called in this benchmark."""

    benchmark: str
    columns: tuple[str, ...]
    classes: tuple[str, ...]
    balanced: str

    def truth(self, faces: FaceSet) -> Numbers:
        """(R, T) classes by number, UNKNOWN_CLASS where they are not known."""
        if self.benchmark == "expression":
            return faces.class_numbers()[:, None]
        table = faces.attribute_table()
        return np.where(np.isnan(table), UNKNOWN_CLASS, np.nan_to_num(table)).astype(np.int64)


def attribute_problem(faces: FaceSet) -> Problem:
    """Every attribute of the set. Raises InputError for a set without attributes."""
    if not faces.attributes:
        raise InputError(f"{faces.name} has no attributes: choose another data set")
    return Problem("attributes", faces.attributes, ABSENT_PRESENT, "balanced_accuracy")


def expression_problem(faces: FaceSet) -> Problem:
    """The expression of the set. Raises InputError for a set without classes."""
    if not faces.classes:
        raise InputError(f"{faces.name} has no expressions: choose another data set")
    return Problem("expression", ("expression",), faces.classes, "mean_class_accuracy")


@dataclass(frozen=True)
class Attempt:
    """One way to predict: `predicted` (S, R, T), one answer per seed, and what else is worth telling."""

    method: str
    mode: str  # probe, finetuned, scratch, majority
    predicted: npt.NDArray[np.int64]
    fraction: float = 1.0  # of the training set
    details: Mapping[str, Any] | None = None

    @property
    def prefix(self) -> str:
        """Of the metric's name: `probe_`, `probe_10pct_`."""
        return f"{self.mode}_" if self.fraction == 1 else f"{self.mode}_{100 * self.fraction:g}pct_"


def figures(
    problem: Problem,
    faces: FaceSet,
    attempt: Attempt,
    parts: Mapping[str, npt.NDArray[np.bool_]] | None = None,
    seed: int = 0,
) -> list[Figure]:
    """Accuracy and mean-class accuracy on the test items `faces`, each a Figure with a 95 % interval.

    Values are means over seeds and columns; intervals are of that mean, over people drawn anew. `parts` are test rows
    (R,) to be scored by themselves as well (without look-alikes of training pictures, for one): in `details`.
    """
    truth = problem.truth(faces)
    weights = draw_weights(faces.people(), np.random.default_rng([seed, 0xB007]))
    everyone = np.ones((1, len(faces)), np.float32)
    exact, drawn = (_scores(problem, truth, attempt.predicted, w) for w in (everyone, weights))
    baselines = {"accuracy": _largest_class(truth), problem.balanced: 1 / len(problem.classes)}
    details = {
        "set": faces.name,
        "method": attempt.method,
        "mode": attempt.mode,
        "fraction": attempt.fraction,
        **(attempt.details or {}),
        "columns": _columns(problem, truth, exact),
        **_by_class(problem, truth, attempt.predicted),
        "subgroups": _subgroups(truth, attempt.predicted, faces),
        "parts": {name: _part(problem, truth, attempt, rows) for name, rows in (parts or {}).items()},
    }
    made = []
    for place, metric in enumerate(("accuracy", problem.balanced)):
        by_seed = np.nanmean(exact[place][:, :, 0], axis=1)
        low, high = percentiles(np.nanmean(drawn[place], axis=(0, 1)))
        spread = {"by_seed": by_seed.tolist(), "deviation": float(by_seed.std(ddof=1)) if len(by_seed) > 1 else None}
        value, name = float(by_seed.mean()), attempt.prefix + metric
        table = {**details, **spread}
        made.append(Figure(problem.benchmark, name, value, low, high, baselines[metric], len(faces), seed, table))
    return made


def _scores(
    problem: Problem, truth: Numbers, predicted: npt.NDArray[np.int64], weights: Weights
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Accuracy and mean-class accuracy, each (S, T, draws); NaN for a column without a known row."""
    seeds, columns = len(predicted), len(problem.columns)
    scores = np.full((2, seeds, columns, len(weights)), np.nan)
    for s in range(seeds):
        for t in range(columns):
            if (truth[:, t] >= 0).any():
                table = confusions(truth[:, t], predicted[s, :, t], len(problem.classes), weights)
                scores[0, s, t], scores[1, s, t] = accuracy(table), mean_class_accuracy(table)
    return scores[0], scores[1]


def _largest_class(truth: Numbers) -> float:
    """Mean over columns of the share of the most frequent class among the test rows: no constant answer beats it."""
    shares = []
    for column in truth.T:
        known = column[column >= 0]
        if len(known):
            shares.append(np.bincount(known).max() / len(known))
    return float(np.mean(shares)) if shares else float("nan")


def _columns(problem: Problem, truth: Numbers, exact: tuple[Any, Any]) -> dict[str, dict[str, Any]]:
    """By column: rows, share of the last class, accuracy and mean-class accuracy (means over seeds)."""
    table = {}
    for t, name in enumerate(problem.columns):
        known = truth[:, t][truth[:, t] >= 0]
        if len(known):
            values = [float(score[:, t, 0].mean()) for score in exact]
            present = {"present": float(known.mean())} if problem.classes == ABSENT_PRESENT else {}
            table[name] = {"rows": len(known), **present, "accuracy": values[0], problem.balanced: values[1]}
    return table


def _by_class(problem: Problem, truth: Numbers, predicted: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Of a problem with one column: the confusion matrix of the first seed, true classes in rows, and each recall."""
    if len(problem.columns) > 1:
        return {}
    from sklearn.metrics import confusion_matrix

    known = truth[:, 0] >= 0
    numbers = range(len(problem.classes))
    table = confusion_matrix(truth[known, 0], predicted[0, known, 0], labels=list(numbers))
    recall = {problem.classes[k]: float(table[k, k] / max(table[k].sum(), 1)) for k in numbers}
    return {"classes": list(problem.classes), "confusion": table.tolist(), "recall": recall}


def _subgroups(truth: Numbers, predicted: npt.NDArray[np.int64], faces: FaceSet) -> dict[str, Any]:
    """Share of right answers by subgroup, of the first seed: an item counts once, however many columns it has."""
    known = truth >= 0
    answers = known.sum(1)
    right = (known & (predicted[0] == truth)).sum(1) / np.where(answers, answers, np.nan)
    return by_subgroup(right, [item.groups for item in faces.items])


def _part(problem: Problem, truth: Numbers, attempt: Attempt, rows: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Scores of some of the test rows alone."""
    weights = rows[None].astype(np.float32)
    hidden = np.where(rows[:, None], truth, UNKNOWN_CLASS)
    scores = _scores(problem, hidden, attempt.predicted, weights)
    names = ("accuracy", problem.balanced)
    return {"rows": int(rows.sum()), **{n: float(np.nanmean(s)) for n, s in zip(names, scores, strict=True)}}


def subset(count: int, fraction: float, seed: int) -> Numbers:
    """Sorted places of a random share of `count` training items, at least one; all of them for 1."""
    if not 0 < fraction <= 1:
        raise InputError(f"fraction {fraction}: choose above 0, up to 1")
    if fraction == 1:
        return np.arange(count)
    rng = np.random.default_rng([seed, 0x5AB5])
    return np.sort(rng.choice(count, max(1, round(fraction * count)), replace=False))


def compare(
    problem: Problem, faces: FaceSet, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64], seed: int = 0
) -> dict[str, dict[str, float]]:
    """Paired: `first` minus `second` (each (S, R, T)) with 95 % intervals over the same draws of people."""
    truth = problem.truth(faces)
    weights = draw_weights(faces.people(), np.random.default_rng([seed, 0xB007]))
    everyone = np.ones((1, len(faces)), np.float32)
    result = {}
    for place, metric in enumerate(("accuracy", problem.balanced)):
        exact, drawn = (
            np.nanmean(_scores(problem, truth, first, w)[place], axis=(0, 1))
            - np.nanmean(_scores(problem, truth, second, w)[place], axis=(0, 1))
            for w in (everyone, weights)
        )
        low, high = percentiles(drawn)
        result[metric] = {"value": float(exact[0]), "low": low, "high": high}
    return result


def constant_prediction(problem: Problem, train: Sequence[Any] | Numbers, rows: int) -> npt.NDArray[np.int64]:
    """(1, rows, T): each column's most frequent class among the known training rows (R, T)."""
    columns = np.asarray(train).T
    most = [np.bincount(c[c >= 0], minlength=len(problem.classes)).argmax() if (c >= 0).any() else 0 for c in columns]
    return np.tile(np.array(most, np.int64), (1, rows, 1))
