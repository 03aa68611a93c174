"""Steps and shards of a pipeline as Prefect tasks: a task is a step or a shard, never a picture.

The flow's own process only waits: the work of a shard is done in a worker process, which the page of the run shows
as one task named after the step and the shard (`detect-00003`).
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, CancelledError
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext
from prefect.events.worker import EventsWorker, should_emit_events
from prefect.futures import PrefectFuture
from prefect.tasks import Task
from prefect.utilities.timeout import timeout

from flows.steps.runner import Pool, WorkerDiedError, WorkerPool

A = TypeVar("A")
T = TypeVar("T")

# A shard is tried again only after what may be different the next time: its worker process died (the kernel took its
# memory, someone killed it) or a connection broke. Wrong input, a full disk or a fault of ours stay as they are.
TRANSIENT = (BrokenExecutor, ConnectionError, TimeoutError)
RETRIES = 2
RETRY_DELAYS_S = [2.0, 10.0]
RETRY_JITTER = 0.3
PROGRESS_EVERY_S = 10.0
PARENT_CHECK_S = 2.0
SUSPEND_CHECK_S = 1.0
ORPHAN_GRACE_S = 8.0
EVENTS_AHEAD, EVENTS_CHECK_S = 200, 0.05
DIED = "out of memory? Finished parts are kept, run it again to go on"


def shard_name(step: str, item: object, position: int) -> str:
    """Name of the task run for one shard: the part that the item names, else its position in the list."""
    part = getattr(item, "part", item)
    number = part if isinstance(part, int) and not isinstance(part, bool) else position
    return f"{step}-{number:05d}"


def progress_line(done: float, total: float | None, note: str) -> str:
    """How far a step is, in words; where nobody knows the total, the note alone says it."""
    if total is None:
        return note or f"{done:g}"
    return f"{done:g} of {total:g}{', ' if note else ''}{note}"


def end_with_worker() -> None:
    """Where a Prefect worker started this process: end when the worker is gone, even by SIGKILL.

    A run without its worker could neither be cancelled nor seen by `gptface up` when it stops.
    """
    if "PREFECT__FLOW_RUN_ID" not in os.environ:
        return
    worker = os.getppid()

    def watch() -> None:
        while os.getppid() == worker:
            time.sleep(PARENT_CHECK_S)
        os.kill(os.getpid(), signal.SIGTERM)
        # Prefect now tells its server that the run has crashed, again and again for a minute where that is gone, too.
        # Nobody is left to hear it: the next `gptface up` marks such runs.
        time.sleep(ORPHAN_GRACE_S)
        os._exit(1)

    threading.Thread(target=watch, name="worker-watch", daemon=True).start()


def end_when_suspended(over: threading.Event) -> None:
    """Until `over`: a run that somebody suspends stops at once, with its processes, and goes on when it is resumed.

    Prefect itself looks between two tasks alone, and a training is one task, which the signal has save its step first.
    """
    context = FlowRunContext.get()
    if context is None or threading.current_thread() is not threading.main_thread():
        return
    request = context.flow_run_suspension_request

    def stop(_number: int, _frame: FrameType | None) -> None:
        request.raise_if_requested()

    def watch() -> None:
        while not over.wait(SUSPEND_CHECK_S):
            if request.is_requested():
                os.kill(os.getpid(), signal.SIGUSR1)
                return

    signal.signal(signal.SIGUSR1, stop)
    threading.Thread(target=watch, name="suspend-watch", daemon=True).start()


def waiting_events() -> int:
    """What Prefect has still to tell its server of this process' tasks; each holds all that its task held."""
    return EventsWorker.instance()._queue.qsize() if should_emit_events() else 0


