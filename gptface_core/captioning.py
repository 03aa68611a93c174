"""Captions of a face: text slots filled in place, a whole caption or the blanks of one that is half written."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from gptface_core.bundle import Bundle
from gptface_core.canvas import Canvas
from gptface_core.editing import DEFAULT_GUIDANCE
from gptface_core.errors import InputError
from gptface_core.model import MASK_T, PAD, SPECIALS
from gptface_core.sampling import SamplingConfig, fill
from gptface_core.shards import Pictures, shrink

BLANK = "___"
DEFAULT_SAMPLING = SamplingConfig(steps=8, temperature=0.7, guidance=DEFAULT_GUIDANCE)
_LENGTHS = (5, 16)  # tokens tried where nothing says how long the caption is


@dataclass(frozen=True)
class Caption:
    """`match`: s_1, the model's belief in the pair."""

    text: str
    match: float


def caption(
    bundle: Bundle,
    rgb: Pictures,
    template: str = "",
    samples: int = 1,
    config: SamplingConfig = DEFAULT_SAMPLING,
    seed: int = 0,
) -> list[Caption]:
    """The `samples` best different captions of an aligned crop (uint8, square, RGB), by s_1, the best first.

    With a template every "___" in it is filled by one token, and the rest stays. Without, captions of several lengths
    are written side by side, since slots are filled in place and a length is not predicted. Fewer come back where
    different draws agree. Raises InputError for a template without a blank, or one longer than the model's context.
    """
    rows = _template_rows(bundle, template) if template else _blank_rows(bundle)
    rows = [row for row in rows for _ in range(samples if len(rows) > 1 else 4 * samples)]
    text = torch.full((len(rows), max(map(len, rows))), PAD)
    for index, row in enumerate(rows):
        text[index, : len(row)] = torch.tensor(row)
    image = bundle.image_ids(shrink(rgb, bundle.image.config.image_px)[None]).expand(len(rows), -1)
    canvas = Canvas(bundle.model, text, image, fills_image=False)
    ids = fill(canvas, text == MASK_T, config, torch.Generator().manual_seed(seed))
    found = sorted(zip(_words(bundle, ids), canvas.matches(ids), strict=True), key=lambda pair: -pair[1])
    best = {text: match for text, match in reversed(found) if text}
    return [Caption(text, match) for text, match in sorted(best.items(), key=lambda pair: -pair[1])[:samples]]


def _blank_rows(bundle: Bundle) -> list[list[int]]:
    shortest, longest = _LENGTHS
    limit = bundle.model.config.max_text_tokens
    return [[MASK_T] * length for length in range(min(shortest, limit), min(longest, limit) + 1)]


def _template_rows(bundle: Bundle, template: str) -> list[list[int]]:
    """One row: the template's tokens, a hidden slot for every blank."""
    parts = re.split("_{3,}", template)
    if len(parts) == 1:
        raise InputError(f"'{template}' has no blank: write {BLANK} where a word is to be filled in")
    row: list[int] = []
    for index, part in enumerate(parts):
        row += [MASK_T] if index else []
        row += [token + SPECIALS for token in bundle.text.encode(part)]
    limit = bundle.model.config.max_text_tokens
    if len(row) > limit:
        raise InputError(f"'{template}' has {len(row)} tokens, this model reads {limit}: shorten it")
    return [row]


def _words(bundle: Bundle, ids: Tensor) -> list[str]:
    """One caption per row of (B, L) ids."""
    return [bundle.text.decode(i - SPECIALS for i in row if i != PAD) for row in ids.tolist()]
