"""A real Prefect set-up as a user gets it: `gptface up` on a free port, with an empty home and a bare PATH."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PREFECT = Path(sys.executable).parent / "prefect"
UP = "from flows.cli import main; main()"


@dataclass(frozen=True)
class Up:
    """A running `gptface up`."""

    process: subprocess.Popen[bytes]
    root: Path
    home: Path
    env: dict[str, str]
    api: str

    def prefect(self, *words: str, limit_s: float = 240) -> subprocess.CompletedProcess[str]:
        """A command of the prefect program, as from another terminal."""
        command = [str(PREFECT), *words]
        return subprocess.run(
            command, env=self.env, cwd=self.home, capture_output=True, text=True, timeout=limit_s, check=False
        )

    def ask(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """An answer of the Prefect server, None where it has none: POST with a body, GET without, or `method`.

        Asked again where its database is busy for the moment (503, or no answer in time), as Prefect's own client does.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.api + path, data=data, headers={"Content-Type": "application/json"}, method=method
        )
        for pause_s in (1, 2, 4, 8, 0):
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return json.loads(answer.read() or b"null")
            except (urllib.error.HTTPError, TimeoutError) as error:
                if not pause_s or (isinstance(error, urllib.error.HTTPError) and error.code != 503):
                    raise
                time.sleep(pause_s)
        raise AssertionError("unreachable")

    def state(self, run: str) -> dict[str, Any]:
        """The state of a flow run."""
        state: dict[str, Any] = self.ask(f"/flow_runs/{run}")["state"]
        return state

    def until_ended(self, run: str, limit_s: float = 90) -> dict[str, Any]:
        """The state in which a flow run ended."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            state = self.state(run)
            if state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
                return state
            time.sleep(0.5)
        raise AssertionError(f"still {state['name']} after {limit_s} s")

    def stop(self, number: int = signal.SIGTERM, limit_s: float = 60) -> int:
        """Send the signal, wait for the end; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(limit_s)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_up(folder: Path, *words: str, limit_s: float = 240, more: Mapping[str, str] | None = None) -> Up:
    """Start `gptface up` below `folder`, with these options, and wait until it says that it is ready.

    `more` of the environment; a GPTFACE_ROOT there is the root.
    """
    root, home, port = folder / "root", folder / "home", free_port()
    home.mkdir(exist_ok=True)
    env = {"HOME": str(home), "PATH": os.defpath, "LANG": "C.UTF-8", "PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
    if "PYTHONPATH" in os.environ:  # a worktree that shares its environment: else another clone's flows would run
        env["PYTHONPATH"] = os.environ["PYTHONPATH"]
    env |= more or {}
    place = env.get("GPTFACE_ROOT", str(root))
    log = folder / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", UP, "up", "--root", place, "--port", str(port), *words],
            env=env,
            cwd=home,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    deadline = time.monotonic() + limit_s
    while "Ctrl-C stops" not in log.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"gptface up did not start:\n{log.read_text()}")
        time.sleep(0.3)
    return Up(process, root, home, {**env, "PREFECT_HOME": str(folder / "client")}, env["PREFECT_API_URL"])
