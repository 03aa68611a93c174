"""The Prefect server dies in mid-build and comes back: the flow goes on, nothing is lost, nothing made twice."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.flows.small_crawl import PART_URLS, content, rows_of
from tests.flows.test_recrawl_e2e import Site
from tests.flows.up_process import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

LIMIT_S = 900  # of each wait: far more than it takes
FLOW = f"""
import sys
from flows.build_dataset import build_dataset
from flows.parameters import BuildSettings
if __name__ == "__main__":
    settings = BuildSettings(allow_private=True, part_urls={PART_URLS}, samples_per_shard=6, workers=1)
    build_dataset(sys.argv[1], root=sys.argv[2], detector="cascade", settings=settings)
"""


class Server:
    """`prefect server start` on one port and one database, as a server that several machines share."""

    def __init__(self, folder: Path) -> None:
        self._port, self._log = free_port(), folder / "server.log"
        self.api = f"http://127.0.0.1:{self._port}/api"
        # 8 tries are some 8 minutes; Prefect's own 5 are one, in which a busy machine may not start a server.
        settings = {"PREFECT_HOME": str(folder / "prefect"), "PREFECT_API_URL": self.api}
        self.env = {**os.environ, **settings, "PREFECT_CLIENT_MAX_RETRIES": "8"}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self._port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([sys.executable, *words], env=self.env, stdout=log, stderr=log)
        wait_until(self._answers, self._process, self._log)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.api}/health", timeout=30) as answer:
            return bool(answer.status == 200)
        return False


def wait_until(reached: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not reached():
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    server.start()
    yield server
    server.kill()


def test_a_server_that_restarts_in_mid_flow(
    server: Server, small_site: Site, small_source: str, undisturbed: Path, tmp_path: Path
) -> None:
    root, script, log = tmp_path / "root", tmp_path / "flow.py", tmp_path / "flow.log"
    script.write_text(FLOW)
    small_site.asked.clear()
    with log.open("wb") as said:
        run = subprocess.Popen(
            [sys.executable, str(script), small_source, str(root)], env=server.env, stdout=said, stderr=said
        )
    try:
        wait_until(lambda: any(root.glob("raw/*/g000/images/*_stats.json")), run, log)
        server.kill()
        assert run.poll() is None and set(rows_of(root).values()) == {0}, "the build was over before the server went"
        time.sleep(3)
        server.start()
        assert run.wait(LIMIT_S) == 0, log.read_text()
    finally:
        run.kill()
        run.wait()
    assert content(root) == content(undisturbed)
    pictures = Counter(path for path, _, _ in small_site.asked if path.endswith(".jpg"))
    assert set(pictures.values()) == {1}, "a picture was asked for twice"
