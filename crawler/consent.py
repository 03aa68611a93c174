"""Consent: what pages, pictures and hosts say about automated use, as pure functions and as a step of its own.

Grammar: X-Robots-Tag and meta robots (comma-separated directives, a user-agent prefix holds until the next one),
the W3C community's TDM Reservation Protocol (`tdm-reservation: 1` as header or meta), robots.txt (crawler.robots).
Directives that refuse: see REFUSING. What is unclear is read as refusal only where it names such a directive.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

from crawler.fetch import USER_AGENT_TOKEN, FetchConfig, Fetcher
from crawler.files import read_rows, write_table
from crawler.plan import part_path
from crawler.robots import ROBOTS_MAX_BYTES, HostRecord, RobotsGate, Verdict
from warehouse.schema import CONSENT, HOSTS, Reason

logger = logging.getLogger(__name__)

REFUSING = frozenset({"noai", "noimageai", "none", "noindex", "noimageindex"})

# Directives with a value of their own: their colon is no user-agent prefix.
_VALUED = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
_AGENT = re.compile(r"[a-z*][a-z0-9_.*/-]*")
_PAGE_LINE = re.compile(r"^(x-robots-tag|tdm-reservation|meta [^:]{1,64}):(.*)$")


def _segments(value: str, token: str) -> Iterator[str]:
    """Directives of `value` (lower case) that hold for `token`, whole as written between commas."""
    applies = True
    for segment in value.lower().split(","):
        directive = segment.strip()
        name, colon, rest = directive.partition(":")
        name = name.strip()
        if colon and name not in _VALUED and _AGENT.fullmatch(name):
            applies = name == "*" or name.split("/")[0] == token
            directive = rest.strip()
        if applies and directive:
            yield directive


def _expired(value: str, now: datetime) -> bool:
    """True where an `unavailable_after` date (RFC 822, RFC 850 or ISO 8601) lies before `now`."""
    text = value.strip()
    try:
        date = datetime.fromisoformat(text.upper())
    except ValueError:
        try:
            date = parsedate_to_datetime(text)
        except (ValueError, TypeError, IndexError):
            return False
    return (date if date.tzinfo else date.replace(tzinfo=UTC)) < now


def refusing_directive(value: str, now: datetime, token: str = USER_AGENT_TOKEN) -> str | None:
    """The first directive in an X-Robots-Tag or meta robots value that refuses `token`, or None.

    Source of the grammar: the robots meta tag specification that search engines publish, which RFC 9309 leaves open.
    """
    segments = list(_segments(value, token))
    for index, directive in enumerate(segments):
        name = directive.partition(":")[0].strip()
        if directive in REFUSING:
            return directive
        if name == "unavailable_after":
            date = directive.partition(":")[2]
            # RFC 850 dates hold a comma: "Friday, 25-Jun-10 15:00:00 GMT".
            following = segments[index + 1] if index + 1 < len(segments) else ""
            if _expired(date, now) or _expired(f"{date}, {following}", now):
                return "unavailable_after"
    return None


def reserves_tdm(value: str) -> bool:
    """True for a `tdm-reservation` value of 1 (rights reserved)."""
    return any(part.strip() == "1" for part in value.split(","))


def refused_by_headers(headers: Iterable[tuple[str, str]], now: datetime) -> str | None:
    """What in an answer's headers (lower-case names) refuses the picture: "name: directive", or None."""
    for name, value in headers:
        if name == "x-robots-tag":
            directive = refusing_directive(value, now)
            if directive is not None:
                return f"x-robots-tag: {directive}"
        elif name == "tdm-reservation" and reserves_tdm(value):
            return "tdm-reservation: 1"
    return None


def _line_directives(page_directives: str) -> Iterator[tuple[str, str]]:
    """(kind, value) of each line: x-robots-tag, meta robots or meta <our token>, tdm-reservation."""
    for line in page_directives.lower().splitlines():
        match = _PAGE_LINE.match(line.strip())
        if match:
            yield match[1].strip(), match[2].strip()


def refused_by_page(page_directives: str, now: datetime) -> str | None:
    """What in a page's directives (PAIRS.page_directives, one "name: value" a line) refuses its pictures, or None."""
    for kind, value in _line_directives(page_directives):
        if kind in {"tdm-reservation", "meta tdm-reservation"}:
            if reserves_tdm(value):
                return "tdm-reservation: 1"
        elif kind in {"x-robots-tag", "meta robots", f"meta {USER_AGENT_TOKEN}"}:
            directive = refusing_directive(value, now)
            if directive is not None:
                return f"{kind}: {directive}"
    return None


def forbids_following(page_directives: str) -> bool:
    """True where a page asks that its links not be followed (nofollow, none)."""
    return any(
        directive in {"nofollow", "none"}
        for kind, value in _line_directives(page_directives)
        if kind in {"x-robots-tag", "meta robots", f"meta {USER_AGENT_TOKEN}"}
        for directive in _segments(value, USER_AGENT_TOKEN)
    )


# The step.


