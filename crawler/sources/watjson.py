"""The JSON of a WAT record -> the fields of its page and its image links.

Most of a record is links that are no pictures. The fast way cuts those out and decodes the rest with msgspec, which
builds only the fields that are read. Whatever does not look the way Common Crawl writes it goes the slow way, through
the whole document, with the same result.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from crawler.sources.imagelinks import ImageLink

_DIRECTIVE_METAS = frozenset({"robots", "gptface", "tdm-reservation"})
_META = ("name", "content")
_LINK = ("path", "url", "alt", "title")
_LINKS = b'"Links":['
# From the value of "path" to the end of the object; the mark alone where "path" is not the first key. (The look-behind
# comes second because what makes this fast is the search for a literal that begins with a rare letter.)
_IMAGE_LINK = re.compile(rb'IMG@/(?:(?<=\{"path":"IMG@/)[^}]*\}|)')


class WatPage(msgspec.Struct, frozen=True):
    """One decoded record: the fields of a page, and its image links."""

    url: str
    base: str
    status: int
    headers: tuple[tuple[str, str], ...]
    metas: tuple[tuple[str, str], ...]
    links: list[ImageLink]


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


_DECODER = msgspec.json.Decoder(_Document)


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
    return b'{"path":"' + b',{"path":"'.join(objects) if objects else b""


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
        if isinstance(value, str):
            yield name.strip().lower(), value
        else:
            yield from ((name.strip().lower(), one) for one in value)
