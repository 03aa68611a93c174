"""A loopback server of files that answers byte ranges, and fails when told to."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path


@dataclass
class RangesServer:
    """`ranges` are the ranges that were asked for; the next `failures` are answered 500."""

    root: Path
    address: str = ""
    failures: int = 0
    ranges: list[str] = field(default_factory=list)


class _Handler(http.server.BaseHTTPRequestHandler):
    def __init__(self, state: RangesServer, *args: object) -> None:
        self.state = state
        super().__init__(*args)  # type: ignore[arg-type]

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        path = self.state.root / self.path.lstrip("/")
        if not path.is_file():
            return self.send_error(404)
        return self._answer(200, b"", path.stat().st_size)

    def do_GET(self) -> None:
        path = self.state.root / self.path.lstrip("/")
        if not path.is_file():
            return self.send_error(404)
        data, asked = path.read_bytes(), self.headers.get("Range", "bytes=0-")
        self.state.ranges.append(asked)
        if self.state.failures:
            self.state.failures -= 1
            return self.send_error(500)
        start, _, end = asked.removeprefix("bytes=").partition("-")
        part = data[int(start) : int(end or len(data)) + 1]
        return self._answer(206, part, len(part), f"bytes {start}-{int(start) + len(part) - 1}/{len(data)}")

    def _answer(self, status: int, body: bytes, length: int, content_range: str = "") -> None:
        self.send_response(status)
        self.send_header("ETag", '"state-1"')
        self.send_header("Content-Length", str(length))
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serve_ranges(root: Path) -> Iterator[RangesServer]:
    state = RangesServer(root)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, state))
    state.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=partial(server.serve_forever, 0.05), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
