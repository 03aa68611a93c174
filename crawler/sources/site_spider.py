"""Scrapy's part of a site crawl: its downloader makes the requests, throttled per host.

Middlewares that act on their own are off. Redirects and retries are the crawl's to order (site_crawl), proxies would
connect past the address check, cookies are not kept, and <meta http-equiv=refresh> is not followed.
"""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import AsyncIterator
from typing import Any

import scrapy
from scrapy import signals
from scrapy.crawler import CrawlerProcess
from scrapy.exceptions import (
    CannotResolveHostError,
    DownloadCancelledError,
    DownloadConnectionRefusedError,
    DownloadFailedError,
    DownloadTimeoutError,
    IgnoreRequest,
    ResponseDataLossError,
    StopDownload,
    UnsupportedURLSchemeError,
)

from crawler.extract import MAX_HTML_BYTES
from crawler.fetch import USER_AGENT
from crawler.sources.base import CrawlLimits
from crawler.sources.site_net import BoundedHeadersHandler, VettedNames
from crawler.sources.site_visit import Reply, is_refused

logger = logging.getLogger(__name__)

_ACCIDENTS = (
    DownloadConnectionRefusedError,
    DownloadFailedError,
    DownloadTimeoutError,
    ResponseDataLossError,
)
_FINAL = (CannotResolveHostError, DownloadCancelledError, IgnoreRequest, StopDownload, UnsupportedURLSchemeError)
_REFUSED = "gptface_refused"


def _pairs(headers: Any) -> tuple[tuple[str, str], ...]:
    """Scrapy's headers as pairs, names in lower case."""
    return tuple(
        (name.decode("latin-1").lower(), value.decode("latin-1"))
        for name, values in headers.items()
        for value in values
    )


class PageSpider(scrapy.Spider):
    """Runs one coroutine that asks for pages; `job` is called with `ask` (site_visit.Ask)."""

    name = "gptface"

    def __init__(self, job: Any) -> None:
        super().__init__()
        self._job = job

    @classmethod
    def from_crawler(cls, crawler: Any, *args: Any, **kwargs: Any) -> PageSpider:
        spider: PageSpider = super().from_crawler(crawler, *args, **kwargs)
        crawler.signals.connect(spider.on_headers, signal=signals.headers_received)
        return spider

    async def start(self) -> AsyncIterator[Any]:
        await self._job(self.ask)
        nothing: tuple[Any, ...] = ()  # to schedule: Scrapy wants an asynchronous generator
        for request in nothing:
            yield request

    def on_headers(self, headers: Any, body_length: int, request: Any, spider: Any) -> None:
        """Remember a refusal as soon as it is read: the body may never end."""
        request.meta[_REFUSED] = is_refused(_pairs(headers))

    async def ask(self, url: str, headers: dict[str, str], max_bytes: int) -> Reply:
        """One request by Scrapy's downloader, as site_visit.Ask."""
        request = scrapy.Request(
            url, headers=headers, meta={"download_maxsize": max_bytes, "handle_httpstatus_all": True}, dont_filter=True
        )
        try:
            response = await self.crawler.engine.download_async(request)
        except (*_ACCIDENTS, *_FINAL) as error:
            logger.info("no page: %s: %s", url, error)
            problem = f"{type(error).__name__}: {error}"[:300] if str(error) else type(error).__name__
            accident = isinstance(error, _ACCIDENTS)
            return Reply(0, problem=problem, accident=accident, refused=bool(request.meta.get(_REFUSED)))
        pairs = _pairs(response.headers)
        return Reply(response.status, pairs, response.body, refused=is_refused(pairs))


def settings(limits: CrawlLimits) -> dict[str, Any]:
    """Scrapy's settings for a crawl under `limits`."""
    handler = BoundedHeadersHandler
    return {
        "USER_AGENT": USER_AGENT,
        "ROBOTSTXT_OBEY": False,  # the crawl obeys it, as RFC 9309 says (5xx refuses)
        "DNS_RESOLVER": VettedNames,
        "TWISTED_DNS_RESOLVER": VettedNames,
        "GPTFACE_ALLOW_PRIVATE": limits.allow_private,
        "DOWNLOAD_HANDLERS": {"http": handler, "https": handler, "file": None, "ftp": None, "s3": None, "data": None},
        "DOWNLOAD_VERIFY_CERTIFICATES": True,
        "HTTPPROXY_ENABLED": False,
        "COOKIES_ENABLED": False,
        "RETRY_ENABLED": False,
        "REDIRECT_ENABLED": False,
        "METAREFRESH_ENABLED": False,
        "CONCURRENT_REQUESTS": limits.concurrency,
        "CONCURRENT_REQUESTS_PER_DOMAIN": limits.concurrency,
        "DOWNLOAD_DELAY": limits.delay_s,
        "DOWNLOAD_DELAY_JITTER": 0,
        "AUTOTHROTTLE_ENABLED": limits.delay_s > 0,
        "AUTOTHROTTLE_START_DELAY": limits.delay_s,
        "AUTOTHROTTLE_TARGET_CONCURRENCY": float(limits.concurrency),
        "DOWNLOAD_TIMEOUT": limits.timeout_s,
        "DOWNLOAD_MAXSIZE": MAX_HTML_BYTES,  # before and after decompression
        "DOWNLOAD_WARNSIZE": 0,
        "TELNETCONSOLE_ENABLED": False,
        "REMOTE_CONTROL_ENABLED": False,  # a listening port, and files in the home folder
        "LOG_LEVEL": "WARNING",
    }


def run(limits: CrawlLimits, job: Any) -> None:
    """Run `job` (called with `ask`) to its end, in this process; once per process (Twisted's reactor)."""
    trusted = ssl.get_default_verify_paths()  # the same authorities for pyOpenSSL as for the standard library
    for name, value in (("SSL_CERT_FILE", trusted.cafile), ("SSL_CERT_DIR", trusted.capath)):
        if value is not None:
            os.environ.setdefault(name, value)
    process = CrawlerProcess(settings(limits))
    process.crawl(PageSpider, job=job)
    process.start()
