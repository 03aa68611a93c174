"""What a run writes down about itself: sums over its workers, ends, and that nothing depends on it."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest

from flows.steps.progress import Progress, progress_dir, read_progress
from flows.steps.runner import LocalRunner, WorkerPool
from flows.steps.watched import Tally, WatchedRunner, watched

A, T = TypeVar("A"), TypeVar("T")


class Threads:
    """A runner whose workers are threads, and that tries a shard that fails once more, as Prefect does."""

    def step(self, name: str, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        return fn(*args, **kwargs)

    def map(self, name: str, fn: Callable[[A], T], items: Sequence[A]) -> list[T]:
        def patiently(item: A) -> T:
            try:
                return fn(item)
            except ConnectionError:
                return fn(item)

        with ThreadPoolExecutor(3) as pool:
            return list(pool.map(patiently, items))

    def progress(self, name: str, done: float, total: float | None, note: str = "") -> None:
        pass


def watch(root: Path) -> Any:
    return watched(root, "run", "build", "list:x", Threads())


def read(root: Path) -> Progress:
    found = read_progress(root)
    assert found is not None
    return found


def lose_two(item: int) -> Tally:
    time.sleep(0.01)
    return Tally(10, {"dns": 1, "timeout": 1})


def test_a_step_is_the_sum_of_its_workers(tmp_path: Path) -> None:
    with watch(tmp_path) as runner:
        assert len(runner.map("download", lose_two, range(20))) == 20
        work = read(tmp_path).work["download"]
        assert (work.shards, work.failed, work.rows, work.reasons) == (20, 0, 200, {"dns": 20, "timeout": 20})
        assert work.seconds >= 20 * 0.01
        assert 1 <= len(list(progress_dir(tmp_path).glob("work-*"))) <= 3  # one per worker, not per shard
        runner.map("detect", lambda item: Tally(8, {"no_face": 3}), range(20))
        assert read(tmp_path).lost() == {"no_face": 60, "dns": 20, "timeout": 20}
        runner.decided({"kept": 100, "no_face": 60, "dns": 40})
        assert read(tmp_path).lost() == {"no_face": 60, "dns": 40}, "what was decided counts"
    run = read(tmp_path).run
    assert run.status == "completed" and not read(tmp_path).is_alive()
    assert [(step.name, step.total) for step in run.steps] == [("download", 20), ("detect", 20)]


def test_a_shard_under_way_is_queued_and_the_rest_is_foretold(tmp_path: Path) -> None:
    seen: list[Progress] = []

    def look(item: int) -> Tally:
        if item == 3:
            seen.append(read(tmp_path))
        return Tally(5)

    class Serial(Threads):
        def map(self, name: str, fn: Callable[[A], T], items: Sequence[A]) -> list[T]:
            return [fn(item) for item in items]

    with watched(tmp_path, "run", "build", "list:x", Serial()) as runner:
        runner.map("download", look, range(4))
    [step] = seen[0].run.steps
    now = step.started_at + 30
    assert seen[0].is_alive() and seen[0].shards_done(step) == 3
    assert seen[0].seconds(step, now) == pytest.approx(30)
    assert seen[0].seconds_left(step, now) == pytest.approx(10), "three shards took 30 s, one is left"
    assert seen[0].rows_per_s(step, now) == pytest.approx(0.5)


def test_a_shard_that_is_tried_again_counts_once(tmp_path: Path) -> None:
    tries: list[int] = []

    def flaky(item: int) -> Tally:
        tries.append(item)
        if tries.count(item) == 1 and item == 2:
            raise ConnectionError("gone")
        return Tally(10)

    with watch(tmp_path) as runner:
        runner.map("download", flaky, range(4))
    work = read(tmp_path).work["download"]
    assert (work.shards, work.failed, work.rows) == (4, 1, 40)


def test_how_a_run_ends_is_told_unless_it_did_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such source"), watch(tmp_path) as runner:
        runner.step("sources", int, "1")
        runner.step("plan", int, "no such source")
    assert read_progress(tmp_path) is None and not progress_dir(tmp_path).exists(), "a mistyped source leaves nothing"
    with pytest.raises(ValueError, match="broken"), watch(tmp_path) as runner:
        runner.map("download", lambda item: Tally(item), [1])
        raise ValueError("broken\nbeyond repair")
    run = read(tmp_path).run
    assert (run.status, run.error) == ("failed", "broken beyond repair")


def test_a_run_whose_process_is_gone_is_not_alive(tmp_path: Path) -> None:
    with watch(tmp_path) as runner:
        runner.step("sources", int, "1")
        running = read(tmp_path)
    assert running.is_alive()
    # The same number may belong to another process by now, so the time at which it started counts as well.
    other = dataclasses.replace(running.run, process_started=running.run.process_started - 60)
    assert not dataclasses.replace(running, run=other).is_alive()
    elsewhere = dataclasses.replace(other, host="another-machine")
    assert dataclasses.replace(running, run=elsewhere).is_alive(), "nobody here can tell"


def test_a_new_run_forgets_the_last_one(tmp_path: Path) -> None:
    with watch(tmp_path) as runner:
        runner.map("download", lose_two, range(3))
    with watch(tmp_path) as runner:
        runner.map("download", lose_two, range(2))
    assert read(tmp_path).work["download"].shards == 2


def test_stages_that_a_step_names_stand_among_the_steps(tmp_path: Path) -> None:
    def train(runner: WatchedRunner) -> None:
        runner.progress("tokenizer", 10, 10, "loss 0.2")
        runner.progress("gptface", 3, 12, "40 samples/s")

    with watch(tmp_path) as runner:
        runner.step("train", train, runner)
        runner._write()
        steps = {step.name: step for step in read(tmp_path).run.steps}
        assert steps["tokenizer"].ended_at is not None and steps["gptface"].ended_at is None
        assert (steps["gptface"].done, steps["gptface"].total, steps["gptface"].note) == (3, 12, "40 samples/s")


def test_a_run_does_not_end_because_nobody_can_be_told(tmp_path: Path) -> None:
    with watch(tmp_path) as runner:
        progress_dir(tmp_path).rename(tmp_path / "away") if progress_dir(tmp_path).exists() else None
        progress_dir(tmp_path).write_text("in the way")
        assert runner.map("download", lose_two, [1]) == [Tally(10, {"dns": 1, "timeout": 1})]


def test_files_that_are_no_json_are_passed_over(tmp_path: Path) -> None:
    with watch(tmp_path) as runner:
        runner.map("download", lose_two, [1])
    (progress_dir(tmp_path) / "work-cut-1-1.json").write_text('{"download": {"sha')
    assert read(tmp_path).work["download"].shards == 1
    (progress_dir(tmp_path) / "run.json").write_text("")
    assert read_progress(tmp_path) is None


def test_each_process_writes_a_file_of_its_own(tmp_path: Path) -> None:
    with WorkerPool(2) as pool, watched(tmp_path, "run", "build", "list:x", LocalRunner(pool)) as runner:
        runner.map("download", lose_two, range(30))
        assert read(tmp_path).work["download"].shards == 30
    files = list(progress_dir(tmp_path).glob("work-*.json"))
    assert 1 <= len(files) <= 2
    assert sum(json.loads(file.read_text())["download"]["shards"] for file in files) == 30


def test_what_another_version_wrote_is_no_run(tmp_path: Path) -> None:
    with watch(tmp_path) as runner:
        runner.step("plan", int, "1")
    file = progress_dir(tmp_path) / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"colour": "red"}))
    assert read_progress(tmp_path) is None
