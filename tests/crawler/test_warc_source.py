"""warc: pages and stored pictures of WARC and ARC files; damage; what is no such file."""

from __future__ import annotations

import gzip
import logging
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import brotli
import lz4.frame
import pytest
import zstandard
from archives import HTML_TYPE, PAGE, PNG, arc, arc_head, damage, http, pairs, read, stored, visits, warc, write
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.errors import InputError
from crawler.sources.answer import parse_answer
from crawler.sources.base import Candidate
from warehouse.schema import CaptionKind

HTML = b'<html><img src="ada.jpg" alt="Ada Lovelace">'
FOUND = [(PAGE, f"{PAGE}ada.jpg")]


def identity(data: bytes) -> bytes:
    return data


def test_a_page_gives_its_visit_and_its_pictures(tmp_path: Path) -> None:
    answer = http(HTML, HTML_TYPE, 'ETag: "e1"', "Last-Modified: Tue, 20 Feb 2024 00:00:00 GMT", "X-Robots-Tag: noai")
    found = read("warc", write(tmp_path / "x.warc.gz", warc(answer)))
    [visit] = visits(found)
    assert (visit.page_url, visit.http_status, visit.etag) == (PAGE, 200, '"e1"')
    assert visit.last_modified == "Tue, 20 Feb 2024 00:00:00 GMT"
    assert visit.body_sha256 == sha256(HTML).hexdigest()
    assert visit.visited_at == datetime(2024, 2, 21, 10, 11, 12, tzinfo=UTC)
    [picture] = [item for item in found if isinstance(item, Candidate)]
    assert picture.image_url == f"{PAGE}ada.jpg"
    assert (picture.captions[0].kind, picture.captions[0].text) == (CaptionKind.ALT, "Ada Lovelace")
    assert picture.page_directives == "x-robots-tag: noai"


def test_directives_are_those_of_headers_and_page(tmp_path: Path) -> None:
    html = b'<meta name=robots content="NoImageIndex"><img src=a.jpg>'
    answer = http(html, HTML_TYPE, "TDM-Reservation: 1", "X-Robots-Tag: a", "X-Robots-Tag: otherbot:", "  noindex")
    [picture] = [c for c in read("warc", write(tmp_path / "x", warc(answer))) if isinstance(c, Candidate)]
    assert picture.page_directives.splitlines() == [
        "tdm-reservation: 1",
        "x-robots-tag: a",
        "x-robots-tag: otherbot: noindex",
        "meta robots: noimageindex",
    ]


@pytest.mark.parametrize("compress", [identity, gzip.compress, zstandard.compress, lz4.frame.compress])
@pytest.mark.parametrize("whole", [False, True])
def test_all_compressions_give_the_same(compress: Callable[[bytes], bytes], whole: bool, tmp_path: Path) -> None:
    records = [
        warc(b"software: test\r\n", kind="warcinfo"),
        warc(b"GET / HTTP/1.1\r\n\r\n", kind="request"),
        warc(http(HTML)),
        warc(http(PNG, "Content-Type: image/png"), f"{PAGE}ada.jpg"),
    ]
    chunks = [b"".join(records)] if whole else records
    found = read("warc", write(tmp_path / "x.bin", *chunks, compress=compress))
    assert pairs(found) == FOUND
    assert [(picture.image_url, picture.body) for picture in stored(found)] == [(f"{PAGE}ada.jpg", PNG)]
    assert not damage(found)


