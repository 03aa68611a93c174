"""Does the model know which caption belongs to a face? Pairwise: s(true) > s(other), ties half; chance 0.5."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gptface_core.bundle import Bundle
from gptface_core.errors import InputError
from gptface_core.evaluation.calibration import calibration, confusion
from gptface_core.evaluation.context import Context
from gptface_core.evaluation.figure import Figure
from gptface_core.evaluation.intervals import wilson
from gptface_core.evaluation.registry import Benchmark
from gptface_core.image_tokenizer import batches

_FACES = 500

HEADLINE = "itm_accuracy"


def run(context: Context) -> list[Figure]:
    """True against contradicting caption on at most 500 test faces; without labels against another row's caption."""
    test, truth = context.test, context.truth
    if truth is not None:
        rows = context.labelled("test")[:_FACES]
        if not rows:
            raise InputError("the labels name no row of the test split: make them from the same release")
        chosen = [truth[test.row_ids[i]] for i in rows]
        true, other = ([row[f"{kind}_caption"] for row in chosen] for kind in ("true", "contradicting"))
        against = "a contradicting caption"
    else:
        rows, other = _other_captions(test.captions[:_FACES], test.captions, context.rng)
        true, against = [test.captions[i] for i in rows], "the caption of another test face, as found (some untrue)"
    found = pairwise(context.bundle, test.codes[rows], true, other, against)
    context.rows[HEADLINE] = dict(zip([test.row_ids[i] for i in rows], found.pop("per_row"), strict=True))
    value, low, high = (found.pop(name) for name in ("value", "low", "high"))
    return [Figure("itm", HEADLINE, value, low, high, found["chance"], len(rows), context.seed, found)]


BENCHMARK = Benchmark("itm", ("quick", "full"), run, headline=HEADLINE)


def _other_captions(captions: list[str], pool: list[str], rng: np.random.Generator) -> tuple[list[int], list[str]]:
    """Rows that have one, and for each a different caption out of the pool."""
    rows, other = [], []
    for i, caption in enumerate(captions):
        different = [c for c in pool if c != caption]
        if different:
            rows.append(i)
            other.append(different[int(rng.integers(len(different)))])
    return rows, other


@torch.no_grad()
def match_scores(bundle: Bundle, codes: Tensor, captions: list[str]) -> dict[str, npt.NDArray[np.float64]]:
    """For pairs of image ids (B, N) and captions: `match`, the log-odds of matched; `head`, without the similarity
    term; `similarity`, the cosine alone. Each (B,)."""
    model, parts = bundle.model, []
    for rows in batches(len(captions), 100):
        text_ids = bundle.text_ids(captions[rows])
        similarity = (model.text_features(text_ids) * model.image_features(codes[rows])).sum(-1)
        cls = model.encode(text_ids, codes[rows]).cls
        odds = [model.match_logits(cls, s).diff(dim=1)[:, 0] for s in (similarity, torch.zeros_like(similarity))]
        parts.append(torch.stack([*odds, similarity]))
    match, head, cosine = torch.cat(parts, 1).double().numpy()
    return {"match": match, "head": head, "similarity": cosine}


def pairwise(bundle: Bundle, codes: Tensor, true: list[str], other: list[str], against: str) -> dict[str, Any]:
    """Accuracy with Wilson's interval; beside it what the head and the similarity reach alone, and whether s_1 of all
    pairs is calibrated."""
    a, b = match_scores(bundle, codes, true), match_scores(bundle, codes, other)
    won = {name: (a[name] > b[name]) + 0.5 * (a[name] == b[name]) for name in a}
    wins = {name: float(rows.sum()) for name, rows in won.items()}
    low, high = wilson(wins["match"], len(true))
    matched = np.repeat([True, False], len(true))
    probability = 1 / (1 + np.exp(-np.concatenate([a["match"], b["match"]])))
    return {
        "value": wins["match"] / len(true),
        "low": low,
        "high": high,
        "chance": 0.5,
        "pairs": len(true),
        "against": against,
        "head_alone": wins["head"] / len(true),
        "similarity_alone": wins["similarity"] / len(true),
        "calibration": calibration(probability, matched),
        **confusion(_named(matched), _named(probability > 0.5)),
        "per_row": won["match"].tolist(),
    }


def _named(matched: npt.NDArray[np.bool_]) -> npt.NDArray[np.str_]:
    return np.where(matched, "true caption", "other caption")
