"""HTTP/1.1 (RFC 9112) for the small web: GET and HEAD, keep-alive, pipelining, conditional requests; no request bodies.

An asyncio protocol without a framework: the pool of benchmarks is answered in one write, in some tens of microseconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from email.utils import formatdate
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from sample_web.answers import Answer, Web

_MAX_HEAD_BYTES = 16_384
_MAX_BUFFER_BYTES = 65_536
_PLAIN = "text/plain; charset=utf-8"
_POOL_PREFIX = "/pool/"


class DateCache:
    """The Date header's value, made once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._text = b""

    def now(self) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._second, self._text = second, formatdate(second, usegmt=True).encode()
        return self._text


class HttpProtocol(asyncio.Protocol):
    """One connection to one host of the web."""

    def __init__(self, web: Web, host: int, executor: Executor, dates: DateCache, connections: set[Any]) -> None:
        self.web, self.host, self.executor, self.dates = web, host, executor, dates
        self.connections = connections
        self.buffer = bytearray()
        self.busy: asyncio.Task[None] | None = None  # the response under way; the next request waits for it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        if self.busy is not None:
            self.busy.cancel()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if self.busy is None:
            self._serve_buffered()
        elif len(self.buffer) > _MAX_BUFFER_BYTES:
            self.transport.pause_reading()

    def _serve_buffered(self) -> None:
        """Answer complete requests in their order until one has to wait."""
        while self.busy is None and not self.transport.is_closing():
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self.buffer) > _MAX_HEAD_BYTES:
                    self._refuse(431)
                return
            head = bytes(self.buffer[:end])
            del self.buffer[: end + 4]
            self._serve(head)

    def _serve(self, head: bytes) -> None:
        line, _, rest = head.partition(b"\r\n")
        words = line.split(b" ")
        if len(words) != 3 or words[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
            self._refuse(400)
            return
        lower = b"\r\n" + rest.lower()
        if b"\r\ncontent-length:" in lower or b"\r\ntransfer-encoding:" in lower:
            self._refuse(413)
            return
        if words[0] not in (b"GET", b"HEAD"):
            self._refuse(405)
            return
        if words[2] == b"HTTP/1.1" and b"\r\nhost:" not in lower:
            self._refuse(400)
            return
        keep = words[2] == b"HTTP/1.1" and b"\r\nconnection: close" not in lower
        target = words[1].decode("latin-1")
        # RFC 9112 3.2.2: a target may be the whole address
        path = urlsplit(target).path or "/" if target.startswith("http://") else target.partition("?")[0]
        self._answer(path, _header(rest, b"if-none-match"), words[0] == b"HEAD", keep)

    def _answer(self, path: str, if_none_match: str, only_head: bool, keep: bool) -> None:
        if path.startswith(_POOL_PREFIX):
            found = self.web.pool_picture(path)
            if found is not None:
                number, picture = found
                head = self._head(200, "image/jpeg", picture.size, f'"pool-{number}"', "", keep)
                self._write(head if only_head else head + picture.numbered(number), keep)
                return
        self.web.count(self.host, path)
        spec = self.web.picture_at(self.host, path)
        if spec is None:
            self._send(self.web.text_answer(self.host, path), if_none_match, only_head, keep)
            return

        async def render() -> None:
            loop = asyncio.get_running_loop()
            answer = await loop.run_in_executor(self.executor, self.web.picture_answer, spec)
            if answer.delay_s:
                await asyncio.sleep(answer.delay_s)
            self._send(answer, if_none_match, only_head, keep)

        self._start(render)

    def _start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do `work`, then go on with what has come in meanwhile."""
        self.busy = asyncio.get_running_loop().create_task(work())
        self.busy.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self.busy = None
        if task.cancelled() or self.transport.is_closing():
            return
        if task.exception() is not None:
            self._refuse(500)
            raise task.exception() or RuntimeError
        self.transport.resume_reading()
        self._serve_buffered()

    def _send(self, answer: Answer, if_none_match: str, only_head: bool, keep: bool) -> None:
        if answer.etag and answer.etag in if_none_match:
            self._write(self._head(304, "", None, answer.etag, answer.robots_tag, keep), keep)
            return
        size = len(answer.body)
        head = self._head(answer.status, answer.content_type, size, answer.etag, answer.robots_tag, keep)
        self._write(head if only_head else head + answer.body, keep)

    def _refuse(self, status: int) -> None:
        """Answer with an error and close: what follows on this connection cannot be understood."""
        body = f"{HTTPStatus(status).phrase}\n".encode()
        self._write(self._head(status, _PLAIN, len(body), "", "", False) + body, False)

    def _write(self, data: bytes, keep: bool) -> None:
        self.transport.write(data)
        if not keep:
            self.transport.close()

    def _head(self, status: int, content_type: str, size: int | None, etag: str, robots: str, keep: bool) -> bytes:
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"Date: {self.dates.now().decode()}"]
        if content_type:
            lines.append(f"Content-Type: {content_type}")
        if size is not None:
            lines.append(f"Content-Length: {size}")
        if etag:
            lines.append(f"ETag: {etag}")
        if robots:
            lines.append(f"X-Robots-Tag: {robots}")
        if status == 405:
            lines.append("Allow: GET, HEAD")
        lines.append("Connection: keep-alive" if keep else "Connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _header(rest: bytes, name: bytes) -> str:
    """Value of a header field, or ""."""
    for line in rest.split(b"\r\n"):
        if line[: len(name) + 1].lower() == name + b":":
            return line[len(name) + 1 :].strip().decode("latin-1")
    return ""
