"""Matching attribute by attribute, on whole pictures and on half-masked ones.

The other caption is the true one with a single attribute turned into its opposite, in the same words otherwise, so
that accuracy on it says what the model knows of that attribute. Half-masked: every second slot, drawn anew per picture,
is hidden; the two captions of a pair meet the same half.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gptface_core.evaluation.claims import contradict
from gptface_core.evaluation.context import Context, NotMeasuredError
from gptface_core.evaluation.figure import Figure
from gptface_core.evaluation.intervals import wilson
from gptface_core.evaluation.itm import match_scores
from gptface_core.evaluation.labels import ATTRIBUTES
from gptface_core.evaluation.registry import Benchmark
from gptface_core.model import MASK_I

_FACES = 500
_MASKED = "_half_masked"


def run(context: Context) -> list[Figure]:
    test, truth, rng = context.test, context.truth, context.rng_for("itm_attributes")
    assert truth is not None
    rows = context.labelled("test")[:_FACES]
    if not rows:
        raise NotMeasuredError("the labels name no face of the test split")
    true = [truth[test.row_ids[row]]["true_caption"] for row in rows]
    opposed = {"accuracy": [truth[test.row_ids[row]]["contradicting_caption"] for row in rows]}
    for attribute in ATTRIBUTES:
        opposed[f"accuracy_{attribute}"] = [contradict(caption, attribute, rng) for caption in true]
    figures = []
    for suffix, codes in {"": test.codes[rows], _MASKED: half_masked(test.codes[rows], rng)}.items():
        own = match_scores(context.bundle, codes, true)
        for metric, captions in opposed.items():
            named = [i for i, caption in enumerate(captions) if caption is not None]
            if named and metric + suffix != "accuracy":  # on whole pictures that is the benchmark itm
                other = match_scores(context.bundle, codes[named], [captions[i] for i in named])
                figures.append(_figure(context, metric + suffix, {k: v[named] for k, v in own.items()}, other))
    return figures


def half_masked(codes: Tensor, rng: np.random.Generator) -> Tensor:
    """Image ids (B, N) with half of the slots hidden, others in each row."""
    order = rng.random(codes.shape).argsort(1)
    return codes.masked_fill(torch.from_numpy(order < codes.shape[1] // 2), MASK_I)


def _figure(context: Context, metric: str, own: dict[str, Any], other: dict[str, Any]) -> Figure:
    """Share of pairs whose true caption scores higher, ties half."""
    count = len(own["match"])
    wins = {name: float((own[name] > other[name]).sum() + 0.5 * (own[name] == other[name]).sum()) for name in own}
    alone = {f"{name}_alone": wins[name] / count for name in ("head", "similarity")}
    low, high = wilson(wins["match"], count)
    return Figure(BENCHMARK.name, metric, wins["match"] / count, low, high, 0.5, count, context.seed, alone)


BENCHMARK = Benchmark("itm_attributes", ("full",), run, needs=("labels",))
