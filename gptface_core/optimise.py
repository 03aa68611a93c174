"""What every training stage shares: seeds, schedule, the step with its guards, progress, the loss history."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Progress:
    """One line of training as it happens; `losses` in nats where a loss is a likelihood."""

    stage: str
    step: int
    steps: int
    losses: dict[str, float]


OnProgress = Callable[[Progress], None]


class TrainingError(RuntimeError):
    """Training cannot go on: a loss is not a number. Names the rows of the batch."""


def stage_seed(seed: int, stage: str) -> int:
    """A seed per stage, so that a stage resumed from its predecessor's checkpoint draws what it would have drawn."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{stage}".encode(), digest_size=6).digest(), "big")


def seed_stage(seed: int, stage: str) -> np.random.Generator:
    """Seeds torch (initial weights) and returns the generator of everything else."""
    number = stage_seed(seed, stage)
    torch.manual_seed(number)
    return np.random.default_rng(number)


def cosine(step: int, steps: int, warmup_share: float = 0.05, floor: float = 0.02) -> float:
    """Factor of the learning rate: linear to 1 over the warm-up, then half a cosine down to `floor`."""
    warmup = max(1, round(warmup_share * steps))
    if step < warmup:
        return (step + 1) / warmup
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def adamw(model: nn.Module, rate: float, betas: tuple[float, float], decay: float) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices alone (not on biases, norms, positions)."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in named if p.ndim >= 2 and not {"position", "bias", "segment"} & set(name.split("_"))]
    chosen = {id(p) for p in matrices}
    others = [p for _, p in named if id(p) not in chosen]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=betas, fused=True)


def take_step(
    optimizer: torch.optim.Optimizer, loss: Tensor, rate: float, clip: float, rows: Sequence[str], where: str
) -> None:
    """One clipped update. Raises TrainingError with the batch's row ids if the loss is not a number."""
    if not math.isfinite(loss.item()):
        raise TrainingError(f"{where}: the loss is {loss.item()}; rows of the batch: {', '.join(rows)}")
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    torch.nn.utils.clip_grad_norm_(parameters, clip)
    optimizer.step()


class History:
    """The losses of one stage by step, and its seconds."""

    def __init__(self, on_progress: OnProgress | None = None) -> None:
        self._on_progress = on_progress
        self._lines: list[str] = []
        self._started = time.monotonic()

    def add(self, progress: Progress) -> None:
        losses = {name: round(value, 5) for name, value in progress.losses.items()}
        self._lines.append(json.dumps({"stage": progress.stage, "step": progress.step, **losses}))
        if self._on_progress:
            self._on_progress(progress)

    def end(self) -> tuple[list[str], float]:
        """The lines of the history so far, and the seconds since it began."""
        return self._lines, time.monotonic() - self._started
