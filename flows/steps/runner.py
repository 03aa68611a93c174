"""How steps are run: one call in this process, or one call per shard in worker processes.

The pipeline (`flows/steps/pipeline.py`) knows only the `Runner` protocol. `LocalRunner` serves the command line; the
Prefect flows have a runner of their own that makes every call a task. Both send the heavy work to a `Pool`: the
`WorkerPool` of this machine, or a Ray cluster (`flows/steps/ray_pool.py`).
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any, Generic, Protocol, Self, TypeVar

A = TypeVar("A")
T = TypeVar("T")
logger = logging.getLogger(__name__)

# What libraries read when they are first imported. They size their thread pools then: several workers with all cores
# each are many times slower than one thread per worker. Arrow's own allocator (mimalloc) keeps a little more with every
# thread that has come and gone, and downloads start many (what it cost and what is left: docs/benchmarks.md, soak).
WORKER_ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}

_CALL_S = 0.02  # after which a call of several shards begins no other one
_MOST_AT_ONCE = 32


class WorkerDiedError(RuntimeError):
    """A worker process was killed from outside (out of memory, by hand). What it had finished is kept."""


class Runner(Protocol):
    """Runs the steps of the pipeline; results come back in the order of the items."""

    def step(self, name: str, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """One call of `fn` in this process."""
        ...

    def map(self, name: str, fn: Callable[[A], T], items: Sequence[A]) -> list[T]:
        """One call of `fn` per item (a shard) in worker processes; `fn` and items must pickle."""
        ...

    def progress(self, name: str, done: float, total: float | None, note: str = "") -> None:
        """A long step says how far it is; `total` None where nobody knows."""
        ...


class ProgressSink(Protocol):
    """Where a `LocalRunner` tells its progress (a terminal bar, a log)."""

    def start(self, name: str, total: float | None) -> None: ...
    def update(self, name: str, done: float, total: float | None, note: str = "") -> None: ...
    def finish(self, name: str) -> None: ...


class LogSink:
    """Progress as log lines: the beginning and the end of each step."""

    def __init__(self) -> None:
        self._started: dict[str, float] = {}

    def start(self, name: str, total: float | None) -> None:
        self._started[name] = time.monotonic()
        logger.info("%s: started%s", name, "" if total is None else f" ({total:g} to do)")

    def update(self, name: str, done: float, total: float | None, note: str = "") -> None:
        logger.debug("%s: %s of %s %s", name, done, total, note)

    def finish(self, name: str) -> None:
        logger.info("%s: done in %.1f s", name, time.monotonic() - self._started[name])


class Pool(ABC):
    """Worker processes, somewhere. `workers`: calls at a time; `window`: calls to hand over before the first ends."""

    workers: int
    window: int

    @abstractmethod
    def submit(self, fn: Callable[[A], T], item: A, step: str = "") -> Future[T]:
        """Queue one call of a step. The future raises what `fn` raises, or BrokenExecutor where its worker died."""

    @abstractmethod
    def close(self, *, kill: bool = False) -> None:
        """Wait for the workers to end; with `kill`, drop what is queued and end them now."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(kill=kind is not None)


class WorkerPool(Pool):
    """Spawned worker processes with one thread each for numeric libraries; they end when this process does."""

    def __init__(self, workers: int = 0) -> None:
        self.workers = workers or os.cpu_count() or 1
        self.window = 2 * self.workers
        self._executor: ProcessPoolExecutor | None = None
        self._lock = threading.Lock()

    def submit(self, fn: Callable[[A], T], item: A, step: str = "") -> Future[T]:
        """Queue one call. After a worker has died (BrokenProcessPool in the futures under way) new ones are started."""
        with self._lock:
            if self._executor is not None:
                try:
                    return self._executor.submit(fn, item)
                except BrokenProcessPool:
                    self._executor = None
            # Started at first use: many commands need no worker.
            context = multiprocessing.get_context("spawn")
            self._executor = ProcessPoolExecutor(self.workers, mp_context=context, initializer=_start_worker)
            return self._executor.submit(fn, item)

    def close(self, *, kill: bool = False) -> None:
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is None:
            return
        if kill:
            for process in list((executor._processes or {}).values()):
                process.kill()
        executor.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """In a new worker: its environment, and an end when the parent ends, even by SIGKILL."""
    os.environ.update(WORKER_ENVIRONMENT)
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


@dataclass(frozen=True)
class _Several(Generic[A, T]):
    """Calls `fn` for one item after the other until `_CALL_S` have passed: for the first at least.

    The results of those that it came to, and whether there was time for more.
    """

    fn: Callable[[A], T]

    def __call__(self, items: Sequence[A]) -> tuple[list[T], bool]:
        end = time.monotonic() + _CALL_S
        results: list[T] = []
        for item in items:
            results.append(self.fn(item))
            if time.monotonic() >= end:
                return results, False
        return results, True


class LocalRunner:
    """Runs steps here and shards in a `Pool`, as many at a time as that likes to be given."""

    def __init__(self, pool: Pool, sink: ProgressSink | None = None) -> None:
        self._pool = pool
        self._sink = sink or LogSink()

    def step(self, name: str, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        self._sink.start(name, None)
        result = fn(*args, **kwargs)
        self._sink.finish(name)
        return result

    def map(self, name: str, fn: Callable[[A], T], items: Sequence[A]) -> list[T]:
        self._sink.start(name, len(items))
        results: dict[int, T] = {}
        waiting = list(range(len(items)))[::-1]
        running: dict[Future[tuple[list[T], bool]], list[int]] = {}
        size = 1  # of a call: more where shards take so little that to hand them over one by one takes as long
        try:
            while waiting or running:
                while waiting and len(running) < self._pool.window:
                    fair = 1 + len(waiting) // self._pool.window  # nobody idles while another has several
                    mine = [waiting.pop() for _ in range(min(size, fair, len(waiting)))]
                    running[self._pool.submit(_Several(fn), [items[index] for index in mine], name)] = mine
                done = wait(running, return_when=FIRST_COMPLETED).done
                for future in sorted(done, key=running.__getitem__):
                    mine, (found, had_time) = running.pop(future), future.result()
                    results.update(zip(mine, found, strict=False))
                    waiting += mine[len(found) :][::-1]  # what this call did not come to is the next one's
                    size = min(_MOST_AT_ONCE, 2 * size) if had_time else len(found)
                    self._sink.update(name, len(results), len(items))
        except BrokenExecutor as error:
            raise WorkerDiedError(
                f"a worker process died during {name} (out of memory, or killed): finished parts are kept, "
                "start the same command again to go on"
            ) from error
        self._sink.finish(name)
        return [results[index] for index in range(len(items))]

    def progress(self, name: str, done: float, total: float | None, note: str = "") -> None:
        self._sink.update(name, done, total, note)
