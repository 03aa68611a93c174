"""The one protocol of all sources, and the bounds of a crawl."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
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


@dataclass(frozen=True)
class StoredPicture:
    """A picture whose bytes the source itself holds (an image record of a WARC): it is not downloaded again.

    `headers` are those of the stored answer, names in lower case; they may refuse like those of a live one.
    """

    image_url: str
    body: bytes
    headers: tuple[tuple[str, str], ...]
    fetched_at: datetime


@dataclass(frozen=True)
class PageVisit:
    """A page that was read, or asked for and found unchanged (304) or gone (404, 410)."""

    page_url: str
    http_status: int
    etag: str | None
    last_modified: str | None
    body_sha256: str | None
    visited_at: datetime


@dataclass(frozen=True)
class Damage:
    """Where a file is broken: the last item of its unit, logged once; what came before it is good.

    `offset` is a byte position in the file as stored (where the broken record begins), -1 where there is no telling.
    """

    file: str
    offset: int
    message: str


Found = Candidate | StoredPicture | PageVisit | Damage


@dataclass(frozen=True)
class Unit:
    """What a source is read in: one file, or one site. The unit of parallel work, of resumption and of the ledger.

    `fingerprint` tells one state of a file from another (size with etag or time); "" where there is no telling.
    """

    name: str
    fingerprint: str = ""


class Source(Protocol):
    """Where pictures on pages come from, in an order of its own; identity does not depend on it."""

    def units(self) -> Sequence[Unit]:
        """What there is to read, in a stable order. Raises InputError where nothing is."""
        ...

    def read(self, unit: Unit) -> Iterator[Found]:
        """Stream one unit. Damage inside a file ends it with one logged warning; InputError where it cannot be opened
        or is not what the source is for."""
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
    sitemaps: bool = True  # site: also starts from the sites' sitemaps
    max_pages_per_host: int = 0  # site: 0 is as many as max_pages
    known_pages: str = ""  # site: Parquet of warehouse.schema.PAGES: pages that are asked for conditionally
    tombstones: str = ""  # what was taken down (crawler.tombstones): neither asked for nor written down
    page_links: str = ""  # site: Parquet that keeps the links of pages from one crawl to the next
    cc_base: str = "https://data.commoncrawl.org/"  # where cc: finds crawl-data/
    limit: int = 0  # so many files that were not read yet; 0 is all of them

    def __post_init__(self) -> None:
        for name in ("max_pages", "max_minutes", "max_bytes", "concurrency", "timeout_s"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} must be over 0, not {getattr(self, name)}")
        for name in ("max_depth", "delay_s", "max_pages_per_host", "limit"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must not be negative, but is {getattr(self, name)}")
