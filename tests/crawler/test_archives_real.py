"""Real crawl files: the pairs of every file are exactly those that another reader and another parser find."""

from __future__ import annotations

import gzip
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import other_reader
import pytest
from archives import damage, pairs, read, stored, visits

from crawler.errors import InputError
from crawler.sources.base import Candidate

pytestmark = pytest.mark.realdata

# file -> (pages, pairs, stored pictures)
WARC_FILES = {
    "warc/whirlwind.warc.gz": (1, 16, 0),
    "warc/resiliparse-warcfile.warc.gz": (16, 120, 0),
    "warc/resiliparse-warcfile.warc.lz4": (16, 120, 0),
    "warc/dolma-sample-0000.warc.gz": (22, 125, 0),
    "warc/jwatr-sample.warc.gz": (94, 349, 55),
    "warc/ukwa-main-page.warc.gz": (1, 18, 54),
    "warc/iawc-link-extraction-test.warc": (9, 4, 0),
    "derived/articles-keep.warc.gz": (91, 1803, 0),
    "odd-warc/ukwa-IAH-20080430204825-00000-blackbook-truncated.arc.gz": (2, 16, 3),
    "odd-warc/warcio-example-bad-non-chunked.warc.gz": (1, 0, 0),
    "odd-warc/warcio-example-digest.warc": (0, 0, 0),
    "odd-warc/warcio-example-iana.org-chunked.warc": (1, 0, 0),
    "odd-warc/warcio-example-space-in-target-uri.warc.gz": (0, 0, 0),
    "odd-warc/warcio-example.warc.gz": (1, 0, 0),
    "odd-warc/warcio-post-test.warc.gz": (0, 0, 0),
    "odd-warc/resiliparse-block-sized-records.warc.gz": (0, 0, 0),
    "odd-warc/iawc-html-lang-attribute.warc": (5, 0, 0),
    "odd-warc/iawc-title-extraction-embedded-SVG.warc": (1, 0, 0),
    "odd-warc/iawc-empty.gz": (0, 0, 0),
}
# file -> (pages before the damage, offset)
BROKEN_FILES = {
    "odd-warc/warcio-bad.arc": (0, 0),
    "odd-warc/warcio-example-trunc.warc": (1, 2560),
    "odd-warc/warcio-standard-torture-validate-field.warc": (0, 1357),
}
BROKEN_WAT = "warc/priyanlc-CC-MAIN-sample.warc.wat.gz"
WAT_FILES = {
    "warc/whirlwind.warc.wat.gz": (0, 0),
    "warc/priyanlc-CC-MAIN-sample2.warc.wat.gz": (1, 6),
    "derived/articles-keep.warc.wat.gz": (91, 1175),
}


@pytest.mark.parametrize("name", WARC_FILES)
def test_pairs_are_exactly_those_of_another_parser(
    name: str, test_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = test_data / "warc" / name
    with caplog.at_level(logging.WARNING, "crawler"):
        found = read("warc", path)
    ours = pairs(found)
    assert set(ours) == other_reader.pairs(path)
    assert (len(visits(found)), len(ours), len(stored(found))) == WARC_FILES[name]
    assert not damage(found)
    assert not caplog.records
    bodies = {(url, body) for url, _, _, body in other_reader.answers(path) if other_reader.is_picture(body)}
    assert {(picture.image_url, picture.body) for picture in stored(found)} <= bodies


@pytest.mark.parametrize("name", BROKEN_FILES)
def test_a_broken_file_gives_what_precedes_the_damage(
    name: str, test_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = test_data / "warc" / name
    with caplog.at_level(logging.WARNING):
        found = read("warc", path)
    pages, offset = BROKEN_FILES[name]
    assert len(visits(found)) == pages
    assert set(pairs(found)) == other_reader.pairs(path)
    [broken] = damage(found)
    assert (broken.file, broken.offset) == (str(path), offset)
    [record] = caplog.records
    assert str(path) in record.getMessage()
    assert f"byte {offset}" in record.getMessage()


def test_every_file_of_the_test_data_is_in_a_table(test_data: Path) -> None:
    folder = test_data / "warc"
    files = {
        path.relative_to(folder).as_posix()
        for sub in ("warc", "odd-warc", "derived")
        for path in (folder / sub).iterdir()
    }
    others = {"odd-warc/iawc-hi-2.gz", "warc/whirlwind.warc.wet.gz", BROKEN_WAT}
    assert files == {*WARC_FILES, *BROKEN_FILES, *WAT_FILES, *others}


def test_files_without_pages(test_data: Path) -> None:
    """Extracted text (WET) holds no page; two lines of text are no archive at all."""
    assert read("warc", test_data / "warc/warc/whirlwind.warc.wet.gz") == []
    for kind in ("warc", "wat"):
        with pytest.raises(InputError, match="something that begins with b'hi"):
            read(kind, test_data / "warc/odd-warc/iawc-hi-2.gz")


def test_the_same_file_in_gzip_and_lz4_gives_the_same(test_data: Path) -> None:
    folder = test_data / "warc/warc"
    found = [read("warc", folder / f"resiliparse-warcfile.warc.{ending}") for ending in ("gz", "lz4")]
    assert found[0] == found[1]
    assert len(found[0]) == 136


def json_pages(path: Path) -> Iterator[dict[str, Any]]:
    """HTTP answers in a WAT file, by splitting its text."""
    for record in re.split(rb"WARC/1\.0\r?\n", gzip.decompress(path.read_bytes()))[1:]:
        start = record.find(b"{")
        if b"application/json" in record[: max(start, 0)]:
            yield json.loads(record[start:].strip())["Envelope"]


def other_wat_pairs(path: Path) -> dict[tuple[str, str], list[str]]:
    """(page, picture) -> alts and titles, in page order."""
    found: dict[tuple[str, str], list[str]] = {}
    for envelope in json_pages(path):
        answer = envelope["Payload-Metadata"].get("HTTP-Response-Metadata", {})
        html = answer.get("HTML-Metadata", {})
        page = envelope["WARC-Header-Metadata"]["WARC-Target-URI"]
        base = other_reader.address(html.get("Head", {}).get("Base"), page) or page
        links = [link for link in html.get("Links", []) if link["path"] == "IMG@/src"]
        for link in links:
            url = other_reader.picture(link.get("url"), base)
            if url:
                texts = [" ".join(link.get(name, "").split())[:600] for name in ("alt", "title")]
                found.setdefault((other_reader.address(page, page) or "", url), []).extend(filter(None, texts))
    return found


def test_a_wat_record_that_is_cut_short_is_damage(test_data: Path) -> None:
    """Its Content-Length is 24 bytes less than its JSON has."""
    path = test_data / "warc" / BROKEN_WAT
    [broken] = damage(read("wat", path))
    assert (broken.file, broken.offset) == (str(path), 0)
    assert "not JSON" in broken.message


@pytest.mark.parametrize("name", WAT_FILES)
def test_wat_links_are_exactly_those_of_another_reader(name: str, test_data: Path) -> None:
    path = test_data / "warc" / name
    found = read("wat", path)
    other = other_wat_pairs(path)
    assert set(pairs(found)) == set(other)
    assert (len(visits(found)), len(pairs(found))) == WAT_FILES[name]
    for item in found:
        if isinstance(item, Candidate):
            texts = [caption.text for caption in item.captions]
            assert sorted(texts) == sorted(set(other[item.page_url, item.image_url]))
