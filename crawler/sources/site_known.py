"""What earlier crawls of a site know: the state of each page (known/pages.parquet) and the links on it.

A page that answers 304 comes without its body, but the way to the rest of the site leads over its links. They are kept
in a file of their own beside the crawls (`CrawlLimits.page_links`), with the hash of the body that they stood in: a
page is asked for conditionally only where the links of exactly the known body are at hand. So the file may be missing,
old or deleted at any time; that costs transfers and never a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from crawler.files import replacing

# `directives` are those of the answer's header alone: a 304 may bring new ones. `links`: those that may be followed.
PAGE_LINKS = pa.schema(
    [
        pa.field("page_url", pa.string(), nullable=False),
        pa.field("body_sha256", pa.string(), nullable=False),
        pa.field("directives", pa.string(), nullable=False),
        pa.field("links", pa.list_(pa.string()), nullable=False),
    ]
)
_BATCH_PAGES = 500
_UNCHANGED = 304
_READ = frozenset({200, _UNCHANGED})


@dataclass(frozen=True)
class KnownPage:
    """A page as it was read last; `row` is its place in the links file."""

    etag: str | None
    last_modified: str | None
    body_sha256: str
    directives: str
    row: int

    @property
    def condition(self) -> dict[str, str]:
        """The headers that ask for the page only if it has changed (RFC 9110, 13.1)."""
        headers = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in headers.items() if value}


class KnownPages:
    """The pages of earlier crawls. Links stay in Arrow, dictionary-encoded: the same ones stand on most pages."""

    def __init__(self, pages: Path | None = None, links: Path | None = None) -> None:
        self.urls: frozenset[str] = frozenset()  # all that were there at the last visit
        self._pages: dict[str, KnownPage] = {}
        self._links: pa.Table = PAGE_LINKS.empty_table()
        if pages is not None and pages.is_file():
            self._load(pages, links)

    def _load(self, pages: Path, links: Path | None) -> None:
        rows = pq.read_table(pages, columns=["page_url", "http_status", "etag", "last_modified", "body_sha256"])
        there = [row for row in rows.to_pylist() if row["http_status"] in _READ]
        self.urls = frozenset(row["page_url"] for row in there)
        if links is None or not links.is_file():
            return
        self._links = pq.read_table(links, read_dictionary=["links.list.element"])
        kept = self._links.select(["page_url", "body_sha256", "directives"]).to_pylist()
        places = {(row["page_url"], row["body_sha256"]): index for index, row in enumerate(kept)}
        for row in there:
            place = places.get((row["page_url"], row["body_sha256"]))
            if place is not None and (row["etag"] or row["last_modified"]):
                self._pages[row["page_url"]] = KnownPage(
                    row["etag"], row["last_modified"], row["body_sha256"], kept[place]["directives"], place
                )

    def get(self, url: str) -> KnownPage | None:
        """The page, where it can be asked for conditionally."""
        return self._pages.get(url)

    def links(self, page: KnownPage) -> list[str]:
        found: list[str] = self._links["links"][page.row].as_py()
        return found

    def unvisited(self, visited: frozenset[str]) -> list[tuple[str, KnownPage]]:
        """Those that can be asked for conditionally and were not visited, in the order of their addresses."""
        return [(url, self._pages[url]) for url in sorted(self._pages.keys() - visited)]


class LinksWriter:
    """Writes the links file anew, whole or not at all; use it as a context and `keep` each page that was read."""

    def __init__(self, path: Path | None, known: KnownPages) -> None:
        self._path = path
        self._known = known
        self._rows: list[dict[str, Any]] = []
        self._visited: set[str] = set()
        self._opened = ExitStack()
        self._writer: pq.ParquetWriter | None = None  # opened with the first page: a crawl without one leaves no file

    def __enter__(self) -> LinksWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._carry_over()
            self._flush()
        self._opened.__exit__(kind, error, trace)

    def gone(self, url: str) -> None:
        """Forget a page."""
        self._visited.add(url)

    def keep(self, url: str, body_sha256: str, directives: str, links: Sequence[str]) -> None:
        self._visited.add(url)
        if self._path is None:
            return
        self._rows.append({"page_url": url, "body_sha256": body_sha256, "directives": directives, "links": list(links)})
        if len(self._rows) >= _BATCH_PAGES:
            self._flush()

    def _carry_over(self) -> None:
        """A crawl that was cut short has not seen all pages: what is known of the rest is as good as before."""
        for url, page in self._known.unvisited(frozenset(self._visited)):
            self.keep(url, page.body_sha256, page.directives, self._known.links(page))

    def _flush(self) -> None:
        if not self._rows or self._path is None:
            return
        if self._writer is None:
            temporary = self._opened.enter_context(replacing(self._path))
            self._writer = self._opened.enter_context(pq.ParquetWriter(temporary, PAGE_LINKS, compression="zstd"))
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=PAGE_LINKS))
        self._rows.clear()
