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
from gptface_core.evaluation.itm import match_scores
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
    figures = []
    codes = test.codes[pool]
    for percent in _SHUFFLED:
        asked = shuffled(captions[:count], percent / 100, rng)
        ranking = rank(context.bundle, codes, asked)
        suffix = f"_shuffled_{percent}" if percent else ""
        for k in _RANKS:
            found = (ranking[:, :k] == np.arange(count)[:, None]).any(1)
            chance = k / len(pool)
            figures.append(context.share("retrieval", f"r_at_{k}{suffix}", found, baseline=chance, pool=len(pool)))
        if truth and not percent:
            fitting = _fits(asked, known)
            first = fitting[np.arange(count), ranking[:, 0]]
            figures.append(context.share("retrieval", "fits_at_1", first, baseline=float(fitting.mean())))
    return figures


def shuffled(captions: list[str], share: float, rng: np.random.Generator) -> list[str]:
    """The captions, of which a share is each given another one's (a cycle: none keeps its own place)."""
    moved = rng.permutation(len(captions))[: round(share * len(captions))]
    result = list(captions)
    for to, source in zip(moved, np.roll(moved, 1), strict=True):
        result[to] = captions[source]
    return result


@torch.no_grad()
def rank(bundle: Bundle, codes: torch.Tensor, captions: list[str]) -> Ranking:
    """(Q, at most 50) rows of the pool (R, N), the best match first."""
    model = bundle.model
    pictures = torch.cat([model.image_features(codes[rows]) for rows in batches(len(codes), 100)])
    words = torch.cat([model.text_features(bundle.text_ids([caption])) for caption in captions])
    near = (words @ pictures.T).topk(min(_NEAREST, len(codes)), 1).indices
    repeated = [caption for caption in captions for _ in range(near.shape[1])]
    scores = match_scores(bundle, codes[near.flatten()], repeated)["match"].reshape(near.shape)
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(near.numpy(), order, 1)


def _fits(captions: list[str], faces: list[dict[str, object]]) -> npt.NDArray[np.bool_]:
    """(Q, R) whether a face has all that a caption says."""
    claims = [read_claims(caption) for caption in captions]
    return np.array([[_agrees(claim, face) for face in faces] for claim in claims])


def _agrees(claim: dict[str, object], face: dict[str, object]) -> bool:
    right, said = true_share(claim, face)
    return bool(face) and right == said


BENCHMARK = Benchmark("retrieval", ("full",), run)
