"""Pictures and texts beyond <img src>: lazy loaders, noscript twins, <picture>, CSS, og:image, JSON-LD, links."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.extract import Origin, absolute, extract_page
from crawler.page import MAX_CAPTIONS, MAX_PICTURES
from crawler.references import Resolver, css_backgrounds, is_image_file, srcset_by_size
from warehouse.schema import CaptionKind

URL = "https://example.org/people/index.html"
AT = "https://example.org/people/"


def found(html: str) -> list[tuple[str, str]]:
    """(address below AT, how it was found) of every picture."""
    pictures = extract_page(html.encode(), URL).pictures
    return [(p.image_url.removeprefix(AT), p.how.value if p.how else "") for p in pictures]


def captions(html: str, name: str = "a.jpg") -> list[tuple[CaptionKind, str]]:
    [picture] = [p for p in extract_page(html.encode(), URL).pictures if p.image_url == AT + name]
    return [(c.kind, c.text) for c in picture.captions]


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ('<img src="a.jpg">', [("a.jpg", "src")]),
        ('<img src="s.jpg" srcset="s.jpg 1x, a.jpg 2x">', [("a.jpg", "srcset")]),
        ('<img src="s.jpg" data-src="a.jpg" loading=lazy>', [("a.jpg", "lazy")]),
        ('<img src="s.jpg" data-lazy-src="a.jpg">', [("a.jpg", "lazy")]),
        ('<img src="s.jpg" data-srcset="data:image/gif;base64,R0 9w, a.jpg 2w">', [("a.jpg", "lazy")]),
        ('<img srcset="data:image/gif;base64,R0" data-original="a.jpg">', [("a.jpg", "lazy")]),
        ('<img src="a.jpg" data-lazy="true" data-src="">', [("a.jpg", "src")]),
        ('<img src="a.jpg" data-url="/page.html">', [("a.jpg", "src")]),
        ('<img src="a.jpg" data-src="b_{width}x.jpg">', [("a.jpg", "src")]),
        ('<img src="img/blank.gif">', []),
        ('<img src="t.gif" width=1 height="1px">', []),
        ('<img src="#">', []),
        ('<picture><source srcset="a.webp 2x"><img src="s.jpg"></picture>', [("a.webp", "picture")]),
        (
            '<picture><source type="image/avif" srcset="a.avif 900w"><source srcset="a.webp 300w">'
            "<img src=s.jpg></picture>",
            [("a.webp", "picture")],
        ),
        (
            '<picture><source srcset="b.jpg 900w"><img src="s.jpg" srcset="a.jpg 800w"></picture>',
            [("a.jpg", "srcset")],
        ),
        ("<div style=\"color:red; background-image: url( 'a.jpg' )\"></div>", [("a.jpg", "css")]),
        ("<p style='background:#fff url(\"a.jpg\") no-repeat'>", [("a.jpg", "css")]),
        ('<p style="background:url(data:image/png;base64,AA)"></p>', []),
        ('<div data-bg="a.jpg"></div>', [("a.jpg", "css")]),
        ('<div data-bg="url(a.jpg)"></div>', [("a.jpg", "css")]),
        ('<div data-background="dark" data-bg="#fff"></div>', []),
        ('<meta property="og:image" content="a.jpg">', [("a.jpg", "og")]),
        ('<meta name="twitter:image:src" content="a.jpg">', [("a.jpg", "og")]),
        (
            '<meta property="og:image:secure_url" content="b.jpg"><meta property="og:image" content="a.jpg">',
            [("a.jpg", "og")],
        ),
        ('<img src="a.jpg"><meta property="og:image" content="a.jpg">', [("a.jpg", "src")]),
        ('<a href="a.JPG?x=1">Ada</a>', [("a.JPG?x=1", "link")]),
        ('<a href="a.jpg"><img src="t.jpg"></a>', [("t.jpg", "src"), ("a.jpg", "link")]),
        ('<a href="File:Ada.jpg">Ada</a><a href="x.html?i=a.jpg">b</a>', []),
        ('<a href="a.jpg" rel=nofollow>Ada</a>', []),
    ],
)
def test_how_pictures_are_found(html: str, expected: list[tuple[str, str]]) -> None:
    assert found(html) == expected


@pytest.mark.parametrize(
    "html",
    [
        '<img src="data:x" data-src="a.jpg" alt="Ada"><noscript><img src="a-300.jpg" alt="Ada"></noscript>',
        '<p><noscript><img src="a-300.jpg" alt="Ada"></noscript><img data-src="a.jpg" alt="Ada"></p>',
        '<span><img src="blank.gif" data-src="a.jpg"></span> <noscript><img src="b.jpg" alt="Ada"></noscript>',
    ],
)
def test_a_noscript_twin_is_the_same_picture(html: str) -> None:
    assert found(html) == [("a.jpg", "lazy")]
    assert (CaptionKind.ALT, "Ada") in captions(html)


def test_a_noscript_picture_stands_in_where_the_lazy_one_has_no_address() -> None:
    html = '<li><img class=lazy alt="Ada"><noscript><img src="a.jpg"></noscript> Countess</li>'
    assert found(html) == [("a.jpg", "noscript")]
    assert captions(html) == [(CaptionKind.ALT, "Ada"), (CaptionKind.CARD, "Countess")]


def test_a_tracker_in_noscript_is_no_twin() -> None:
    html = '<img src="a.jpg"><noscript><img src="//t.example/tr?x" height=1 width=1></noscript>'
    assert found(html) == [("a.jpg", "src")]


def test_a_noscript_beside_a_picture_that_is_not_lazy_is_its_own() -> None:
    html = '<img src="a.jpg"><noscript><img src="b.jpg"></noscript>'
    assert found(html) == [("a.jpg", "src"), ("b.jpg", "noscript")]


def test_the_linked_picture_shares_the_texts_of_its_thumbnail() -> None:
    html = '<h2>Team</h2><a href="a.jpg" title="Enlarge"><img src="t.jpg" alt="Ada Lovelace"></a>'
    expected = [(CaptionKind.ALT, "Ada Lovelace"), (CaptionKind.TITLE, "Enlarge"), (CaptionKind.NEARBY, "Team")]
    assert captions(html) == expected
    assert captions(html, "t.jpg") == expected
    assert captions('<a href="a.jpg">Ada in 1840</a>') == [(CaptionKind.CARD, "Ada in 1840")]


def test_a_table_row_belongs_to_its_one_picture() -> None:
    row = "<tr><td><a href=x><img src='{0}.jpg'></a></td><td>{1}</td><td>1815</td></tr>"
    html = f"<table>{row.format('a', 'Ada Lovelace')}{row.format('b', 'Bob')}</table>"
    assert captions(html) == [(CaptionKind.TABLE_ROW, "Ada Lovelace 1815")]
    shared = "<table><tr><td><img src=a.jpg>One</td><td><img src=b.jpg>Two</td></tr></table>"
    assert captions(shared) == [(CaptionKind.CARD, "One")]


def test_texts_of_the_page_for_its_og_image() -> None:
    html = """<meta property="og:image" content="a.jpg"><meta property="og:title" content="Ada Lovelace">
        <meta property="og:image:alt" content="A portrait"><meta name="twitter:description" content="A life">"""
    meta = CaptionKind.META
    assert captions(html) == [(meta, "A portrait"), (meta, "Ada Lovelace"), (meta, "A life")]
    both = captions(html + '<img src="a.jpg" alt="Ada">')
    assert both[0] == (CaptionKind.ALT, "Ada")
    assert (meta, "Ada Lovelace") in both


def json_ld(document: object) -> str:
    text = document if isinstance(document, str) else json.dumps(document)
    return f'<script type="application/ld+json">{text}</script>'


@pytest.mark.parametrize(
    ("document", "texts"),
    [
        ({"@type": "ImageObject", "contentUrl": "a.jpg", "caption": "Ada &amp; Co"}, ["Ada & Co"]),
        ({"@type": "Person", "name": "Ada", "image": "a.jpg"}, ["Ada"]),
        ({"@type": ["Person", "Thing"], "name": "Ada", "image": ["a.jpg"]}, ["Ada"]),
        ([{"@type": "http://schema.org/Person", "name": "Ada", "image": {"url": "a.jpg"}}], ["Ada"]),
        ({"@type": "NewsArticle", "headline": "News", "image": {"url": "a.jpg", "caption": "Ada"}}, ["Ada", "News"]),
        (
            {
                "@graph": [
                    {"@type": "Article", "headline": "News", "image": {"@id": "#i"}},
                    {"@type": "ImageObject", "@id": "#i", "url": "a.jpg", "caption": "Ada"},
                ]
            },
            ["Ada", "News"],
        ),
        ({"@type": "ProfilePage", "mainEntity": {"@type": "Person", "name": "Ada", "image": "a.jpg"}}, ["Ada"]),
        ('<!-- {"@type": "Person", "name": "A\nda", "image": "a.jpg"} -->', ["A da"]),
    ],
)  # fmt: skip
def test_json_ld(document: object, texts: list[str]) -> None:
    assert captions(json_ld(document)) == [(CaptionKind.JSON_LD, text) for text in texts]
    assert found(json_ld(document)) == [("a.jpg", "json_ld")]


@pytest.mark.parametrize(
    "document",
    [
        "",
        "{",
        "[" * 200_000,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        "1" * 10_000,
        '"a.jpg"',
        {"@type": 5, "image": "a.jpg"},
        {"@type": "Person", "image": 7},
        {"@type": "Person", "image": [[["a.jpg"]], None, {"url": {}}]},
        {"@type": "ImageObject", "url": "http://[", "caption": []},
        {"@type": "ImageObject", "url": "a\ud800.jpg"},
        {"@type": "ImageObject", "url": "data:image/png;base64,AA"},
        {"@type": "Organization", "logo": {"@type": "ImageObject", "url": "a.jpg"}},
        {"@type": "Article", "image": {"@id": "#x"}, "@id": "#x"},
    ],
    ids=range(14),
)
def test_hostile_json_ld_gives_nothing(document: object) -> None:
    assert found(json_ld(document)) == []


def test_json_ld_texts_are_safe_for_tables() -> None:
    [(_, text)] = captions(json_ld(r'{"@type": "Person", "name": "A\ud800\u0000da", "image": "a.jpg"}'))
    assert text == "A? da"


def test_the_first_base_counts_wherever_it_stands() -> None:
    html = '<img src="a.jpg"><meta property="og:image" content="b.jpg"><base href="pics/"><base href="/no/">'
    assert found(html) == [("pics/a.jpg", "src"), ("pics/b.jpg", "og")]
    assert found('<base target=_blank><base href="data:,x"><img src="a.jpg">') == [("a.jpg", "src")]


def test_css() -> None:
    style = r"background: linear-gradient(red, blue), url(a\28 1\29.jpg); BACKGROUND-IMAGE:url('b;c.jpg')"
    assert list(css_backgrounds(style)) == ["a(1).jpg", "b;c.jpg"]
    assert list(css_backgrounds("list-style: url(a.jpg); mask: url(b.jpg); background: none")) == []


def test_image_files() -> None:
    yes = ["a.jpg", "/x/a.JPEG#top", "http://h/a.png?w=1", "a.b.webp"]
    no = ["a.html", "jpg", "/x?f=a.jpg", "/wiki/File:A.jpg", "a.svg", "x" * 9000 + ".jpg"]
    assert [is_image_file(r) for r in yes + no] == [True] * len(yes) + [False] * len(no)


def test_caps_on_pictures_and_captions() -> None:
    page = extract_page("".join(f"<img src={n}.jpg>" for n in range(MAX_PICTURES + 5)).encode(), URL)
    assert len(page.pictures) == MAX_PICTURES
    page = extract_page("".join(f"<img src=a.jpg alt={n}>" for n in range(80)).encode(), URL)
    assert len(page.pictures[0].captions) == MAX_CAPTIONS
    assert extract_page(f'<img src="{"x" * 9000}.jpg">'.encode(), URL).pictures == ()


def test_links_are_left_out_where_nobody_follows() -> None:
    html = b'<a href="b.html">b</a><a href="a.jpg">a</a>'
    page = extract_page(html, URL, with_links=False)
    assert page.links == ()
    assert [p.how for p in page.pictures] == [Origin.LINK]
    assert len(extract_page(html, URL).links) == 2


_REFERENCE = st.one_of(
    st.text(max_size=30),
    st.lists(
        st.sampled_from(
            ["http://", "HTTPS://h.example", "//", "/", "..", ".", "a", "?", "#", ":", ";", "%41", " ", "@"]
        )
    ).map("".join),
)


@settings(max_examples=40, deadline=None)
@given(_REFERENCE)
def test_the_short_way_to_an_address_gives_what_the_long_one_gives(reference: str) -> None:
    for base in (URL, "http://h.example", "http://h.example:80/a/../b/?q"):
        assert Resolver(base)(reference) == absolute(reference, base)


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=80))
def test_srcset_never_fails(srcset: str) -> None:
    assert all(url and not url.isspace() for url in srcset_by_size(srcset))
