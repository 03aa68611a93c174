"""Linear probe: what a logistic regression reads off the frozen model's hidden states."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from gptface_core.bundle import Bundle
from gptface_core.errors import InputError
from gptface_core.evaluation.calibration import confusion
from gptface_core.evaluation.context import Context
from gptface_core.evaluation.figure import Figure
from gptface_core.evaluation.intervals import percentiles
from gptface_core.evaluation.labels import ATTRIBUTES, PROBED
from gptface_core.evaluation.registry import Benchmark
from gptface_core.evaluation.rows import RowValues, mean_rows
from gptface_core.image_tokenizer import batches

Features = npt.NDArray[np.float64]

HEADLINE = "probe_balanced_accuracy"


def run(context: Context) -> list[Figure]:
    """The mean of the balanced accuracies over PROBED; each attribute's own in the details."""
    truth = context.truth
    assert truth is not None
    by_attribute: dict[str, dict[str, Any]] = {}
    per_row: RowValues = {}
    splits = (context.train, context.test)
    features = (frozen_features(context.bundle, splits[0].codes), frozen_features(context.bundle, splits[1].codes))
    for attribute in ATTRIBUTES:
        rows = [
            [i for i, row_id in enumerate(split.row_ids) if truth.get(row_id, {}).get(attribute) is not None]
            for split in splits
        ]
        values = [[truth[s.row_ids[i]][attribute] for i in r] for s, r in zip(splits, rows, strict=True)]
        if min(len(set(values[0])), len(set(values[1]))) > 1:
            pairs = (features[0][rows[0]], features[1][rows[1]]), (values[0], values[1])
            found = probe(*pairs, context.rng)
            per_row[attribute] = dict(zip([splits[1].row_ids[i] for i in rows[1]], found.pop("per_row"), strict=True))
            by_attribute[attribute] = found
    headline = [by_attribute[a] for a in PROBED if a in by_attribute]
    if not headline:
        raise InputError("the labels know no attribute with two values in both train and test: nothing to probe")
    value, low, high, chance = (
        float(np.mean([entry[key] for entry in headline])) for key in ("value", "low", "high", "chance")
    )
    context.rows[HEADLINE] = mean_rows({a: per_row[a] for a in PROBED if a in per_row})
    details = {"chance": chance, "attributes": by_attribute}
    return [Figure("probe", HEADLINE, value, low, high, chance, None, context.seed, details)]


BENCHMARK = Benchmark("probe", ("quick", "full"), run, needs=("labels",), headline=HEADLINE)


@torch.no_grad()
def frozen_features(bundle: Bundle, codes: Tensor) -> Features:
    """(R, F) of image ids (R, N): the last hidden states, averaged over a 4 x 4 grid of cells.

    Pictures alone, no caption: nothing but the face can be read.
    """
    model, grid, parts = bundle.model, bundle.model.config.grid, []
    for rows in batches(len(codes), 100):
        states = model.encode(image_ids=codes[rows]).image
        assert states is not None
        cells = states.transpose(1, 2).unflatten(2, (grid, grid))
        parts.append(F.adaptive_avg_pool2d(cells, min(4, grid)).flatten(1))
    return torch.cat(parts).double().numpy()


def probe(
    features: tuple[Features, Features], labels: tuple[list[Any], list[Any]], rng: np.random.Generator
) -> dict[str, Any]:
    """Balanced accuracy on held-out rows with a bootstrap interval over them: train and test as pairs.

    `per_row`: for each held-out row a number, the mean of which is the value.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train_labels, test_labels = np.asarray(labels[0]), np.asarray(labels[1])
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.03, max_iter=200))
    said = classifier.fit(features[0], train_labels).predict(features[1])
    right = said == test_labels
    value = balanced_accuracy(right, test_labels)
    draws = []
    for _ in range(300):
        rows = rng.integers(len(right), size=len(right))
        draws.append(balanced_accuracy(right[rows], test_labels[rows]))
    low, high = percentiles(np.array(draws))
    _, kinds, counts = np.unique(test_labels, return_inverse=True, return_counts=True)
    return {
        "value": value,
        "low": low,
        "high": high,
        "chance": 1 / len(counts),
        "rows": float(len(right)),
        **confusion(test_labels, said),
        "per_row": (right * len(right) / (len(counts) * counts[kinds])).tolist(),
    }


def balanced_accuracy(right: npt.NDArray[np.bool_], labels: npt.NDArray[Any]) -> float:
    """Mean of the classes' own accuracies."""
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))
