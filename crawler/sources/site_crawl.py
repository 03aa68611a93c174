"""The way through a site: levels of addresses, budgets, retries. No sockets here: `ask` makes one request.

Pages are visited level by level, each level in the order of its addresses, and answers are taken in that order too,
whenever they come. So a static site under the same budgets of pages and bytes always gives the same pages, in the same
order. Redirects are addresses of their own that join the level they were met on; what failed by accident is asked
again when the rest of the level is done.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from crawler.address import authority_of
from crawler.extract import Picture, absolute
from crawler.robots import RobotsGate
from crawler.sources.base import CrawlLimits
from crawler.sources.site_known import KnownPages, LinksWriter
from crawler.sources.site_pace import Pace
from crawler.sources.site_sitemaps import read_sitemaps
from crawler.sources.site_visit import GONE, REDIRECTS, UNCHANGED, Ask, PageReader, Visit, refused, unreachable
from crawler.tombstones import load_tombstones

logger = logging.getLogger(__name__)

_MOVED = frozenset({301, 308})  # for good
_MAX_REDIRECTS = 5
_TRIES = 3
_AHEAD = 4  # pages per slot that may wait, parsed, for an earlier one
# Files that are no pages, by the ending of their names.
_NO_PAGE = re.compile(
    r"\.(?:3gp|7z|aac|apk|asf|avif?|bin|bmp|bz2|css|csv|dmg|docx?|eot|eps|epub|exe|flac|flv|gif|gz|heic|ico|ics|iso|jar"
    r"|jpe?g|js|jsonl?|m4[av]|midi?|mkv|mov|mp[34]|mpe?g|msi|od[gpst]|og[gv]|opus|otf|parquet|pdf|png|pptx?|ps[dt]?|rar"
    r"|rss|rtf|svg|swf|tar|tgz|tiff?|ttf|txt|wasm|wav|web[mp]|webmanifest|wm[av]|woff2?|xlsx?|xml|xz|zip|zst)$",
    re.IGNORECASE,
)


@dataclass
class Report:
    """How a crawl went. `error`: one line, where it could not even start; `notes`: why it ended early; `known`: pages
    of earlier crawls."""

    error: str = ""
    known: int = 0
    pages: int = 0
    unchanged: int = 0
    pictures: int = 0
    bytes: int = 0
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


@dataclass
class _Level:
    """What the pages of one level gave. `problems`: per address why it gave nothing, "" where it did."""

    leads_away: bool = False  # redirects may lead to other hosts: the seeds' do
    found: set[str] = field(default_factory=set)
    moved: set[str] = field(default_factory=set)
    failed: list[str] = field(default_factory=list)
    tries: Counter[str] = field(default_factory=Counter)
    problems: dict[str, str] = field(default_factory=dict)


class Crawl:
    """One crawl of one site; `output` gets a JSON line per page as soon as its turn has come."""

    def __init__(
        self,
        limits: CrawlLimits,
        gate: RobotsGate,
        ask: Ask,
        output: TextIO,
        known: KnownPages,
        links: LinksWriter,
        pace: Pace | None = None,
        back_off_s: float = 1.0,
    ) -> None:
        self.limits = limits
        self.report = Report(known=len(known.urls))
        self._gate = gate
        self._output = output
        self._known = known
        self._links = links
        self._back_off_s = back_off_s
        self._pace = pace or Pace(gate.crawl_delay_s, time.monotonic() + limits.max_minutes * 60)
        self._reader = PageReader(ask, self._pace, known)
        self._authorities: set[str] = set()
        self._seen: set[str] = set()
        self._hops: Counter[str] = Counter()
        self._asked: Counter[str] = Counter()  # addresses by authority
        self._named: dict[str, tuple[Picture, ...]] = {}  # pictures that sitemaps name, by page
        self._over = False
        self._taken_down = load_tombstones(limits.tombstones)

    async def run(self, seeds: Sequence[str]) -> Report:
        """Crawl until there is nothing left or a budget is used up."""
        try:
            async with asyncio.timeout(self.limits.max_minutes * 60):
                await self._levels(sorted(set(seeds)))
        except TimeoutError:
            self._end(f"time budget of {self.limits.max_minutes:g} minutes used up")
        for why in self._pace.closed.values():
            self.report.note(why)
        return self.report

    async def _levels(self, seeds: list[str]) -> None:
        found = await self._start(seeds)
        depth = 0
        while not self._over and (level := self._new(found)):
            if depth == self.limits.max_depth:
                self.report.note(f"depth {depth} reached")
                break
            depth += 1
            found = (await self._visit(level)).found
        if not self._over:  # pages of earlier crawls to which nothing links any more
            await self._visit(self._new(self._known.urls))

    async def _start(self, seeds: list[str]) -> set[str]:
        """Visit the seeds, wherever they have moved to; returns what is to be visited next."""
        self._authorities = {authority_of(seed) for seed in seeds}
        level = await self._visit(seeds, leads_away=True)
        problems = [problem for problem in level.problems.values() if problem]
        reached = {authority_of(url) for url, problem in level.problems.items() if not problem}
        if not reached:
            self.report.error = (problems or ["no seed to start from"])[0]
            self._over = True
            return set()
        for problem in problems:
            self.report.note(problem)
        self._authorities = reached
        if not self.limits.sitemaps or self.limits.max_depth == 0 or self._over:
            return level.found
        self._named, size = await read_sitemaps(sorted(reached), self._gate, self._reader, self.report.note)
        self._spend(size)
        return level.found | self._named.keys()

    # One level.

    def _new(self, urls: Iterable[str]) -> list[str]:
        """Pages of this site among `urls` that were not asked for yet, in order."""
        return sorted(url for url in urls if url not in self._seen and self._is_page(url))

    def _is_page(self, url: str, authority: str = "") -> bool:
        """True for what may be a page of this site (or, while that moves, of `authority`)."""
        if self._taken_down.bars_address(url):
            return False
        host = authority_of(url)
        return (host in self._authorities or host == authority != "") and not _NO_PAGE.search(url.partition("?")[0])

    async def _visit(self, urls: list[str], leads_away: bool = False) -> _Level:
        """Ask for `urls`, for where they redirect to, and again for what failed by accident."""
        level = _Level(leads_away)
        wave, again = urls, 0
        while wave and not self._over:
            await self._wave([url for url in wave if self._may_ask(url, level)], level)
            wave = sorted(level.moved) + level.failed
            if level.failed and not self._over:
                await asyncio.sleep(self._back_off_s * 2**again)
                again += 1
            level.moved, level.failed = set(), []
        return level

    def _may_ask(self, url: str, level: _Level) -> bool:
        """False for what robots.txt or a budget forbids; counts addresses, not requests."""
        if level.tries[url]:
            return True
        self._seen.add(url)
        if self._taken_down.bars_address(url):
            level.problems[url] = "taken down"
            return False
        verdict = self._gate.verdict(url)
        if not verdict.allowed:
            level.problems[url] = refused(url, verdict)
            return False
        authority, most = authority_of(url), self.limits.max_pages
        per_host = self.limits.max_pages_per_host
        if self._asked.total() >= most:
            self.report.note(f"page budget of {most} used up")
            return False
        if per_host and self._asked[authority] >= per_host:
            self.report.note(f"page budget of {per_host} per host used up on {authority}")
            return False
        self._asked[authority] += 1
        return True

    async def _wave(self, urls: list[str], level: _Level) -> None:
        """Ask for all, a few at a time, and take the answers in the order of `urls` until the crawl is over."""
        slots = asyncio.Semaphore(self.limits.concurrency)

        async def visit(url: str) -> Visit:
            async with slots:
                return await self._reader.visit(url)

        waiting: deque[tuple[str, asyncio.Task[Visit]]] = deque()
        rest = iter(urls)
        try:
            while not self._over:
                while len(waiting) < _AHEAD * self.limits.concurrency and (url := next(rest, None)) is not None:
                    waiting.append((url, asyncio.ensure_future(visit(url))))
                if not waiting:
                    return
                url, task = waiting[0]
                found = await task
                waiting.popleft()
                self._take(url, found, level)
        finally:
            for _, task in waiting:
                task.cancel()
            await asyncio.gather(*(task for _, task in waiting), return_exceptions=True)

    def _take(self, url: str, visit: Visit, level: _Level) -> None:
        level.tries[url] += 1
        if not self._spend(visit.size):
            return
        reply = visit.reply
        if visit.status in REDIRECTS and reply.header("location"):
            self._follow(url, reply.header("location") or "", level)
            if visit.status in _MOVED and url in self._known.urls:
                self._write(url, visit, [])
        elif reply.is_accident and (level.tries[url] < _TRIES or reply.asks_for_pause):
            level.failed.append(url)  # how often a pause may be asked for is the pace's to say
        elif visit.status in {200, UNCHANGED}:
            links = [link for link in visit.links if self._is_page(link, authority_of(url))]
            self._give(url, visit, links)
            level.found.update(links)
            level.problems[url] = ""
        else:
            level.problems[url] = unreachable(url, reply.problem or f"HTTP {visit.status}")
            if visit.status in GONE:
                self._links.gone(url)
                self._write(url, visit, [])

    def _follow(self, url: str, location: str, level: _Level) -> None:
        """A redirect's target joins the level: within the site, wherever a seed moves to, and not for ever."""
        target = absolute(location, url)
        if target is None or target in self._seen:
            return
        self._hops[target] = self._hops[url] + 1
        if self._hops[target] > _MAX_REDIRECTS:
            level.problems[url] = unreachable(url, f"over {_MAX_REDIRECTS} redirects")
        elif level.leads_away or authority_of(target) in self._authorities:
            level.moved.add(target)

    def _spend(self, size: int) -> bool:
        """Count bytes; False when there are too many."""
        self.report.bytes += size
        if self.report.bytes > self.limits.max_bytes:
            self._end(f"byte budget of {self.limits.max_bytes} used up")
        return not self._over

    def _end(self, why: str) -> None:
        self.report.note(why)
        self._over = True

    # What was found.

    def _give(self, url: str, visit: Visit, links: list[str]) -> None:
        """Hand on a page that was read, or that has not changed."""
        if visit.status == UNCHANGED:
            self.report.unchanged += 1
        elif visit.sha256 is not None:
            self.report.pages += 1
        elif url not in self._known.urls:
            return  # no HTML, and never was
        if visit.sha256 is not None:
            self._links.keep(url, visit.sha256, visit.header_directives, links)
        pictures = [*visit.pictures, *(self._named.get(url, ()) if visit.status == 200 else ())]
        self.report.pictures += len(pictures)
        self._write(url, visit, pictures)

    def _write(self, url: str, visit: Visit, pictures: list[Picture]) -> None:
        row: dict[str, Any] = {
            "page_url": url,
            "status": visit.status,
            "etag": visit.reply.header("etag"),
            "last_modified": visit.reply.header("last-modified"),
            "sha256": visit.sha256,
            "visited_at": visit.visited_at.isoformat(),
            "directives": visit.directives,
            "pictures": [[p.image_url, [[c.kind, c.text] for c in p.captions]] for p in pictures],
        }
        self._output.write(json.dumps(row) + "\n")
        self._output.flush()
