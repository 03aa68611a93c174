"""Does the model know which caption belongs to a face? Pairwise: s(true) > s(other), ties half; chance 0.5."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gptface_core.bundle import Bundle
from gptface_core.evaluation.intervals import wilson
from gptface_core.image_tokenizer import batches


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
    """Accuracy with Wilson's interval; beside it what the head and the similarity reach alone."""
    a, b = match_scores(bundle, codes, true), match_scores(bundle, codes, other)
    won = {name: (a[name] > b[name]) + 0.5 * (a[name] == b[name]) for name in a}
    wins = {name: float(rows.sum()) for name, rows in won.items()}
    low, high = wilson(wins["match"], len(true))
    return {
        "value": wins["match"] / len(true),
        "low": low,
        "high": high,
        "chance": 0.5,
        "pairs": len(true),
        "against": against,
        "head_alone": wins["head"] / len(true),
        "similarity_alone": wins["similarity"] / len(true),
        "per_row": won["match"].tolist(),
    }
