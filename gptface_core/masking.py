"""Which slots are hidden: pure functions of a numpy generator, so each law can be tested on its own.

Text follows SpanBERT (Joshi et al. 2020): spans of geometric length, replaced 80/10/10 span by span. Image slots are
hidden by rectangles half the time (an edit region or an occluder is one), else scattered with the ratio cos(pi u / 2)
that parallel decoding meets on its way from nothing to a picture (MaskGIT, Chang et al. 2022).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gptface_core.config import MaskingConfig

Flags = npt.NDArray[np.bool_]
Actions = npt.NDArray[np.int8]

# What happens to a text slot. All but CLEAN are predicted.
CLEAN, MASK, RANDOM, KEEP = 0, 1, 2, 3


@dataclass(frozen=True)
class Masks:
    """For a batch: `text` (B, L) actions, `image` (B, N) flags."""

    text: Actions
    image: Flags


def text_spans(length: int, config: MaskingConfig, rng: np.random.Generator) -> Actions:
    """Actions for `length` slots: spans until `text_ratio` of them is covered (at least one slot)."""
    actions = np.zeros(length, np.int8)
    if length == 0:
        return actions
    budget = max(1, round(config.text_ratio * length))
    while (left := budget - int((actions != CLEAN).sum())) > 0:
        span = min(int(rng.geometric(config.span_p)), config.span_cap, left, length)
        start = int(rng.integers(length - span + 1))
        action = (MASK, RANDOM, KEEP)[int(np.searchsorted([0.8, 0.9], rng.random(), side="right"))]
        actions[start : start + span] = action
    return actions


def text_actions(length: int, config: MaskingConfig, rng: np.random.Generator) -> Actions:
    """Spans, or with probability `whole_caption` every slot (the model then writes the caption)."""
    if rng.random() < config.whole_caption:
        return np.full(length, MASK, np.int8)
    return text_spans(length, config, rng)


def image_blocks(grid: int, config: MaskingConfig, rng: np.random.Generator) -> Flags:
    """(grid*grid,) flags: rectangles of at least `block_area_min` slots until a ratio ~ U(block_ratio) is covered."""
    hidden = np.zeros((grid, grid), bool)
    target = max(1, round(rng.uniform(*config.block_ratio) * grid * grid))
    low, high = np.log(config.block_aspect[0]), np.log(config.block_aspect[1])
    while (left := target - int(hidden.sum())) > 0:
        area = rng.uniform(config.block_area_min, max(config.block_area_min, left))
        aspect = float(np.exp(rng.uniform(low, high)))
        height = min(grid, max(1, round(float(np.sqrt(area * aspect)))))
        # The width is rounded up, so that no rectangle has fewer slots than the law says.
        width = min(grid, max(round(float(np.sqrt(area / aspect))), -(-config.block_area_min // height)))
        top, side = int(rng.integers(grid - height + 1)), int(rng.integers(grid - width + 1))
        hidden[top : top + height, side : side + width] = True
    return hidden.reshape(-1)


def image_scattered(slots: int, rng: np.random.Generator) -> Flags:
    """(slots,) flags: ratio cos(pi u / 2), u ~ U(0, 1), at least one slot."""
    count = max(1, round(float(np.cos(np.pi * rng.random() / 2)) * slots))
    hidden = np.zeros(slots, bool)
    hidden[rng.permutation(slots)[:count]] = True
    return hidden


def draw_masks(
    lengths: npt.NDArray[np.int64],
    text_slots: int,
    grid: int,
    config: MaskingConfig,
    rng: np.random.Generator,
    clean_share: float = 0.0,
) -> Masks:
    """Masks for captions of `lengths` tokens (padded to `text_slots`) and their pictures.

    Each sample: image slots alone, text alone, or both. `clean_share` of the samples are left whole; nothing here
    depends on whether caption and picture belong together, so a mask never tells.
    """
    text = np.zeros((len(lengths), text_slots), np.int8)
    image = np.zeros((len(lengths), grid * grid), bool)
    for row, length in enumerate(lengths):
        if rng.random() < clean_share:
            continue
        choice = rng.random()
        if choice >= config.image_share:
            text[row, :length] = text_actions(int(length), config, rng)
        if choice < config.image_share or choice >= config.image_share + config.text_share:
            blocks = rng.random() < config.block_share
            image[row] = image_blocks(grid, config, rng) if blocks else image_scattered(grid * grid, rng)
    return Masks(text, image)
