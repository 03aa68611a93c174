from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.steps.runner import LocalRunner, Pool, WorkerDiedError, WorkerPool


def _square(number: int) -> int:
    return number * number


def _threads_and_allocator(_: int) -> tuple[str, str]:
    import pyarrow as pa

    return os.environ["OMP_NUM_THREADS"], pa.default_memory_pool().backend_name


def _die(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _refuse(number: int) -> int:
    raise ValueError(f"no {number}")


class _Steps:
    def __init__(self) -> None:
        self.seen: list[tuple[str, float]] = []

    def start(self, name: str, total: float | None) -> None:
        self.seen.append((name, 0))

    def update(self, name: str, done: float, total: float | None, note: str = "") -> None:
        self.seen.append((name, done))

    def finish(self, name: str) -> None:
        self.seen.append((name, -1))


def test_results_keep_the_order_of_the_items_and_progress_is_told() -> None:
    steps = _Steps()
    with WorkerPool(2) as pool:
        runner = LocalRunner(pool, steps)
        assert runner.map("squares", _square, list(range(9))) == [n * n for n in range(9)]
        assert runner.map("environment", _threads_and_allocator, [0]) == [("1", "system")]
    assert steps.seen[0] == ("squares", 0)
    assert ("squares", 9) in steps.seen
    assert ("squares", -1) in steps.seen


class _Inline(Pool):
    """Calls at once, in this process; remembers how many shards each call was given."""

    workers, window = 2, 4

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def submit(self, fn: Callable[[Any], Any], item: Any, step: str = "") -> Future[Any]:
        self.sizes.append(len(item))
        future: Future[Any] = Future()
        future.set_result(fn(item))
        return future

    def close(self, *, kill: bool = False) -> None:
        pass


def _slow_square(number: int) -> int:
    time.sleep(0.03)
    return number * number


def _late_square(number: int) -> int:
    return _slow_square(number) if number >= 250 else number * number


def test_quick_shards_are_handed_over_several_at_a_time() -> None:
    pool = _Inline()
    assert LocalRunner(pool).map("quick", _square, list(range(500))) == [n * n for n in range(500)]
    assert len(pool.sizes) < 100


def test_a_slow_shard_is_handed_over_alone() -> None:
    pool = _Inline()
    assert LocalRunner(pool).map("slow", _slow_square, list(range(20))) == [n * n for n in range(20)]
    assert set(pool.sizes) == {1}, "another worker may take the next one"


def test_what_a_call_had_no_time_for_is_done_by_the_next() -> None:
    pool = _Inline()
    assert LocalRunner(pool).map("late", _late_square, list(range(280))) == [n * n for n in range(280)]
    assert pool.sizes[-1] == 1


def test_an_error_in_a_worker_is_raised_here_as_it_was() -> None:
    with pytest.raises(ValueError, match="no 1"), WorkerPool(1) as pool:
        LocalRunner(pool).map("refuse", _refuse, [1, 2])


def test_a_killed_worker_is_one_clear_error_and_the_pool_recovers() -> None:
    with WorkerPool(1) as pool:
        with pytest.raises(WorkerDiedError, match="start the same command again"):
            LocalRunner(pool).map("die", _die, [0])
        assert pool.submit(_square, 3).result(timeout=60) == 9


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, time\n"
        "from flows.steps.runner import WorkerPool\n"
        "if __name__ == '__main__':\n"
        "    pool = WorkerPool(1)\n"
        "    pool.submit(abs, 1).result()\n"
        "    print('ready', flush=True)\n"
        "    pool.submit(time.sleep, 600)\n"
        "    time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline().strip() == "ready"
    children = psutil.Process(parent.pid).children(recursive=True)
    assert children
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(children, timeout=15)
    assert not alive
