"""Names to vetted IP addresses: cached, asked once however many wait, and never longer than the deadline.

`getaddrinfo` blocks for as long as the system's resolver likes, so it runs in a few daemon threads, and whoever asked
gives up at their own deadline. Every answer passes the address check, and the caller connects to the address that was
checked: a name that answers differently the second time (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import ipaddress
import queue
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from crawler.address import Address, AddressError, is_permitted
from warehouse.schema import Reason

_PASSING = {socket.EAI_AGAIN}  # the resolver itself is in trouble: worth asking again soon

Lookup = Callable[[str], list[str]]


@dataclass(frozen=True)
class ResolverConfig:
    """`ttl_s` is ours, because getaddrinfo does not tell the records' own; `negative_ttl_s` is for names that do not
    exist, `passing_ttl_s` for failures of the resolver itself."""

    allow_private: bool = False
    ttl_s: float = 300.0
    negative_ttl_s: float = 60.0
    passing_ttl_s: float = 5.0
    max_names: int = 20_000
    threads: int = 16


@dataclass(frozen=True)
class _Known:
    """What is known of a name: addresses that may be connected to, or why there are none."""

    ips: list[str]
    error: AddressError | None
    until: float


class Resolver:
    """`ips` for any number of threads. Close it when done; look-ups that hang do not keep the process alive."""

    def __init__(
        self,
        config: ResolverConfig | None = None,
        lookup: Lookup | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config or ResolverConfig()
        self._lookup = lookup or system_lookup
        self._clock = clock
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._asking: dict[str, Future[_Known]] = {}
        self._work: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._threads = self._idle = self._pending = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Resolver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ips(self, address: Address, deadline: float) -> list[str]:
        """The IP addresses of `address.host` that may be connected to, in the resolver's order.

        `deadline` is on time.monotonic(). Raises AddressError: DNS where the name has no address or no answer came in
        time, PRIVATE_ADDRESS where it has none that is permitted.
        """
        known = self._literal(address.host)
        if known is None:
            known = self._cached(address.host, deadline)
        if known.error is not None:
            raise AddressError(known.error.reason, known.error.detail)
        return list(known.ips)

    def close(self) -> None:
        """Let the threads end when they have nothing left to do."""
        with self._lock:
            for _ in range(self._threads):
                self._work.put(None)
            self._threads = self._idle = 0

    def _literal(self, host: str) -> _Known | None:
        """An IP address needs no resolver. Other spellings of one (127.1, 0x7f.1) go through it, which knows them."""
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return None
        return self._vetted(host, [host])

    def _cached(self, host: str, deadline: float) -> _Known:
        with self._lock:
            known = self._known.get(host)
            if known is not None and known.until > self._clock():
                self._known.move_to_end(host)
                return known
            asking = self._asking.get(host)
            if asking is None:
                asking = self._asking[host] = Future()
                self._start(host)
        try:
            return asking.result(timeout=max(0.0, deadline - time.monotonic()))
        except TimeoutError as error:
            raise AddressError(Reason.DNS, f"no answer for {host} in time") from error

    def _start(self, host: str) -> None:
        """Hand the name to a thread; called under the lock. Hung threads are bounded by `threads`, then names wait."""
        self._work.put(host)
        self._pending += 1
        if self._pending > self._idle and self._threads < self.config.threads:
            self._threads += 1
            self._idle += 1
            threading.Thread(target=self._serve, name="resolver", daemon=True).start()

    def _serve(self) -> None:
        while (host := self._work.get()) is not None:
            with self._lock:
                self._idle -= 1
                self._pending -= 1
            known = self._ask(host)
            with self._lock:
                self._known[host] = known
                self._known.move_to_end(host)
                while len(self._known) > self.config.max_names:
                    self._known.popitem(last=False)
                asking = self._asking.pop(host)
                self._idle += 1
            asking.set_result(known)

    def _ask(self, host: str) -> _Known:
        try:
            return self._vetted(host, self._lookup(host))
        except (OSError, ValueError) as error:  # UnicodeError is a ValueError
            passing = isinstance(error, socket.gaierror) and error.errno in _PASSING
            ttl_s = self.config.passing_ttl_s if passing else self.config.negative_ttl_s
            failure = AddressError(Reason.DNS, f"no address for {host}: {error}")
            return _Known([], failure, self._clock() + ttl_s)

    def _vetted(self, host: str, ips: list[str]) -> _Known:
        allowed = [ip for ip in ips if is_permitted(ipaddress.ip_address(ip), self.config.allow_private)]
        if allowed:
            return _Known(allowed, None, self._clock() + self.config.ttl_s)
        if not ips:
            return _Known([], AddressError(Reason.DNS, f"no address for {host}"), self._clock())
        refusal = AddressError(Reason.PRIVATE_ADDRESS, f"{host} is at {', '.join(ips)}, which is not public")
        return _Known([], refusal, self._clock() + self.config.negative_ttl_s)


def system_lookup(host: str) -> list[str]:
    """All addresses of `host` by the system's resolver, IPv6 ones without zone; raises OSError or UnicodeError."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    ips = dict.fromkeys(str(entry[4][0]).split("%", 1)[0] for entry in found)
    return list(ips)
