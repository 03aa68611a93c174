"""Faces generated from captions: does the independent classifier find in them what the caption asks for?

Captions are the true ones of held-out faces; each gives one face, guided and unguided from the same seed. The baseline
judges the same faces by each other's captions; the ceiling is the tokenizer's rendering of the captions' own faces.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gptface_core.bundle import Bundle
from gptface_core.canvas import Canvas
from gptface_core.claims import Claims
from gptface_core.evaluation.attribute_classifier import Answers
from gptface_core.evaluation.claims import read_claims
from gptface_core.evaluation.context import Context, NotMeasuredError
from gptface_core.evaluation.figure import Figure
from gptface_core.evaluation.kept import Arrays
from gptface_core.evaluation.registry import Benchmark
from gptface_core.evaluation.statistics import difference
from gptface_core.generating import DEFAULT_SAMPLING
from gptface_core.image_tokenizer import batches
from gptface_core.model import MASK_I
from gptface_core.sampling import SamplingConfig, fill
from gptface_core.shards import Pictures

_SHOWN = 8


def run(context: Context) -> list[Figure]:
    """Share of the named attributes that are found, and the difference that guidance makes; draws `text_to_face`."""
    split, truth = context.split(context.options.split), context.truth
    assert truth is not None
    rows = context.labelled(context.options.split)
    prompts = {row: truth[split.row_ids[row]]["true_caption"] for row in rows}
    rows = [row for row in rows if read_claims(prompts[row])][: context.options.faces]
    if len(rows) < 2:
        raise NotMeasuredError(
            f"needs two {context.options.split} captions that name attributes, there are {len(rows)}"
        )
    captions = [prompts[row] for row in rows]
    made = {
        "guided": _generated(context, "guided", captions, DEFAULT_SAMPLING),
        "unguided": _generated(context, "unguided", captions, replace(DEFAULT_SAMPLING, guidance=None)),
        "tokenizer": context.bundle.decode(split.codes[rows]),
    }
    sheet = [[each[number] for each in made.values()] for number in range(min(_SHOWN, len(rows)))]
    context.draw("text_to_face", sheet, list(made))
    return _figures(context, [read_claims(caption) for caption in captions], made)


def _generated(context: Context, way: str, captions: list[str], config: SamplingConfig) -> Pictures:
    def chunk(rows: slice) -> Arrays:
        seeds = [1000 * context.seed + row for row in range(rows.start, rows.stop)]
        return {"pictures": generate_each(context.bundle, captions[rows], config, seeds)}

    return context.in_chunks(way, len(captions), chunk)["pictures"]


def generate_each(bundle: Bundle, captions: list[str], config: SamplingConfig, seeds: list[int]) -> Pictures:
    """One face (P, P, 3) for each caption and its seed."""
    parts = []
    for rows in batches(len(captions), 32):
        text = bundle.text_ids(captions[rows])
        image = torch.full((len(text), bundle.model.config.image_slots), MASK_I)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds[rows]]
        canvas = Canvas(bundle.model, text, image, fills_image=True)
        parts.append(bundle.decode(fill(canvas, image == MASK_I, config, generators)))
    return np.concatenate(parts)


def _figures(context: Context, claims: list[Claims], made: dict[str, Pictures]) -> list[Figure]:
    figures, shares = [], {}
    for way, pictures in made.items():
        answers = context.classifier.predict(list(pictures))
        shares[way] = _found(claims, answers)
        others = float(_found(claims[1:] + claims[:1], answers).mean())
        by: dict[str, Any] = {name: _by_attribute(claims, answers, name) for name in answers}
        figures.append(context.mean("text_to_face", f"found_{way}", shares[way], baseline=others, by_attribute=by))
    gain, low, high = difference(shares["guided"], shares["unguided"], context.rng_for("text_to_face gain"))
    return [*figures, Figure("text_to_face", "guidance_gain", gain, low, high, 0.0, len(claims), context.seed)]


def _found(claims: list[Claims], answers: Answers) -> npt.NDArray[np.float64]:
    """(R,) share of each caption's attributes that the classifier finds in its face."""
    return np.array(
        [np.mean([answers[name][i] == value for name, value in claim.items()]) for i, claim in enumerate(claims)]
    )


def _by_attribute(claims: list[Claims], answers: Answers, name: str) -> float | None:
    right = [bool(answers[name][i] == claim[name]) for i, claim in enumerate(claims) if name in claim]
    return float(np.mean(right)) if right else None


BENCHMARK = Benchmark(
    "text_to_face", ("full",), run, needs=("labels", "classifier"), options=("faces", "classifier_steps")
)
