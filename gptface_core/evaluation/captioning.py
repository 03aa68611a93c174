"""Captions of held-out faces: do guided ones name more that is true than unguided ones?

Both write a caption of the same length for the same face from the same seed, every slot hidden at the start; lengths
are drawn from those of the training captions. Beside them what `gptface caption` does unguided: captions of several
lengths, the best by s_1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gptface_core.bundle import Bundle
from gptface_core.canvas import Canvas
from gptface_core.captioning import DEFAULT_SAMPLING, caption
from gptface_core.evaluation.claims import read_claims, true_share
from gptface_core.evaluation.context import Context, NotMeasuredError
from gptface_core.evaluation.figure import Figure
from gptface_core.evaluation.kept import Arrays
from gptface_core.evaluation.labels import ATTRIBUTES
from gptface_core.evaluation.registry import Benchmark
from gptface_core.evaluation.statistics import difference
from gptface_core.image_tokenizer import batches
from gptface_core.model import MASK_T, PAD, SPECIALS
from gptface_core.sampling import SamplingConfig, fill
from gptface_core.shards import Pictures

_FACES, _RANKED = 300, 60
_UNGUIDED = SamplingConfig(DEFAULT_SAMPLING.steps, DEFAULT_SAMPLING.temperature)
_EXAMPLES = 8


def run(context: Context) -> list[Figure]:
    split, truth = context.split(context.options.split), context.truth
    assert truth is not None
    rows = context.labelled(context.options.split)[: min(_FACES, 3 * context.options.faces // 2)]
    if len(rows) < 2:
        raise NotMeasuredError(f"needs two labelled {context.options.split} faces, there are {len(rows)}")
    labels = [truth[split.row_ids[row]] for row in rows]
    lengths = _lengths(context, len(rows))
    ways = {"guided": DEFAULT_SAMPLING, "unguided": _UNGUIDED}
    written = {name: _written(context, name, split.codes[rows], lengths, config) for name, config in ways.items()}
    ranked = [_best(context.bundle, split.pictures[row], context.seed) for row in rows[:_RANKED]]
    return _figures(context, {**written, "ranked": ranked}, labels)


def _written(
    context: Context, way: str, codes: torch.Tensor, lengths: npt.NDArray[np.int64], config: SamplingConfig
) -> list[str]:
    def chunk(rows: slice) -> Arrays:
        seeds = [1000 * context.seed + row for row in range(rows.start, rows.stop)]
        return {"captions": np.array(write(context.bundle, codes[rows], lengths[rows], config, seeds), np.str_)}

    found: list[str] = context.in_chunks(way, len(codes), chunk)["captions"].tolist()
    return found


def write(
    bundle: Bundle, codes: torch.Tensor, lengths: npt.NDArray[np.int64], config: SamplingConfig, seeds: list[int]
) -> list[str]:
    """A caption of so many tokens for each face (image ids (R, N)) and its seed."""
    captions = []
    for rows in batches(len(codes), 64):
        sizes = torch.from_numpy(lengths[rows])
        text = torch.where(torch.arange(int(sizes.max())) < sizes[:, None], MASK_T, PAD)
        canvas = Canvas(bundle.model, text, codes[rows], fills_image=False)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds[rows]]
        ids = fill(canvas, text == MASK_T, config, generators)
        captions += [bundle.text.decode(i - SPECIALS for i in row if i != PAD) for row in ids.tolist()]
    return captions


def _lengths(context: Context, count: int) -> npt.NDArray[np.int64]:
    """Tokens of as many training captions, drawn; those that name nothing are no captions of a face."""
    rng, limit = context.rng_for("captioning"), context.bundle.model.config.max_text_tokens
    named = [text for text in context.train.captions if read_claims(text)] or context.train.captions
    drawn = [named[i] for i in rng.integers(len(named), size=count)]
    return np.array([max(1, len(context.bundle.text.encode(text, limit))) for text in drawn])


def _best(bundle: Bundle, picture: Pictures, seed: int) -> str:
    found = caption(bundle, picture, config=_UNGUIDED, seed=seed)
    return found[0].text if found else ""


def _figures(context: Context, written: dict[str, list[str]], labels: Sequence[dict[str, Any]]) -> list[Figure]:
    """Share of the known attributes that a caption names rightly, of what it names the share that is true, and the
    difference that guidance makes."""
    named: dict[str, npt.NDArray[np.float64]] = {}
    figures = []
    for way, captions in written.items():
        counts = [true_share(read_claims(text), label) for text, label in zip(captions, labels, strict=False)]
        known = [sum(label[name] is not None for name in ATTRIBUTES) for label in labels[: len(captions)]]
        named[way] = np.array([right / max(1, total) for (right, _), total in zip(counts, known, strict=True)])
        examples = {"examples": captions[:_EXAMPLES]}
        figures.append(context.mean("captioning", f"named_truly_{way}", named[way], **examples))
        claims = [right / said for right, said in counts if said]
        if claims:
            figures.append(context.mean("captioning", f"true_of_named_{way}", claims))
    gain, low, high = difference(named["guided"], named["unguided"], context.rng_for("captioning gain"))
    count = len(named["guided"])
    return [*figures, Figure("captioning", "guidance_gain", gain, low, high, 0.0, count, context.seed)]


BENCHMARK = Benchmark("captioning", ("full",), run, needs=("labels",), options=("faces",))
