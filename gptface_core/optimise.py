"""What every training stage shares: seeds, schedule, optimizer, moving average, guard against spikes, loss history."""

from __future__ import annotations

import hashlib
import json
import math
import os
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gptface_core.errors import TrainingError, TrainingInterrupted
from gptface_core.telemetry import Speed

__all__ = ["Progress", "TrainingError", "TrainingInterrupted"]


@dataclass(frozen=True)
class Progress:
    """One line of training as it happens; `losses` in nats where a loss is a likelihood."""

    stage: str
    step: int
    steps: int
    losses: dict[str, float]
    speed: Speed | None = None


OnProgress = Callable[[Progress], None]


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


class MovingAverage:
    """Exponential moving average of parameters; its decay rises from 0.1 to `decay`, so that the start is forgotten."""

    def __init__(self, parameters: Iterable[Tensor], decay: float) -> None:
        self._live = list(parameters)
        self._decay = decay
        self.values = [p.detach().clone() for p in self._live]

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.values, self._live, 1 - decay)

    @torch.no_grad()
    def restore(self, values: list[Tensor]) -> None:
        for mine, value in zip(self.values, values, strict=True):
            mine.copy_(value)

    @torch.no_grad()
    def swap(self) -> None:
        """Averages and live weights change places."""
        for mine, live in zip(self.values, self._live, strict=True):
            held = live.clone()
            live.copy_(mine)
            mine.copy_(held)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The averages as weights, for a validation."""
        self.swap()
        try:
            yield
        finally:
            self.swap()


class SpikeGuard:
    """Tells a loss far above what the last steps gave, by their median and median absolute deviation.

    Far: `sigmas` robust standard deviations (1.4826 MAD), each at least 5 % of the median, so a loss must in any case
    double at the default of 20. Silent until 30 steps are known.
    """

    WINDOW, ENOUGH = 100, 30

    def __init__(self, sigmas: float, known: Iterable[float] = ()) -> None:
        self._sigmas = sigmas
        self.known = deque(known, self.WINDOW)

    def limit(self) -> float | None:
        """The loss above which the next step is a spike; None where that cannot be said yet."""
        if not self._sigmas or len(self.known) < self.ENOUGH:
            return None
        median = statistics.median(self.known)
        deviation = 1.4826 * statistics.median(abs(loss - median) for loss in self.known)
        return median + self._sigmas * max(deviation, 0.05 * abs(median), 1e-3)

    def add(self, loss: float) -> None:
        self.known.append(loss)


class History:
    """The losses of one stage by step, in a file that grows at each checkpoint, and the stage's seconds.

    Without a file (processes but the first) it only tells on.
    """

    def __init__(self, path: Path | None = None, on_progress: OnProgress | None = None) -> None:
        self._path, self._on_progress = path, on_progress
        self._pending: list[str] = []
        self._started = time.monotonic()

    def restore(self, lines: int, seconds: float) -> None:
        """Go on after `lines` lines and so many seconds; a killed run may have written more."""
        self._started = time.monotonic() - seconds
        if self._path is not None:
            old = self._path.read_text(encoding="utf-8") if self._path.is_file() else ""
            self._path.write_text("".join(old.splitlines(keepends=True)[:lines]), encoding="utf-8")

    def add(self, progress: Progress) -> None:
        losses = {name: round(value, 5) for name, value in progress.losses.items()}
        if self._path is not None:
            self._pending.append(json.dumps({"stage": progress.stage, "step": progress.step, **losses}) + "\n")
        if self._on_progress:
            self._on_progress(progress)

    def flush(self) -> None:
        if self._path is not None and self._pending:
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(self._pending)
                file.flush()
                os.fsync(file.fileno())
            self._pending = []

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def end(self) -> tuple[list[str], float]:
        """All lines of the stage and its seconds."""
        self.flush()
        if self._path is None or not self._path.is_file():
            return [], self.seconds
        return self._path.read_text(encoding="utf-8").splitlines(), self.seconds

    def discard(self) -> None:
        """The lines stand elsewhere: the file has served."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
