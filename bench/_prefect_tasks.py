"""Tasks that do nothing, through our flows' runner and a Prefect server of their own, for `bench.orchestration`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_START_LIMIT_S = 180.0
_SAMPLE_EVERY_S = 0.2


def nothing(item: int) -> int:
    """The work of a task (in a worker process)."""
    return item


def run_tasks(tasks: int) -> dict[str, Any]:
    """Run a flow of `tasks` tasks: wall seconds, milliseconds per task, and peaks of memory in MiB, of the flow's own
    process (without its workers) and of the server."""
    import psutil

    with tempfile.TemporaryDirectory(prefix="bench-prefect-") as folder, _server(Path(folder)) as (pid, env):
        command = [sys.executable, "-m", "bench._prefect_tasks", str(tasks)]
        flow = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
        server = psutil.Process(pid)
        watched = {"flow": [psutil.Process(flow.pid)], "server": [server, *server.children(recursive=True)]}
        peaks = dict.fromkeys(watched, 0)
        while flow.poll() is None:
            for name, processes in watched.items():
                try:
                    peaks[name] = max(peaks[name], sum(process.memory_info().rss for process in processes))
                except psutil.Error:  # it has just ended
                    continue
            time.sleep(_SAMPLE_EVERY_S)
        output, _ = flow.communicate()
        if flow.returncode:
            raise RuntimeError(f"the flow of {tasks} tasks ended with code {flow.returncode}")
    seconds = float(json.loads(output.splitlines()[-1])["seconds"])
    memory = {f"{name}_mib": round(peak / (1 << 20), 1) for name, peak in peaks.items()}
    print(f"{tasks:,} tasks: {seconds:.1f} s, {memory}", flush=True)
    return {"seconds": round(seconds, 1), "ms_per_task": round(1000 * seconds / tasks, 2), **memory}


@contextmanager
def _server(folder: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """A Prefect server with an empty SQLite database: its process, and the environment of who is to ask it."""
    from flows.cli.prefect_api import PrefectApi
    from flows.steps.children import start_child, stop_children

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    api = f"http://127.0.0.1:{port}/api"
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    env |= {"PREFECT_HOME": str(folder), "PREFECT_API_URL": api, "DO_NOT_TRACK": "1"}
    env |= {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_LOGGING_LEVEL": "WARNING"}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    child = start_child("server", command, folder / "server.log", env, Path.cwd())
    try:
        deadline = time.monotonic() + _START_LIMIT_S
        while not PrefectApi(api).healthy():
            if not child.alive() or time.monotonic() > deadline:
                raise RuntimeError(f"the Prefect server did not start: {child.tail()}")
            time.sleep(0.5)
        yield child.process.pid, env
    finally:
        stop_children([child])


def main() -> None:
    """The flow, in a process of its own; the clock runs from the first task to the last."""
    from prefect import flow

    from flows.prefect_runner import PrefectRunner

    tasks = int(sys.argv[1])

    @flow(name="nothing", persist_result=False)
    def many() -> float:
        with PrefectRunner(2) as runner:
            runner.map("warm-up", nothing, range(2))
            started = time.perf_counter()
            runner.map("nothing", nothing, range(tasks))
            return time.perf_counter() - started

    print(json.dumps({"seconds": many()}))


if __name__ == "__main__":
    main()
