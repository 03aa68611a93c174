"""GET with guards: addresses, redirects, bytes and seconds are bounded, and a refusal ends the transfer.

The standard library's HTTP client, kept alive per thread and host. Every wait on the socket is cut to what is left
of one deadline for the whole request, so a server that sends a byte per second (in headers or body) holds a thread
no longer than a dead one.
"""

from __future__ import annotations

import http.client
import ssl
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast
from urllib.parse import urljoin

from crawler.address import Address, AddressError, parse_address
from crawler.resolver import Resolver, ResolverConfig
from crawler.transport import CHUNK_BYTES, Connection, HeaderFloodError, Response, Sink, connect
from warehouse.schema import Reason

USER_AGENT_TOKEN = "gptface"
USER_AGENT = f"{USER_AGENT_TOKEN}/0.1 (face-language dataset builder; robots.txt token: {USER_AGENT_TOKEN})"

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_DRAIN_BYTES = 64 * 1024  # an error page up to this size is read so that the connection can be used again
_KEPT_PER_THREAD = 8  # open connections per thread; the longest unused is closed

Headers = Sequence[tuple[str, str]]


class FetchError(Exception):
    """Why a request gave no usable body. `http_status` is None where no answer came."""

    def __init__(self, reason: Reason, detail: str, http_status: int | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.http_status = http_status


@dataclass(frozen=True)
class FetchConfig:
    """Bounds of one request. `total_s` covers name look-up to last byte over all redirects."""

    user_agent: str = USER_AGENT
    connect_s: float = 10.0
    total_s: float = 30.0
    max_bytes: int = 20_000_000
    max_head_bytes: int = 64 * 1024
    max_redirects: int = 5
    allow_private: bool = False

    def __post_init__(self) -> None:
        for name in ("connect_s", "total_s", "max_bytes", "max_head_bytes"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be over 0, not {getattr(self, name)}")


@dataclass(frozen=True)
class Answer:
    """A complete answer of the last hop."""

    url: str
    status: int
    headers: Headers
    body: bytes


@dataclass(frozen=True)
class Hooks:
    """Called on the way: `hop` with each redirect's target before it is asked, `headers` with each answer's address,
    status and headers before its body is read. Either may raise FetchError to end the request there. `truncate_at` cuts
    a body after so many bytes, where one over `max_bytes` is a failure otherwise."""

    hop: Callable[[str], None] | None = None
    headers: Callable[[str, int, Headers], None] | None = None
    truncate_at: int | None = None


class Fetcher:
    """Guarded GET requests; safe to share between threads. Close it when done."""

    def __init__(self, config: FetchConfig, resolver: Resolver | None = None) -> None:
        self.config = config
        self._resolver = resolver or Resolver(ResolverConfig(allow_private=config.allow_private))
        self._tls: ssl.SSLContext | None = None
        self._lines = f"User-Agent: {config.user_agent}\r\nAccept: */*\r\nAccept-Encoding: identity"
        self._local = threading.local()
        self._all: set[Connection] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every kept connection of every thread."""
        self._resolver.close()
        with self._lock:
            connections, self._all = self._all, set()
        for connection in connections:
            connection.shut()

    def get(self, url: str, hooks: Hooks | None = None, deadline: float | None = None, extra: Headers = ()) -> Answer:
        """GET `url` with `extra` headers, following redirects; any final status is an answer.

        `deadline` is on time.monotonic(); `total_s` bounds the request in any case.
        Raises FetchError with a member of Reason for everything that gives no complete answer.
        """
        hooks = hooks or Hooks()
        until = time.monotonic() + self.config.total_s
        until = until if deadline is None else min(until, deadline)
        current = url
        for _ in range(self.config.max_redirects + 1):
            status, headers, body = self._hop(current, hooks, until, extra)
            location = next((value for name, value in headers if name == "location"), None)
            if status not in _REDIRECTS or not location:
                return Answer(current, status, headers, body)
            try:
                current = urljoin(current, location.strip())
            except ValueError as error:
                raise FetchError(Reason.BAD_ADDRESS, f"redirect to {location[:200]!r}: {error}", status) from error
            if hooks.hop is not None:
                hooks.hop(current)
        raise FetchError(Reason.TOO_MANY_REDIRECTS, f"over {self.config.max_redirects} redirects", status)

    def _hop(self, url: str, hooks: Hooks, until: float, extra: Headers) -> tuple[int, Headers, bytes]:
        status: int | None = None
        connection: Connection | None = None
        try:
            address = parse_address(url)
            connection, response = self._send(address, until, extra)
            status = response.status
            headers = tuple(response.getheaders())
            if hooks.headers is not None:
                hooks.headers(url, status, headers)
            body = self._body(response, hooks.truncate_at)
        except AddressError as error:
            raise FetchError(error.reason, error.detail) from error
        except TimeoutError as error:
            self._drop(connection)
            raise FetchError(Reason.TIMEOUT, "no complete answer in time", status) from error
        except FetchError:
            self._drop(connection)
            raise
        except HeaderFloodError as error:
            self._drop(connection)
            raise FetchError(Reason.TOO_LARGE, str(error), status) from error
        except (OSError, http.client.HTTPException, zlib.error) as error:
            self._drop(connection)
            text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise FetchError(Reason.BROKEN_TRANSFER, text[:300], status) from error
        if response.isclosed() and not response.will_close:
            self._keep(address, connection)
        else:
            self._drop(connection)
        return status, headers, body

    def _send(self, address: Address, until: float, extra: Headers) -> tuple[Connection, Response]:
        """Send the request; a kept connection that the server has closed meanwhile is replaced once."""
        connection = self._take(address, until)
        try:
            return connection, self._request(connection, address, until, extra)
        except (ConnectionError, http.client.BadStatusLine):
            self._drop(connection)
            if connection.fresh:
                raise
        connection = self._open(address, until)
        return connection, self._request(connection, address, until, extra)

    def _request(self, connection: Connection, address: Address, until: float, extra: Headers) -> Response:
        lines = [f"GET {address.target} HTTP/1.1", f"Host: {address.host_header}", self._lines]
        lines += [f"{name}: {value}" for name, value in extra]
        head = "\r\n".join(lines) + "\r\n\r\n"
        try:
            return connection.ask(head.encode("ascii"), until, self.config.max_head_bytes)
        except BaseException:
            self._drop(connection)
            raise

    def _body(self, response: Response, truncate_at: int | None) -> bytes:
        if response.status // 100 != 2:
            return self._drained(response)
        cap = self.config.max_bytes if truncate_at is None else truncate_at
        declared = response.length
        if declared is not None and declared > cap and truncate_at is None:
            raise FetchError(Reason.TOO_LARGE, f"{declared} bytes announced, at most {cap}", response.status)
        sink = Sink((response.getheader("Content-Encoding") or "identity").strip().lower(), cap)
        while not sink.full and (chunk := response.read(CHUNK_BYTES)):
            sink.write(chunk)
        if sink.full:
            response.will_close = True  # the rest stays unread
            if truncate_at is None:
                raise FetchError(Reason.TOO_LARGE, f"over {cap} bytes", response.status)
        elif response.length or sink.is_cut_short:
            raise FetchError(Reason.BROKEN_TRANSFER, "the body ends early", response.status)
        return bytes(sink.body[:cap])

    @staticmethod
    def _drained(response: Response) -> bytes:
        """An error page is of no use: read it if it is short, to keep the connection, and leave it else."""
        if response.length is not None and response.length <= _DRAIN_BYTES:
            response.read()
        return b""

    @property
    def _context(self) -> ssl.SSLContext:
        """Reading the system's certificates takes tens of milliseconds: only where there is an https address."""
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    # Kept connections, per thread.

    def _pool(self) -> OrderedDict[str, Connection]:
        if not hasattr(self._local, "pool"):
            self._local.pool = OrderedDict()
        return cast("OrderedDict[str, Connection]", self._local.pool)

    def _take(self, address: Address, until: float) -> Connection:
        connection = self._pool().pop(address.authority, None)
        if connection is None:
            return self._open(address, until)
        connection.fresh = False
        return connection

    def _open(self, address: Address, until: float) -> Connection:
        try:
            ips = self._resolver.ips(address, min(until, time.monotonic() + self.config.connect_s))
            context = self._context if address.scheme == "https" else None
            sock = connect(address, ips, self.config.connect_s, context, until)
        except TimeoutError as error:
            raise FetchError(Reason.TIMEOUT, f"no connection to {address.authority} in time") from error
        except ssl.SSLEOFError as error:  # hung up, which may pass; any other failure of TLS is an answer
            raise FetchError(Reason.CONNECT, f"{address.authority} ended the handshake: {error}"[:300]) from error
        except ssl.SSLError as error:
            raise FetchError(Reason.TLS, f"no secure connection to {address.authority}: {error}"[:300]) from error
        except OSError as error:
            raise FetchError(Reason.CONNECT, f"cannot connect to {address.authority}: {error}"[:300]) from error
        connection = Connection(sock)
        with self._lock:
            self._all.add(connection)
        return connection

    def _keep(self, address: Address, connection: Connection) -> None:
        pool = self._pool()
        pool[address.authority] = connection
        if len(pool) > _KEPT_PER_THREAD:
            self._drop(pool.popitem(last=False)[1])

    def _drop(self, connection: Connection | None) -> None:
        if connection is not None:
            connection.shut()
            with self._lock:
                self._all.discard(connection)
