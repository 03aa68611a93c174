"""Parallel decoding of image or text slots, guided or not (PAPER: guided decoding).

Per step every hidden slot is drawn, the most confident are kept, and the rest hidden again (MaskGIT, Chang et al. 2022)
until none is left. A slot that was known at the start never changes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gptface_core.canvas import Canvas
from gptface_core.guidance import AnyGuidance, ClassifierFree, Guidance, OneGradient, check_guidance, slot_logits
from gptface_core.model import GPTFace
from gptface_core.text_tokenizer import UNKNOWN

__all__ = ["ClassifierFree", "Guidance", "OneGradient", "SamplingConfig", "fill", "fill_image", "fill_text"]


@dataclass(frozen=True)
class SamplingConfig:
    """`temperature` 0 takes the most likely token. `noise` scales the Gumbel noise of the order of filling.

    `best_of` R: the best of R fillings by s_1 (a baseline to guidance, at R times the cost).
    """

    steps: int = 8
    temperature: float = 1.0
    top_k: int = 70
    noise: float = 1.0
    guidance: AnyGuidance | None = None
    best_of: int = 1


def fill_image(
    model: GPTFace,
    text_ids: Tensor,
    image_ids: Tensor,
    unknown: Tensor,
    config: SamplingConfig,
    generator: torch.Generator,
) -> Tensor:
    """Image ids (B, N) with the slots of `unknown` (B, N) filled; all others come back unchanged."""
    return fill(Canvas(model, text_ids, image_ids, fills_image=True), unknown, config, generator)


def fill_text(
    model: GPTFace,
    text_ids: Tensor,
    image_ids: Tensor,
    unknown: Tensor,
    config: SamplingConfig,
    generator: torch.Generator,
) -> Tensor:
    """Text ids (B, L) with the slots of `unknown` (B, L) filled by words of the vocabulary, never by `<unk>`."""
    return fill(Canvas(model, text_ids, image_ids, fills_image=False), unknown, config, generator)


def fill(canvas: Canvas, unknown: Tensor, config: SamplingConfig, generator: torch.Generator) -> Tensor:
    """Ids (B, S) of the canvas' filled modality; InputError for a guidance that the model was not trained for."""
    check_guidance(canvas.model, config.guidance)
    if config.best_of == 1:
        return _fill(canvas, unknown, config, generator)
    many = canvas.repeated(config.best_of)
    tried = _fill(many, unknown.repeat_interleave(config.best_of, 0), config, generator)
    with torch.no_grad():
        best = many.log_match(tried).view(-1, config.best_of).argmax(1)
    return tried.view(len(best), config.best_of, -1)[torch.arange(len(best)), best]


def still_hidden(count: Tensor, steps: int) -> Tensor:
    """(T, B): slots left hidden after each step, floor(N cos(pi t / 2T)) of N = `count` (B,), the unknown at the start.

    Not of the sequence's length: an edit of ten slots would then reveal nothing until the last step.
    """
    t = torch.arange(1, steps + 1, dtype=torch.float64, device=count.device)
    left = (count * torch.cos(math.pi * t / (2 * steps))[:, None] + 1e-9).floor().long()
    left[-1] = 0
    return left


def _fill(canvas: Canvas, unknown: Tensor, config: SamplingConfig, generator: torch.Generator) -> Tensor:
    ids, hidden = canvas.start.masked_fill(unknown, canvas.mask_id), unknown
    for step, remain in enumerate(still_hidden(unknown.sum(1), config.steps)):
        if torch.equal(remain, hidden.sum(1)):
            continue  # few slots in many steps: this one would reveal nothing
        logits = slot_logits(canvas, ids, hidden, config.guidance, config.temperature or 1.0)
        if not canvas.fills_image:
            logits[:, UNKNOWN] = -math.inf
        drawn, log_p = _draw(logits, config, generator)
        noise = config.noise * (1 - (step + 1) / config.steps)
        confidence = torch.full(hidden.shape, math.inf, device=ids.device)
        confidence[hidden] = log_p + noise * _gumbel(log_p, generator)
        ids = ids.masked_scatter(hidden, drawn + canvas.first_id)
        # Known slots have infinite confidence, so the least confident are hidden ones.
        hidden = confidence.argsort(1).argsort(1) < remain[:, None]
        ids = ids.masked_fill(hidden, canvas.mask_id)
    return ids


def _draw(logits: Tensor, config: SamplingConfig, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Tokens (M,) out of the `top_k` most likely (the most likely at temperature 0), and their log-probabilities."""
    if config.temperature == 0:
        values, tokens = logits.max(-1)
        return tokens, values - logits.logsumexp(-1)
    top = logits.topk(min(config.top_k or logits.shape[-1], logits.shape[-1]), -1)
    drawn = torch.multinomial(top.values.softmax(-1), 1, generator=generator)
    return top.indices.gather(-1, drawn)[:, 0], top.values.gather(-1, drawn)[:, 0] - logits.logsumexp(-1)


def _gumbel(like: Tensor, generator: torch.Generator) -> Tensor:
    uniform = torch.rand(like.shape, generator=generator, device=like.device)
    return -torch.log(-torch.log(uniform.clamp(1e-9, 1 - 1e-7)))
