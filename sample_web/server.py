"""`SampleWeb`: the small web on loopback, served by a process of its own for as long as a `with` block lasts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import TracebackType
from urllib.request import ProxyHandler, build_opener

import pyarrow as pa

from sample_web.answers import REQUESTS_PATH
from sample_web.errors import InputError
from sample_web.site import Site
from sample_web.truth import origins_of, truth_table

_STOP_S = 5.0


class SampleWeb:
    """A small deterministic web on 127.0.0.1.

    with SampleWeb(images=4000) as web: crawl(web.url)

    Raises InputError for a size or share that cannot be, and on entering where the ports are taken.
    """

    def __init__(self, images: int = 4000, seed: int = 0, port: int = 0, untrue: float = 0.25) -> None:
        self.site = Site(images, seed, untrue)
        self._port = port
        self._process: subprocess.Popen[str] | None = None
        self._url = ""

    def __enter__(self) -> SampleWeb:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Address of the first host, without a path: "http://127.0.0.1:8717"."""
        if not self._url:
            raise RuntimeError("the sample web is not running: use `with SampleWeb(...) as web`")
        return self._url

    @property
    def origins(self) -> tuple[str, ...]:
        """Addresses of the hosts: pages and pictures; pictures; refused by robots.txt; opted out by header."""
        return origins_of(self.url)

    @property
    def pid(self) -> int:
        """Process id of the server."""
        if self._process is None:
            raise RuntimeError("the sample web is not running")
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until it listens."""
        if self._process is not None:
            raise RuntimeError("the sample web is already running")
        site = self.site
        options = {"--images": site.images, "--seed": site.seed, "--untrue": site.untrue, "--port": self._port}
        command = [sys.executable, "-P", "-m", "sample_web", "--parent", str(os.getpid())]
        command += [str(word) for option in options.items() for word in option]
        home = str(Path(__file__).resolve().parents[1])
        paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # Ctrl-C reaches the one who uses the web, who stops it when done
        )
        assert self._process.stdout is not None
        ready = json.loads(self._process.stdout.readline() or '{"error": "the sample web did not start"}')
        if "error" in ready:
            self.stop()
            raise InputError(ready["error"])
        self._url = ready["url"]

    def stop(self) -> None:
        """Stop the server; does nothing where it is not running."""
        process, self._process, self._url = self._process, None, ""
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def requests(self) -> Counter[tuple[str, str]]:
        """How often each (authority, path) was asked for: ("127.0.0.1:8717", "/robots.txt"). Without the pool."""
        opener = build_opener(ProxyHandler({}))  # loopback never goes through a proxy
        with opener.open(self.url + REQUESTS_PATH, timeout=30) as answer:
            rows = json.load(answer)
        return Counter({(authority, path): count for authority, path, count in rows})

    def truth(self) -> pa.Table:
        """`truth_table` of this web."""
        return truth_table(self.site.images, self.site.seed, self.url, self.site.untrue)
