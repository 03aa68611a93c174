"""A runner that writes down how far it is, for `flows.steps.progress` to read. It wraps any other `Runner`."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from crawler.files import write_json
from flows.steps.progress import RUN_FILE, Run, Step, Work, process_started, progress_dir, read_json
from flows.steps.runner import Runner

A = TypeVar("A")
T = TypeVar("T")
logger = logging.getLogger(__name__)

_EVERY_S = 0.5  # between two writings while a step tells how far it is


@dataclass(frozen=True)
class Tally:
    """What a step did with the rows of one shard: how many, and how many were lost, by reason."""

    rows: int
    reasons: dict[str, int] = field(default_factory=dict)


@contextlib.contextmanager
def watched(root: Path, run_id: str, kind: str, subject: str, runner: Runner) -> Iterator[WatchedRunner]:
    """`runner`, watched while the block runs. The caller holds the root; what was told of an earlier run goes.

    A run that fails before it has begun leaves nothing behind.
    """
    folder = progress_dir(root)
    shutil.rmtree(folder, ignore_errors=True)
    pid = os.getpid()
    run = Run(run_id, kind, subject, platform.node(), pid, process_started(pid) or 0.0, time.time())
    board = WatchedRunner(runner, folder, run)
    try:
        yield board
    except BaseException as error:
        board.end("failed", " ".join(str(error).split()) or type(error).__name__)
        raise
    board.end("completed")


class WatchedRunner:
    """A `Runner` that hands everything on to another one and keeps ROOT/progress/run.json up to date."""

    def __init__(self, inner: Runner, folder: Path, run: Run) -> None:
        self._inner, self._folder, self._run = inner, folder, run
        self._written = 0.0

    def step(self, name: str, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        self._start(name, None)
        result = self._inner.step(name, fn, *args, **kwargs)
        if isinstance(result, Tally):
            add_work(self._folder, name, Work(rows=result.rows, reasons=result.reasons))
        self._finish(name)
        return result

    def map(self, name: str, fn: Callable[[A], T], items: Sequence[A]) -> list[T]:
        self._start(name, len(items))
        results = self._inner.map(name, Counted(fn, name, str(self._folder)), items)
        self._finish(name)
        return results

    def progress(self, name: str, done: float, total: float | None, note: str = "") -> None:
        """Steps may name stages of their own, which then stand among the steps."""
        known = next((step for step in self._run.steps if step.name == name), None)
        if known is None or (known.ended_at is not None and done < known.done):
            self._start(name, total)
        ended_at = time.time() if total is not None and done >= total else None
        self._change(name, done=done, total=total, note=note, ended_at=ended_at)
        if ended_at is not None or time.time() - self._written >= _EVERY_S:
            self._write()
        self._inner.progress(name, done, total, note)

    def decided(self, decisions: dict[str, int]) -> None:
        """Rows by reason, as the release has them."""
        self._run = replace(self._run, decisions=decisions)
        self._write()

    def end(self, status: str, error: str = "") -> None:
        if status == "failed" and not self._has_begun():
            shutil.rmtree(self._folder, ignore_errors=True)
            return
        now = time.time()
        if status == "completed":  # what never said that it is done, is done now
            for step in self._run.steps:
                if step.ended_at is None:
                    self._change(step.name, ended_at=now)
        self._run = replace(self._run, status=status, ended_at=now, error=error)
        self._write()

    def _has_begun(self) -> bool:
        """A build has with its first row (what cannot be read is found out before), others with their first step."""
        if self._run.kind == "build":
            return any(self._folder.glob("work-*.json"))
        return any(step.ended_at is not None for step in self._run.steps)

    def _start(self, name: str, total: float | None) -> None:
        others = tuple(step for step in self._run.steps if step.name != name)
        self._run = replace(self._run, steps=(*others, Step(name, time.time(), total)))
        self._write()

    def _finish(self, name: str) -> None:
        self._change(name, ended_at=time.time(), note="")
        self._write()

    def _change(self, name: str, **changes: Any) -> None:
        steps = tuple(replace(step, **changes) if step.name == name else step for step in self._run.steps)
        self._run = replace(self._run, steps=steps)

    def _write(self) -> None:
        self._written = time.time()
        _write_quietly(self._folder / RUN_FILE, asdict(self._run))


@dataclass(frozen=True)
class Counted(Generic[A, T]):
    """`fn`, which also adds what it did to the file of the worker that it runs in. Pickles as `fn` does."""

    fn: Callable[[A], T]
    step: str
    folder: str

    def __call__(self, item: A) -> T:
        folder, started = Path(self.folder), time.monotonic()
        try:
            result = self.fn(item)
        except BaseException:
            add_work(folder, self.step, Work(failed=1, seconds=time.monotonic() - started))
            raise
        tally = result if isinstance(result, Tally) else Tally(0)
        add_work(folder, self.step, Work(1, 0, tally.rows, time.monotonic() - started, tally.reasons))
        return result


def add_work(folder: Path, step: str, work: Work) -> None:
    """Add to what this worker has done in a step."""
    path = folder / f"work-{platform.node()}-{os.getpid()}-{threading.get_ident()}.json"
    found = read_json(path)
    steps = found[1] if found else {}
    before = Work(**steps[step]) if step in steps else Work()
    _write_quietly(path, {**steps, step: asdict(before.plus(work))})


def _write_quietly(path: Path, data: dict[str, Any]) -> None:
    """No run ends because nobody can be told how far it is: a full disk stops the steps themselves soon enough."""
    try:
        write_json(path, data)
    except OSError as error:
        logger.debug("%s could not be written: %s", path, error)
