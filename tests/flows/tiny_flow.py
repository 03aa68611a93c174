"""A flow over stand-in shards, run as a program against a server: `tiny_flow.py KIND SHARDS FOLDER`."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from prefect import flow
from prefect.context import FlowRunContext

from flows.prefect_runner import PrefectRunner, waiting_events
from flows.steps.runner import WorkerDiedError

Item = tuple[int, str]


def die_once(item: Item) -> int:
    """The worker of shard 1 is killed the first time."""
    mark = Path(item[1]) / "died"
    if item[0] == 1 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return 1000 + item[0] ** 2  # Prefect keeps track of integers from 257 on


def reject(item: Item) -> int:
    """Shard 1 has a fault that no second try mends."""
    with (Path(item[1]) / f"tried-{item[0]:03d}").open("a") as tries:
        tries.write("x")
    if item[0] == 1:
        raise ValueError("no such thing 'foo'")
    return item[0]


def sleep(item: Item) -> int:
    """A shard without an end; it says who runs it."""
    (Path(item[1]) / f"pid-{os.getpid()}").touch()
    time.sleep(300)
    return item[0]


def plan(folder: str, shards: int, more: int = 0) -> int:
    """The connection breaks the first time."""
    mark = Path(folder) / "broke"
    if not mark.exists():
        mark.touch()
        raise ConnectionResetError("the other side has gone")
    return shards + more


@flow(name="tiny", persist_result=False)
def tiny(kind: str, shards: int, folder: str) -> None:
    with PrefectRunner(2, timeout_minutes=0.4 if kind == "sleep" else 0) as runner:
        total = runner.step("plan", plan, folder, shards, more=1)
        runner.progress("plan", 1, 2, "halfway")
        found = runner.map("detect", globals()[kind], [(i, folder) for i in range(shards)])
    context = FlowRunContext.get()
    assert context is not None
    told = {"total": total, "found": found, "kept": len(context.run_results), "waiting": waiting_events()}
    (Path(folder) / "found.json").write_text(json.dumps(told))


if __name__ == "__main__":
    try:
        tiny(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    except (ValueError, WorkerDiedError, TimeoutError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
