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


class _DeadlineIO(io.RawIOBase):
    """Reads from a socket, waiting at most until the connection's deadline."""

    def __init__(self, owner: DeadlineSocket) -> None:
        self._owner = owner

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._owner.arm()
        return self._owner.sock.recv_into(buffer)


class DeadlineSocket:
    """The part of a socket that http.client uses, under one `deadline` (time.monotonic())."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.deadline = 0.0

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
    address: Address, ips: list[str], timeout_s: float, context: ssl.SSLContext, deadline: float
) -> DeadlineSocket:
    """Connect to the first of the vetted IP addresses that answers; TLS is verified against the name."""
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
            if address.scheme == "https":
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


class Connection(http.client.HTTPConnection):
    """A kept connection to one authority, over a socket that is connected already."""

    def __init__(self, address: Address, sock: DeadlineSocket) -> None:
        super().__init__(address.host, address.port)
        self.guard = sock
        self.sock = cast(Any, sock)
        self.auto_open = 0  # never reconnect behind our back: that would skip the address check
        self.fresh = True

    def shut(self) -> None:
        """Close the connection for good."""
        self.close()
        self.guard.sock.close()
