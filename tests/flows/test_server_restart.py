"""The Prefect server dies in mid-build and comes back: the flow goes on, nothing is lost, nothing made twice."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from sample_web.server import SampleWeb
from tests.flows.test_build import outcome
from tests.flows.up_process import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

FLOW = """
import sys
from flows.build_dataset import build_dataset
from flows.parameters import BuildSettings
settings = BuildSettings(allow_private=True, page_delay_s=0, part_urls=30, refusal_limit=1000, samples_per_shard=25)
if __name__ == "__main__":
    build_dataset(sys.argv[1], root=sys.argv[2], detector="cascade", settings=settings)
"""


class Server:
    """`prefect server start` on one port and one database, as a server that several machines share."""

    def __init__(self, folder: Path) -> None:
        self._port, self._log = free_port(), folder / "server.log"
        self.env = {
            **os.environ,
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": f"http://127.0.0.1:{self._port}/api",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self._port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([sys.executable, *words], env=self.env, stdout=log, stderr=log)
        deadline = time.monotonic() + 180
        while not self._answers():
            assert time.monotonic() < deadline and self._process.poll() is None, self._log.read_text()
            time.sleep(0.3)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return urllib.request.urlopen(f"{self.env['PREFECT_API_URL']}/health", timeout=5).status == 200
        return False


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    server.start()
    yield server
    server.kill()


def test_a_server_that_restarts_in_mid_flow(
    server: Server, built_root: Path, small_web: SampleWeb, tmp_path: Path
) -> None:
    root, script, log = tmp_path / "root", tmp_path / "flow.py", tmp_path / "flow.log"
    script.write_text(FLOW)
    with log.open("wb") as said:
        run = subprocess.Popen(
            [sys.executable, str(script), f"site:{small_web.url}", str(root)], env=server.env, stdout=said, stderr=said
        )
    try:
        deadline = time.monotonic() + 180
        while not list(root.glob("raw/*/g000/images/*_stats.json")):
            assert run.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        server.kill()
        assert run.poll() is None, "the flow was over before the server went"
        time.sleep(5)
        server.start()
        assert run.wait(240) == 0, log.read_text()
    finally:
        run.kill()
        run.wait()
    assert outcome(root) == outcome(built_root)
