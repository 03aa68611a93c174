"""wat:FILES - Common Crawl's WAT files: image links with their alt and title texts, as the crawl found them.

A WAT record is JSON, most of it links that are no pictures. The fast way cuts the list of links out, decodes what is
left, and of the links decodes those of images alone. Whatever does not look the way Common Crawl writes it goes the
slow way, through the whole document, with the same result.

(https://commoncrawl.org/blog/web-archiving-file-formats-explained; written by commoncrawl/ia-web-commons.)
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import msgspec

from crawler import references
from crawler.compression import DamagedError
from crawler.errors import InputError
from crawler.extract import Caption, page_directives
from crawler.rows import FOUND, caption_lists, strings
from crawler.sources.base import Candidate, Damage, Found, PageVisit, Unit
from crawler.sources.imagelinks import ImageLink, LinkRows, is_clean, link_rows
from crawler.sources.records import Archive, body_of, not_an_archive, open_archive, record_date, warc_records
from crawler.sources.warc import damage_of
from crawler.streams import expand
from warehouse.schema import CaptionKind

if TYPE_CHECKING:
    import pyarrow as pa

MAX_DOCUMENT_BYTES = 64_000_000
_BATCH_ROWS = 20_000
_DIRECTIVE_HEADERS = frozenset({"x-robots-tag", "tdm-reservation"})
_DIRECTIVE_METAS = frozenset({"robots", "gptface", "tdm-reservation"})
_LINKS = b'"Links":['
# From the value of "path" to the end of the object; the value's beginning alone where "path" is not the first key. (The
# look-behind comes second because a search for a literal is what makes this fast.)
_IMAGE_LINK = re.compile(rb'"IMG@/(?:(?<=\{"path":"IMG@/)[^}]*\}|)')


class WatPage(msgspec.Struct, frozen=True):
    """One decoded record: the fields of a page, and its image links."""

    url: str
    base: str
    status: int
    headers: tuple[tuple[str, str], ...]
    metas: tuple[tuple[str, str], ...]
    links: list[ImageLink]


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
        elif found := _found_on(page, record_date(record)):
            yield found
    if unreadable:
        raise DamagedError(f"records that are not JSON as they should be: {len(unreadable)}", unreadable[0])


def _found_on(page: WatPage, date: datetime) -> _PageFound | None:
    """The visit and the pictures of one page; None for what is no page (2xx, http)."""
    address = page.url if is_clean(page.url) else references.absolute(page.url, page.url)
    if address is None or not 200 <= page.status < 300:
        return None
    headers = dict(reversed(page.headers))
    visit = PageVisit(address, page.status, headers.get("etag"), headers.get("last-modified"), None, date)
    if not page.links:
        return _PageFound(visit, "", LinkRows())
    base = (references.absolute(page.base, address) or address) if page.base else address
    directed = page.metas or not _DIRECTIVE_HEADERS.isdisjoint(headers)
    directives = page_directives(page.headers, page.metas) if directed else ""
    return _PageFound(visit, directives, link_rows(page.links, base))


def decode_page(document: bytes) -> WatPage | None:
    """One WAT record's JSON; None where it is not JSON or not about an HTTP answer."""
    page = _decode_fast(document)
    return page if page is not None else decode_slow(document)


