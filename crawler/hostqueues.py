"""Which address is asked next: bounded per host, paused where a host asks for it, ended where a host refuses.

Every host has a queue of its own, and hosts take turns. A thread that comes for work is given an address that may be
asked now; only where no host has one does it wait. So a slow, paused or refusing host costs the others nothing.

A host begins with one request at a time until its first answer that is no refusal, and goes back to one at a time after
each refusal or "too many requests". `refusal_limit` refusals in a row end the asking, in all P worker processes of a
build: at most max(refusal_limit + P - 1, P * share) addresses of a host are asked in a row that all refuse, where share
is host_concurrency / P, at least 1. What is over the limit was under way when the others answered.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from crawler.politeness import MAX_CRAWL_DELAY_S, Closed, Effect, Grant, PolitenessConfig, Reply, Row
from crawler.refusals import HostRefusals
from warehouse.schema import Reason


@dataclass(eq=False, slots=True)
class _Host:
    refusals: HostRefusals
    queue: deque[Row] = field(default_factory=deque)
    active: int = 0
    is_open: bool = False  # past the slow start
    is_queued: bool = False  # in the line of hosts that are ready, or in the heap of those that wait
    not_before: float = 0.0
    delay_s: float = 0.0
    limited: int = 0  # in a row
    silences: int = 0  # in a row
    closed: Closed | None = None


class HostQueues:
    """The line of rows; safe to share between threads.

    Each `Grant` without `closed` must be followed by one `answered` (with the row's new fate) for its host.
    """

    def __init__(
        self,
        rows: Iterable[Row],
        config: PolitenessConfig,
        deadline: float,
        refusals: Callable[[str], HostRefusals],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._share = config.share
        self._deadline = deadline
        self._refusals = refusals
        self._clock = clock
        self._hosts: dict[str, _Host] = {}
        self._ready: deque[str] = deque()
        self._waiting: list[tuple[float, str]] = []  # hosts by the time at which they may be asked again
        self._later: list[tuple[float, int, Row]] = []  # rows by the time of their next attempt
        self._changed = threading.Condition(threading.Lock())
        for row in rows:
            self._enqueue(row)

    def take(self) -> Grant:
        """The next row, waiting for one if need be. As many calls as rows were given must be made and ended."""
        with self._changed:
            while (grant := self._next()) is None:
                due = min([self._deadline, *(heap[0][0] for heap in (self._waiting, self._later) if heap)])
                # When time is up, rows under way end soon; the bound keeps a late one from spinning the others.
                self._changed.wait(max(0.02, due - self._clock()))
            if self._ready:
                self._changed.notify()
            return grant

    def try_take(self) -> Grant | None:
        """The next row that may be asked now, or None."""
        with self._changed:
            return self._next()

    def answered(self, grant: Grant, reply: Reply, asked_url: str) -> bool:
        """Tell what came of a granted row, before the row is ended, put back (`again`) or moved on.

        `asked_url` is the address that gave the answer. False where the host is not asked any more.
        """
        now = self._clock()
        with self._changed:
            host = self._hosts[grant.row.host]
            host.active -= 1
            self._learn(grant, host, reply, asked_url, now)
            self._line_up(grant.row.host, host)
            self._changed.notify()
            return host.closed is None

    def set_delay(self, name: str, delay_s: float) -> None:
        """Crawl-delay of a host in seconds, for the build as a whole; from the next request on."""
        delay_s = min(max(delay_s, self._config.host_delay_s), MAX_CRAWL_DELAY_S) * self._config.processes
        with self._changed:
            host = self._hosts[name]
            if host.delay_s != delay_s:
                host.delay_s = delay_s
                host.not_before = max(host.not_before, self._clock() + delay_s)

    def again(self, row: Row, pause_s: float = 0.0) -> None:
        """Put a row back: for another attempt after a pause, or to wait for another host (`row.host` changed)."""
        with self._changed:
            if pause_s > 0:
                heapq.heappush(self._later, (self._clock() + pause_s, row.position, row))
            else:
                self._enqueue(row)
            self._changed.notify()

    def refusal(self, name: str, url: str) -> str | None:
        """What refused at this very address of a host before, or None."""
        with self._changed:
            host = self._hosts.get(name)
            return host.refusals.evidence(url) if host is not None else None

    def check(self) -> None:
        """Raise what kept a refusal from being written (OSError): a part must not end well without it."""
        with self._changed:
            for host in self._hosts.values():
                if host.refusals.fault is not None:
                    raise host.refusals.fault

    # All below runs under the lock.

    def _next(self) -> Grant | None:
        now = self._clock()
        self._wake(now)
        while self._ready:
            grant = self._from(self._ready.popleft(), now)
            if grant is not None:
                return grant
        return None

    def _enqueue(self, row: Row) -> None:
        host = self._hosts.get(row.host)
        if host is None:
            delay_s = self._config.host_delay_s * self._config.processes
            host = self._hosts[row.host] = _Host(self._refusals(row.host), delay_s=delay_s)
        host.queue.append(row)
        self._line_up(row.host, host)

    def _line_up(self, name: str, host: _Host) -> None:
        """Put a host where it belongs: ready, waiting for its time, or nowhere."""
        if host.is_queued or not host.queue or (host.closed is None and host.active >= self._limit(host)):
            return
        host.is_queued = True
        if host.closed is None and host.not_before > self._clock():
            heapq.heappush(self._waiting, (host.not_before, name))
        else:
            self._ready.append(name)

    def _limit(self, host: _Host) -> int:
        return self._share if host.is_open and not host.delay_s else 1

    def _wake(self, now: float) -> None:
        up = now >= self._deadline
        while self._later and (up or self._later[0][0] <= now):
            self._enqueue(heapq.heappop(self._later)[2])
        while self._waiting and (up or self._waiting[0][0] <= now):
            self._ready.append(heapq.heappop(self._waiting)[1])

    def _from(self, name: str, now: float) -> Grant | None:
        host = self._hosts[name]
        host.is_queued = False
        if not host.queue:
            return None
        if host.closed is None and now >= self._deadline:
            host.closed = self._out_of_time(host, now)
        host.refusals.look()
        if host.refusals.is_final and host.closed is None:
            count = host.refusals.in_a_row
            host.closed = Closed(Reason.HOST_OPTED_OUT, f"the host refused {count} pictures in a row")
        if host.refusals.in_a_row:
            host.is_open = False
        closed = host.closed
        if closed is None:
            if host.active >= self._limit(host) or host.not_before > now:
                self._line_up(name, host)
                return None
            said = host.refusals.evidence(host.queue[0].url)
            closed = Closed(Reason.IMAGE_OPTED_OUT, f"refused before: {said}") if said is not None else None
        row = host.queue.popleft()
        if closed is None:
            host.active += 1
            if host.delay_s:
                host.not_before = now + host.delay_s
        self._line_up(name, host)
        return Grant(row, closed, now)

    @staticmethod
    def _out_of_time(host: _Host, now: float) -> Closed:
        if host.not_before > now or host.delay_s or host.limited:
            return Closed(Reason.RATE_LIMITED, "the host's pauses left no time for this address in this part")
        return Closed(Reason.TIMEOUT, "the part's time was up")

    def _learn(self, grant: Grant, host: _Host, reply: Reply, asked_url: str, now: float) -> None:
        effect = reply.effect
        if effect is Effect.UNASKED:
            return
        host.silences = host.silences + 1 if effect is Effect.SILENCE else 0
        if effect is Effect.GOOD:
            host.refusals.good()
            host.is_open, host.limited = True, 0
        elif effect is Effect.NEUTRAL:
            host.is_open = host.is_open or not host.refusals.in_a_row
        elif effect is Effect.REFUSAL:
            host.refusals.add(asked_url, reply.http_status, reply.detail)
            host.is_open = False
        elif effect is Effect.LIMITED:
            self._pause(grant, host, reply.retry_after_s, now)
        elif host.silences >= self._config.silence_limit:
            reason = reply.reason or Reason.TIMEOUT
            self._close(grant.row.host, host, reason, f"{host.silences} failures in a row, the last: {reply.detail}")

    def _pause(self, grant: Grant, host: _Host, retry_after_s: float | None, now: float) -> None:
        """Nobody asks the host before it wants to be asked; a pause too long leaves it to a later run."""
        host.is_open = False
        if grant.asked_at >= host.not_before or not host.limited:  # one pause for all that were under way
            host.limited += 1
        pause_s = retry_after_s if retry_after_s is not None else self._config.pause_s * 2 ** (host.limited - 1)
        host.not_before = max(host.not_before, now + pause_s)
        too_long = pause_s > self._config.pause_max_s or host.not_before > self._deadline
        if too_long or host.limited >= self._config.limited_limit:
            wants = f"wants a pause of {pause_s:.0f} s" if too_long else f"limited us {host.limited} times in a row"
            self._close(grant.row.host, host, Reason.RATE_LIMITED, f"the host {wants}: left for a later run")

    def _close(self, name: str, host: _Host, reason: Reason, detail: str) -> None:
        if host.closed is None:
            host.closed = Closed(reason, detail)
            if host.queue:  # it may be waiting for a time that does not matter any more
                host.is_queued = True
                self._ready.append(name)
