"""What a training tells while it runs: speed, use of the hardware, time left; curves and pictures for TensorBoard."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from gptface_core.errors import InputError
from gptface_core.shards import Pictures

FOLDER = "tensorboard"
EVERY = 10  # steps between two points of a curve
WINDOW = 50  # steps that speed is averaged over


@dataclass(frozen=True)
class Speed:
    """Averages over the last steps. `mfu`: share of the device's peak, None where that is not known."""

    samples_per_s: float
    seconds_left: float
    waiting_share: float  # of the time, for data
    mfu: float | None

    def __str__(self) -> str:
        minutes, seconds = divmod(round(self.seconds_left), 60)
        use = "" if self.mfu is None else f", MFU {100 * self.mfu:.1f} %"
        return f"{self.samples_per_s:,.0f} samples/s{use}, {minutes // 60}:{minutes % 60:02}:{seconds:02} left"


class SpeedMeter:
    """Counts samples, operations and waiting by wall clock; validation and checkpoints count as time, too."""

    def __init__(self, steps: int, peak: float | None) -> None:
        self._steps, self._peak = steps, peak
        self._marks: deque[tuple[float, float, float, float]] = deque(maxlen=WINDOW + 1)
        self._marks.append((time.perf_counter(), 0.0, 0.0, 0.0))

    def step(self, step: int, samples: int, flops: float, waited_s: float) -> Speed:
        """After a step: `step` are done."""
        _, all_samples, all_flops, all_waited = self._marks[-1]
        self._marks.append((time.perf_counter(), all_samples + samples, all_flops + flops, all_waited + waited_s))
        counted = len(self._marks) - 1
        seconds, samples_done, flops_done, waited = (
            b - a for a, b in zip(self._marks[0], self._marks[-1], strict=True)
        )
        seconds = max(seconds, 1e-9)
        mfu = flops_done / seconds / self._peak if self._peak else None
        return Speed(samples_done / seconds, (self._steps - step) * seconds / counted, waited / seconds, mfu)


class Board:
    """Curves and pictures of one stage below MODEL/tensorboard/STAGE; with wandb, losses and speed go there as well.

    Pictures, captions and row ids never leave the machine: what a takedown erases must be at hand.
    """

    def __init__(self, folder: Path, stage: str, done: int, wandb_run: Any = None) -> None:
        self._stage, self._wandb = stage, wandb_run
        self._writer: Any = None
        if find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            # A resumed stage hides the points that a killed run drew after its last checkpoint.
            self._writer = SummaryWriter(str(folder / FOLDER / stage), purge_step=done + 1 if done else None)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log({f"{self._stage}/{name}": v for name, v in values.items()} | {f"{self._stage}/step": step})

    def pictures(self, step: int, pictures: Mapping[str, Pictures]) -> None:
        """Sheets (H, W, 3)."""
        if self._writer is not None:
            for name, picture in pictures.items():
                self._writer.add_image(name, picture, step, dataformats="HWC")
            self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def mosaic(rows: Sequence[Sequence[Pictures]]) -> Pictures:
    """Rows of pictures (P, P, 3), equally many in each, as one."""
    return np.concatenate([np.concatenate(list(row), 1) for row in rows])


def open_wandb(wanted: bool, folder: Path, key: str, config: dict[str, Any]) -> Any:
    """A wandb run that a restart with the same key goes on with, or None; InputError where wandb is not to be had."""
    if not wanted:
        return None
    if find_spec("wandb") is None:
        raise InputError("wandb is not installed: pip install wandb, or train without --wandb (TensorBoard is written)")
    import wandb

    try:
        return wandb.init(
            project="gptface", id=key, resume="allow", name=folder.name, dir=folder, config=config, save_code=False
        )
    except wandb.errors.Error as error:
        reason = " ".join(str(error).split())
        raise InputError(f"wandb does not start ({reason}): run `wandb login`, or leave it out") from error
