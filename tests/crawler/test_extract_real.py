"""Real articles: what the WAT of the same pages names is found in the HTML too, and what only the HTML shows.

The WAT is read here with the standard library's JSON over FastWARC's records, and which address belongs to which <img>
is told by lxml: neither is what the extractor uses.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crawler.extract import Origin, Page, absolute, collapse, extract_page

pytestmark = pytest.mark.realdata

_LEAST = 0.95


def wat_pictures(path: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(page address, links of images) per page of a WAT file."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    with path.open("rb") as stream:
        for record in ArchiveIterator(stream, record_types=WarcRecordType.metadata):
            envelope = json.loads(record.reader.read())["Envelope"]
            html = envelope["Payload-Metadata"]["HTTP-Response-Metadata"]["HTML-Metadata"]
            links = [link for link in html.get("Links", []) if link["path"].startswith("IMG@/")]
            yield envelope["WARC-Header-Metadata"]["WARC-Target-URI"], links


def html_pages(path: Path) -> dict[str, tuple[bytes, Page]]:
    """Page address -> (HTML, what we find in it)."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    pages = {}
    with path.open("rb") as stream:
        for record in ArchiveIterator(stream, record_types=WarcRecordType.response, parse_http=True):
            url = record.headers["WARC-Target-URI"]
            html = record.reader.read()
            kind = record.http_headers.get("Content-Type") or ""
            pages[url] = (html, extract_page(html, url, [("content-type", kind)], with_links=False))
    return pages


def other_addresses(html: bytes, url: str) -> dict[str, set[str]]:
    """Address in src -> the addresses in all other attributes of the same <img> and of its <picture>'s sources."""
    from lxml import html as lxml_html

    others: dict[str, set[str]] = {}
    for image in lxml_html.fromstring(html, parser=lxml_html.HTMLParser(encoding="utf-8")).iter("img"):
        source = absolute(image.get("src") or "", url)
        if source is not None:
            picture = next(image.iterancestors("picture"), None)
            near = [image, *(picture.iter("source") if picture is not None else ())]
            words = " ".join(value for element in near for value in element.attrib.values()).replace(",", " , ").split()
            whole = [value for element in near for value in element.attrib.values()]
            found = {absolute(word, url) for word in words + whole}
            others.setdefault(source, set()).update(address for address in found if address)
    return others


@pytest.fixture(scope="module")
def pages(test_data: Path) -> dict[str, tuple[bytes, Page]]:
    return html_pages(test_data / "warc/derived/articles-keep.warc.gz")


def test_html_finds_what_the_wat_names(test_data: Path, pages: dict[str, tuple[bytes, Page]]) -> None:
    counts: Counter[str] = Counter()
    for url, links in wat_pictures(test_data / "warc/derived/articles-keep.warc.wat.gz"):
        html, page = pages[url]
        others = other_addresses(html, url)
        addresses = {picture.image_url for picture in page.pictures}
        texts = {caption.text for picture in page.pictures for caption in picture.captions}
        for link in links:
            address = absolute(link.get("url") or "", url)
            if address is None:
                continue  # data: and the like
            counts["pictures"] += 1
            counts["pictures found"] += address in addresses or bool(others.get(address, set()) & addresses)
            for text in filter(None, (collapse(link.get(name)) for name in ("alt", "title"))):
                counts["texts"] += 1
                counts["texts found"] += text in texts
    assert counts["pictures"] > 1000
    assert counts["texts"] > 800
    assert counts["pictures found"] >= _LEAST * counts["pictures"], counts
    assert counts["texts found"] >= _LEAST * counts["texts"], counts


def test_html_finds_what_the_wat_cannot_name(pages: dict[str, tuple[bytes, Page]]) -> None:
    """How the addresses of these 91 pages were found: WAT has those of src (and placeholders in place of the lazy)."""
    how = Counter(picture.how for _, page in pages.values() for picture in page.pictures)
    assert how == {
        Origin.SRC: 745,
        Origin.SRCSET: 104,
        Origin.LAZY: 644,
        Origin.NOSCRIPT: 55,
        Origin.PICTURE: 63,
        Origin.CSS: 35,
        Origin.LINK: 34,
        Origin.JSON_LD: 62,
        Origin.OG: 61,
    }
