"""What a host itself says about asking it: robots.txt (RFC 9309) and tdmrep.json, each asked for at most once.

Both belong to a scheme://authority. robots.txt is asked first; tdmrep.json only where robots.txt lets us ask for it,
so a host that forbids us everything sees one request, and one that reserves its rights sees two.
"""

from __future__ import annotations

import posixpath
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from crawler.address import AddressError, parse_address
from crawler.fetch import USER_AGENT_TOKEN, Fetcher, FetchError, Hooks
from crawler.tdmrep import TDMREP_PATH, TdmFile, parse_tdmrep
from warehouse.schema import Reason

ROBOTS_MAX_BYTES = 512 * 1024  # RFC 9309 asks for at least 500 KiB; the same bound holds for tdmrep.json

# `robots_status` and `tdmrep_status` where there is no HTTP status.
UNREACHABLE: Final = 0
PRIVATE: Final = -1
NOT_ASKED: Final = -2
ENDLESS_REDIRECTS: Final = 310  # over five: RFC 9309 2.3.1.2 reads them as "unavailable"
_TOO_MANY_REQUESTS: Final = 429
# Text of which a gate keeps the parsed rules, which take up to 40 times as much memory: some 30,000 common hosts, or
# 128 that fill their files to the brim.
_PARSED_BYTES: Final = 64 << 20

_AGENT_LINE = re.compile(r"[ \t]*user[- ]?agent(?:[ \t]*:|[ \t])[ \t]*([^#]*)", re.IGNORECASE)
_TOKEN = re.compile(r"[A-Za-z_-]+")


@dataclass(frozen=True)
class HostRecord:
    """What one scheme://authority answered (a row of HOSTS). Texts are "" where the status is no 2xx."""

    host: str
    robots_status: int
    robots_txt: str
    tdmrep_status: int
    tdmrep_json: str
    checked_at: datetime


@dataclass(frozen=True)
class Verdict:
    """May the address be asked? `reason` is set where not, `evidence` names what said so."""

    allowed: bool
    reason: Reason | None
    evidence: str


def normalise_agents(robots_txt: str, token: str = USER_AGENT_TOKEN) -> str:
    """Reduce every User-agent line to `token`, "*" or "other", as RFC 9309 2.2.1 compares product tokens.

    The parser lets a prefix match (`gpt` for `gptface`) and "*" stand inside names; RFC 9309 does neither.
    """

    def reduced(line: str) -> str:
        match = _AGENT_LINE.match(line)
        if match is None:
            return line
        name = match[1].strip()
        if name == "*" or re.match(r"\*\s", name):
            return "User-agent: *"
        found = _TOKEN.match(name)
        return f"User-agent: {token if found is not None and found[0].lower() == token else 'other'}"

    return "\n".join(map(reduced, robots_txt.splitlines()))


def parse_robots(robots_txt: str, token: str = USER_AGENT_TOKEN) -> Any:
    """The rules of `robots_txt` as a protego.Protego."""
    from protego import Protego

    return Protego.parse(normalise_agents(robots_txt.removeprefix("\ufeff"), token))


def _refusal_by_status(record: HostRecord) -> Verdict | None:
    """RFC 9309 2.3.1: no answer and 5xx refuse all; so does 429, by which a host asks for fewer requests."""
    where, status = f"{record.host}/robots.txt", record.robots_status
    if status == PRIVATE:
        return Verdict(False, Reason.PRIVATE_ADDRESS, f"{record.host} is not a public address")
    if status == UNREACHABLE:
        return Verdict(False, Reason.ROBOTS_UNREACHABLE, f"{where}: no answer")
    if status >= 500 or status == _TOO_MANY_REQUESTS:
        return Verdict(False, Reason.ROBOTS_UNREACHABLE, f"{where}: HTTP {status}")
    return None