def chunked(body: bytes) -> bytes:
    parts = [body[i : i + 17] for i in range(0, len(body), 17)]
    return b"".join(b"%x;x=y\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def deflate(data: bytes) -> bytes:
    return zlib.compress(data)[2:-4]  # what servers send that take the name at its word


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (chunked(HTML), ["Transfer-Encoding: chunked"]),
        (HTML, ["Transfer-Encoding: chunked"]),  # the crawler put it together and kept the header
        (gzip.compress(HTML, mtime=0), ["Content-Encoding: gzip"]),
        (gzip.compress(HTML, mtime=0), ["content-encoding: X-GZIP"]),
        (HTML, ["Content-Encoding: gzip"]),
        (HTML, ["Content-Encoding: br"]),
        (chunked(gzip.compress(HTML, mtime=0)), ["Transfer-Encoding: chunked", "Content-Encoding: gzip"]),
        (zlib.compress(HTML), ["Content-Encoding: deflate"]),
        (deflate(HTML), ["Content-Encoding: deflate"]),
        (brotli.compress(HTML), ["Content-Encoding: br"]),
        (zstandard.compress(HTML), ["Content-Encoding: zstd"]),
        (brotli.compress(gzip.compress(HTML, mtime=0)), ["Content-Encoding: gzip, br"]),
        (chunked(HTML + bytes(100))[:-30], ["Transfer-Encoding: chunked"]),
        (gzip.compress(HTML + bytes(100), mtime=0)[:-3], ["Content-Encoding: gzip"]),
    ],
)
def test_stored_encodings_are_undone(body: bytes, headers: list[str], tmp_path: Path) -> None:
    answer = http(body, HTML_TYPE, *headers)
    assert pairs(read("warc", write(tmp_path / "x", warc(answer)))) == FOUND


@pytest.mark.parametrize("compress", [gzip.compress, brotli.compress, zlib.compress, zstandard.compress])
def test_a_decompression_bomb_is_cut(compress: Callable[[bytes], bytes]) -> None:
    name = {gzip.compress: "gzip", brotli.compress: "br", zlib.compress: "deflate"}.get(compress, "zstd")
    block = http(compress(b"<img src=a.jpg>" + bytes(2_000_000)), HTML_TYPE, f"Content-Encoding: {name}")
    answer = parse_answer(block, 100_000)
    assert answer is not None
    assert len(answer.body) == 100_000
    assert not answer.whole


@pytest.mark.parametrize(
    ("url", "page"),
    [
        ("<https://example.org/people/>", PAGE),
        (" https://example.org/people/ ", PAGE),
        ("https://example.org/people/#top", PAGE),
        ("HTTPS://example.org/people/", PAGE),
        ("https://example.org", "https://example.org/"),
        ("https://example.org/a page.html", "https://example.org/a page.html"),
    ],
)
def test_target_uris_are_taken_as_they_are_written(url: str, page: str, tmp_path: Path) -> None:
    assert [v.page_url for v in visits(read("warc", write(tmp_path / "x", warc(http(HTML), url))))] == [page]


@pytest.mark.parametrize(
    "record",
    [
        warc(http(HTML), kind="revisit"),
        warc(http(HTML), kind="request"),
        warc(b"text", kind="conversion"),
        warc(http(HTML), "dns:example.org"),
        warc(http(HTML, status=404)),
        warc(http(HTML, HTML_TYPE, "Location: /x", status=301)),
        warc(http(HTML, "Content-Type: text/plain")),
        warc(http(HTML, "Content-Type: application/json")),
        warc(http(b"")),
        warc(b"no http at all"),
        warc(b"HTTP/1.1 200 OK\r\nContent-Type: text/html"),
        warc(http(HTML), "https://[broken/"),
    ],
)
def test_what_is_neither_page_nor_picture_is_passed_over(record: bytes, tmp_path: Path) -> None:
    found = read("warc", write(tmp_path / "x", record, warc(http(HTML), f"{PAGE}b/")))
    assert [visit.page_url for visit in visits(found)] == [f"{PAGE}b/"]
    assert not damage(found)


