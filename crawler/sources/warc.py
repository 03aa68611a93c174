"""warc:FILES - WARC and ARC files: pictures on stored pages, and the stored pictures themselves."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from crawler.compression import DamagedError
from crawler.errors import InputError
from crawler.extract import MAX_HTML_BYTES, absolute, extract_page
from crawler.sniff import image_kind
from crawler.sources.answer import Answer, parse_answer
from crawler.sources.arc import arc_records
from crawler.sources.base import Candidate, Damage, Found, PageVisit, StoredPicture, Unit
from crawler.sources.records import Archive, body_of, not_an_archive, open_archive, record_date, warc_records
from crawler.streams import expand

if TYPE_CHECKING:
    from fastwarc.warc import WarcRecord

logger = logging.getLogger(__name__)

MAX_RECORD_BYTES = 64_000_000  # a longer one is neither a page nor a picture that we would download
MAX_PICTURE_BYTES = 20_000_000  # as crawler.fetch.FetchConfig.max_bytes
_SNIFFED_BYTES = 64


@dataclass(frozen=True)
class WarcSource:
    """Files that `pattern` names: a path, a glob, an address.

    Pages are answers 2xx that are HTML by header or content; pictures are answers 200 and resource records that are
    pictures by their first bytes. Everything else (requests, revisits, metadata) is passed over.
    """

    pattern: str

    def units(self) -> Sequence[Unit]:
        return expand(self.pattern)

    def read(self, unit: Unit) -> Iterator[Found]:
        """Raises InputError for what is no WARC or ARC file. See `Source.read`."""
        try:
            archive = open_archive(unit.name)
            if not archive.head:
                return
            if archive.is_arc:
                yield from _from_arc(archive)
            elif archive.is_warc:
                yield from _from_warc(archive)
            else:
                raise not_an_archive(archive, "WARC or ARC")
        except DamagedError as error:
            yield damage_of(unit.name, error)


def damage_of(file: str, error: DamagedError) -> Damage:
    """Logs the one warning of a broken file."""
    logger.warning("%s is broken at byte %d: %s; what precedes it is used", file, error.offset, error)
    return Damage(file, error.offset, str(error))


def _from_arc(archive: Archive) -> Iterator[Found]:
    for record in arc_records(archive, MAX_RECORD_BYTES):
        answer = parse_answer(record.block, MAX_PICTURE_BYTES) if record.block is not None else None
        if answer is not None:
            yield from found_in(record.url, answer, record.date)


def _from_warc(archive: Archive) -> Iterator[Found]:
    from fastwarc.warc import WarcRecordType

    wanted = WarcRecordType.response | WarcRecordType.resource
    pages_seen = False
    for record in warc_records(archive, WarcRecordType.any_type):
        if not record.record_type & wanted:
            if not pages_seen and record.record_type & WarcRecordType.metadata and _is_wat(record):
                raise InputError(f"{archive.address} is a WAT file, not a WARC file: give wat:{archive.address}")
            continue
        pages_seen = True
        url = (record.headers.get("WARC-Target-URI") or "").strip().removeprefix("<").removesuffix(">")
        if not url.lower().startswith(("http:", "https:")):
            continue
        block = body_of(record, MAX_RECORD_BYTES)
        if block is None:
            continue
        answer = _answer(record, block)
        if answer is not None:
            yield from found_in(url, answer, record_date(record))


def _is_wat(record: WarcRecord) -> bool:
    """Whether a metadata record is Common Crawl's JSON about another record."""
    if "json" not in (record.headers.get("Content-Type") or "").lower():
        return False
    return b'"Envelope"' in (body_of(record, MAX_RECORD_BYTES) or b"")


def _answer(record: WarcRecord, block: bytes) -> Answer | None:
    from fastwarc.warc import WarcRecordType

    cut = record.headers.get("WARC-Truncated") is not None
    if record.record_type == WarcRecordType.resource:
        headers = (("content-type", record.headers.get("Content-Type") or ""),)
        return Answer(200, headers, block[:MAX_PICTURE_BYTES], not cut and len(block) <= MAX_PICTURE_BYTES)
    answer = parse_answer(block, MAX_PICTURE_BYTES)
    if answer is not None and cut:
        return Answer(answer.status, answer.headers, answer.body, whole=False)
    return answer


def found_in(url: str, answer: Answer, date: datetime) -> Iterator[Found]:
    """What one stored answer gives: a picture, or a visit with the pictures of the page, or nothing."""
    address = absolute(url, url)
    if address is None or not 200 <= answer.status < 300 or not answer.body:
        return
    html = answer.is_html()
    kind = image_kind(answer.body[:_SNIFFED_BYTES])
    if kind is not None and not (html and kind == "bmp"):  # a page may begin with "BM"
        if answer.whole and answer.status == 200:  # else it is downloaded
            yield StoredPicture(address, answer.body, answer.headers, date)
    elif html:
        yield from _page(address, answer, date)


def _page(address: str, answer: Answer, date: datetime) -> Iterator[Found]:
    page = extract_page(answer.body[:MAX_HTML_BYTES], address, answer.headers, with_links=False)
    digest = hashlib.sha256(answer.body).hexdigest()
    etag, modified = answer.header("etag") or None, answer.header("last-modified") or None
    yield PageVisit(address, answer.status, etag, modified, digest, date)
    for picture in page.pictures:
        yield Candidate(address, picture.image_url, picture.captions, page.directives)
