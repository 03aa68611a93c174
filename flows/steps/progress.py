"""How far a run is, as it lies on disk: ROOT/progress/, read by `gptface top` and the metrics of any process.

    run.json                        the run and its steps, written by the process that runs it
    work-<host>-<pid>-<thread>.json what one worker has done so far: per step shards, rows, rows by reason, seconds

Each process writes files of its own, whole or not at all (flows.steps.watched), so nobody waits for anybody. Their
number is that of the workers and their size that of the steps, whatever the number of shards. The next run starts
anew.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RUN_FILE = "run.json"
WORK_FILES = "work-*.json"
_SAME_START_S = 5.0  # a process's start is told by the clock, which may have been set since


@dataclass(frozen=True)
class Step:
    """One step of a run. `total` is None where nobody knows it; times are seconds since the epoch."""

    name: str
    started_at: float
    total: float | None = None
    done: float = 0.0
    note: str = ""
    ended_at: float | None = None


@dataclass(frozen=True)
class Work:
    """What all workers have done in one step. `seconds` of all of them together; `reasons` of rows that were lost."""

    shards: int = 0
    failed: int = 0
    rows: int = 0
    seconds: float = 0.0
    reasons: Mapping[str, int] = field(default_factory=dict)

    def plus(self, other: Work) -> Work:
        reasons = dict(self.reasons)
        for reason, rows in other.reasons.items():
            reasons[reason] = reasons.get(reason, 0) + rows
        return Work(
            self.shards + other.shards,
            self.failed + other.failed,
            self.rows + other.rows,
            self.seconds + other.seconds,
            reasons,
        )


@dataclass(frozen=True)
class Run:
    """A run as run.json tells it. `status`: running, completed or failed; `decisions`: the release's rows by reason."""

    run_id: str
    kind: str
    subject: str
    host: str
    pid: int
    process_started: float
    started_at: float
    status: str = "running"
    ended_at: float | None = None
    error: str = ""
    steps: tuple[Step, ...] = ()
    decisions: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """A run and its workers' sums by step. `told_at`: when any of them last wrote."""

    run: Run
    work: Mapping[str, Work]
    told_at: float

    def of(self, step: Step) -> Work:
        """The workers' sums of a step."""
        return self.work.get(step.name, Work())

    def shards_done(self, step: Step) -> float:
        return step.total or 0.0 if step.ended_at is not None else max(step.done, self.of(step).shards)

    def seconds(self, step: Step, now: float) -> float:
        """Wall seconds of a step so far; of a run that died, until it last wrote."""
        end = step.ended_at or self.run.ended_at or (now if self.is_alive() else self.told_at)
        return max(0.0, end - step.started_at)

    def seconds_left(self, step: Step, now: float) -> float | None:
        """Until this step ends, at its speed so far; None where nobody can tell."""
        done = self.shards_done(step)
        if step.ended_at is not None or not step.total or not done or not self.is_alive():
            return None
        return self.seconds(step, now) * (step.total - done) / done

    def rows_per_s(self, step: Step, now: float) -> float:
        seconds = self.seconds(step, now)
        return self.of(step).rows / seconds if seconds > 0 else 0.0

    def lost(self) -> dict[str, int]:
        """Rows by reason: as decided, else as the steps so far found them, the most frequent first."""
        found: dict[str, int] = {}
        sources: Iterable[Mapping[str, int]] = (work.reasons for work in self.work.values())
        for reasons in [self.run.decisions] if self.run.decisions else sources:
            for reason, rows in reasons.items():
                found[reason] = found.get(reason, 0) + rows
        found.pop("kept", None)
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    def is_alive(self) -> bool:
        """Whether the run is under way. Its process can be looked for on its own host alone; elsewhere it counts as
        alive until it says otherwise."""
        if self.run.status != "running":
            return False
        if self.run.host != platform.node():
            return True
        started = process_started(self.run.pid)
        return started is not None and abs(started - self.run.process_started) < _SAME_START_S


def process_started(pid: int) -> float | None:
    """When the process with this number started, in seconds since the epoch; None where there is none (any more)."""
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def progress_dir(root: Path) -> Path:
    return root / "progress"


def read_progress(root: Path) -> Progress | None:
    """The present or last run of a root, or None where none was written down (or by another version)."""
    folder = progress_dir(root)
    told = read_json(folder / RUN_FILE)
    if told is None:
        return None
    at, data = told
    sums: dict[str, Work] = {}
    try:
        run = Run(**{**data, "steps": tuple(Step(**step) for step in data["steps"])})
        for found in filter(None, map(read_json, sorted(folder.glob(WORK_FILES)))):
            at = max(at, found[0])
            for name, work in found[1].items():
                sums[name] = sums.get(name, Work()).plus(Work(**work))
    except (KeyError, TypeError):
        return None
    return Progress(run, sums, at)


def read_json(path: Path) -> tuple[float, dict[str, Any]] | None:
    """When a file was written and what it holds; None where it is gone or no JSON of ours."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return path.stat().st_mtime, dict(data)
    except (OSError, ValueError, TypeError):
        return None


def span(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