@pytest.mark.parametrize("headers", [["Server: x"], ["Content-Type: application/octet-stream"], ["Content-Type:"]])
def test_html_without_a_telling_header_is_sniffed(headers: list[str], tmp_path: Path) -> None:
    page = b"\xef\xbb\xbf\n<!DOCTYPE html>" + HTML
    assert pairs(read("warc", write(tmp_path / "x", warc(http(page, *headers))))) == FOUND
    assert not visits(read("warc", write(tmp_path / "x", warc(http(b"Ada was", *headers)))))


def test_pictures_are_told_by_their_bytes(tmp_path: Path) -> None:
    found = read(
        "warc",
        write(
            tmp_path / "x",
            warc(http(PNG, "Content-Type: text/plain", "X-Robots-Tag: noai"), f"{PAGE}1"),
            warc(PNG, f"{PAGE}2", "resource", Content_Type="image/png"),
            warc(http(b"<html>not here", "Content-Type: image/png"), f"{PAGE}3"),
            warc(http(b"BMW is a car <img src=a.jpg>"), f"{PAGE}4"),
        ),
    )
    assert [picture.image_url for picture in stored(found)] == [f"{PAGE}1", f"{PAGE}2"]
    assert dict(stored(found)[0].headers)["x-robots-tag"] == "noai"
    assert [visit.page_url for visit in visits(found)] == [f"{PAGE}4"]


@pytest.mark.parametrize(
    "record",
    [
        warc(http(PNG, "Content-Type: image/png", f"Content-Length: {len(PNG) + 1}")),
        warc(http(PNG, "Content-Type: image/png"), WARC_Truncated="length"),
        warc(http(PNG, "Content-Type: image/png", status=206)),
        warc(http(chunked(PNG)[:-20], "Content-Type: image/png", "Transfer-Encoding: chunked")),
    ],
)
def test_a_picture_that_is_not_whole_is_not_kept(record: bytes, tmp_path: Path) -> None:
    assert read("warc", write(tmp_path / "x", record)) == []


def test_records_and_pictures_over_their_bounds_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crawler.sources.warc.MAX_RECORD_BYTES", 2000)
    monkeypatch.setattr("crawler.sources.warc.MAX_PICTURE_BYTES", 1000)
    large, larger = PNG + bytes(1000), PNG + bytes(3000)
    for kind in (warc, arc):
        records = [kind(http(b, "Content-Type: image/png"), f"{PAGE}{len(b)}") for b in (PNG, large, larger)]
        head = [arc_head()] if kind is arc else []
        found = read("warc", write(tmp_path / "x", *head, *records, kind(http(HTML))))
        assert [picture.body for picture in stored(found)] == [PNG]
        assert pairs(found) == FOUND


def test_headers_with_line_feeds_alone(tmp_path: Path) -> None:
    record = warc(http(HTML)).replace(b"\r\n", b"\n")
    length = len(http(HTML)) - http(HTML).count(b"\r\n")
    record = record.replace(f"Content-Length: {len(http(HTML))}".encode(), f"Content-Length: {length}".encode())
    assert pairs(read("warc", write(tmp_path / "x", record, record))) == FOUND * 2