def decode_slow(document: bytes) -> WatPage | None:
    """Through the whole document, lone surrogates, missing and odd values and all."""
    try:
        decoded = json.loads(document.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    envelope = _object(_object(decoded).get("Envelope"))
    answer = _object(_object(envelope.get("Payload-Metadata")).get("HTTP-Response-Metadata"))
    html = _object(answer.get("HTML-Metadata"))
    head = _object(html.get("Head"))
    links = (_object(link) for link in _list(html.get("Links")))
    return _page(
        _text(_object(envelope.get("WARC-Header-Metadata")).get("WARC-Target-URI")),
        _Answer(
            _Message(_text(_object(answer.get("Response-Message")).get("Status"))),
            {name: value for name, value in _object(answer.get("Headers")).items() if _is_header(value)},
            _Html(
                _Head(
                    _text(head.get("Base")),
                    [_Meta(*_texts(_object(meta), _META)) for meta in _list(head.get("Metas"))],
                ),
                [ImageLink(*_texts(link, _LINK)) for link in links if _text(link.get("path")).startswith("IMG@/")],
            ),
        ),
    )


def _decode_fast(document: bytes) -> WatPage | None:
    """None where the document is not written as expected; see the module's docstring."""
    begin = document.find(_LINKS) + len(_LINKS)
    end = document.rfind(b"}]") + 1
    # With both before the links, what is replaced is links (and perhaps lists beside them) alone: replacing anything
    # else leaves brackets that do not match, hence no JSON.
    if begin < len(_LINKS) or end < begin:
        return None
    if document.find(b'"Head":{', 0, begin) < 0 or document.find(b'"Headers":{', 0, begin) < 0:
        return None
    try:
        envelope = _DECODER.decode(document[:begin] + _image_links(document, begin, end) + document[end:]).envelope
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return _page(envelope.warc.url, envelope.payload.answer)


def _image_links(document: bytes, begin: int, end: int) -> bytes:
    """Those links, in JSON, whose path begins with IMG@/, or no JSON where one is not written path first.

    In valid JSON the marks are structure, as quotes within strings are escaped. An object is taken up to its first
    closing brace: where that lies within a string, what was taken is not JSON.
    """
    objects = _IMAGE_LINK.findall(document, begin, end)
    return b'{"path":' + b',{"path":'.join(objects) if objects else b""


def _page(url: str, answer: _Answer) -> WatPage | None:
    status, head = answer.message.status, answer.html.head
    if not url or not status.isdecimal():
        return None
    url = url.strip().removeprefix("<").removesuffix(">")
    metas = tuple(
        [
            (name, meta.content)
            for meta in head.metas
            if meta.name and (name := meta.name.strip().lower()) in _DIRECTIVE_METAS
        ]
    )
    headers = tuple(_headers(answer.headers))
    return WatPage(url, head.base, int(status), headers, metas, answer.html.links)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: dict[str, Any], names: Sequence[str]) -> list[str]:
    return [_text(value.get(name)) for name in names]


def _is_header(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(one, str) for one in value))


def _headers(headers: dict[str, str | list[str]]) -> Iterator[tuple[str, str]]:
    """Names in lower case; a header that was sent several times is a list."""
    for name, value in headers.items():
        for one in value if isinstance(value, list) else [value]:
            yield name.strip().lower(), one


# The fields of a WAT document that are read: everything else is passed over without being built.
class _Meta(msgspec.Struct, gc=False):
    name: str = ""
    content: str = ""


class _Head(msgspec.Struct, gc=False):
    base: str = msgspec.field(default="", name="Base")
    metas: list[_Meta] = msgspec.field(default_factory=list, name="Metas")


class _Html(msgspec.Struct, gc=False):
    head: _Head = msgspec.field(default_factory=_Head, name="Head")
    links: list[ImageLink] = msgspec.field(default_factory=list, name="Links")


class _Message(msgspec.Struct, gc=False):
    status: str = msgspec.field(default="", name="Status")


class _Answer(msgspec.Struct, gc=False):
    message: _Message = msgspec.field(default_factory=_Message, name="Response-Message")
    headers: dict[str, str | list[str]] = msgspec.field(default_factory=dict, name="Headers")
    html: _Html = msgspec.field(default_factory=_Html, name="HTML-Metadata")


class _Payload(msgspec.Struct, gc=False):
    answer: _Answer = msgspec.field(default_factory=_Answer, name="HTTP-Response-Metadata")


class _WarcHeaders(msgspec.Struct, gc=False):
    url: str = msgspec.field(default="", name="WARC-Target-URI")


class _Envelope(msgspec.Struct, gc=False):
    warc: _WarcHeaders = msgspec.field(default_factory=_WarcHeaders, name="WARC-Header-Metadata")
    payload: _Payload = msgspec.field(default_factory=_Payload, name="Payload-Metadata")


class _Document(msgspec.Struct, gc=False):
    envelope: _Envelope = msgspec.field(name="Envelope")


_META = ("name", "content")
_LINK = ("path", "url", "alt", "title")
_DECODER = msgspec.json.Decoder(_Document)
