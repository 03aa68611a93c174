"""Parallel decoding with or without guidance by the matching loss (PAPER: guided decoding, steps 1 to 4).

Per step: hidden states are nudged along the gradient of -log s_1 (the matching head's belief in the pair) with a KL
term that keeps the distribution near the model's own (PPLM, Dathathri et al. 2020), then slots are sampled, the most
confident kept, and the rest hidden again. With alpha = 0 the nudge is zero and the result is that of no guidance, bit
for bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gptface_core.model import MASK_I, MASK_T, SPECIALS, GPTFace


@dataclass(frozen=True)
class Guidance:
    """How strongly the matching loss pulls. `alpha` step size, `iterations` K, `blend` g; names as in PPLM."""

    alpha: float = 0.02
    iterations: int = 3
    gamma: float = 1.5
    blend: float = 0.9
    kl_weight: float = 0.01


@dataclass(frozen=True)
class SamplingConfig:
    """`temperature` 0 takes the most likely token. `noise` scales the Gumbel noise of the order of filling."""

    steps: int = 8
    temperature: float = 1.0
    top_k: int = 70
    noise: float = 1.0
    guidance: Guidance | None = None


@dataclass(frozen=True)
class _Canvas:
    """What is being filled: one modality's slots `unknown` (B, S) of a pair."""

    model: GPTFace
    text_ids: Tensor
    image_ids: Tensor
    fills_image: bool

    def logits(self, hidden: Tensor) -> Tensor:
        return self.model.image_logits(hidden) if self.fills_image else self.model.text_logits(hidden)

    def matrix(self) -> Tensor:
        return self.model.image_matrix() if self.fills_image else self.model.text_matrix()

    def hidden(self) -> Tensor:
        states = self.model.encode(self.text_ids, self.image_ids)
        filled = states.image if self.fills_image else states.text
        assert filled is not None
        return filled

    def belief(self, embeddings: Tensor) -> Tensor:
        """log s_1 (B,) of the pair whose filled modality is given as embeddings."""
        model = self.model
        if self.fills_image:
            cls = model.encode(self.text_ids, image_embeddings=embeddings).cls
            similarity = model.text_features(self.text_ids) * model.image_features(None, embeddings)
        else:
            cls = model.encode(self.text_ids, self.image_ids, text_embeddings=embeddings).cls
            similarity = model.text_features(self.text_ids, embeddings) * model.image_features(self.image_ids)
        return F.log_softmax(model.match_logits(cls, similarity.sum(-1)), -1)[:, 1]


def fill_image(
    model: GPTFace,
    text_ids: Tensor,
    image_ids: Tensor,
    unknown: Tensor,
    config: SamplingConfig,
    generator: torch.Generator,
) -> Tensor:
    """Image ids (B, N) with the slots of `unknown` (B, N) filled; all others come back unchanged."""
    return _fill(model, text_ids, image_ids, unknown, config, generator, fills_image=True)


def fill_text(
    model: GPTFace,
    text_ids: Tensor,
    image_ids: Tensor,
    unknown: Tensor,
    config: SamplingConfig,
    generator: torch.Generator,
) -> Tensor:
    """Text ids (B, L) with the slots of `unknown` (B, L) filled: a caption, or a part of one."""
    return _fill(model, text_ids, image_ids, unknown, config, generator, fills_image=False)


def _fill(
    model: GPTFace,
    text_ids: Tensor,
    image_ids: Tensor,
    unknown: Tensor,
    config: SamplingConfig,
    generator: torch.Generator,
    fills_image: bool,
) -> Tensor:
    mask_id, first = (MASK_I, model.first_code) if fills_image else (MASK_T, SPECIALS)
    start = image_ids if fills_image else text_ids
    ids = torch.where(unknown, torch.full_like(start, mask_id), start)
    hidden_slots, count = unknown.clone(), unknown.sum(1)
    for step in range(config.steps):
        canvas = _Canvas(model, ids if not fills_image else text_ids, ids if fills_image else image_ids, fills_image)
        log_p = _distribution(canvas, hidden_slots, config)
        drawn = _sample(log_p, config, generator)
        confidence = log_p.gather(-1, drawn[..., None])[..., 0]
        left = 1 - (step + 1) / config.steps
        confidence = confidence + config.noise * left * _gumbel(confidence.shape, generator)
        ids = torch.where(hidden_slots, drawn + first, ids)
        # N is the number unknown at the start, so the share that stays hidden is of the edit, not of the sequence.
        remain = (count * math.cos(math.pi * (step + 1) / (2 * config.steps)) + 1e-6).floor().long()
        hidden_slots = _least_confident(confidence, hidden_slots, remain if step + 1 < config.steps else 0 * remain)
        ids = torch.where(hidden_slots, torch.full_like(ids, mask_id), ids)
    return ids


