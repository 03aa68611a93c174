"""What the GPUs of this machine are doing, as nvidia-smi tells; nothing where there is none."""

from __future__ import annotations

import logging
import shutil
import subprocess
from dataclasses import dataclass

logger = logging.getLogger(__name__)

_QUERY = "index,utilization.gpu,memory.used,memory.total"
_TIMEOUT_S = 5.0
_MIB = 1 << 20


@dataclass(frozen=True)
class Gpu:
    """`use`: share of the last sampling period in which a kernel ran, 0..1; None where the device does not tell."""

    index: str
    use: float | None
    memory_bytes: int | None
    memory_total_bytes: int | None


def read_gpus() -> list[Gpu]:
    """All GPUs that nvidia-smi lists; empty without it, or where it fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning("nvidia-smi does not answer: %s", error)
        return []
    return [_gpu(line) for line in done.stdout.splitlines() if line.count(",") == 3]


def _gpu(line: str) -> Gpu:
    index, use, used, total = (word.strip() for word in line.split(","))
    share = _number(use)
    memory, memory_total = (None if n is None else round(n * _MIB) for n in (_number(used), _number(total)))
    return Gpu(index, None if share is None else share / 100, memory, memory_total)


def _number(word: str) -> float | None:
    """A figure of nvidia-smi; None for "[N/A]" and the like."""
    try:
        return float(word)
    except ValueError:
        return None
