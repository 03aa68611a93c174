"""What a page's HTML gives, as literals."""

from __future__ import annotations

import time

import pytest

from crawler.extract import absolute, extract_page, largest_of_srcset
from crawler.markup import decode_html
from crawler.page import MAX_CAPTIONS
from warehouse.schema import CaptionKind

URL = "https://example.org/people/index.html"


def pictures(html: str, url: str = URL) -> list[tuple[str, list[tuple[str, str]]]]:
    page = extract_page(html.encode(), url)
    return [(p.image_url, [(c.kind.value, c.text) for c in p.captions]) for p in page.pictures]


def addresses(html: str, url: str = URL) -> list[str]:
    return [address for address, _ in pictures(html, url)]


ADDRESSES: list[tuple[str, str, list[str]]] = [
    ("relative", '<img src="a.jpg">', ["https://example.org/people/a.jpg"]),
    ("rooted", '<img src="/a.jpg">', ["https://example.org/a.jpg"]),
    ("scheme-relative", '<img src="//cdn.example/a.jpg">', ["https://cdn.example/a.jpg"]),
    ("up", '<img src="../a.jpg#top">', ["https://example.org/a.jpg"]),
    ("query", '<img src="?id=1&amp;b=2">', ["https://example.org/people/index.html?id=1&b=2"]),
    ("base", '<base href="/other/"><img src="a.jpg">', ["https://example.org/other/a.jpg"]),
    ("absolute base", '<base href="http://b.example/x/y"><img src="a.jpg">', ["http://b.example/x/a.jpg"]),
    ("bad base", '<base href="http://["><img src="a.jpg">', ["https://example.org/people/a.jpg"]),
    ("white space", '<img src="\n a\n.jpg ">', ["https://example.org/people/a.jpg"]),
    ("data", '<img src="data:image/gif;base64,R0lGOD">', []),
    ("no source", "<img alt=x>", []),
    ("bad address", '<img src="http://[::1/a.jpg"><img src="b.jpg">', ["https://example.org/people/b.jpg"]),
    ("srcset", '<img src="s.jpg" srcset="m.jpg 640w, l.jpg 1280w, s.jpg 320w">', ["https://example.org/people/l.jpg"]),
    ("density", '<img src="s.jpg" srcset="s.jpg, l.jpg 2x">', ["https://example.org/people/l.jpg"]),
    ("lazy", '<img src="data:image/gif;base64,R0" data-src="a.jpg">', ["https://example.org/people/a.jpg"]),
    ("lazy over placeholder", '<img src="blank.gif" data-src="a.jpg">', ["https://example.org/people/a.jpg"]),
    ("lazy srcset", '<img data-srcset="a.jpg 1x, b.jpg 2x">', ["https://example.org/people/b.jpg"]),
    (
        "picture",
        '<picture><source srcset="b.webp 900w, c.webp 300w"><img src="a.jpg"></picture>',
        ["https://example.org/people/b.webp"],
    ),
    (
        "noscript twin",
        '<img data-src="a.jpg"><noscript><img src="a.jpg"></noscript>',
        ["https://example.org/people/a.jpg"],
    ),
    ("twice", '<img src="a.jpg"><img src="a.jpg">', ["https://example.org/people/a.jpg"]),
    ("template", '<template><img src="a.jpg"></template>', []),
]


@pytest.mark.parametrize(("html", "expected"), [a[1:] for a in ADDRESSES], ids=[a[0] for a in ADDRESSES])
def test_addresses(html: str, expected: list[str]) -> None:
    assert addresses(html) == expected


@pytest.mark.parametrize(
    ("srcset", "expected"),
    [
        ("", None),
        ("a.jpg", "a.jpg"),
        ("a.jpg 1x, b.jpg 1.5x", "b.jpg"),
        ("a.jpg 100w,b.jpg 200w", "b.jpg"),
        ("w_100,h_100/a.jpg 100w, w_200,h_200/a.jpg 200w", "w_200,h_200/a.jpg"),
        ("a.jpg, b.jpg", "a.jpg"),
        (" ,, a.jpg 640w 480h ,", "a.jpg"),
        ("a.jpg nonsense, b.jpg 2x", "b.jpg"),
        ("a.jpg xw, b.jpg 2x", "b.jpg"),
    ],
)
def test_srcset(srcset: str, expected: str | None) -> None:
    assert largest_of_srcset(srcset) == expected


def test_captions_are_ranked() -> None:
    html = """<h2>Our <b>team</b></h2><figure>
        <img src="a.jpg" title="Portrait" alt=" Ada\n  Lovelace " aria-label="Ada, smiling">
        <figcaption>Ada Lovelace, <i>1840</i></figcaption></figure>"""
    [(_, captions)] = pictures(html)
    assert captions == [
        (CaptionKind.ALT, "Ada Lovelace"),
        (CaptionKind.FIGCAPTION, "Ada Lovelace, 1840"),
        (CaptionKind.ARIA_LABEL, "Ada, smiling"),
        (CaptionKind.TITLE, "Portrait"),
        (CaptionKind.NEARBY, "Our team"),
    ]


