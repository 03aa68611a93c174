"""No bytes make extraction fail, and no markup makes it last: bounds on nesting, attributes and reopened elements."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.extract import MAX_HTML_BYTES, extract_page
from crawler.markup import MAX_ATTRIBUTES, MAX_NESTING, cut_where_too_deep, decode_html

URL = "https://example.org/people/index.html"
PICTURE = '<img src="a.jpg">'

_PIECE = st.sampled_from(
    [
        *("<div>", "</div>", "<b>", "</p>", "<table><tr><td>", "</table>", "<svg>", "<template>", "<select>"),
        *("<a href='", "<img src=", "<img srcset='a 1x,", "style=\"background:url(", "<noscript>"),
        *("<picture><source srcset=x>", "<base href="),
        *("<meta property=og:image content=", "<script type='application/ld+json'>", '{"@type":'),
        *("</", "<!--", "-->", "<![CDATA[", '"', "'", ">", "=", "<", "&#0;", "&#xD800;", "http://[", "\0", "\ud800"),
        *("é", "figure"),
    ]
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.lists(_PIECE, max_size=40).map(lambda p: "".join(p).encode("utf-8", "surrogatepass")),
    )
)
def test_no_bytes_make_it_fail(html: bytes) -> None:
    page = extract_page(html, URL, [("Content-Type", "text/html")])
    for picture in page.pictures:
        assert picture.image_url.startswith(("http://", "https://"))
        for caption in picture.captions:
            assert caption.text.encode("utf-8")
            assert "\0" not in caption.text


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=60), st.text(max_size=20))
def test_no_header_makes_decoding_fail(html: bytes, charset: str) -> None:
    decode_html(html, f"text/html; charset={charset}").encode("utf-8", "surrogatepass")


def test_pages_within_the_bounds_are_left_as_they_are() -> None:
    deep = "<div>" * 1900 + "x" + "</div>" * 1900 + "<p>" * 500
    flat = ("<p>text<br><b>x</b><font color=red>y" + "<li>z") * 300
    script = "<script>" + "document.write('<div><span>');" * 3000 + "</script>" + "<div></div>" * 1000
    attributes = "<img " + " ".join(f"data-a{n}='<>'" for n in range(MAX_ATTRIBUTES - 10)) + ">"
    for html in (deep, flat, script, attributes, "a < b <3 <", "<a href='x", ""):
        assert cut_where_too_deep(html) == html


@pytest.mark.parametrize(
    "html",
    [
        "<div>" * (3 * MAX_NESTING + 10),
        "<div></span>" * (3 * MAX_NESTING + 10),  # end tags of what is not open close nothing
        "<div title='</div>'>" * (3 * MAX_NESTING + 10),
        "<DIV></p >" * (3 * MAX_NESTING + 10),
        "<img " + " ".join(f"a{n}='</p>'" for n in range(20_000)) + ">",
        "<img " + " ".join(f"a{n}" for n in range(20_000)) + ">",
        "<p>" + "".join(f"<b id={n}>" for n in range(1000)) + "</p>" + "<p>x" * 3000,
    ],
)
def test_pages_beyond_a_bound_are_cut_there(html: str) -> None:
    assert len(cut_where_too_deep(PICTURE + html)) < len(html)
    assert len(extract_page((PICTURE + html).encode(), URL).pictures) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit",
    [
        *("<div>", "<div></x>", '<div a="</div>">', "<b id={n}>", "<p><b id={n}>x", "<a><div>", "<table><td>"),
        *("<svg><g>", "<select><option>", '<a"', "<a ='", "<", "<a ", "</", "&a", "<!--", "<script>", "<style><!--"),
        *("<img alt='", "<img src=a{n}.jpg>", "<figure><img src={n}.jpg><figcaption>x", "<picture><source srcset=a>"),
        *("<h1><img src={n}>", "<noscript><img src={n}>", "<a href=a{n}.jpg>", "<p style='background:url("),
        *("<img srcset='a,", " a{n}='1'"),
    ],
)  # fmt: skip
def test_nothing_repeated_to_the_cap_lasts(unit: str) -> None:
    count = MAX_HTML_BYTES // (len(unit) + 6)
    html = "".join(unit.replace("{n}", str(n)) for n in range(count)) if "{n}" in unit else unit * count
    started = time.process_time()
    extract_page((PICTURE + "<i " + html).encode() if unit.startswith(" ") else (PICTURE + html).encode(), URL)
    assert time.process_time() - started < 30
