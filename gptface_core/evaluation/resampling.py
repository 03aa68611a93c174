"""Bootstrap of classification metrics over test rows, by weights: a draw is how often each row counts.

Rows of one person are drawn together (cluster bootstrap), so that a much-photographed person does not make an interval
look narrower than it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Weights = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]
DRAWS = 1000


def draw_weights(clusters: Sequence[str], rng: np.random.Generator, draws: int = DRAWS) -> Weights:
    """(draws, R): clusters drawn with replacement, as many as there are; a row counts as often as its cluster."""
    names, cluster = np.unique(np.asarray(clusters), return_inverse=True)
    times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    return times[:, cluster].astype(np.float32)


def confusions(truth: Numbers, predicted: Numbers, classes: int, weights: Weights) -> npt.NDArray[np.float64]:
    """(draws, K, K): weight of the rows of true class i that were called j. Rows with a negative truth are unknown."""
    known = truth >= 0
    cells = np.zeros((int(known.sum()), classes * classes), np.float32)
    cells[np.arange(len(cells)), truth[known] * classes + predicted[known]] = 1
    return (weights[:, known] @ cells).astype(np.float64).reshape(-1, classes, classes)


def accuracy(confusion: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(...,) of confusion matrices (..., K, K)."""
    right = np.trace(confusion, axis1=-2, axis2=-1)
    return np.asarray(right / np.maximum(confusion.sum((-2, -1)), 1e-12))


def mean_class_accuracy(confusion: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(...,): the mean of the classes' own accuracies (balanced accuracy); a class without a row does not count."""
    rows = confusion.sum(-1)
    recall = np.diagonal(confusion, axis1=-2, axis2=-1) / np.maximum(rows, 1e-12)
    present = rows > 0
    return np.asarray((recall * present).sum(-1) / np.maximum(present.sum(-1), 1))
