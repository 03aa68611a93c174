"""wat:FILES - Common Crawl's WAT files: image links with their alt and title texts, as the crawl found them.

(https://commoncrawl.org/blog/web-archiving-file-formats-explained; written by commoncrawl/ia-web-commons.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import TYPE_CHECKING

import msgspec

from crawler import references
from crawler.compression import DamagedError
from crawler.errors import InputError
from crawler.extract import Caption, page_directives
from crawler.rows import FOUND, caption_lists, strings
from crawler.sources.base import Candidate, Damage, Found, PageVisit, Unit
from crawler.sources.imagelinks import LinkRows, is_clean, link_rows, plain_pictures
from crawler.sources.records import Archive, body_of, not_an_archive, open_archive, record_date, warc_records
from crawler.sources.warc import damage_of
from crawler.sources.watjson import WatPage, decode_page
from crawler.streams import expand
from warehouse.schema import CaptionKind

if TYPE_CHECKING:
    import pyarrow as pa

MAX_DOCUMENT_BYTES = 64_000_000
_BATCH_ROWS = 20_000
_LOT_LINKS, _LOT_PAGES = 4_000, 1_000  # judged together
_DIRECTIVE_HEADERS = frozenset({"x-robots-tag", "tdm-reservation"})


@dataclass(frozen=True)
class WatSource:
    """Files that `pattern` names: a path, a glob, an address."""

    pattern: str

    def units(self) -> Sequence[Unit]:
        return expand(self.pattern)

    def read(self, unit: Unit) -> Iterator[Found]:
        """Raises InputError for what is no WAT file. See `Source.read`."""
        for item in self._pages(unit):
            if isinstance(item, Damage):
                yield item
                continue
            yield item.visit
            yield from _candidates(item)

    def batches(self, unit: Unit) -> Iterator[Found | pa.RecordBatch]:
        """What `read` gives, with the candidates as batches of crawler.rows.FOUND: half of the time per link."""
        rows = _Rows()
        for item in self._pages(unit):
            if isinstance(item, Damage):
                yield from rows.taken()
                yield item
                continue
            yield item.visit
            rows.add(item)
            if len(rows.pages) >= _BATCH_ROWS:
                yield from rows.taken()
        yield from rows.taken()

    def _pages(self, unit: Unit) -> Iterator[_PageFound | Damage]:
        try:
            archive = open_archive(unit.name)
            if archive.head:
                yield from _found(archive)
        except DamagedError as error:
            yield damage_of(unit.name, error)


class _PageFound(msgspec.Struct, frozen=True):
    visit: PageVisit
    directives: str
    rows: LinkRows


def _candidates(page: _PageFound) -> Iterator[Candidate]:
    rows, start = page.rows, 0
    for image_url, count in zip(rows.images, rows.counts, strict=True):
        pairs = zip(rows.kinds[start : start + count], rows.texts[start : start + count], strict=True)
        yield Candidate(
            page.visit.page_url, image_url, tuple(Caption(CaptionKind(k), t) for k, t in pairs), page.directives
        )
        start += count


class _Rows:
    """Candidates of several pages as columns, until there are enough of them for a batch."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.pages: list[str] = []
        self.directives: list[str] = []
        self.links = LinkRows()

    def add(self, page: _PageFound) -> None:
        count = len(page.rows.images)
        self.pages += [page.visit.page_url] * count
        self.directives += [page.directives] * count
        self.links.images += page.rows.images
        self.links.counts += page.rows.counts
        self.links.kinds += page.rows.kinds
        self.links.texts += page.rows.texts

    def taken(self) -> Iterator[pa.RecordBatch]:
        """The batch, if there is a row for one; this is empty then."""
        import pyarrow as pa

        if self.pages:
            links = self.links
            offsets = pa.array(accumulate(links.counts, initial=0), pa.int32())
            captions = caption_lists(offsets, strings(links.kinds), strings(links.texts))
            columns = [strings(self.pages), strings(links.images), strings(self.directives), captions]
            yield pa.RecordBatch.from_arrays(columns, schema=FOUND)
        self.clear()


def _found(archive: Archive) -> Iterator[_PageFound]:
    """Pages with their pictures, a lot of pages at a time."""
    lot: list[tuple[WatPage, datetime]] = []
    links = 0
    try:
        for page, date in _decoded(archive):
            lot.append((page, date))
            links += len(page.links)
            if links >= _LOT_LINKS or len(lot) >= _LOT_PAGES:
                yield from _found_on(lot)
                lot, links = [], 0
    except DamagedError:
        yield from _found_on(lot)
        raise
    yield from _found_on(lot)


def _decoded(archive: Archive) -> Iterator[tuple[WatPage, datetime]]:
    """Raises DamagedError at the end where a record could not be read."""
    from fastwarc.warc import WarcRecordType

    if not archive.is_warc:
        raise not_an_archive(archive, "WAT")
    kinds = WarcRecordType.metadata | WarcRecordType.response | WarcRecordType.resource
    unreadable: list[int] = []
    for record in warc_records(archive, kinds):
        if not record.record_type & WarcRecordType.metadata:
            raise InputError(f"{archive.address} is a WARC file, not a WAT file: give warc:{archive.address}")
        document = body_of(record, MAX_DOCUMENT_BYTES)
        if document is None or b'"HTTP-Response-Metadata"' not in document:
            continue
        page = decode_page(document)
        if page is None:
            unreadable.append(record.stream_pos)
        else:
            yield page, record_date(record)
    if unreadable:
        raise DamagedError(f"records that are not JSON as they should be: {len(unreadable)}", unreadable[0])


def _found_on(lot: list[tuple[WatPage, datetime]]) -> Iterator[_PageFound]:
    """The visit and the pictures of each page; nothing for what is no page (2xx, http)."""
    plain = plain_pictures(link.url for page, _ in lot for link in page.links)
    for page, date in lot:
        address = page.url if is_clean(page.url) else references.absolute(page.url, page.url)
        if address is None or not 200 <= page.status < 300:
            continue
        headers = dict(reversed(page.headers))
        visit = PageVisit(address, page.status, headers.get("etag"), headers.get("last-modified"), None, date)
        if not page.links:
            yield _PageFound(visit, "", LinkRows())
            continue
        base = (references.absolute(page.base, address) or address) if page.base else address
        directed = page.metas or not _DIRECTIVE_HEADERS.isdisjoint(headers)
        directives = page_directives(page.headers, page.metas) if directed else ""
        yield _PageFound(visit, directives, link_rows(page.links, base, plain))
