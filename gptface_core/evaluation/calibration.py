"""Do probabilities mean what they say? Of the pairs called matched with 0.8, eight in ten should be."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 10


def calibration(probability: npt.NDArray[np.float64], happened: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Reliability diagram over BINS equal bins (those that are empty are left out) of R predictions, and `error`: the
    expected calibration error (Naeini et al. 2015), the mean distance of prediction and share, weighted by samples."""
    place = np.minimum((probability * BINS).astype(int), BINS - 1)
    bins = []
    for number in np.unique(place):
        inside = place == number
        means = float(probability[inside].mean()), float(happened[inside].mean())
        bins.append({"predicted": means[0], "observed": means[1], "samples": int(inside.sum())})
    error = sum(b["samples"] * abs(b["predicted"] - b["observed"]) for b in bins) / len(place)
    return {"bins": bins, "error": error}


def confusion(truth: npt.NDArray[Any], said: npt.NDArray[Any]) -> dict[str, Any]:
    """`confusion`: counts, true classes in rows, what was said in columns; `classes`: their names, in that order."""
    from sklearn.metrics import confusion_matrix

    classes = np.unique(np.concatenate([truth, said]))
    table = confusion_matrix(truth, said, labels=classes)
    return {"classes": [str(name) for name in classes], "confusion": table.tolist()}
