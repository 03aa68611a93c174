"""What pulls a filling towards its condition: the matching loss (the paper's way), and the baselines beside it.

Each turns the slots' logits into others of the same shape, and leaves them bit for bit where its strength is nil.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gptface_core.canvas import Canvas
from gptface_core.config import MaskingConfig
from gptface_core.errors import InputError
from gptface_core.model import GPTFace


@dataclass(frozen=True)
class Guidance:
    """By the matching loss (PAPER: guided decoding, step 1): hidden states are nudged along the gradient of
    J = -log s_1 + kl_weight KL(q || p), as PPLM does (Dathathri et al. 2020).

    `alpha` step size, `iterations` K, `gamma` exponent of the gradient's norm, `blend` g: the guided distribution's
    share, geometrically. Alpha: PPLM's 0.02 hardly moves a face. Preset demo, "a person with eyeglasses", 32 edits of
    bare drawn eyes, at 0, 0.02, 0.3, 1, 3: mean s_1 0.44, 0.45, 0.48, 0.51, 0.52; glasses by an independent classifier
    0.50, 0.53, 0.62, 0.44, 0.41 (each +-0.17): s_1 can be pleased without glasses, so more is not better.
    """

    alpha: float = 0.3
    iterations: int = 3
    gamma: float = 1.5
    blend: float = 0.9
    kl_weight: float = 0.01


@dataclass(frozen=True)
class OneGradient:
    """Baseline: logits moved once along the matching loss's gradient at the slots' expected embeddings, by `eta`."""

    eta: float = 1.0


@dataclass(frozen=True)
class ClassifierFree:
    """Baseline (Ho, Salimans 2022): logits away from those under a hidden condition; `scale` 1 changes nothing."""

    scale: float = 2.0


AnyGuidance = Guidance | OneGradient | ClassifierFree


METHODS = {"matching": Guidance, "one-gradient": OneGradient, "classifier-free": ClassifierFree}


def make_guidance(method: str, strength: float | None = None) -> AnyGuidance | None:
    """Guidance by name: "matching" (strength alpha), "one-gradient" (eta), "classifier-free" (scale), or "none".

    Strength None is the method's default, 0 no guidance. Raises InputError for another name or a negative strength.
    """
    if method != "none" and method not in METHODS:
        raise InputError(f"no guidance method '{method}': choose {', '.join(METHODS)} or none")
    if strength is not None and not (math.isfinite(strength) and strength >= 0):
        raise InputError(f"guidance {strength}: give 0 (none) or more")
    if method == "none" or strength == 0:
        return None
    if strength is None:
        return METHODS[method]()
    if method == "matching":
        return Guidance(alpha=strength)
    return OneGradient(strength) if method == "one-gradient" else ClassifierFree(strength)


def check_guidance(model: GPTFace, guidance: AnyGuidance | None) -> None:
    """InputError where the model was trained without what the guidance needs: hidden captions, for classifier-free."""
    if not isinstance(guidance, ClassifierFree):
        return
    law = {**vars(MaskingConfig()), **(model.config.resolved or {}).get("masking", {})}
    both = 1 - law["image_share"] - law["text_share"]
    if both <= 0 or law["whole_caption"] <= 0:
        raise InputError(
            "classifier-free guidance needs a model that was trained with whole captions hidden beside hidden image "
            "slots (masking.whole_caption, and image_share + text_share below 1): guide by matching instead"
        )


def slot_logits(
    canvas: Canvas, ids: Tensor, unknown: Tensor, guidance: AnyGuidance | None, temperature: float
) -> Tensor:
    """Logits (M, V) over `temperature` of the M slots of `unknown` (B, S), row by row, after guidance."""
    slots = unknown.nonzero(as_tuple=True)
    with torch.no_grad():
        hidden = canvas.hidden(ids)[slots]
        plain = canvas.logits(hidden) / temperature
        if guidance is None:
            return plain
        if isinstance(guidance, ClassifierFree):
            null = canvas.logits(canvas.hidden_without_condition(ids)[slots]) / temperature
            return plain + (guidance.scale - 1) * (plain - null)
    if isinstance(guidance, OneGradient):
        return plain - guidance.eta / temperature * _match_gradient(canvas, ids, slots, plain)
    delta = _nudge(canvas, ids, slots, hidden, plain, guidance, temperature)
    with torch.no_grad():
        guided = canvas.logits(hidden + delta) / temperature
        # softmax(guided)^g softmax(plain)^(1-g) up to its constant, written so that guided = plain gives plain.
        return plain + guidance.blend * (guided - plain)


def _match_gradient(canvas: Canvas, ids: Tensor, slots: tuple[Tensor, ...], plain: Tensor) -> Tensor:
    """(M, V): <dJ/de_i, E_v> with J = -log s_1 at e_i, the embedding expected under `plain`."""
    known, matrix = canvas.embed(ids).detach(), canvas.matrix().detach()
    expected = (plain.softmax(-1) @ matrix).requires_grad_(True)
    with torch.enable_grad():
        loss = -canvas.log_match(ids, known.index_put(slots, expected)).sum()
        (gradient,) = torch.autograd.grad(loss, expected)
    return gradient @ matrix.T


def _nudge(
    canvas: Canvas,
    ids: Tensor,
    slots: tuple[Tensor, ...],
    hidden: Tensor,
    plain: Tensor,
    guidance: Guidance,
    temperature: float,
) -> Tensor:
    """Delta (M, D) on the last hidden states of the slots, after K gradient steps; norms are taken pair by pair."""
    known, matrix, log_p = canvas.embed(ids).detach(), canvas.matrix().detach(), plain.log_softmax(-1)
    delta = torch.zeros_like(hidden)
    for _ in range(guidance.iterations):
        delta.requires_grad_(True)
        with torch.enable_grad():
            log_q = (canvas.logits(hidden + delta) / temperature).log_softmax(-1)
            q = log_q.exp()
            belief = canvas.log_match(ids, known.index_put(slots, q @ matrix))
            loss = -belief.sum() + guidance.kl_weight * (q * (log_q - log_p)).sum()
            # Towards delta alone: the parameters' gradients are never touched.
            (gradient,) = torch.autograd.grad(loss, delta)
        squares = torch.zeros(len(ids), device=ids.device).index_add_(0, slots[0], gradient.square().sum(-1))
        norm = squares.sqrt()[slots[0], None]
        delta = (delta - guidance.alpha * gradient / (norm**guidance.gamma + 1e-8)).detach()
    return delta
