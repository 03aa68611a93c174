"""Full fine-tuning of a classifier within a budget of steps; what validation liked best is kept, test is not seen.

The same code trains a network from random initialisation (supervised from scratch): only the weights at the start
differ.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gptface_core.augment import views_of
from gptface_core.datasets import FaceSet
from gptface_core.errors import InputError
from gptface_core.heads import GPTFaceClassifier
from gptface_core.image_tokenizer import PictureTokenizer, batches
from gptface_core.tokens import encode_pictures

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FineTuning:
    """views: of each training picture (the first as it is, others cropped and flipped). validation_rows: per look.
    precision: fp32, or bf16 (autocast: twice as fast on processors with AMX and on GPUs). compile: torch.compile."""

    steps: int = 1000
    batch: int = 64
    learning_rate: float = 5e-4
    weight_decay: float = 0.05
    warmup: float = 0.1
    validate_every: int = 100
    validation_rows: int = 1024
    views: int = 2
    precision: str = "fp32"
    compile: bool = False

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", "bf16"):
            raise InputError(f"no precision '{self.precision}': choose fp32 or bf16")
        for name in ("steps", "batch", "validate_every", "validation_rows", "views"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)}: choose at least 1")


@dataclass(frozen=True)
class Examples:
    """`codes` (R, V, N) image codes of V views, `labels` (R,) classes or (R, A) with NaN for unknown."""

    codes: npt.NDArray[np.int32]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.codes)

    def rows(self, numbers: npt.ArrayLike) -> Examples:
        places = np.asarray(numbers)
        return Examples(self.codes[places], self.labels[torch.from_numpy(places)])


def examples(faces: FaceSet, tokenizer: PictureTokenizer, labels: Tensor, views: int = 1) -> Examples:
    """Tokenised views of a framed set; pictures never have words about left and right here, so all may be flipped."""
    size_px, parts = tokenizer.config.image_px, []
    for rows in batches(len(faces), 128):
        names = [f"{faces.name}/{item.id}" for item in faces.items[rows]]
        files = [faces.read(item) for item in faces.items[rows]]
        pictures = [views_of(file, "", name, views, size_px) for file, name in zip(files, names, strict=True)]
        parts.append(encode_pictures(tokenizer, np.concatenate(pictures)).astype(np.int32))
        if rows.start % 5120 == 0:
            logger.info("tokens of %s: %d of %d", faces.name, rows.start, len(faces))
    return Examples(np.concatenate(parts).reshape(len(faces), views, -1), labels)


def fine_tune(
    model: GPTFaceClassifier,
    train: Examples,
    val: Examples,
    config: FineTuning,
    seed: int = 0,
    on_step: Callable[[int, float], None] | None = None,
) -> dict[str, Any]:
    """Trains `model` in place and leaves it with the weights that had the lowest validation loss.

    Returns steps, the step chosen, losses along the way, seconds. Deterministic on a CPU for a seed.
    """
    rng, started = np.random.default_rng([seed, 0xF17E]), time.monotonic()
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, config))
    forward = torch.compile(model) if config.compile else model
    looked_at = val.rows(np.sort(rng.permutation(len(val))[: config.validation_rows]))
    history: list[dict[str, float]] = []
    best, state = math.inf, {}
    order = np.zeros(0, np.int64)
    for step in range(1, config.steps + 1):
        while len(order) < config.batch:
            order = np.concatenate([order, rng.permutation(len(train))])
        rows, order = order[: config.batch], order[config.batch :]
        view = rng.integers(train.codes.shape[1], size=len(rows))
        model.train()
        with torch.autocast(model.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            loss = forward(_ids(model, train.codes[rows, view]), labels=train.labels[torch.from_numpy(rows)]).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        now = float(loss.detach())
        if on_step:
            on_step(step, now)
        if step % config.validate_every == 0 or step == config.steps:
            seen = validation_loss(model, looked_at)
            history.append({"step": step, "loss": now, "validation_loss": seen})
            logger.info("step %d of %d: loss %.4f, validation %.4f", step, config.steps, now, seen)
            if seen < best:
                best, state = seen, {name: value.detach().clone() for name, value in model.state_dict().items()}
    if state:
        model.load_state_dict(state)
    chosen = min(history, key=lambda look: look["validation_loss"])["step"] if history else config.steps
    seconds = round(time.monotonic() - started, 1)
    return {"steps": config.steps, "chosen_step": chosen, "history": history, "seconds": seconds}


def _rate(step: int, config: FineTuning) -> float:
    """Linear warm-up, then cosine to zero, as a share of the learning rate."""
    start = max(1, round(config.warmup * config.steps))
    if step < start:
        return (step + 1) / start
    return 0.5 * (1 + math.cos(math.pi * (step - start) / max(1, config.steps - start)))


def _ids(model: GPTFaceClassifier, codes: npt.NDArray[np.int32]) -> Tensor:
    """(B, N) ids of the model's table."""
    return torch.from_numpy(codes.astype(np.int64)) + model.gptface.first_code


@torch.no_grad()
def logits(model: GPTFaceClassifier, examples: Examples) -> Tensor:
    """(R, labels) of the pictures as they are."""
    model.eval()
    return torch.cat([model(_ids(model, examples.codes[rows, 0])).logits for rows in batches(len(examples), 100)])


def validation_loss(model: GPTFaceClassifier, examples: Examples) -> float:
    return float(model.loss(logits(model, examples), examples.labels))
