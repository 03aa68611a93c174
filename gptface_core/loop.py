"""The training loop of every stage: steps, guards, checkpoints, validation, and an orderly end when asked for one."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from gptface_core.batches import Stream, StreamState, ahead
from gptface_core.checkpoints import Checkpoints, Saved, pack_optimizer, under, unpack_optimizer
from gptface_core.config import RunOptions
from gptface_core.distributed import Engine
from gptface_core.errors import InputError, TrainingError
from gptface_core.flops import peak_flops
from gptface_core.optimise import History, MovingAverage, Progress, SpikeGuard
from gptface_core.shards import Pictures
from gptface_core.stopping import Stop
from gptface_core.telemetry import EVERY, Board, Speed, SpeedMeter


class Batch(Protocol):
    """What a step learns from. Parts weigh what they are worth, so that their losses add up to those of the whole."""

    def split(self, parts: int) -> list[Self]: ...
    def cut(self, parts: int) -> list[Self]: ...
    def to(self, device: torch.device) -> Self: ...


B = TypeVar("B", bound=Batch)


@dataclass(frozen=True)
class Validation:
    losses: dict[str, float] = field(default_factory=dict)
    pictures: dict[str, Pictures] = field(default_factory=dict)


@dataclass(frozen=True)
class Work(Generic[B]):
    """One stage: `losses` (batch -> named losses, weighted into one by `weights`) trains `model` for `steps`.

    `rate`: learning rate of a step. `sizes`: batch sizes by their key in the preset. `samples`, `flops`, `names`: rows,
    operations and row ids of a batch. `validate` is called every `validate_every` steps and after the last one.
    """

    stage: str
    steps: int
    model: nn.Module
    losses: nn.Module
    weights: Mapping[str, float]
    optimizer: torch.optim.Optimizer
    rate: Callable[[int], float]
    clip: float
    stream: Stream[B]
    sizes: Mapping[str, int]
    samples: Callable[[B], int]
    flops: Callable[[B], float]
    names: Callable[[B], list[str]]
    validate: Callable[[], Validation] | None = None
    validate_every: int = 1
    accumulate: int = 1
    ema_decay: float = 0.0
    find_unused: bool = False


@dataclass(frozen=True)
class Surroundings:
    """Where a stage runs, saves and tells."""

    engine: Engine
    options: RunOptions
    checkpoints: Checkpoints
    history: History
    board: Callable[[int], Board] | None  # makes it, given the steps done; None: another process writes it
    stop: Stop


class Loop(Generic[B]):
    """One stage under way."""

    def __init__(self, work: Work[B], around: Surroundings) -> None:
        self.work, self.around = work, around
        _check_sizes(work, around.engine)
        self._parameters = [p for group in work.optimizer.param_groups for p in group["params"]]
        self._wrapped = around.engine.wrap(work.losses, work.find_unused)
        self._average = MovingAverage(work.model.parameters(), work.ema_decay) if work.ema_decay else None
        self._guard = SpikeGuard(around.options.spike_sigmas)
        self._saved_at = time.monotonic()

    def run(self) -> None:
        """Train to the end, from the newest checkpoint where there is one.

        Raises TrainingError for a loss that is no number or a spike, or where memory does not suffice, and
        TrainingInterrupted, everything saved, where a signal asked for the end.
        """
        work, first = self.work, self._restore()
        around = self.around
        board = around.board(first) if around.board else None
        meter = SpeedMeter(work.steps, self._peak())
        work.model.train()
        try:
            with ahead(work.stream, work.steps - first) as batches:
                for step, drawn in enumerate(batches, first):
                    losses, asked, due = self._learn(step, drawn.batch)
                    done = step + 1
                    found = self._validate(done)
                    values = losses | {f"validation_{name}": loss for name, loss in found.losses.items()}
                    batch = drawn.batch
                    speed = meter.step(done, work.samples(batch), work.flops(batch), drawn.waited_s)
                    around.history.add(Progress(work.stage, done, work.steps, values, speed))
                    if board is not None:
                        self._show(board, done, values, found.pictures, speed)
                    if asked or (due and done < work.steps):
                        self._save(done, drawn.state)
                    if asked:
                        around.stop.leave(f"{work.stage} step {done} of {work.steps}", asked)
        finally:
            if board is not None:
                board.close()
        if self._average is not None:
            self._average.swap()

    # -- one step

    def _learn(self, step: int, batch: B) -> tuple[dict[str, float], int, bool]:
        """Losses before the step; the signal that asked for the end, or 0; whether it is time to save."""
        work, engine = self.work, self.around.engine
        work.optimizer.zero_grad(set_to_none=True)
        try:
            totals = self._gradients(batch)
        except torch.OutOfMemoryError:
            totals = None
        if totals is None:  # outside of the except clause, whose traceback would hold the memory
            raise TrainingError(self._too_large(step, batch))
        parameters = [p for p in self._parameters if p.grad is not None]
        norm = torch.nn.utils.clip_grad_norm_(parameters, work.clip)
        # Every process must come to the same end: signals and clocks are shared with the losses.
        wishes = [float(self.around.stop.number), float(engine.is_main and self._is_late(step + 1))]
        numbers = torch.cat([totals, norm.detach()[None] / engine.world, totals.new_tensor(wishes)])
        *values, size, asked, due = engine.sum(numbers)
        losses = dict(zip(work.weights, values, strict=True))
        self._check(step, losses, size, batch)
        for group in work.optimizer.param_groups:
            group["lr"] = work.rate(step)
        work.optimizer.step()
        if self._average is not None:
            self._average.update(step)
        number = self.around.stop.number or (signal.SIGTERM if asked else 0)
        return losses, number, due > 0

    def _gradients(self, batch: B) -> Tensor:
        """Adds up gradients over this process' rows of the batch, part by part; the losses by `weights`."""
        work, engine = self.work, self.around.engine
        parts = [part.split(engine.world)[engine.rank].to(engine.device) for part in batch.cut(work.accumulate)]
        sums: Tensor | None = None
        for number, part in enumerate(parts, 1):
            with engine.accumulating(self._wrapped, number == len(parts)):
                with engine.autocast():
                    losses: dict[str, Tensor] = self._wrapped(part)
                weighted = [weight * losses[name] for name, weight in work.weights.items()]
                # Gradients are averaged over processes, while the parts' losses add up.
                (torch.stack(weighted).sum() * engine.world).backward()
            values = torch.stack([losses[name].detach() for name in work.weights])
            sums = values if sums is None else sums + values
        assert sums is not None
        return sums

    def _check(self, step: int, losses: dict[str, float], size: float, batch: B) -> None:
        work = self.work
        loss = sum(weight * losses[name] for name, weight in work.weights.items())
        where, rows = f"{work.stage} step {step}", f"rows of the batch: {', '.join(work.names(batch))}"
        if not math.isfinite(loss):
            raise TrainingError(f"{where}: the loss is {loss}; {rows}")
        if not math.isfinite(size):
            raise TrainingError(f"{where}: the gradient is {size}; {rows}")
        limit = self._guard.limit()
        if limit is not None and loss > limit:
            way_out = "start again with --spike-sigmas 0 to let it pass"
            raise TrainingError(f"{where}: the loss leaps to {loss:.3f} (limit {limit:.3f}), {way_out}; {rows}")
        self._guard.add(loss)

    def _too_large(self, step: int, batch: B) -> str:
        """What to tell where memory does not suffice: the largest halving of the batch that does."""
        work, engine = self.work, self.around.engine
        sizes = ", ".join(f"{name} {size}" for name, size in work.sizes.items())
        said = f"{work.stage} step {step}: {engine.device.type} out of memory with {sizes}"
        if engine.world > 1:
            return f"{said} over {engine.world} processes: halve it, or start more processes"
        parts = work.accumulate
        while (parts := 2 * parts) <= min(work.sizes.values()):
            if self._fits(batch, parts):
                fitting = ", ".join(f"{name} {size // parts}" for name, size in work.sizes.items())
                cut = "" if work.stage == "tokenizer" else f", or training.accumulate {parts} for the same batch"
                return f"{said}: {fitting} fits{cut} (in a preset file)"
        return f"{said}, and a single row does not fit either: choose a smaller preset"

    def _fits(self, batch: B, parts: int) -> bool:
        self.work.optimizer.zero_grad(set_to_none=True)
        if self.around.engine.device.type == "cuda":
            torch.cuda.empty_cache()
        try:
            with self.around.engine.autocast():
                losses = self.work.losses(batch.cut(parts)[0].to(self.around.engine.device))
            torch.stack(list(losses.values())).sum().backward()
        except torch.OutOfMemoryError:
            return False
        return True

    # -- between steps

    def _validate(self, done: int) -> Validation:
        work = self.work
        if work.validate is None or (done % work.validate_every and done != work.steps):
            return Validation()
        work.model.eval()
        with self.around.engine.autocast():
            if self._average is None:
                found = work.validate()
            else:
                with self._average.in_place():
                    found = work.validate()
        work.model.train()
        return found

    def _show(
        self, board: Board, done: int, values: dict[str, float], pictures: dict[str, Pictures], speed: Speed
    ) -> None:
        if pictures:
            board.pictures(done, pictures)
        if done % EVERY == 0 or done == self.work.steps or len(values) > len(self.work.weights):
            rates = {"samples_per_s": speed.samples_per_s, "waiting_share": speed.waiting_share}
            rates |= {"mfu": speed.mfu} if speed.mfu is not None else {}
            board.scalars(done, values | rates | {"learning_rate": self.work.optimizer.param_groups[0]["lr"]})

    def _peak(self) -> float | None:
        engine, given = self.around.engine, self.around.options.peak_tflops
        name = torch.cuda.get_device_name(engine.device) if engine.device.type == "cuda" else ""
        peak = peak_flops(name if engine.bf16 else "", given)
        return peak * engine.world if peak else None

    def _is_late(self, done: int) -> bool:
        options = self.around.options
        minutes = (time.monotonic() - self._saved_at) / 60
        return done % options.checkpoint_every == 0 or minutes > options.checkpoint_minutes > 0

    # -- checkpoints

    def _save(self, done: int, data: StreamState) -> None:
        around = self.around
        self._saved_at = time.monotonic()
        around.history.flush()
        if around.engine.is_main:
            facts = {
                "generator": data.generator,
                "lines": done,
                "seconds": around.history.seconds,
                "known_losses": list(self._guard.known),
            }
            around.checkpoints.save(Saved(done, self._tensors(data), facts))
        around.engine.wait()

    def _tensors(self, data: StreamState) -> dict[str, Tensor]:
        parts: dict[str, dict[str, Tensor]] = {
            "model": dict(self.work.model.state_dict()),
            "optimizer": pack_optimizer(self.work.optimizer),
            "pool": {str(number): torch.from_numpy(pool.copy()) for number, pool in enumerate(data.pools)},
            "random": {"cpu": torch.get_rng_state()},
        }
        if self.around.engine.device.type == "cuda":
            parts["random"]["cuda"] = torch.cuda.get_rng_state(self.around.engine.device)
        if self._average is not None:
            parts["average"] = {str(number): value for number, value in enumerate(self._average.values)}
        return {f"{part}/{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}

    def _restore(self) -> int:
        """Steps that are done."""
        work, around = self.work, self.around
        saved = around.checkpoints.newest()
        if saved is None:
            around.history.restore(0, 0.0)
            return 0
        tensors, facts = saved.tensors, saved.facts
        work.model.load_state_dict(under(tensors, "model"))
        unpack_optimizer(work.optimizer, under(tensors, "optimizer"))
        pools = tuple(_array(pool) for _, pool in sorted(under(tensors, "pool").items()))
        work.stream.restore(StreamState(facts["generator"], pools))
        random = under(tensors, "random")
        torch.set_rng_state(random["cpu"])
        if "cuda" in random and around.engine.device.type == "cuda":
            torch.cuda.set_rng_state(random["cuda"], around.engine.device)
        if self._average is not None:
            values = under(tensors, "average")
            self._average.restore([values[str(number)] for number in range(len(values))])
        self._guard = SpikeGuard(around.options.spike_sigmas, facts["known_losses"])
        around.history.restore(facts["lines"], facts["seconds"])
        return saved.step


def _array(tensor: Tensor) -> Any:
    return np.asarray(tensor.numpy(), np.int64)


def _check_sizes(work: Work[Any], engine: Engine) -> None:
    parts = work.accumulate * engine.world
    for name, size in work.sizes.items():
        if size % parts:
            raise InputError(
                f"{name} {size} cannot be shared by {engine.world} processes in {work.accumulate} parts each: "
                f"choose a multiple of {parts}"
            )