@pytest.mark.parametrize("compress", [identity, gzip.compress, zstandard.compress, lz4.frame.compress])
def test_arc_files(compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    records = [arc_head(), arc(http(HTML)), arc(http(PNG, "Content-Type: image/png"), f"{PAGE}a b.png")]
    found = read("warc", write(tmp_path / "x.arc", *records, compress=compress))
    assert pairs(found) == FOUND
    assert visits(found)[0].visited_at == datetime(2008, 4, 30, 20, 48, 25, tzinfo=UTC)
    assert [(p.image_url, p.body) for p in stored(found)] == [(f"{PAGE}a b.png", PNG)]


def broken_after_two(kind: str, compress: Callable[[bytes], bytes]) -> list[tuple[bytes, int]]:
    """(file, offset of the damage) of a file whose first two pages are good."""
    make = warc if kind == "warc" else arc
    members = [compress(make(http(HTML + bytes([i]) * 3000), f"{PAGE}{i}/")) for i in range(4)]
    if kind == "arc":
        members.insert(0, compress(arc_head()))
    good, bad, rest = b"".join(members[:-2]), members[-2], members[-1]
    files = [(good + bad[: len(bad) // 2], len(good))]
    if compress is identity:
        files.append((good + b"rubbish\r\n" * 10 + bad, len(good)))
    else:
        flipped = bytearray(bad)
        place = len(bad) // 2 if compress is gzip.compress else 4  # the others have no checksum: break their header
        flipped[place : place + 6] = b"\xff" * 6
        files += [(good + bytes(flipped) + rest, len(good)), (good + b"rubbish" * 10, len(good))]
    if compress is gzip.compress:
        files.append((good + bad[:5], len(good)))
    return files


@pytest.mark.parametrize("kind", ["warc", "arc"])
@pytest.mark.parametrize("compress", [identity, gzip.compress, zstandard.compress, lz4.frame.compress])
def test_a_broken_file_gives_what_precedes_the_damage_and_one_warning(
    kind: str, compress: Callable[[bytes], bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number, (data, offset) in enumerate(broken_after_two(kind, compress)):
        path = tmp_path / f"{number}.{kind}"
        path.write_bytes(data)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            found = read("warc", path)
        assert [visit.page_url for visit in visits(found)] == [f"{PAGE}0/", f"{PAGE}1/"], number
        [broken] = damage(found)
        assert found[-1] is broken
        assert (broken.file, broken.offset) == (str(path), offset), (number, broken.message)
        [record] = caplog.records
        assert str(path) in record.getMessage()
        assert f"byte {offset}" in record.getMessage()


def test_a_file_compressed_in_one_piece_that_is_cut(tmp_path: Path) -> None:
    records = [warc(http(HTML + bytes([i]) * 3000), f"{PAGE}{i}/") for i in range(200)]
    data = gzip.compress(b"".join(records), 0, mtime=0)
    (tmp_path / "x").write_bytes(data[: len(data) // 2])
    found = read("warc", tmp_path / "x")
    assert 90 <= len(visits(found)) <= 101
    assert "ends in the middle" in damage(found)[0].message


def test_a_file_cut_within_its_first_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(gzip.compress(warc(http(HTML)), mtime=0)[:15])
    [broken] = read("warc", tmp_path / "x")
    assert damage([broken])[0].offset == 0


def test_empty_files_give_nothing(tmp_path: Path) -> None:
    for data in (b"", gzip.compress(b"", mtime=0)):
        (tmp_path / "x").write_bytes(data)
        assert read("warc", tmp_path / "x") == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<!doctype html><p>saved page", "is no WARC or ARC file but HTML"),
        (gzip.compress(b'{"a": 1}', mtime=0), "is no WARC or ARC file but JSON"),
        (PNG, "is no WARC or ARC file but something that begins with"),
        (
            warc(b'{"Container":{},"Envelope":{}}', kind="metadata", Content_Type="application/json"),
            "is a WAT file, not a WARC file: give wat:",
        ),
    ],
)
def test_files_of_another_kind_are_named(data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.warc.gz").write_bytes(data)
    with pytest.raises(InputError, match=words) as error:
        read("warc", tmp_path / "x.warc.gz")
    assert str(tmp_path / "x.warc.gz") in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.e2e
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_damage_ends_well(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever is flipped or cut, reading ends with at most one damage, which comes last."""
    make = data.draw(st.sampled_from([identity, gzip.compress, zstandard.compress, lz4.frame.compress]))
    records = data.draw(st.sampled_from([[warc(http(HTML)), warc(http(PNG))], [arc_head(), arc(http(HTML))]]))
    whole = bytearray(b"".join(map(make, records)))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(whole[: data.draw(st.integers(1, len(whole)))])
    try:
        found = read("warc", path)
    except InputError:
        return
    assert not damage(found[:-1])
