"""Parallel decoding of image or text slots, guided or not (PAPER: guided decoding).

Per step every hidden slot is drawn, the most confident are kept, and the rest hidden again (MaskGIT, Chang et al. 2022)
until none is left. A slot that was known at the start never changes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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


def fill(
    canvas: Canvas, unknown: Tensor, config: SamplingConfig, generator: torch.Generator | Sequence[torch.Generator]
) -> Tensor:
    """Ids (B, S) of the canvas' filled modality; InputError for a guidance that the model was not trained for.

    With several generators each draws for an equal run of consecutive rows: what is drawn for a pair does then not
    depend on the pairs that are filled beside it.
    """
    check_guidance(canvas.model, config.guidance)
    generators = [generator] if isinstance(generator, torch.Generator) else list(generator)
    if config.best_of == 1:
        return _fill(canvas, unknown, config, generators)
    many = canvas.repeated(config.best_of)
    tried = _fill(many, unknown.repeat_interleave(config.best_of, 0), config, generators)
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


def _fill(canvas: Canvas, unknown: Tensor, config: SamplingConfig, generators: list[torch.Generator]) -> Tensor:
    ids, hidden = canvas.start.masked_fill(unknown, canvas.mask_id), unknown
    for step, remain in enumerate(still_hidden(unknown.sum(1), config.steps)):
        reveals = (remain < hidden.sum(1))[:, None]
        drawing = hidden & reveals
        if not drawing.any():
            continue  # few slots in many steps: this one would reveal nothing
        logits = slot_logits(canvas, ids, drawing, config.guidance, config.temperature or 1.0)
        if not canvas.fills_image:
            logits[:, UNKNOWN] = -math.inf
        dice = _Dice(generators, drawing)
        drawn, log_p = _draw(logits, config, dice)
        noise = config.noise * (1 - (step + 1) / config.steps)
        confidence = torch.full(hidden.shape, math.inf, device=ids.device)
        confidence[drawing] = log_p + noise * dice.gumbel(log_p)
        ids = ids.masked_scatter(drawing, drawn + canvas.first_id)
        # Known slots have infinite confidence, so the least confident are hidden ones.
        least = confidence.argsort(1).argsort(1) < remain[:, None]
        hidden = torch.where(reveals, least, hidden)
        ids = ids.masked_fill(hidden, canvas.mask_id)
    return ids


class _Dice:
    """The randomness of one step: M slots, each drawn by the generator that its row belongs to."""

    def __init__(self, generators: list[torch.Generator], slots: Tensor) -> None:
        counts = slots.sum(1).view(len(generators), -1).sum(1).tolist()
        self._runs = [(generator, count) for generator, count in zip(generators, counts, strict=True) if count]

    def choose(self, probabilities: Tensor) -> Tensor:
        """(M, 1) columns of (M, V)."""
        parts = probabilities.split([count for _, count in self._runs])
        drawn = [torch.multinomial(p, 1, generator=g) for p, (g, _) in zip(parts, self._runs, strict=True)]
        return torch.cat(drawn)

    def gumbel(self, like: Tensor) -> Tensor:
        """(M,) of the standard Gumbel law."""
        uniform = torch.cat([torch.rand(count, generator=g, device=like.device) for g, count in self._runs])
        return -torch.log(-torch.log(uniform.clamp(1e-9, 1 - 1e-7)))


def _draw(logits: Tensor, config: SamplingConfig, dice: _Dice) -> tuple[Tensor, Tensor]:
    """Tokens (M,) out of the `top_k` most likely (the most likely at temperature 0), and their log-probabilities."""
    if config.temperature == 0:
        values, tokens = logits.max(-1)
        return tokens, values - logits.logsumexp(-1)
    top = logits.topk(min(config.top_k or logits.shape[-1], logits.shape[-1]), -1)
    drawn = dice.choose(top.values.softmax(-1))
    return top.indices.gather(-1, drawn)[:, 0], top.values.gather(-1, drawn)[:, 0] - logits.logsumexp(-1)
