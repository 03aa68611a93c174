"""The one protocol of all sources, and the bounds of a crawl."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from crawler.errors import InputError
from crawler.extract import Caption


@dataclass(frozen=True)
class Candidate:
    """A picture on a page, as a source found it; captions in rank order."""

    page_url: str
    image_url: str
    captions: tuple[Caption, ...]
    page_directives: str


class Source(Protocol):
    """Yields candidates, in an order of its own; identity does not depend on it."""

    def candidates(self) -> Iterator[Candidate]:
        """Raises InputError where the source cannot be read or holds nothing."""
        ...


@dataclass(frozen=True)
class CrawlLimits:
    """Bounds of a site crawl: politeness, and budgets after which it ends with what it has.

    `delay_s` is per host and at least the site's Crawl-delay; 0 turns throttling off (loopback, own sites).
    """

    max_pages: int = 1000
    max_depth: int = 5
    max_minutes: float = 60.0
    max_bytes: int = 1_000_000_000
    delay_s: float = 1.0
    concurrency: int = 4
    timeout_s: float = 20.0
    allow_private: bool = False

    def __post_init__(self) -> None:
        for name in ("max_pages", "max_minutes", "max_bytes", "concurrency", "timeout_s"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} must be over 0, not {getattr(self, name)}")
        for name in ("max_depth", "delay_s"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must not be negative, but is {getattr(self, name)}")
