"""Sitemaps as bytes: forms, damage and bombs."""

from __future__ import annotations

import gzip
import time

import pytest

from crawler.extract import Caption, Picture
from crawler.sources import sitemap
from crawler.sources.sitemap import SitemapEntry, parse_sitemap, sitemap_lines, unpack
from warehouse.schema import CaptionKind

URL = "https://site.test/maps/sitemap.xml"
NS = (
    'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9" '
    'xmlns:image="http://www.google.com/schemas/sitemap-image/1.1" '
    'xmlns:news="http://www.google.com/schemas/sitemap-news/0.9"'
)


def urls(body: bytes | str) -> list[str]:
    return [entry.url for entry in parse_sitemap(body.encode() if isinstance(body, str) else body, URL)]


def test_pages_pictures_and_their_texts_are_read() -> None:
    body = f"""\ufeff
    <?xml version="1.0" encoding="UTF-8"?><urlset {NS}>
      <url><loc> https://site.test/a?x=1&amp;y=2#top </loc><lastmod>2026-11-01</lastmod>
        <image:image><image:loc>/a.jpg</image:loc>
          <image:title>Ann</image:title><image:caption><![CDATA[Ann  at
          sea]]></image:caption></image:image>
        <image:image><image:loc>ftp://site.test/b.jpg</image:loc></image:image>
        <image:image><image:caption>no address</image:caption></image:image></url>
      <url><news:news><news:title>News</news:title></news:news><loc>/b</loc></url>
      <url><lastmod>2026-11-01</lastmod></url><!-- <url><loc>/c</loc></url> -->
    </urlset>"""
    texts = (Caption(CaptionKind.META, "Ann at sea"), Caption(CaptionKind.META, "Ann"))
    assert list(parse_sitemap(body.encode(), URL)) == [
        SitemapEntry("https://site.test/a?x=1&y=2", False, (Picture("https://site.test/a.jpg", texts),)),
        SitemapEntry("https://site.test/b"),
    ]


def test_an_index_names_further_sitemaps() -> None:
    body = (
        f"<sitemapindex {NS}><sitemap><loc>/1.xml.gz</loc></sitemap><sitemap><loc>2.xml</loc></sitemap></sitemapindex>"
    )
    assert list(parse_sitemap(body.encode(), URL)) == [
        SitemapEntry("https://site.test/1.xml.gz", is_sitemap=True),
        SitemapEntry("https://site.test/maps/2.xml", is_sitemap=True),
    ]


def test_gzip_text_and_no_sitemap_at_all() -> None:
    body = "<urlset><url><loc>/a</loc></url></urlset>"
    assert urls(gzip.compress(body.encode())) == ["https://site.test/a"]
    assert urls("https://site.test/a\r\n\r\nhttps://site.test/b\n") == ["https://site.test/a", "https://site.test/b"]
    for junk in (
        "",
        "Not found\nhttps://site.test/a",
        "<html><body><a href=/a>x</a></body></html>",
        "\x1f\x8bjunk",
        "<",
    ):
        assert urls(junk.encode("latin-1")) == []


def test_what_precedes_the_damage_is_read() -> None:
    body = "<urlset><url><loc>/a</loc></url><url><loc>/b</loc></url><oops></url><url><loc>/c</loc>"
    assert urls(body)[:2] == ["https://site.test/a", "https://site.test/b"]
    packed = gzip.compress(b"<urlset>" + b"".join(b"<url><loc>/%d</loc></url>" % i for i in range(5000)))
    assert len(urls(packed[: len(packed) // 2])) > 1000


@pytest.mark.parametrize(
    "entities",
    [
        '<!ENTITY a "aaaaaaaaaa">' + "".join(f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(9)),
        '<!ENTITY j SYSTEM "file:///etc/hostname">',
        '<!ENTITY % p SYSTEM "http://127.0.0.1:9/x.dtd"> %p; <!ENTITY j "x">',
    ],
    ids=["bomb", "file", "external-dtd"],
)
def test_entities_are_never_expanded(entities: str) -> None:
    started = time.monotonic()
    body = f"<!DOCTYPE x [{entities}]><urlset><url><loc>/a</loc></url><url><loc>/b&j;</loc></url></urlset>"
    assert set(urls(body)) <= {"https://site.test/a", "https://site.test/b"}
    assert time.monotonic() - started < 1


def test_sizes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sitemap, "MAX_ENTRIES", 100)
    bomb = gzip.compress(b"<urlset>" + b" " * 3_000_000)
    assert len(unpack(bomb, 1000)) == 1000
    assert len(unpack(b"x" * 2000, 1000)) == 1000
    assert len(urls("https://site.test/a\n" * 101)) == 100
    assert urls("<urlset>" + "<x>" * 100_000) == []


def test_sitemap_lines_of_robots_txt() -> None:
    robots = (
        "Sitemap: https://site.test/a.xml\nUser-agent: *\nsitemap :/b.xml\nSITEMAP:https://site.test/a.xml\nSitemap:\n"
    )
    assert sitemap_lines(robots, "https://site.test/") == ["https://site.test/a.xml", "https://site.test/b.xml"]