class HostRules:
    """A host record, parsed once: the verdict on each of its addresses takes microseconds."""

    def __init__(self, record: HostRecord, token: str = USER_AGENT_TOKEN) -> None:
        self.record = record
        self.size = 1000 + len(record.robots_txt) + len(record.tdmrep_json)
        self._token = token
        self._refusal = _refusal_by_status(record)
        has_rules = record.robots_status // 100 == 2 and record.robots_txt
        self._robots = parse_robots(record.robots_txt, token) if has_rules else None
        self._tdm = parse_tdmrep(record.tdmrep_json, record.host) if record.tdmrep_status // 100 == 2 else TdmFile()
        where = f"{record.host}/robots.txt"
        if record.robots_status // 100 != 2:  # 3xx that leads nowhere and 4xx: "unavailable" allows all
            where = f"{where}: HTTP {record.robots_status}, no rules"
        self._allowed = Verdict(True, None, where)

    def verdict(self, target: str) -> Verdict:
        """May `target` (path and query, percent-encoded) of this host be asked?"""
        if self._refusal is not None:
            return self._refusal
        refusal = self._rule_against(target)
        if refusal is None and ("/." in target or "//" in target or "%2" in target):
            # Servers resolve "/a/../b", "//b" and "/%2E" before they look: rules for "/b" hold for them, too.
            refusal = self._rule_against(_resolved(target))
        return refusal or self._allowed

    def _rule_against(self, target: str) -> Verdict | None:
        host = self.record.host
        if self._robots is not None and not self._robots.can_fetch(host + target, self._token):
            return Verdict(False, Reason.ROBOTS_TXT, f"{host}/robots.txt disallows {self._token}")
        rule = self._tdm.reservation(target)
        if rule is None:
            return None
        policy = f", policy {rule.policy}" if rule.policy else ""
        return Verdict(False, Reason.TDM_RESERVED, f"{host}{TDMREP_PATH} reserves {rule.location}{policy}")

    @property
    def crawl_delay_s(self) -> float | None:
        """Crawl-delay for our token in seconds, where robots.txt names one."""
        delay: float | None = self._robots.crawl_delay(self._token) if self._robots is not None else None
        return delay


def _resolved(target: str) -> str:
    """`target` with dot segments resolved and slashes merged."""
    path, mark, query = target.partition("?")
    path = re.sub("%2e", ".", re.sub("%2f", "/", path, flags=re.IGNORECASE), flags=re.IGNORECASE)
    tail = "/" if path.endswith(("/", "/.", "/..")) and path.strip("/.") else ""
    return f"/{posixpath.normpath(path).lstrip('/')}{tail}{mark}{query}"


def fetch_robots(host: str, fetcher: Fetcher) -> tuple[int, str]:
    """Ask `host` (scheme://authority) for robots.txt, once, over up to five redirects: (status, text)."""
    hops: list[str] = []
    try:
        answer = fetcher.get(f"{host}/robots.txt", Hooks(hop=hops.append, truncate_at=ROBOTS_MAX_BYTES))
    except FetchError as error:
        if error.reason is Reason.PRIVATE_ADDRESS and not hops:
            return PRIVATE, ""
        return (ENDLESS_REDIRECTS if error.reason is Reason.TOO_MANY_REDIRECTS else UNREACHABLE), ""
    return answer.status, _text(answer.body) if answer.status // 100 == 2 else ""


def fetch_tdmrep(host: str, fetcher: Fetcher, may_follow: Callable[[str], None]) -> tuple[int, str]:
    """Ask `host` for tdmrep.json, once: (status, text). `may_follow` raises FetchError for a redirect not to follow.

    Of what is no JSON (many hosts answer any path with a page) only the beginning is kept, as evidence.
    """
    try:
        answer = fetcher.get(f"{host}{TDMREP_PATH}", Hooks(hop=may_follow, truncate_at=ROBOTS_MAX_BYTES))
    except FetchError as error:
        return (ENDLESS_REDIRECTS if error.reason is Reason.TOO_MANY_REDIRECTS else UNREACHABLE), ""
    if answer.status // 100 != 2:
        return answer.status, ""
    text = answer.body[:ROBOTS_MAX_BYTES].decode("utf-8", "replace").replace("\0", "")
    return answer.status, text[:200] if parse_tdmrep(text, host).note == "not JSON" else text


