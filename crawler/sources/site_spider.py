"""Scrapy's part of a site crawl: the spider and what guards its requests.

Pages are visited level by level, each level in the order of its addresses, so a static site under the same budgets
always gives the same set of pages, whatever the order of answers.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TextIO

import scrapy
from scrapy import signals
from scrapy.crawler import CrawlerProcess
from scrapy.exceptions import DontCloseSpider, IgnoreRequest
from scrapy.linkextractors import IGNORED_EXTENSIONS

from crawler.address import authority_of
from crawler.consent import forbids_following
from crawler.extract import MAX_HTML_BYTES, extract_page
from crawler.fetch import USER_AGENT
from crawler.robots import RobotsGate
from crawler.sources.base import CrawlLimits

logger = logging.getLogger(__name__)

_SKIPPED = tuple(f".{ending}" for ending in IGNORED_EXTENSIONS)
_MAX_CRAWL_DELAY_S = 30.0


@dataclass
class Crawl:
    """The state of one crawl, shared by spider and middleware."""

    limits: CrawlLimits
    gate: RobotsGate
    authorities: set[str]
    level: list[str]
    output: TextIO
    depth: int = 0
    asked: int = 0
    pages: int = 0
    pictures: int = 0
    bytes: int = 0
    cut: str = ""
    seen: set[str] = field(default_factory=set)
    found: set[str] = field(default_factory=set)
    started: float = field(default_factory=time.monotonic)

    def next_level(self) -> list[str]:
        """The addresses to ask next: this level's, cut to the page budget; [] when the crawl is over."""
        level, self.level = self.level, []
        left = self.limits.max_pages - self.asked
        if len(level) > left:
            self.cut = self.cut or f"page budget of {self.limits.max_pages} used up"
        level = level[: max(0, left)]
        self.asked += len(level)
        return level

    def descend(self) -> None:
        """Make the links found on this level the next one, in the order of their addresses."""
        new = sorted(self.found - self.seen)
        self.found.clear()
        if new and self.depth >= self.limits.max_depth:
            self.cut = self.cut or f"depth {self.limits.max_depth} reached"
            return
        self.depth += 1
        self.seen.update(new)
        self.level = new

    def over_budget(self) -> bool:
        if self.bytes > self.limits.max_bytes:
            self.cut = f"byte budget of {self.limits.max_bytes} used up"
        elif time.monotonic() - self.started > self.limits.max_minutes * 60:
            self.cut = f"time budget of {self.limits.max_minutes} minutes used up"
        else:
            return False
        return True


class GuardMiddleware:
    """Every request, redirects included: budget, the seeds' authorities alone, robots.txt."""

    def __init__(self, crawl: Crawl) -> None:
        self.crawl = crawl

    @classmethod
    def from_crawler(cls, crawler: Any) -> GuardMiddleware:
        return cls(crawler.spider.crawl)

    def process_request(self, request: scrapy.Request) -> None:
        if self.crawl.over_budget():
            raise IgnoreRequest("over budget")
        if authority_of(request.url) not in self.crawl.authorities:
            raise IgnoreRequest(f"off site: {request.url}")
        verdict = self.crawl.gate.verdict(request.url)
        if not verdict.allowed:
            logger.info("not visited: %s (%s)", request.url, verdict.evidence)
            raise IgnoreRequest(verdict.evidence)


class PageSpider(scrapy.Spider):
    name = "gptface"

    def __init__(self, crawl: Crawl) -> None:
        super().__init__()
        self.crawl = crawl

    @classmethod
    def from_crawler(cls, crawler: Any, *args: Any, **kwargs: Any) -> PageSpider:
        spider: PageSpider = super().from_crawler(crawler, *args, **kwargs)
        crawler.signals.connect(spider.on_idle, signal=signals.spider_idle)
        return spider

    def _requests(self) -> Iterator[scrapy.Request]:
        for url in self.crawl.next_level():
            yield scrapy.Request(url, callback=self.parse_page, errback=self.on_error, dont_filter=True)

    async def start(self) -> Any:
        for request in self._requests():
            yield request

    def on_idle(self) -> None:
        """A level is complete: go on with the next."""
        self.crawl.descend()
        requests = list(self._requests()) if not self.crawl.over_budget() else []
        for request in requests:
            self.crawler.engine.crawl(request)
        if requests:
            raise DontCloseSpider

    def on_error(self, failure: Any) -> None:
        logger.info("no page: %s", failure.getErrorMessage())

    def parse_page(self, response: Any) -> None:
        crawl = self.crawl
        crawl.bytes += len(response.body)
        headers = [(k.decode("latin-1"), v.decode("latin-1")) for k, vs in response.headers.items() for v in vs]
        kind = {name.lower(): value for name, value in headers}.get("content-type", "text/html").lower()
        if not kind.startswith(("text/html", "application/xhtml")):
            return
        crawl.pages += 1
        page_url = response.url.partition("#")[0]
        page = extract_page(response.body, page_url, headers)
        for picture in page.pictures:
            crawl.pictures += 1
            row = {
                "page_url": page_url,
                "image_url": picture.image_url,
                "captions": [[caption.kind, caption.text] for caption in picture.captions],
                "page_directives": page.directives,
            }
            crawl.output.write(json.dumps(row) + "\n")
        if not forbids_following(page.directives):
            crawl.found.update(link for link in page.links if self._is_page(link))

    def _is_page(self, link: str) -> bool:
        path = link.partition("?")[0].lower()
        return authority_of(link) in self.crawl.authorities and not path.endswith(_SKIPPED)


def _settings(crawl: Crawl) -> dict[str, Any]:
    limits = crawl.limits
    delays = [crawl.gate.crawl_delay_s(authority) or 0.0 for authority in crawl.authorities]
    delay = max(limits.delay_s, min(max(delays), _MAX_CRAWL_DELAY_S))
    return {
        "USER_AGENT": USER_AGENT,
        "ROBOTSTXT_OBEY": False,  # GuardMiddleware obeys it, as RFC 9309 says (5xx refuses)
        "DOWNLOADER_MIDDLEWARES": {GuardMiddleware: 100},
        "CONCURRENT_REQUESTS": limits.concurrency,
        "CONCURRENT_REQUESTS_PER_DOMAIN": limits.concurrency,
        "DOWNLOAD_DELAY": delay,
        "RANDOMIZE_DOWNLOAD_DELAY": False,
        "AUTOTHROTTLE_ENABLED": delay > 0,
        "AUTOTHROTTLE_START_DELAY": delay,
        "AUTOTHROTTLE_TARGET_CONCURRENCY": float(limits.concurrency),
        "DOWNLOAD_TIMEOUT": limits.timeout_s,
        "DOWNLOAD_MAXSIZE": MAX_HTML_BYTES,
        "RETRY_TIMES": 2,
        "RETRY_HTTP_CODES": [500, 502, 504, 408],  # 403, 429 and 503 are answers, not accidents
        "REDIRECT_MAX_TIMES": 5,
        "COOKIES_ENABLED": False,
        "TELNETCONSOLE_ENABLED": False,
        "REMOTE_CONTROL_ENABLED": False,  # a listening port, and files in the home folder
        "HTTPERROR_ALLOW_ALL": False,
        "LOG_LEVEL": "INFO",
    }


def run(crawl: Crawl) -> None:
    """Crawl to the end, in this process; may be called once per process (Twisted's reactor)."""
    process = CrawlerProcess(_settings(crawl))
    process.crawl(PageSpider, crawl=crawl)
    process.start()
