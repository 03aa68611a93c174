"""Training in several processes of this machine, which `torchrun` starts: one per GPU, or a few on the CPU.

The processes run `python -m gptface_core`; lock, record and the model's row stay with whoever calls.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from flows.steps.children import start_process, stop_process
from flows.steps.config import ConfigError, TrainConfig
from gptface_core.config import Preset, RunOptions
from gptface_core.errors import TrainingError
from gptface_core.training import DONE, TrainingSummary

logger = logging.getLogger(__name__)

# Prefect kills a cancelled run after 30 s; within that the step under way is saved, or the rest is killed by us.
STOP_GRACE_S = 18.0
_LINE = re.compile(r"^\d\S+ \d\S+ (INFO|WARNING|ERROR) (.+)$")  # as `python -m gptface_core` writes it


def count_processes(config: TrainConfig) -> int:
    """How many processes train: as asked, or where that is 0 one per CUDA device, else one.

    Raises ConfigError where there are fewer devices than processes.
    """
    import torch

    devices = torch.cuda.device_count() if config.options.device != "cpu" else 0
    if config.processes == 0:
        return devices or 1
    if 0 < devices < config.processes:
        raise ConfigError(
            f"processes={config.processes}: this machine has {devices} CUDA devices; 0 takes one for each"
        )
    return config.processes


def train_in_processes(
    processes: int, shards: Path, out: Path, preset: Preset, config: TrainConfig, parent: Path | None
) -> TrainingSummary:
    """Train on `shards` into `out` as `gptface_core.training.train` does; what the processes say goes to the log.

    An exception of this process (a signal that Prefect sends, a timeout) stops all of them, the step under way saved.
    Raises TrainingError with the message of the process that failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "preset.json"
        file.write_text(json.dumps(preset.to_dict()), encoding="utf-8")
        words = [
            str(shards),
            str(out),
            "--preset",
            str(file),
            "--seed",
            str(config.seed),
            *_option_words(config.options),
        ]
        if parent is not None:
            words += ["--init-from", str(parent)]
        launch = [
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            str(processes),
            "-m",
            "gptface_core",
        ]
        # As torchrun does itself, with a warning, where nothing is set.
        env = {"OMP_NUM_THREADS": "1", **os.environ}
        process = start_process([sys.executable, *launch, *words], subprocess.PIPE, env)
        try:
            assert process.stdout is not None
            error = _relay(line.decode("utf-8", "replace").rstrip() for line in process.stdout)
            code = process.wait()
        finally:
            if process.poll() is None:
                stop_process("training", process, STOP_GRACE_S)
    if code:
        raise TrainingError(error or f"training in {processes} processes ended with code {code}")
    return TrainingSummary(**json.loads((out / DONE).read_text("utf-8")))


def _relay(lines: Iterable[str]) -> str:
    """Every line to the log; the first message of a process that failed, or nothing."""
    error = ""
    for line in lines:
        found = _LINE.match(line)
        level, message = found.groups() if found else ("INFO", line)
        logger.log(getattr(logging, level), "%s", message)
        if level == "ERROR":
            error = error or message
    return error


def _option_words(options: RunOptions) -> list[str]:
    """The options as the command line of `gptface_core` has them."""
    words = []
    for name, value in dataclasses.asdict(options).items():
        word = name.replace("_", "-")
        if isinstance(value, bool):
            words += [f"--{word}"] if value else ["--no-compile"] * (name == "compile")
        elif value is not None:
            words += [f"--{word}", str(value)]
    return words
