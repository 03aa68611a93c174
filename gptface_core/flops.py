"""Floating-point operations of a training step, as pure functions of configuration and batch shape.

A multiplication with its addition counts as two. Counted are the matrix products alone, as is usual for MFU (PaLM,
Chowdhery et al. 2022, appendix B). Per slot and layer of width D and perceptron ratio r: 6 D D for queries, keys and
values, 2 D D for the output, 4 r D D for the perceptron, 4 S D for scores and weighted sum over S slots. Logits are
taken at hidden slots alone: 2 D V each. The backward pass costs twice the forward pass, so a step is three times its
forward pass. Look-ups, norms, softmax, the optimizer and repeated work count nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gptface_core.config import ArchitectureConfig, ImageTokenizerConfig, Preset

BACKWARD = 3  # forward and backward pass in units of the forward pass
TERA = 1e12
# bf16 peaks in TFLOP/s by a part of the device's name: H200 as measured with large products, others from data sheets.
PEAKS = {"H200": 790.0, "H100": 989.0, "A100": 312.0, "L40S": 362.0, "L4": 121.0, "4090": 165.0}


@dataclass(frozen=True)
class StepShape:
    """What a step of the transformer computes on: rows of masked modelling and of matching, slots, hidden slots.

    `matching` False: the second are contrasted alone (warm-up). `text_slots` counts padded words.
    """

    milm_rows: int
    itm_rows: int
    milm_text_slots: int
    itm_text_slots: int
    hidden_text: float
    hidden_image: float
    matching: bool = True


def encoder_flops(model: ArchitectureConfig, rows: int, slots: int) -> float:
    """One forward pass of `rows` sequences of `slots` slots through the blocks."""
    width = model.width
    per_slot = 2 * width * (4 * width + 2 * model.mlp_ratio * width) + 4 * slots * width
    return float(rows * slots * model.layers * per_slot)


def step_flops(model: ArchitectureConfig, vocabulary: int, codes: int, grid: int, step: StepShape) -> float:
    """Forward and backward pass of one step."""
    image = grid**2
    total = 0.0
    if step.milm_rows:  # [CLS] words [SEP] codes [SEP]
        total += encoder_flops(model, step.milm_rows, step.milm_text_slots + image + 3)
        total += 2 * model.width * (step.hidden_text * vocabulary + step.hidden_image * codes)
    if step.itm_rows:
        total += encoder_flops(model, step.itm_rows, step.itm_text_slots + 2)
        total += encoder_flops(model, step.itm_rows, image + 2)
        total += 2 * step.itm_rows * (2 * model.width * model.projection_dim + step.itm_rows * model.projection_dim)
        if step.matching:
            total += encoder_flops(model, step.itm_rows, step.itm_text_slots + image + 3)
            total += 2 * step.itm_rows * model.width * (model.width + 2)
    return BACKWARD * total


def expected_shape(preset: Preset, text_slots: int) -> StepShape:
    """The main stage's step for captions of `text_slots` words, hidden slots as the masking law has them on average."""
    law, rows = preset.masking, preset.training.milm_batch
    words = (1 - law.image_share) * (law.whole_caption + (1 - law.whole_caption) * law.text_ratio)
    # A scattered mask hides cos(pi u / 2) of the slots, u uniform: 2 / pi on average.
    codes = (1 - law.text_share) * (law.block_share * sum(law.block_ratio) / 2 + (1 - law.block_share) * 2 / math.pi)
    image = preset.tokenizer.grid**2
    return StepShape(
        rows, preset.training.itm_batch, text_slots, text_slots, rows * text_slots * words, rows * image * codes
    )


def tokenizer_step_flops(config: ImageTokenizerConfig, rows: int) -> float:
    """Forward and backward pass of the image auto-encoder on `rows` pictures."""
    pixels, width, depth = 3 * config.patch_px**2, config.width, len(config.levels)
    block = 2 * width * (9 + 4 * width)
    return BACKWARD * float(rows * config.grid**2 * (4 * width * (pixels + depth) + 2 * config.blocks * block))


def peak_flops(device_name: str, given_tflops: float = 0.0) -> float | None:
    """Operations per second that count as full use: as given, else as known for the device's name, else None."""
    if given_tflops:
        return given_tflops * TERA
    return next((peak * TERA for name, peak in PEAKS.items() if name in device_name), None)
