"""Asking for one page: conditionally where it is known, parsed as soon as it is there, its body let go."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from crawler.address import authority_of
from crawler.directives import forbids_following, refused_by_headers
from crawler.extract import MAX_HTML_BYTES, Picture, extract_page, page_directives
from crawler.robots import Verdict
from crawler.sources.site_known import KnownPage, KnownPages
from crawler.sources.site_pace import Pace, retry_after_s
from warehouse.schema import Reason

logger = logging.getLogger(__name__)

UNCHANGED = 304
GONE = frozenset({404, 410})
REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ACCIDENTS = frozenset({408, 500, 502, 503, 504, 522, 524})
_HTML = ("text/html", "application/xhtml")


@dataclass(frozen=True)
class Reply:
    """One answer, header names in lower case. Status 0: none came, and `problem` says why.

    `refused`: its headers refused our use, as far as they came; `accident`: the failure may pass.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    problem: str = ""
    accident: bool = False
    refused: bool = False

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    @property
    def asks_for_pause(self) -> bool:
        return self.status == 429 or (self.status == 503 and self.header("retry-after") is not None)

    @property
    def is_accident(self) -> bool:
        """True for what may go well the next time; a refusal is final whatever came with it."""
        return not self.refused and (self.accident or self.status in _ACCIDENTS or self.status == 429)


# Address, extra headers, most bytes of a body -> answer. Raises for nothing that a site does.
Ask = Callable[[str, dict[str, str], int], Awaitable[Reply]]


@dataclass(frozen=True)
class Visit:
    """What one page gave. `sha256` is None where no HTML came; `links` are those that may be followed."""

    status: int
    visited_at: datetime
    reply: Reply
    size: int = 0
    sha256: str | None = None
    pictures: tuple[Picture, ...] = ()
    links: tuple[str, ...] = ()
    directives: str = ""
    header_directives: str = ""


class PageReader:
    """Visits pages at the pace that their host allows."""

    def __init__(self, ask: Ask, pace: Pace, known: KnownPages) -> None:
        self._ask = ask
        self._pace = pace
        self._known = known

    async def visit(self, url: str) -> Visit:
        """Ask for `url` and read it."""
        page = self._known.get(url)
        reply = await self.reply(url, page.condition if page is not None else {}, MAX_HTML_BYTES)
        if page is not None and reply.status == UNCHANGED:
            headers = page_directives(reply.headers, ())
            if not headers or headers == page.directives:
                return self._unchanged(reply, page)
            if reply.refused:
                # New terms for the same bytes: refusal is final, so the page is not asked again. Read, and empty.
                return Visit(200, _now(), reply, directives=headers)
            reply = await self.reply(url, {}, MAX_HTML_BYTES)
        return _read(url, reply)

    async def reply(self, url: str, headers: dict[str, str], max_bytes: int) -> Reply:
        """One request, when its host's turn has come."""
        authority = authority_of(url)
        if not await self._pace.turn(authority):
            return Reply(0, problem=self._pace.closed[authority])
        reply = await self._ask(url, headers, max_bytes)
        if reply.asks_for_pause:
            self._pace.pause(authority, retry_after_s(reply.header("retry-after")))
        elif reply.accident or reply.status >= 500:
            self._pace.failed(authority)
        elif reply.status:
            self._pace.answered(authority)
        return reply

    def _unchanged(self, reply: Reply, page: KnownPage) -> Visit:
        links = tuple(self._known.links(page))
        return Visit(UNCHANGED, _now(), reply, sha256=page.body_sha256, links=links, header_directives=page.directives)


def _now() -> datetime:
    return datetime.now(UTC)


def _read(url: str, reply: Reply) -> Visit:
    """Parse an answer's HTML, where it is that."""
    size = len(reply.body)
    kind = (reply.header("content-type") or "text/html").strip().lower()
    if reply.status != 200 or not kind.startswith(_HTML):
        return Visit(reply.status, _now(), reply, size)
    page = extract_page(reply.body, url, reply.headers)
    return Visit(
        reply.status,
        _now(),
        reply,
        size,
        hashlib.sha256(reply.body).hexdigest(),
        page.pictures,
        () if forbids_following(page.directives) else page.links,
        page.directives,
        page_directives(reply.headers, ()),
    )


def is_refused(headers: tuple[tuple[str, str], ...]) -> bool:
    """True where headers (lower-case names) refuse our use."""
    return refused_by_headers(headers, _now()) is not None


def refused(seed: str, verdict: Verdict) -> str:
    """One line on a seed that may not be asked for."""
    if verdict.reason in {Reason.ROBOTS_TXT, Reason.TDM_RESERVED}:
        return f"{verdict.evidence} on {seed}: choose pages that its owner lets us read"
    return unreachable(seed, verdict.evidence, verdict.reason)


def unreachable(seed: str, detail: str, reason: Reason | None = None) -> str:
    """One line on a seed that gives nothing."""
    if reason is Reason.PRIVATE_ADDRESS:
        return f"cannot crawl {seed}: {detail}; add --allow-private if this is your own site"
    return f"cannot reach {seed}: {detail}; check the address and that the site is up"