def _least_confident(confidence: Tensor, hidden: Tensor, remain: Tensor) -> Tensor:
    """The `remain` (B,) least confident of the hidden slots."""
    rank = confidence.masked_fill(~hidden, math.inf).argsort(1).argsort(1)
    return hidden & (rank < remain[:, None])


def _distribution(canvas: _Canvas, unknown: Tensor, config: SamplingConfig) -> Tensor:
    """Log-probabilities (B, S, V) of every slot, at the temperature, guided where guidance is on."""
    temperature = config.temperature or 1.0
    with torch.no_grad():
        hidden = canvas.hidden()
        log_p = F.log_softmax(canvas.logits(hidden) / temperature, -1)
    if config.guidance is None:
        return log_p
    guidance = config.guidance
    delta = _nudge(canvas, hidden, log_p, unknown, guidance, temperature)
    with torch.no_grad():
        log_q = F.log_softmax(canvas.logits(hidden + delta) / temperature, -1)
        # p^(1-g) q^g up to its constant, written so that q = p gives p exactly.
        return log_p + guidance.blend * (log_q - log_p)


def _nudge(
    canvas: _Canvas, hidden: Tensor, log_p: Tensor, unknown: Tensor, guidance: Guidance, temperature: float
) -> Tensor:
    """Delta (B, S, D) on the last hidden states of the unknown slots, after K normalised gradient steps."""
    known = (
        canvas.model.embed_image(canvas.image_ids) if canvas.fills_image else canvas.model.embed_text(canvas.text_ids)
    )
    known, matrix = known.detach(), canvas.matrix().detach()
    delta = torch.zeros_like(hidden)
    slots = unknown[..., None]
    for _ in range(guidance.iterations):
        delta = delta.detach().requires_grad_(True)
        with torch.enable_grad():
            log_q = F.log_softmax(canvas.logits(hidden + delta * slots) / temperature, -1)
            q = log_q.exp()
            embeddings = torch.where(slots, q @ matrix, known)
            divergence = ((q * (log_q - log_p)).sum(-1) * unknown).sum()
            loss = -canvas.belief(embeddings).sum() + guidance.kl_weight * divergence
            # Towards delta alone: the parameters' gradients are never touched.
            (gradient,) = torch.autograd.grad(loss, delta)
        norm = gradient.flatten(1).norm(dim=1)[:, None, None]
        delta = delta - guidance.alpha * gradient / (norm**guidance.gamma + 1e-8)
    return (delta * slots).detach()


def _sample(log_p: Tensor, config: SamplingConfig, generator: torch.Generator) -> Tensor:
    """Tokens (B, S) out of the `top_k` most likely; the most likely at temperature 0."""
    if config.temperature == 0:
        return log_p.argmax(-1)
    if config.top_k and config.top_k < log_p.shape[-1]:
        least = log_p.topk(config.top_k, -1).values[..., -1:]
        log_p = log_p.masked_fill(log_p < least, -math.inf)
    drawn = torch.multinomial(log_p.exp().flatten(0, -2), 1, generator=generator)
    return drawn.view(log_p.shape[:-1])


def _gumbel(shape: torch.Size, generator: torch.Generator) -> Tensor:
    uniform = torch.rand(shape, generator=generator)
    return -torch.log(-torch.log(uniform.clamp(1e-9, 1 - 1e-7)))