@dataclass(frozen=True)
class ConsentConfig:
    """How consent is decided. `ttl_h`: verdicts and robots.txt older than this many hours are asked for again."""

    fetch: FetchConfig = field(default_factory=lambda: FetchConfig(total_s=20.0, max_bytes=ROBOTS_MAX_BYTES))
    threads: int = 16
    ttl_h: float = 24.0


@dataclass(frozen=True)
class ConsentStats:
    """Of one part: pairs decided, pairs refused, and robots.txt requests that it took."""

    part: int
    pairs: int
    refused: int
    hosts_asked: int


def hosts_path(crawl_dir: Path) -> Path:
    return crawl_dir / "consent" / "hosts.parquet"


def consent_path(crawl_dir: Path, part: int) -> Path:
    return crawl_dir / "consent" / f"{part:05d}.parquet"


def load_hosts(crawl_dir: Path, oldest: datetime) -> dict[str, HostRecord]:
    """The cached robots.txt records that were asked for after `oldest`."""
    path = hosts_path(crawl_dir)
    rows = read_rows(path) if path.exists() else []
    return {row["host"]: HostRecord(**row) for row in rows if row["checked_at"] >= oldest}


def _save_hosts(crawl_dir: Path, records: dict[str, HostRecord]) -> None:
    rows = [records[host] for host in sorted(records)]
    write_table(hosts_path(crawl_dir), [vars(row) for row in rows], HOSTS)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time asks hosts, so that no robots.txt is asked for twice by parallel parts."""
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield  # closing the file releases the lock, also when the process dies


def pair_verdict(pair: dict[str, str], gate: RobotsGate, now: datetime) -> Verdict:
    """Consent for one pair: its page's directives, then robots.txt of the picture's host, then of the page's.

    The page itself is not asked for here, so an unreachable page host does not refuse; an explicit rule does.
    """
    directive = refused_by_page(pair["page_directives"], now)
    if directive is not None:
        return Verdict(False, Reason.PAGE_OPTED_OUT, directive)
    verdict = gate.verdict(pair["image_url"])
    if verdict.allowed and pair["page_host"] and pair["page_url"] != pair["image_url"]:
        page = gate.verdict(pair["page_url"])
        if page.reason is Reason.ROBOTS_TXT:
            return page
    return verdict


def _is_current(path: Path, oldest: datetime) -> bool:
    return path.exists() and all(row["checked_at"] >= oldest for row in read_rows(path, ["checked_at"]))


def decide_consent(part: int, crawl_dir: Path, config: ConsentConfig | None = None) -> ConsentStats:
    """Decide every pair of one planned part and write consent/<part>.parquet; a current one is kept as it is.

    A part whose pictures are already downloaded keeps the verdicts that the download went by.
    """
    config = config or ConsentConfig()
    now = datetime.now(UTC)
    oldest = now - timedelta(hours=config.ttl_h)
    target = consent_path(crawl_dir, part)
    downloaded = (crawl_dir / "images" / f"{part:05d}_stats.json").exists()
    if target.exists() and (downloaded or _is_current(target, oldest)):
        rows = read_rows(target, ["allowed"])
        return ConsentStats(part, len(rows), sum(not row["allowed"] for row in rows), 0)
    pairs = read_rows(part_path(crawl_dir / "plan", part, "pairs"))
    with _locked(crawl_dir / "consent" / "hosts.lock"), Fetcher(config.fetch) as fetcher:
        gate = RobotsGate(fetcher, load_hosts(crawl_dir, oldest))
        _ask_hosts(pairs, gate, config.threads, now)
        _save_hosts(crawl_dir, gate.records)
    verdicts = [pair_verdict(pair, gate, now) for pair in pairs]
    rows = [_consent_row(*item, now) for item in zip(pairs, verdicts, strict=True)]
    write_table(target, rows, CONSENT)
    refused = sum(not verdict.allowed for verdict in verdicts)
    logger.info("consent %05d: %d pairs, %d refused, %d hosts asked", part, len(pairs), refused, gate.asked)
    return ConsentStats(part, len(pairs), refused, gate.asked)


def _ask_hosts(pairs: list[dict[str, str]], gate: RobotsGate, threads: int, now: datetime) -> None:
    """Ask all hosts that matter at once; hosts of pairs that their page already refuses are not asked."""
    open_pairs = [pair for pair in pairs if refused_by_page(pair["page_directives"], now) is None]
    hosts = {pair[key] for pair in open_pairs for key in ("image_host", "page_host")} - {""}
    with ThreadPoolExecutor(max_workers=max(1, min(threads, len(hosts)))) as pool:
        list(pool.map(gate.record, sorted(hosts)))


def _consent_row(pair: dict[str, str], verdict: Verdict, now: datetime) -> dict[str, object]:
    return {
        "row_id": pair["row_id"],
        "url_id": pair["url_id"],
        "allowed": verdict.allowed,
        "reason": verdict.reason,
        "evidence": verdict.evidence,
        "checked_at": now,
    }
