"""wat: image links with texts and directives; the fast way gives what the slow one does."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from archives import PAGE, PNG, damage, http, pairs, read, visits, warc, wat, wat_document, write
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crawler.errors import InputError
from crawler.extract import collapse
from crawler.references import Resolver, absolute
from crawler.rows import FOUND, found_batch
from crawler.sources import wat as wat_module
from crawler.sources.base import Candidate, Unit
from crawler.sources.imagelinks import ImageLink, PictureResolver, is_clean, link_rows, plain_pictures, tidy
from crawler.sources.wat import WatSource
from crawler.sources.watjson import _decode_fast, decode_page, decode_slow

Link = dict[str, Any]


def image(url: str, path: str = "IMG@/src", **texts: str) -> Link:
    return {"path": path, "url": url, **texts}


def candidates(path: Path) -> list[Candidate]:
    return [item for item in read("wat", path) if isinstance(item, Candidate)]


def texts(candidate: Candidate) -> list[tuple[str, str]]:
    return [(caption.kind.value, caption.text) for caption in candidate.captions]


def test_image_links_become_candidates(tmp_path: Path) -> None:
    links = [
        {"path": "A@/href", "url": "/other.jpg", "text": "no picture"},
        image("/ada.jpg", alt=" Ada \n Lovelace ", title="The Countess"),
        {"path": "TD@/background", "url": "td.jpg"},
        image("img/ada.png"),
        image("later.jpg", "IMG@/data-src", alt="Lazy"),
        image("https://cdn.example/a.jpg?w=2#x", alt=""),
        image("data:image/gif;base64,R0lGOD"),
        image("spacer.gif"),
        image("x_{width}.jpg"),
        image("https://cdn.example/a.jpg?w=2", alt="Again", title="Again"),
        image("", alt="nothing"),
        image("longdesc.html", "IMG@/longdesc"),
    ]
    found = candidates(write(tmp_path / "x.wat.gz", wat(links)))
    assert [(c.image_url, texts(c)) for c in found] == [
        ("https://example.org/ada.jpg", [("alt", "Ada Lovelace"), ("title", "The Countess")]),
        (f"{PAGE}img/ada.png", []),
        (f"{PAGE}later.jpg", [("alt", "Lazy")]),
        ("https://cdn.example/a.jpg?w=2", [("alt", "Again")]),
    ]


def test_texts_of_all_links_to_a_picture_are_kept_in_order_of_kind(tmp_path: Path) -> None:
    links = [image("a.jpg", title="first"), image(f"{PAGE}a.jpg", alt="second", title="x"), image("a.jpg", alt="third")]
    [candidate] = candidates(write(tmp_path / "x", wat(links)))
    assert texts(candidate) == [("alt", "second"), ("alt", "third"), ("title", "first"), ("title", "x")]


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("/static/", "https://example.org/static/a.jpg"),
        ("https://cdn.example/x/y", "https://cdn.example/x/a.jpg"),
        ("mailto:x", f"{PAGE}a.jpg"),
        ("", f"{PAGE}a.jpg"),
    ],
)
def test_base_counts(base: str, expected: str, tmp_path: Path) -> None:
    [candidate] = candidates(write(tmp_path / "x", wat([image("a.jpg")], head={"Base": base})))
    assert candidate.image_url == expected


def test_directives_are_those_of_headers_and_metas(tmp_path: Path) -> None:
    headers = {"X-Robots-Tag": ["noai", "otherbot: noindex"], "TDM-Reservation": "1", "Server": "x"}
    metas = [
        {"name": "Robots ", "content": "NoImageIndex, Max-Snippet:-1"},
        {"name": "viewport", "content": "noai"},
        {"http-equiv": "robots", "content": "noindex"},
        {"name": "tdm-reservation", "content": "0"},
    ]
    [candidate] = candidates(write(tmp_path / "x", wat([image("a.jpg")], headers=headers, head={"Metas": metas})))
    assert candidate.page_directives.splitlines() == [
        "x-robots-tag: noai",
        "x-robots-tag: otherbot: noindex",
        "tdm-reservation: 1",
        "meta robots: noimageindex, max-snippet:-1",
        "tdm-reservation: 0",
    ]


def test_every_page_is_visited_also_without_pictures(tmp_path: Path) -> None:
    headers = {"ETag": '"e"', "Last-Modified": "Tue, 20 Feb 2024 00:00:00 GMT"}
    path = write(tmp_path / "x", wat([], headers=headers), wat([image("a.jpg")], f"{PAGE}404", status="404"))
    found = read("wat", path)
    assert [(v.page_url, v.http_status, v.etag) for v in visits(found)] == [(PAGE, 200, '"e"')]
    assert visits(found)[0].last_modified == headers["Last-Modified"]
    assert pairs(found) == []


def test_columns_hold_what_the_objects_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wat_module, "_BATCH_ROWS", 3)
    records = [
        wat([image(f"{i}.jpg", alt=f"text {i}", title="t") for i in range(n)], f"{PAGE}{n}/") for n in (2, 0, 4, 1)
    ]
    path = write(tmp_path / "x", *records, b"rubbish")
    source = WatSource(str(path))
    items, objects = list(source.batches(Unit(str(path)))), read("wat", path)
    batches = [item for item in items if isinstance(item, pa.RecordBatch)]
    rows = found_batch([item for item in objects if isinstance(item, Candidate)])
    assert [batch.num_rows for batch in batches] == [6, 1]
    assert pa.Table.from_batches(batches).equals(pa.Table.from_batches([rows], schema=FOUND))
    assert [item for item in items if not isinstance(item, pa.RecordBatch)] == [
        item for item in objects if not isinstance(item, Candidate)
    ]
    assert items[-1] == damage(objects)[0]


def test_records_that_are_not_json_are_one_damage(tmp_path: Path) -> None:
    good = wat([image("a.jpg")])
    bad = warc(b'{"Envelope":{"HTTP-Response-Metadata"', kind="metadata")
    found = read("wat", write(tmp_path / "x", good, bad, bad, wat([image("b.jpg")])))
    assert [url for _, url in pairs(found)] == [f"{PAGE}a.jpg", f"{PAGE}b.jpg"]
    [broken] = damage(found)
    assert broken.offset == len(gzip.compress(good))
    assert broken.message.endswith("2")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<html>", "is no WAT file but HTML"),
        (gzip.compress(warc(http(PNG)), mtime=0), "is a WARC file, not a WAT file"),
    ],
)
def test_files_of_another_kind_are_named(data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.wat.gz").write_bytes(data)
    with pytest.raises(InputError, match=words):
        read("wat", tmp_path / "x.wat.gz")


ODD_DOCUMENTS = [
    wat_document([image("a.jpg", alt='}] "IMG@/src" {"path":"IMG@/src"}'), image("b.jpg", alt="plain")]),
    wat_document([{"url": "a.jpg", "path": "IMG@/src"}, image("b.jpg")]),
    wat_document([{"alt": "first", "path": "IMG@/src", "url": "a.jpg"}]),
    wat_document([image("a.jpg", alt="lone \ud800 surrogate")]),
    wat_document([{"path": "IMG@/src"}, {"path": 7, "url": "x"}, {"path": "IMG@/src", "url": None}]),
    wat_document([image("a.jpg")], headers={"X-Robots-Tag": 7, "Server": [1]}),
    wat_document([image("a.jpg")], head={"Metas": "none", "Base": None}),
    wat_document([image("a.jpg")], head={"Metas": [{"name": None, "content": 1}, 5]}),
    wat_document([{**image("a.jpg"), "nested": {"path": "IMG@/src", "list": [{}]}}]),
    wat_document([image("a.jpg")]).replace(b'"path":', b'"path" : '),
    json.dumps(json.loads(wat_document([image("a.jpg", alt="ä")], head={"Base": "/b/"})), indent=1).encode(),
    json.dumps(json.loads(wat_document([image("a.jpg"), image("b.jpg")])), sort_keys=True).encode(),
    json.dumps(json.loads(wat_document([image("a.jpg")])), sort_keys=True, separators=(",", ":")).encode(),
    wat_document([image("a.jpg")]).replace(b'"Links":[', b'"Link":[{"a":1}],"Links":['),
    wat_document([image("a.jpg")]).replace(b'"Entity-Length":"1"', b'"Others":[{"path":"IMG@/src","url":"no"}]'),
    wat_document([image("a.jpg")]).replace(b'"Entity-Length":"1"', b'"Last":"}]"'),
    wat_document([]),
]


@pytest.mark.parametrize("document", ODD_DOCUMENTS)
def test_odd_documents_are_read_like_plain_ones(document: bytes) -> None:
    assert decode_page(document) == decode_slow(document)
    assert decode_page(document) is not None


@pytest.mark.parametrize(
    "document", [b"", b"{", b"[]", b"null", b"{}", b'{"Envelope":[]}', b"[" * 100_000, b"\xff", wat_document([])[:-9]]
)
def test_what_is_no_document_is_none(document: bytes) -> None:
    assert decode_page(document) is None


def test_documents_as_common_crawl_writes_them_go_the_fast_way() -> None:
    document = wat_document([image("a.jpg", alt="Ä"), {"path": "A@/href", "url": "x", "text": 'a "quoted" text'}])
    assert _decode_fast(document) == decode_slow(document)


TEXTS = st.text(st.sampled_from('ab }]{["\\:,/') | st.characters(), max_size=12)
LINKS = st.lists(
    st.fixed_dictionaries(
        {"path": st.sampled_from(["IMG@/src", "A@/href", "IMG@/data-src"]), "url": TEXTS},
        optional={"alt": TEXTS, "title": TEXTS, "text": TEXTS},
    ),
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(links=LINKS, base=TEXTS, order=st.booleans())
def test_fast_and_slow_ways_agree(links: list[Link], base: str, order: bool) -> None:
    document = wat_document(links, head={"Base": base})
    if order:
        document = json.dumps(json.loads(document), sort_keys=True, separators=(",", ":")).encode()
    assert decode_page(document) == decode_slow(document)


SEGMENTS = st.sampled_from(
    ["a", "b.jpg", "..", ".", "", "spacer.gif", "Blank.PNG", "a b", "ä", "x;p", "%20", "{w}", "@", "1x1.png", "c:d"]
)
STARTS = ["", "/", "//cdn.example/", "http://h.example/", "https://h.example", "HTTP://H.example/", "data:", "?", "\t/"]
STARTS += ["https://h.example:443/", "https://u@h.example/", "mailto:", "http:", " ", "#", "http://[x/"]
REFERENCES = st.builds(
    lambda start, segments, query, fragment: start + "/".join(segments) + query + fragment,
    st.sampled_from(STARTS),
    st.lists(SEGMENTS, max_size=4),
    st.sampled_from(["", "?", "?a=1&b=/spacer.gif", "?a=b.jpg", "?x=1?y=2", "?q=/", "?a=<b>"]),
    st.sampled_from(["", "#", "#top", "#?/x", " "]),
)
BASES = ["https://example.org/", "https://example.org/a/../b/c.html?x=/y/z", "https://example.org/a//b/", "http://h/x"]
BASES += [
    "https://example.org:8080/a/",
    "https://example.org/ä/b",
    "https://example.org/a/b;p/c",
    "https://example.org",
]


@settings(max_examples=200, deadline=None)
@given(reference=REFERENCES | st.text(max_size=30), base=st.sampled_from([PAGE, *BASES]))
@example(reference="a/./b.jpg", base=PAGE)
@example(reference="/", base="https://example.org:8080/a/")
@example(reference="//cdn.example/a.jpg", base="https://example.org:8080/a/")
@example(reference="a.jpg", base="https://user@example.org/a/")
@example(reference="x" * 9000, base=PAGE)
@example(reference="https://h.example/" + "x" * 9000, base=PAGE)
@example(reference="a\nb.jpg", base=PAGE)
@example(reference="https://h.example/" + "x" * 900, base=PAGE)
@example(reference="x" * 900, base="https://h.example/" + "x" * 1100 + "/")
def test_addresses_are_those_of_the_careful_way(reference: str, base: str) -> None:
    expected = Resolver(base).picture(reference)
    assert PictureResolver(base)(reference) == expected
    assert link_rows([ImageLink("IMG@/src", reference)], base).images == [url for url in [expected] if url]
    if is_clean(reference):
        assert absolute(reference, base) == reference
    if reference in plain_pictures([reference]):
        assert expected == reference


def test_most_addresses_are_plain() -> None:
    plain = {"https://h.example/a/b-1.jpg", "http://cdn.h.example/x.png?w=640&h=1", "https://h.example/"}
    odd = {
        "https://h.example/a/../b.jpg",
        "https://h.example/spacer.gif",
        "https://h.example/a/Blank.PNG?v=2",
        "http://h/x",
    }
    odd |= {
        "https://h.example/a b.jpg",
        "https://h.example/ä.jpg",
        "https://h.example/\ud800",
        "/a.jpg",
        "https://h.example",
    }
    odd |= {"https://h.example/a.jpg?", "https://h.example/a?b?c", "https://h.example/a#b", "https://h.example/a\n"}
    assert plain_pictures([*plain, *odd, *plain]) == plain


ODD_TEXT = st.text(st.sampled_from(" \tab\0é\x1f\u2028\u200b") | st.characters(), max_size=20)


@settings(max_examples=150, deadline=None)
@given(
    st.text(st.sampled_from(" \tab\0é\x1f\u2028\u200b") | st.characters(), max_size=20),
    st.sampled_from(["", "x" * 590, " y" * 300]),
)
def test_texts_are_those_of_the_careful_way(text: str, more: str) -> None:
    assert tidy(text + more) == collapse(text + more)
