"""robots.txt as RFC 9309 says, for our own token, asked once per scheme://authority."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from crawler.address import AddressError, authority_of, parse_address
from crawler.fetch import USER_AGENT_TOKEN, Fetcher, FetchError, Hooks
from warehouse.schema import Reason

ROBOTS_MAX_BYTES = 512 * 1024  # RFC 9309 asks for at least 500 KiB

# `robots_status` where no HTTP status was got.
UNREACHABLE = 0
PRIVATE = -1

_AGENT_LINE = re.compile(r"^([ \t]*user[- ]?agent[ \t]*:[ \t]*)([^#\r\n]*)", re.IGNORECASE | re.MULTILINE)
_TOKEN = re.compile(r"[A-Za-z_-]+")


@dataclass(frozen=True)
class HostRecord:
    """What one scheme://authority answered to /robots.txt. Status 0: no answer; -1: not a public address."""

    host: str
    robots_status: int
    robots_txt: str
    checked_at: datetime


@dataclass(frozen=True)
class Verdict:
    """May the address be asked? `reason` is set where not, `evidence` names what said so."""

    allowed: bool
    reason: Reason | None
    evidence: str


def normalise_agents(robots_txt: str, token: str = USER_AGENT_TOKEN) -> str:
    """Reduce every User-agent line to the product token that RFC 9309 2.2.1 compares (letters, "_", "-").

    The parser also lets a prefix match (`gpt` for `gptface`), so a name that is only a prefix of ours is changed.
    """

    def reduced(match: re.Match[str]) -> str:
        name = match[2].strip()
        found = _TOKEN.match(name)
        product = found[0].lower() if found else name
        if product != token and product != "*" and product in token:
            product = f"not-{product}"
        return match[1] + product

    return _AGENT_LINE.sub(reduced, robots_txt)


def parse_robots(robots_txt: str, token: str = USER_AGENT_TOKEN) -> Any:
    """The rules of `robots_txt` as a protego.Protego."""
    from protego import Protego

    return Protego.parse(normalise_agents(robots_txt.removeprefix("\ufeff"), token))


def robots_verdict(url: str, record: HostRecord, rules: Any, token: str = USER_AGENT_TOKEN) -> Verdict:
    """RFC 9309 2.3.1: 2xx rules count, 3xx that lead nowhere and 4xx allow all, 5xx and no answer refuse all."""
    where = f"{record.host}/robots.txt"
    if record.robots_status == PRIVATE:
        return Verdict(False, Reason.PRIVATE_ADDRESS, f"{record.host} is not a public address")
    if record.robots_status == UNREACHABLE:
        return Verdict(False, Reason.ROBOTS_UNREACHABLE, f"{where}: no answer")
    if record.robots_status >= 500:
        return Verdict(False, Reason.ROBOTS_UNREACHABLE, f"{where}: HTTP {record.robots_status}")
    if record.robots_status >= 300:
        return Verdict(True, None, f"{where}: HTTP {record.robots_status}, no rules")
    if rules.can_fetch(url, token):
        return Verdict(True, None, where)
    return Verdict(False, Reason.ROBOTS_TXT, f"{where} disallows {token}")


def fetch_robots(host: str, fetcher: Fetcher, now: datetime) -> HostRecord:
    """Ask `host` (scheme://authority) for its robots.txt, once; follows up to five redirects."""
    try:
        answer = fetcher.get(f"{host}/robots.txt", Hooks(truncate=True))
    except FetchError as error:
        if error.reason is Reason.PRIVATE_ADDRESS:
            return HostRecord(host, PRIVATE, "", now)
        # RFC 9309 2.3.1.2: a chain of over five redirects may be taken as "unavailable", which allows.
        status = 310 if error.reason is Reason.TOO_MANY_REDIRECTS else UNREACHABLE
        return HostRecord(host, status, "", now)
    text = answer.body[:ROBOTS_MAX_BYTES].decode("utf-8", "replace") if answer.status // 100 == 2 else ""
    return HostRecord(host, answer.status, text.replace("\0", ""), now)


class RobotsGate:
    """Verdicts by robots.txt for any address, asking each authority at most once; safe to share between threads."""

    def __init__(
        self,
        fetcher: Fetcher,
        records: dict[str, HostRecord] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.records: dict[str, HostRecord] = dict(records or {})
        self.asked = 0
        self._fetcher = fetcher
        self._now = now
        self._rules: dict[str, Any] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def record(self, host: str) -> HostRecord:
        """The record of `host` (scheme://authority), asked for if it is not known yet."""
        with self._lock:
            lock = self._locks.setdefault(host, threading.Lock())
        with lock:
            if host not in self.records:
                self.records[host] = fetch_robots(host, self._fetcher, self._now())
                self.asked += 1
            if host not in self._rules:
                self._rules[host] = parse_robots(self.records[host].robots_txt)
            return self.records[host]

    def verdict(self, url: str) -> Verdict:
        """Robots verdict on `url`; an address that cannot be asked at all is refused with its own reason."""
        try:
            parse_address(url)
        except AddressError as error:
            return Verdict(False, error.reason, error.detail)
        record = self.record(authority_of(url))
        return robots_verdict(url, record, self._rules[record.host])

    def crawl_delay_s(self, host: str) -> float | None:
        """Crawl-delay for our token, in seconds, where `host` names one."""
        delay: float | None = self._rules[self.record(host).host].crawl_delay(USER_AGENT_TOKEN)
        return delay
