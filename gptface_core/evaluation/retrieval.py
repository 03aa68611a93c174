"""Text-to-image retrieval: faces of a pool ranked by a caption.

The pool is at most 1,000 held-out faces; the 50 nearest by similarity are ranked anew by the matching head. A query's
own face is the only right answer to R@k, although short captions fit many faces: with labels, `fits_at_1` counts a
first face that has all the caption says. With a share of shuffled captions, that many queries are another face's.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from gptface_core.bundle import Bundle
from gptface_core.evaluation.claims import read_claims, true_share
from gptface_core.evaluation.context import Context, NotMeasuredError
from gptface_core.evaluation.figure import Figure
from gptface_core.evaluation.registry import Benchmark
from gptface_core.image_tokenizer import batches

_POOL, _QUERIES, _NEAREST, _RANKS = 1000, 100, 50, (1, 5, 10)
_SHUFFLED = (0, 50)  # per cent
Ranking = npt.NDArray[np.int64]


def run(context: Context) -> list[Figure]:
    rng, test, truth = context.rng_for("retrieval"), context.test, context.truth or {}
    pool = rng.permutation(len(test.row_ids))[:_POOL]
    known = [truth.get(test.row_ids[row], {}) for row in pool]
    captions = [known[i].get("true_caption") or test.captions[row] for i, row in enumerate(pool)]
    count = min(_QUERIES, len(pool))
    if count < 2:
        raise NotMeasuredError(f"needs two held-out faces, there are {len(pool)}")
    ranking = rank(context.bundle, test.codes[pool], captions[:count])
    figures = []
    for percent in _SHUFFLED:
        asked = ranking[shuffled(count, percent / 100, rng)]
        suffix = f"_shuffled_{percent}" if percent else ""
        for k in _RANKS:
            found = (asked[:, :k] == np.arange(count)[:, None]).any(1)
            chance = k / len(pool)
            figures.append(context.share("retrieval", f"r_at_{k}{suffix}", found, baseline=chance, pool=len(pool)))
    if truth:
        fitting = _fits(captions[:count], known)
        first = fitting[np.arange(count), ranking[:, 0]]
        figures.append(context.share("retrieval", "fits_at_1", first, baseline=float(fitting.mean())))
    return figures


def shuffled(count: int, share: float, rng: np.random.Generator) -> Ranking:
    """Whose caption each query has: its own face's, but for a share that are each given another's (in a cycle)."""
    moved = rng.permutation(count)[: round(share * count)]
    owners = np.arange(count)
    owners[moved] = np.roll(moved, 1)
    return owners


@torch.no_grad()
def rank(bundle: Bundle, codes: torch.Tensor, captions: list[str]) -> Ranking:
    """(Q, at most 50) rows of the pool (R, N), the best match first."""
    model, found = bundle.model, []
    pictures = torch.cat([model.image_features(codes[rows]) for rows in batches(len(codes), 100)])
    for caption in captions:
        words = bundle.text_ids([caption])
        near = (model.text_features(words) @ pictures.T)[0].topk(min(_NEAREST, len(codes)))
        cls = model.encode(words.expand(len(near.indices), -1), codes[near.indices]).cls
        odds = model.match_logits(cls, near.values).diff(dim=1)[:, 0]
        found.append(near.indices[odds.argsort(descending=True, stable=True)].numpy())
    return np.stack(found)


def _fits(captions: list[str], faces: list[dict[str, object]]) -> npt.NDArray[np.bool_]:
    """(Q, R) whether a face has all that a caption says."""
    claims = [read_claims(caption) for caption in captions]
    return np.array([[_agrees(claim, face) for face in faces] for claim in claims])


def _agrees(claim: dict[str, object], face: dict[str, object]) -> bool:
    right, said = true_share(claim, face)
    return bool(face) and right == said


BENCHMARK = Benchmark("retrieval", ("full",), run)