def _text(body: bytes) -> str:
    """A robots.txt as text, at most ROBOTS_MAX_BYTES; a line cut in two there would mean something else, and goes."""
    if len(body) >= ROBOTS_MAX_BYTES:
        body = body[:ROBOTS_MAX_BYTES]
        body = body[: max(body.rfind(b"\n"), body.rfind(b"\r")) + 1]
    return body.decode("utf-8", "replace").replace("\0", "")


class RobotsGate:
    """Verdicts for any address, asking each authority at most once; safe to share between threads."""

    def __init__(
        self,
        fetcher: Fetcher,
        records: Mapping[str, HostRecord] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.records: dict[str, HostRecord] = dict(records or {})
        self.asked = 0
        self._fetcher = fetcher
        self._now = now
        self._rules: dict[str, HostRules] = {}  # of all records, or as many as fit, the latest last
        self._parsed_bytes = 0
        self._robots: dict[str, tuple[int, str]] = {}
        self._locks: dict[tuple[str, str], threading.Lock] = {}
        self._lock = threading.Lock()

    def verdict(self, url: str) -> Verdict:
        """May `url` be asked? An address that cannot be asked at all is refused with its own reason."""
        try:
            address = parse_address(url)
        except AddressError as error:
            return Verdict(False, error.reason, error.detail)
        return self.rules(address.authority).verdict(address.target)

    def crawl_delay_s(self, host: str) -> float | None:
        """Crawl-delay for our token, in seconds, where `host` (scheme://authority) names one."""
        return self.rules(host).crawl_delay_s

    def record(self, host: str) -> HostRecord:
        """The record of `host` (scheme://authority), asked for if it is not known yet."""
        return self.rules(host).record

    def rules(self, host: str) -> HostRules:
        """The parsed record of `host` (scheme://authority), asked for if it is not known yet."""
        known = self._rules.get(host)
        if known is not None:
            return known
        with self._locked("record", host):
            if host not in self.records:
                self.records[host] = self._ask(host)
            return self._rules.get(host) or self._parsed(self.records[host])

    def _parsed(self, record: HostRecord) -> HostRules:
        rules = HostRules(record)
        with self._lock:
            self._rules[record.host] = rules
            self._parsed_bytes += rules.size
            while self._parsed_bytes > _PARSED_BYTES and len(self._rules) > 1:
                self._parsed_bytes -= self._rules.pop(next(iter(self._rules))).size
        return rules

    def _ask(self, host: str) -> HostRecord:
        status, text = self._robots_txt(host)
        with self._lock:
            self.asked += 1
        record = HostRecord(host, status, text, NOT_ASKED, "", self._now())
        if not HostRules(record).verdict(TDMREP_PATH).allowed:
            return record
        tdmrep_status, tdmrep_json = fetch_tdmrep(host, self._fetcher, self._may_follow)
        return HostRecord(host, status, text, tdmrep_status, tdmrep_json, record.checked_at)

    def _robots_txt(self, host: str) -> tuple[int, str]:
        """robots.txt alone. Whoever holds this lock waits for no other one, so redirects cannot tie a knot."""
        with self._locked("robots", host):
            if host not in self._robots:
                self._robots[host] = fetch_robots(host, self._fetcher)
            return self._robots[host]

    def _may_follow(self, target: str) -> None:
        """A redirect of tdmrep.json is an address like any other: the robots.txt of its host decides."""
        try:
            address = parse_address(target)
        except AddressError as error:
            raise FetchError(error.reason, error.detail) from error
        known = self.records.get(address.authority)
        status, text = (known.robots_status, known.robots_txt) if known else self._robots_txt(address.authority)
        record = HostRecord(address.authority, status, text, NOT_ASKED, "", self._now())
        verdict = HostRules(record).verdict(address.target)
        if not verdict.allowed:
            raise FetchError(verdict.reason or Reason.ROBOTS_TXT, verdict.evidence)

    def _locked(self, what: str, host: str) -> threading.Lock:
        with self._lock:
            return self._locks.setdefault((what, host), threading.Lock())