def test_the_card_is_the_largest_box_with_this_picture_alone() -> None:
    html = """<h1>People</h1><ul>
        <li><div><img src="a.jpg"></div><p>Ada, with glasses</p></li>
        <li><div><img src="b.jpg"></div><p>Bob, with a beard</p></li></ul>"""
    assert [captions for _, captions in pictures(html)] == [
        [("card", "Ada, with glasses"), ("nearby", "People")],
        [("card", "Bob, with a beard"), ("nearby", "People")],
    ]


def test_an_article_is_no_card_and_scripts_are_no_text() -> None:
    html = f"<article><p><img src=a.jpg><script>track()</script></p><p>{'word ' * 200}</p></article>"
    assert pictures(html) == [("https://example.org/people/a.jpg", [])]


def test_the_nearest_heading_before_a_picture() -> None:
    html = "<body><h2>One</h2><img src=a.jpg><h3></h3><h3>Two</h3><p><img src=b.jpg></p>"
    assert [captions for _, captions in pictures(html)] == [[("nearby", "One")], [("nearby", "Two")]]


def test_texts_of_a_second_sighting_are_added() -> None:
    html = '<p><img src="a.jpg" alt="Ada"></p><p><img src="a.jpg" alt="The countess"></p>'
    assert pictures(html) == [("https://example.org/people/a.jpg", [("alt", "Ada"), ("alt", "The countess")])]


@pytest.mark.parametrize(
    ("html", "content_type"),
    [
        ("<p>Zoë</p>".encode(), ""),
        ("<p>Zoë</p>".encode("latin-1"), "text/html; charset=ISO-8859-1"),
        ('<meta charset="windows-1252"><p>Zoë</p>'.encode("cp1252"), ""),
        ("\ufeff<p>Zoë</p>".encode("utf-16-le"), "text/html; charset=utf-8"),
        ("<p>Zoë</p>".encode(), "text/html; charset=no-such-thing"),
    ],
)
def test_encodings(html: bytes, content_type: str) -> None:
    assert "<p>Zoë</p>" in decode_html(html, content_type)


def test_directives_of_headers_and_metas() -> None:
    html = b"""<meta name="ROBOTS" content="NoIndex,  follow"><meta name="viewport" content="x">
        <meta name="tdm-reservation" content="1"><meta name="gptface" content="noai">"""
    headers = [("X-Robots-Tag", "otherbot: noai"), ("X-Robots-Tag", "noarchive"), ("Server", "x")]
    assert extract_page(html, URL, headers).directives.splitlines() == [
        "x-robots-tag: otherbot: noai",
        "x-robots-tag: noarchive",
        "meta robots: noindex, follow",
        "tdm-reservation: 1",
        "meta gptface: noai",
    ]
    assert extract_page(b"<p>", URL).directives == ""


def test_links() -> None:
    html = b"""<a href="b.html#x">b</a><a href="b.html">again</a><a href="mailto:a@example.org">m</a>
        <a rel="external nofollow" href="c.html">c</a><map><area href="/d"></map><a href="http://[">bad</a>"""
    assert extract_page(html, URL).links == ("https://example.org/people/b.html", "https://example.org/d")


def test_absolute_refuses_what_is_no_web_address() -> None:
    assert absolute("javascript:alert(1)", URL) is None
    assert absolute("x" * 9000, URL) is None
    assert absolute("HTTPS://Example.org/A#b", URL) == "https://Example.org/A"
    assert absolute("http://b.example", URL) == "http://b.example/"


def test_damaged_html_is_survived() -> None:
    assert addresses('<p><img src="a.jpg" <b>></table></p></html><img src=b.jpg') != []
    assert extract_page(b"", URL).pictures == ()
    assert extract_page(bytes(range(256)) * 100, URL).pictures == ()


def test_nesting_without_end_costs_no_time() -> None:
    started = time.monotonic()
    assert addresses('<img src="a.jpg">' + "<div>" * 300_000) == ["https://example.org/people/a.jpg"]
    assert time.monotonic() - started < 5
    flat = "<p>text<br>" * 10_000 + "<div><b>x</b></div>" * 10_000 + '<img src="a.jpg">'
    assert addresses(flat) == ["https://example.org/people/a.jpg"]


def test_text_is_safe_for_tables() -> None:
    [(_, captions)] = pictures('<img src="a.jpg" alt="a&#0;b&#xD800;c">')
    captions[0][1].encode("utf-8")
    assert "\0" not in captions[0][1]


def test_the_title_of_the_page_comes_last_with_every_picture() -> None:
    html = "<title> Our\n kids </title><svg><title>A star</title></svg><img src=a.jpg alt=Ann><img src=b.jpg>"
    assert [texts for _, texts in pictures(html)] == [
        [("alt", "Ann"), ("page_title", "Our kids")],
        [("page_title", "Our kids")],
    ]
    # However many texts a picture has, the rules for content get to see the title.
    many = "".join(f'<img src="a.jpg" alt="text {i}">' for i in range(100))
    (only,) = [texts for _, texts in pictures(f"<title>Our kids</title>{many}")]
    assert only[-1] == ("page_title", "Our kids")
    assert len(only) == MAX_CAPTIONS + 1
