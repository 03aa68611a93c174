"""Sockets under one deadline, and a sink for bodies that never holds more than it may."""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
import zlib
from typing import Any, cast

from crawler.address import Address

CHUNK_BYTES = 64 * 1024
MAX_HEADERS = 100
_LINE_BYTES = 64 * 1024 + 1
_HEAD_ENDS = (b"\r\n", b"\n", b"")


class HeaderFloodError(Exception):
    """An answer's head is longer than it may be."""


class _DeadlineIO(io.RawIOBase):
    """Reads from a socket, waiting at most until the connection's deadline."""

    def __init__(self, owner: DeadlineSocket) -> None:
        self._owner = owner

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        owner = self._owner
        owner.arm()
        if owner.head_left is None:
            return owner.sock.recv_into(buffer)
        if owner.head_left <= 0:
            raise HeaderFloodError("the headers do not end")
        received = owner.sock.recv_into(buffer)
        owner.head_left -= received
        return received


class DeadlineSocket:
    """The part of a socket that http.client uses, under one `deadline` (time.monotonic())."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.deadline = 0.0
        self.head_left: int | None = None  # bytes that the head of an answer may still have; None in the body

    def arm(self) -> None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("time is up")
        self.sock.settimeout(left)

    def makefile(self, *_: object, **__: object) -> io.BufferedReader:
        return io.BufferedReader(_DeadlineIO(self), CHUNK_BYTES)

    def sendall(self, data: bytes) -> None:
        self.arm()
        self.sock.sendall(data)

    def close(self) -> None:
        """http.client closes its socket when the server will, with the body still to be read: see Connection.shut."""


def connect(
    address: Address, ips: list[str], timeout_s: float, context: ssl.SSLContext | None, deadline: float
) -> DeadlineSocket:
    """Connect to the first of the vetted IP addresses that answers; with a `context`, TLS is verified
    against the name."""
    error: OSError = OSError("no address")
    for ip in ips:
        left = min(timeout_s, deadline - time.monotonic())
        if left <= 0:
            raise TimeoutError("time is up before the connection stands")
        try:
            sock = socket.create_connection((ip, address.port), timeout=left)
        except OSError as failure:
            error = failure
            continue
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(max(0.001, min(timeout_s, deadline - time.monotonic())))
            if context is not None:
                sock = context.wrap_socket(sock, server_hostname=address.host)
        except OSError:
            sock.close()
            raise
        return DeadlineSocket(sock)
    raise error


class Sink:
    """Collects a body, decoding gzip and deflate; `full` as soon as sent or decoded bytes exceed the cap."""

    def __init__(self, coding: str, cap: int) -> None:
        self.body = bytearray()
        self.full = False
        self._cap = cap
        self._sent = 0
        self._inflate = zlib.decompressobj(wbits=47) if coding in {"gzip", "x-gzip", "deflate"} else None

    def write(self, chunk: bytes) -> None:
        self._sent += len(chunk)
        if self._inflate is None:
            self.body += chunk
        elif not self._inflate.eof:  # never inflate more than one byte over the cap: a bomb stays small
            self.body += self._inflate.decompress(chunk, self._cap + 1 - len(self.body))
        self.full = max(self._sent, len(self.body)) > self._cap

    @property
    def is_cut_short(self) -> bool:
        return self._inflate is not None and self._sent > 0 and not self._inflate.eof


class Head:
    """The headers of an answer in the order of their coming: names in lower case, values as text."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self.pairs = pairs

    def get(self, name: str, default: str | None = None) -> str | None:
        name = name.lower()
        return next((value for key, value in self.pairs if key == name), default)

    def get_all(self, name: str, default: Any = None) -> Any:
        name = name.lower()
        return [value for key, value in self.pairs if key == name] or default

    def items(self) -> list[tuple[str, str]]:
        return self.pairs


class Response(http.client.HTTPResponse):
    """The standard library's response, whose head is bounded, and read without an e-mail parser (a third of the time
    that a small picture takes)."""

    def begin(self) -> None:
        """Read the head of the first answer that is no interim one (1xx).

        Raises HeaderFloodError beyond MAX_HEADERS or the socket's bound of bytes, http.client.HTTPException for what
        is no HTTP.
        """
        status = 100
        while 100 <= status < 200 and status != 101:
            version, status, self.reason = cast(Any, self)._read_status()
            pairs = self._pairs()
        self.code = self.status = status
        self.version = 10 if version in {"HTTP/1.0", "HTTP/0.9"} else 11
        self.headers = self.msg = cast(Any, Head(pairs))
        self.chunked = cast(Any, (self.headers.get("transfer-encoding") or "").lower() == "chunked")
        self.chunk_left = None
        self.will_close = cast(Any, self)._check_close()
        self.length = None if self.chunked else _length(self.headers.get("content-length"))
        if status in {204, 304}:
            self.length = 0
        if not self.chunked and self.length is None:
            self.will_close = True

    def _pairs(self) -> list[tuple[str, str]]:
        pairs: list[tuple[str, str]] = []
        while (line := self.fp.readline(_LINE_BYTES)) not in _HEAD_ENDS:
            if len(pairs) >= MAX_HEADERS or len(line) >= _LINE_BYTES:
                raise HeaderFloodError(f"over {MAX_HEADERS} headers, or {_LINE_BYTES} bytes in one")
            if line[:1] in b" \t" and pairs:  # a folded line (RFC 9112, 5.2) goes on with the value before
                pairs[-1] = (pairs[-1][0], f"{pairs[-1][1]} {_text(line.strip())}")
                continue
            name, colon, value = line.partition(b":")
            if colon:
                pairs.append((name.strip().lower().decode("latin-1"), _text(value.strip())))
        return pairs


def _length(value: str | None) -> int | None:
    """A Content-Length; None where it is none that counts."""
    return int(value) if value and value.isascii() and value.isdigit() and len(value) < 20 else None


def _text(value: bytes) -> str:
    """UTF-8 in a Location header is common enough to be read as such; all bytes are Latin-1."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


class Connection:
    """A kept connection to one authority, over a socket that is connected already; it never reconnects by itself,
    which would go round the address check."""

    def __init__(self, guard: DeadlineSocket) -> None:
        self.guard = guard
        self.fresh = True
        self._response: Response | None = None

    def ask(self, head: bytes, deadline: float, max_head_bytes: int) -> Response:
        """Send a request without a body; the head of the answer. Raises OSError, HTTPException, HeaderFloodError."""
        self.guard.deadline, self.guard.head_left = deadline, max_head_bytes
        self.guard.sendall(head)
        self._response = Response(cast(Any, self.guard), method="GET")
        self._response.begin()
        self.guard.head_left = None
        return self._response

    def shut(self) -> None:
        """Close the connection for good."""
        if self._response is not None:
            self._response.close()
        self.guard.sock.close()
