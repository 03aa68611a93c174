"""Sitemaps (sitemaps.org protocol 0.9, with Google's image extension) -> addresses of pages, and pictures on them.

Hostile input like everything else: bytes are capped before and after decompression, entities are never expanded, no
DTD is loaded, and every count is bounded. What is broken gives what precedes the damage.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from typing import Any

from crawler.extract import Caption, Picture, absolute, collapse
from warehouse.schema import CaptionKind

MAX_SITEMAP_BYTES = 50 * 1024 * 1024  # as the protocol says, after decompression
MAX_ENTRIES = 50_000  # likewise
_MAX_PICTURES_PER_PAGE = 1000  # as the extension says
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class SitemapEntry:
    """An address in a sitemap: of a page with the pictures that the sitemap names on it, or of a further sitemap."""

    url: str
    is_sitemap: bool = False
    pictures: tuple[Picture, ...] = ()


def sitemap_lines(robots_txt: str, base: str) -> list[str]:
    """The addresses of the Sitemap lines of a robots.txt, each once, in its order."""
    urls: dict[str, None] = {}
    for line in robots_txt.splitlines():
        name, colon, value = line.partition(":")
        url = absolute(value, base) if colon and name.strip().lower() == "sitemap" else None
        if url is not None:
            urls[url] = None
    return list(urls)


def unpack(body: bytes, cap: int = MAX_SITEMAP_BYTES) -> bytes:
    """`body` without its gzip layer, at most `cap` bytes of it; a stream that breaks off gives what precedes that."""
    if not body.startswith(_GZIP):
        return body[:cap]
    inflate = zlib.decompressobj(wbits=31)
    try:
        return inflate.decompress(body, cap)
    except zlib.error:
        return b""


def parse_sitemap(body: bytes, url: str) -> Iterator[SitemapEntry]:
    """The entries of one sitemap, sitemap index or plain list of addresses, in its order."""
    data = unpack(body).lstrip(b"\xef\xbb\xbf \t\r\n")
    entries = _parse_xml(data, url) if data.startswith(b"<") else _parse_lines(data, url)
    yield from islice(entries, MAX_ENTRIES)


def _parse_lines(data: bytes, base: str) -> Iterator[SitemapEntry]:
    """The text form: one whole address a line; anything else ends it, because it is no sitemap."""
    for line in data.decode("utf-8", "replace").splitlines():
        text = line.strip()
        if not text:
            continue
        if not text.startswith(("http://", "https://")):
            return
        url = absolute(text, base)
        if url is not None:
            yield SitemapEntry(url)


def _parse_xml(data: bytes, base: str) -> Iterator[SitemapEntry]:
    from lxml import etree  # type: ignore[import-untyped]

    events = etree.iterparse(
        BytesIO(data),
        events=("end",),
        recover=True,
        resolve_entities=False,  # an entity bomb stays a name
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
        collect_ids=False,
    )
    try:
        for _, element in events:
            kind = _name(element)
            if kind not in {"url", "sitemap"}:
                continue
            entry = _entry(element, kind == "sitemap", base)
            _forget(element)
            if entry is not None:
                yield entry
    except etree.XMLSyntaxError:
        return


def _name(element: Any) -> str:
    tag = element.tag
    return tag.rpartition("}")[2].lower() if isinstance(tag, str) else ""


def _forget(element: Any) -> None:
    """Free what has been read: the tree would grow with the file."""
    element.clear()
    parent = element.getparent()
    while parent is not None and element.getprevious() is not None:
        del parent[0]


def _entry(element: Any, is_sitemap: bool, base: str) -> SitemapEntry | None:
    url: str | None = None
    pictures: list[Picture] = []
    for child in element:
        name = _name(child)
        if name == "loc" and url is None:
            url = absolute(child.text or "", base)
        elif name == "image" and len(pictures) < _MAX_PICTURES_PER_PAGE:
            picture = _picture(child, base)
            if picture is not None:
                pictures.append(picture)
    return SitemapEntry(url, is_sitemap, tuple(pictures)) if url is not None else None


def _picture(element: Any, base: str) -> Picture | None:
    """One <image:image>: its caption and title are texts about the page's picture, not on the page: META."""
    texts = {_name(child): child.text or "" for child in element}
    url = absolute(texts.get("loc", ""), base)
    if url is None:
        return None
    found = dict.fromkeys(filter(None, (collapse(texts.get(name)) for name in ("caption", "title"))))
    return Picture(url, tuple(Caption(CaptionKind.META, text) for text in found))
