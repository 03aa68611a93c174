"""Linear probe: logistic regression on frozen features, its regularisation chosen on validation, test seen once."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

logger = logging.getLogger(__name__)
Features = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]
# Inverse strengths, weakest fit first: the search ends where validation gets worse twice, the next cost ever more.
STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
_ITERATIONS = 200


@dataclass(frozen=True)
class Fit:
    """`predicted` (R_test,), the `strength` that validation chose (None: a constant), its log-loss there."""

    predicted: Numbers
    strength: float | None
    validation_loss: float | None


def fit_column(
    features: tuple[Features, Features, Features],
    truth: tuple[Numbers, Numbers],
    strengths: Sequence[float] = STRENGTHS,
) -> Fit:
    """One column of targets: train, validation and test features (R, F); train and validation classes (R,).

    Rows of a negative class are unknown and left out. Where the known training rows have one class, it is the answer.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    rows, val_rows = truth[0] >= 0, truth[1] >= 0
    classes = np.unique(truth[0][rows])
    if len(classes) < 2:
        only = int(classes[0]) if len(classes) else 0
        return Fit(np.full(len(features[2]), only), None, None)
    # Validation rows of a class that this (small) training set lacks tell nothing about its regularisation.
    val_rows &= np.isin(truth[1], classes)
    train, val = features[0][rows], features[1][val_rows]
    model = LogisticRegression(max_iter=_ITERATIONS, warm_start=True)
    best, worse = Fit(np.zeros(0, np.int64), None, None), 0
    for strength in strengths:
        with warnings.catch_warnings():
            # Weak regularisation may not converge in so many iterations; validation judges what was reached.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.set_params(C=strength).fit(train, truth[0][rows])
        loss = float(log_loss(truth[1][val_rows], model.predict_proba(val), labels=classes)) if len(val) else 0.0
        if best.validation_loss is None or loss < best.validation_loss:
            best, worse = Fit(model.predict(features[2]).astype(np.int64), strength, loss), 0
        else:
            worse += 1
        if worse == 2:
            break
    return best


def standardise(train: Features, *others: Features) -> tuple[Features, ...]:
    """All of them with the mean and deviation of `train` taken off, float32."""
    mean, deviation = train.mean(0, dtype=np.float64), train.std(0, dtype=np.float64)
    scale = np.where(deviation > 1e-8, deviation, 1.0)
    return tuple(((part - mean) / scale).astype(np.float32) for part in (train, *others))


def probe(
    features: tuple[Features, Features, Features],
    truth: tuple[Numbers, Numbers],
    strengths: Sequence[float] = STRENGTHS,
) -> tuple[Numbers, list[float | None]]:
    """(R_test, T) predictions of every column, and the strengths chosen; truth (R, T) of train and validation."""
    scaled = standardise(*features)
    train, val, test = scaled
    fits = []
    for column in range(truth[0].shape[1]):
        fits.append(fit_column((train, val, test), (truth[0][:, column], truth[1][:, column]), strengths))
        logger.info("probe of column %d of %d: strength %s", column + 1, truth[0].shape[1], fits[-1].strength)
    return np.stack([fit.predicted for fit in fits], 1), [fit.strength for fit in fits]