class PrefectRunner:
    """The `Runner` of `flows.steps.runner` inside a running flow.

    At most `workers + 2` shards (or the pool's window, where that is smaller) are handed to Prefect at a time: a worker
    never waits for its next shard, and neither the flow's memory nor the server's list of pending tasks grows with the
    number of shards.

    What is not done within `timeout_minutes` (0: no limit) is ended by TimeoutError, with all its processes. `pool`, in
    place of `workers` of this machine, is closed with the runner.
    """

    def __init__(self, workers: int = 0, timeout_minutes: float = 0.0, pool: Pool | None = None) -> None:
        self._pool = pool or WorkerPool(workers)
        self._minutes = timeout_minutes
        self._limit = timeout(timeout_minutes * 60 or None)
        self._window = min(self._pool.workers + 2, self._pool.window)
        self._over = threading.Event()  # set when the flow ends or is cancelled: nothing is started or retried then
        self._said = 0.0

    def __enter__(self) -> Self:
        end_with_worker()
        end_when_suspended(self._over)
        self._pool.__enter__()
        self._limit.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._pool.__exit__(kind, error, traceback)
        try:
            self._limit.__exit__(kind, error, traceback)
        except TimeoutError:
            raise TimeoutError(
                f"not done within timeout_minutes={self._minutes:g}: finished parts are kept, run it again to go on"
            ) from None

    def step(self, name: str, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run `fn(*args, **kwargs)` here, as one task named `name`; again after a connection that broke."""

        # Without parameters of its own: Prefect neither walks, hashes nor stores what a step is given.
        @task(name=name, task_run_name=name, **self._task_options())
        def run_step() -> T:
            return fn(*args, **kwargs)

        return run_step()

    def map(self, name: str, fn: Callable[[A], T], items: Sequence[A]) -> list[T]:
        """One task per item, each run in a worker process; the results in the order of `items`.

        The first shard that fails for good ends the map: shards under way finish, no further one starts.
        """
        slots = threading.Semaphore(self._window)
        failed = threading.Event()
        results: dict[int, T] = {}
        under_way: dict[int, PrefectFuture[None]] = {}
        done: deque[int] = deque()
        for position, item in enumerate(items):
            slots.acquire()
            # Where tasks end faster than the server takes notice, memory grows with their number.
            while waiting_events() > EVENTS_AHEAD:
                time.sleep(EVENTS_CHECK_S)
            ended = [done.popleft() for _ in range(len(done))]
            if failed.is_set():  # it is, before the one that failed is done
                break
            for each in ended:  # a future holds some kilobytes, too
                under_way.pop(each).result()

            def work(item: A = item, position: int = position) -> None:
                results[position] = self._pool.submit(fn, item, name).result()

            def end(_: PrefectFuture[None], position: int = position) -> None:
                done.append(position)
                slots.release()

            under_way[position] = self._shard_task(name, shard_name(name, item, position), work, failed).submit()
            under_way[position].add_done_callback(end)
        try:
            for future in under_way.values():
                future.result()
        except BrokenExecutor as error:
            raise WorkerDiedError(f"worker processes of {name} died again and again: {DIED}") from error
        return [results[position] for position in range(len(items))]

    def progress(self, name: str, done: float, total: float | None, note: str = "") -> None:
        """A line in the log of the run, at most one every `PROGRESS_EVERY_S` seconds."""
        if time.monotonic() - self._said < PROGRESS_EVERY_S:
            return
        self._said = time.monotonic()
        get_run_logger().info("%s: %s", name, progress_line(done, total, note))

    def _task_options(self) -> dict[str, Any]:
        """Of every task: nothing is stored, and what may be different the next time is tried again."""

        # A plain function: of a bound method Prefect takes the mere presence for a no.
        def is_worth_a_retry(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
            return isinstance(state.result(raise_on_failure=False), TRANSIENT) and not self._over.is_set()

        return {
            "cache_policy": NO_CACHE,
            "persist_result": False,
            "retries": RETRIES,
            "retry_delay_seconds": RETRY_DELAYS_S,
            "retry_jitter_factor": RETRY_JITTER,
            "retry_condition_fn": is_worth_a_retry,
        }

    def _shard_task(
        self, name: str, run_name: str, work: Callable[[], None], failed: threading.Event
    ) -> Task[[], None]:
        def give_up(_task: Task[..., Any], _run: TaskRun, _state: State[Any]) -> None:
            failed.set()

        @task(
            name=name,
            task_run_name=run_name,
            **self._task_options(),
            on_failure=[give_up],
        )
        def run_shard() -> None:
            if self._over.is_set():
                raise CancelledError
            work()  # what comes of it does not pass through Prefect, which would keep it to the end of the flow

        return run_shard
