"""An S3 server of our own for tests: moto's, in a process of its own, on loopback, gone afterwards."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

START_S = 180


@dataclass(frozen=True)
class ObjectStore:
    """A running server, and the environment in which it is found."""

    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
        return {**keys, "AWS_ENDPOINT_URL": self.endpoint}

    def files(self) -> Any:
        """The server's files as s3fs shows them, nothing remembered."""
        import s3fs

        return s3fs.S3FileSystem(key="test", secret="test", endpoint_url=self.endpoint, use_listings_cache=False)

    def new_root(self) -> str:
        """The address of a root in an empty bucket."""
        bucket = f"faces-{secrets.token_hex(4)}"
        self.files().mkdir(bucket)
        return f"s3://{bucket}/corpus"


@contextlib.contextmanager
def serving() -> Iterator[ObjectStore]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(port)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    silent = subprocess.DEVNULL
    server = subprocess.Popen(command, env=environment, stdin=silent, stdout=silent, stderr=silent)
    try:
        _until_it_answers(server, f"http://127.0.0.1:{port}/")
        yield ObjectStore(f"http://127.0.0.1:{port}")
    finally:
        server.kill()
        server.wait()


def _until_it_answers(server: subprocess.Popen[bytes], address: str) -> None:
    deadline = time.monotonic() + START_S
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=10):
            return
        assert server.poll() is None and time.monotonic() < deadline, "moto's server did not start"
        time.sleep(0.1)
