"""The way through a site without sockets: a scripted site answers, in any order that it likes."""

from __future__ import annotations

import asyncio
import io
import json
import random
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crawler.address import authority_of
from crawler.fetch import FetchConfig, Fetcher
from crawler.robots import HostRecord, RobotsGate
from crawler.sources.base import CrawlLimits
from crawler.sources.site_crawl import Crawl, Report
from crawler.sources.site_known import KnownPages, LinksWriter
from crawler.sources.site_pace import MAX_PAUSE_S, Pace, retry_after_s
from crawler.sources.site_visit import Reply, is_refused
from warehouse.schema import PAGES

HOST, OTHER = "http://site.test", "http://other.test"
Answer = Reply | list[Reply]


def html(body: str, **headers: str) -> Reply:
    pairs = (("content-type", "text/html"), *((k.replace("_", "-"), v) for k, v in headers.items()))
    return Reply(200, pairs, body.encode(), refused=is_refused(pairs))


def moved(target: str) -> Reply:
    return Reply(301, (("location", target),))


def links(*paths: str) -> str:
    return "".join(f'<a href="{path}">x</a>' for path in paths)


class FakeSite:
    """Answers by path on HOST, by whole address elsewhere; a list is answered one after the other, the last again."""

    def __init__(self, seed: int = 0, **robots: str) -> None:
        self.routes: dict[str, Answer] = {}
        self.asked: Counter[str] = Counter()
        self.conditions: dict[str, dict[str, str]] = {}
        self._random = random.Random(seed)
        now = datetime.now(UTC)
        texts = {HOST: robots.get("robots", ""), OTHER: robots.get("other", "")}
        records = {host: HostRecord(host, 200, text, 404, "", now) for host, text in texts.items()}
        self.gate = RobotsGate(Fetcher(FetchConfig()), records)

    async def ask(self, url: str, headers: dict[str, str], max_bytes: int) -> Reply:
        path = url.removeprefix(HOST)
        self.asked[path] += 1
        self.conditions[path] = headers
        await asyncio.sleep(self._random.choice((0.0, 0.01)))
        answer = self.routes.get(path, Reply(404))
        if isinstance(answer, list):
            answer = answer[min(self.asked[path], len(answer)) - 1]
        etag = answer.header("etag")
        if etag and headers.get("If-None-Match") == etag:
            return Reply(304, tuple(h for h in answer.headers if h[0] != "content-type"), refused=answer.refused)
        return answer

    def crawl(
        self, *seeds: str, pages: Path | None = None, store: Path | None = None, **limits: Any
    ) -> tuple[list[dict[str, Any]], Report]:
        """The rows that a crawl writes, addresses without HOST, and its report."""
        known, output = KnownPages(pages, store), io.StringIO()
        bounds = CrawlLimits(**{"delay_s": 0.0, "concurrency": 4, "sitemaps": False, **limits})
        with LinksWriter(store, known) as writer:
            pace = Pace(self.gate.crawl_delay_s, time.monotonic() + bounds.max_minutes * 60, slower_s=0.001)
            crawl = Crawl(bounds, self.gate, self.ask, output, known, writer, pace, back_off_s=0.001)
            report = asyncio.run(crawl.run([f"{HOST}/{seed}" for seed in seeds or ("",)]))
        rows = [json.loads(line) for line in output.getvalue().splitlines()]
        return [row | {"page_url": row["page_url"].removeprefix(HOST)} for row in rows], report


def visited(rows: list[dict[str, Any]]) -> list[str]:
    return [row["page_url"] for row in rows]


def wide_site(seed: int = 0) -> FakeSite:
    """A front page, 6 sections, 4 pages each of them; every page has about as many bytes and one picture."""
    site = FakeSite(seed)
    site.routes["/"] = html(links(*(f"/s{i}/" for i in range(6))) + "<img src=logo.png>")
    for i in range(6):
        site.routes[f"/s{i}/"] = html(links("/", *(f"p{j}.html#top" for j in range(4))) + "<img src=s.jpg>")
        for j in range(4):
            site.routes[f"/s{i}/p{j}.html"] = html(f'<img src="{j}.jpg" alt="Person {i} {j}">' + "x" * 1000)
    return site


@pytest.mark.parametrize("seed", [1, 2])
def test_rows_come_level_by_level_in_the_order_of_addresses(seed: int) -> None:
    rows, report = wide_site(seed).crawl()
    expected = ["/", *(f"/s{i}/" for i in range(6)), *(f"/s{i}/p{j}.html" for i in range(6) for j in range(4))]
    assert visited(rows) == expected
    assert (report.pages, report.pictures, report.notes) == (31, 31, [])
    assert rows[-1]["pictures"] == [[f"{HOST}/s5/3.jpg", [["alt", "Person 5 3"]]]]


@pytest.mark.parametrize(
    ("limits", "pages", "note"),
    [
        ({"max_pages": 12}, 12, "page budget of 12 used up"),
        ({"max_pages_per_host": 9}, 9, "page budget of 9 per host used up on http://site.test"),
        ({"max_bytes": 8000}, 13, "byte budget of 8000 used up"),
        ({"max_depth": 1}, 7, "depth 1 reached"),
    ],
)
def test_the_same_budget_gives_the_same_pages_whatever_the_order_of_answers(
    limits: dict[str, Any], pages: int, note: str
) -> None:
    crawls = [wide_site(seed).crawl(**limits) for seed in range(4)]
    assert all(visited(rows) == visited(crawls[0][0]) for rows, _ in crawls)
    assert len(crawls[0][0]) == pages
    assert crawls[0][1].notes == [note]


def test_the_time_budget_ends_a_crawl_with_what_it_has() -> None:
    site = wide_site()
    answer = site.ask

    async def hang(url: str, headers: dict[str, str], max_bytes: int) -> Reply:
        if url.endswith("/s3/"):
            await asyncio.sleep(30)
        return await answer(url, headers, max_bytes)

    site.ask = hang  # type: ignore[method-assign]
    rows, report = site.crawl(max_minutes=0.003)
    assert visited(rows) == ["/", "/s0/", "/s1/", "/s2/"]
    assert report.notes == ["time budget of 0.003 minutes used up"]


def test_what_is_not_ours_to_read_is_not_asked_for() -> None:
    site = FakeSite(robots="User-agent: *\nDisallow: /closed")
    wanted = ["/closed/x", f"{OTHER}/away", "/file.pdf", "/photo.JPG?x=1", "mailto:a@b", "/ok", "/nofollow", "/none"]
    site.routes["/"] = html(links(*wanted) + '<a rel=nofollow href="/rel">x</a>')
    site.routes["/ok"] = html("<img src=a.jpg>")
    site.routes["/nofollow"] = html('<meta name=robots content="nofollow">' + links("/hidden1"))
    site.routes["/none"] = html(links("/hidden2"), x_robots_tag="none")
    rows, _ = site.crawl()
    assert visited(rows) == ["/", "/nofollow", "/none", "/ok"]
    assert site.asked == {"/": 1, "/ok": 1, "/nofollow": 1, "/none": 1}
    assert rows[2]["directives"] == "x-robots-tag: none"


def test_redirects_stay_on_the_site_and_end() -> None:
    site = FakeSite(robots="User-agent: *\nDisallow: /closed")
    site.routes["/"] = html(links("/a", "/b", "/c", "/loop", "/long0", "/out", "/in"))
    site.routes |= {"/a": moved("/target#x"), "/b": moved("/target"), "/c": moved("/"), "/loop": moved("/loop")}
    site.routes |= {f"/long{i}": moved(f"/long{i + 1}") for i in range(9)}
    site.routes |= {"/out": moved(f"{OTHER}/x"), "/in": moved("/closed/y"), "/target": html("<img src=a.jpg>")}
    rows, report = site.crawl()
    assert visited(rows) == ["/", "/target"]
    assert site.asked["/target"] == site.asked["/loop"] == site.asked["/"] == 1
    assert site.asked["/long5"] == 1 and not site.asked["/long6"]
    assert not site.asked[f"{OTHER}/x"] and not site.asked["/closed/y"]
    assert report.notes == []


def test_a_seed_that_moved_takes_the_crawl_along() -> None:
    site = FakeSite()
    site.routes |= {"/": moved(f"{OTHER}/home"), f"{OTHER}/home": html(links("/next", f"{HOST}/old"))}
    site.routes[f"{OTHER}/next"] = html("<img src=a.jpg>")
    rows, _ = site.crawl()
    assert visited(rows) == [f"{OTHER}/home", f"{OTHER}/next"]
    assert not site.asked["/old"]
    closed = FakeSite(other="User-agent: gptface\nDisallow: /")
    closed.routes["/"] = moved(f"{OTHER}/home")
    rows, report = closed.crawl()
    assert (rows, closed.asked) == ([], {"/": 1})
    assert report.error.startswith(f"{OTHER}/robots.txt disallows gptface on {OTHER}/home")


def test_accidents_are_asked_again_and_answers_are_not() -> None:
    site = FakeSite()
    lost = Reply(0, problem="reset", accident=True)
    site.routes["/"] = html(links("/no", "/oops", "/shaky", "/reset", "/noai500", "/noaireset", "/names"))
    noai = (("x-robots-tag", "noai"),)
    site.routes |= {
        "/no": Reply(403),
        "/oops": Reply(500),
        "/shaky": [Reply(502), lost, html("<img src=a.jpg>")],
        "/reset": lost,
        "/noai500": Reply(500, noai, refused=True),
        "/noaireset": Reply(0, problem="reset", accident=True, refused=True),
        "/names": Reply(0, problem="no such name"),
    }
    rows, _ = site.crawl()
    assert visited(rows) == ["/", "/shaky"]
    expected = {"/": 1, "/no": 1, "/oops": 3, "/shaky": 3, "/reset": 3, "/noai500": 1, "/noaireset": 1, "/names": 1}
    assert site.asked == expected


def test_a_server_in_trouble_is_left_alone() -> None:
    site = FakeSite()
    site.routes["/"] = html(links(*(f"/p{i:02d}" for i in range(60))))
    site.routes |= {f"/p{i:02d}": Reply(500) for i in range(60)}
    _, report = site.crawl()
    assert report.notes == [f"{HOST} has stopped answering"]
    assert site.asked.total() < 30


def test_retry_after_is_waited_for_or_ends_the_crawl() -> None:
    site = FakeSite()
    site.routes["/"] = html(links("/a", "/b"))
    site.routes["/a"] = [Reply(429, (("retry-after", "0"),)), html("<img src=a.jpg>")]
    site.routes["/b"] = html("<img src=b.jpg>")
    rows, report = site.crawl(concurrency=1)
    assert sorted(visited(rows)) == ["/", "/a", "/b"] and report.notes == []
    site = FakeSite()
    site.routes["/"] = html(links("/a", *(f"/b{i}" for i in range(50))))
    site.routes["/a"] = Reply(503, (("retry-after", "86400"),))
    rows, report = site.crawl(concurrency=1)
    assert (visited(rows), site.asked.total()) == (["/"], 2)
    assert report.notes == [f"{HOST} asks to come back later (Retry-After 86400 s)"]
    site = FakeSite()
    site.routes["/"] = html(links("/a"))
    site.routes["/a"] = Reply(429, (("retry-after", "0"),))
    _, report = site.crawl()
    assert site.asked["/a"] == 4 and "come back later" in report.notes[0]


def test_a_crawl_delay_beyond_the_time_budget_ends_the_crawl_at_once() -> None:
    site = FakeSite(robots="User-agent: *\nCrawl-delay: 86400")
    site.routes["/"] = html(links("/a") + "<img src=a.jpg>")
    rows, report = site.crawl()
    assert (visited(rows), site.asked) == (["/"], {"/": 1})
    assert "after the time budget" in report.notes[0]


def test_seeds_that_give_nothing_are_one_line() -> None:
    site = FakeSite()
    site.routes["ok"] = html("")
    assert (
        site.crawl("nothing")[1].error
        == f"cannot reach {HOST}/nothing: HTTP 404; check the address and that the site is up"
    )
    site.routes["/ok"] = html("<img src=a.jpg>")
    rows, report = site.crawl("ok", "nothing")
    assert visited(rows) == ["/nothing", "/ok"] and report.error == ""
    assert report.notes[0].startswith(f"cannot reach {HOST}/nothing")


# A crawl that knows an earlier one.


def write_pages(path: Path, rows: list[dict[str, Any]]) -> None:
    """The PAGES that a ledger would hold after `rows`."""
    table = [
        {
            "page_url": HOST + row["page_url"],
            "source": "site:x",
            "http_status": row["status"],
            "etag": row["etag"],
            "last_modified": row["last_modified"],
            "body_sha256": row["sha256"],
            "visited_at": datetime.now(UTC),
        }
        for row in rows
    ]
    pq.write_table(pa.Table.from_pylist(table, schema=PAGES), path)


def tagged_site() -> FakeSite:
    site = FakeSite()
    site.routes["/"] = html(links("/a", "/b") + "<img src=0.jpg>", etag='"0"')
    site.routes["/a"] = html(
        links("/deep") + "<img src=a.jpg>", etag='"a"', last_modified="Sun, 01 Nov 2026 00:00:00 GMT"
    )
    site.routes["/b"] = html("<img src=b.jpg>", etag='"b"')
    site.routes["/deep"] = html("<img src=d.jpg>")
    return site


@pytest.fixture
def known(tmp_path: Path) -> dict[str, Path]:
    """What a first crawl of `tagged_site` leaves."""
    paths = {"pages": tmp_path / "known" / "pages.parquet", "store": tmp_path / "links.parquet"}
    paths["pages"].parent.mkdir()
    rows, _ = tagged_site().crawl(**paths)
    assert len(rows) == 4
    write_pages(paths["pages"], rows)
    return paths


def statuses(rows: list[dict[str, Any]]) -> dict[str, int]:
    return {row["page_url"]: row["status"] for row in rows}


def test_an_unchanged_site_is_walked_without_its_bodies(known: dict[str, Path]) -> None:
    for _ in range(2):  # what a crawl of 304s leaves is as good as the first
        site = tagged_site()
        rows, report = site.crawl(**known)
        assert statuses(rows) == {"/": 304, "/a": 304, "/b": 304, "/deep": 200}
        assert site.conditions["/a"] == {
            "If-None-Match": '"a"',
            "If-Modified-Since": "Sun, 01 Nov 2026 00:00:00 GMT",
        }
        assert site.conditions["/deep"] == {}
        assert (report.unchanged, report.pages, report.pictures) == (3, 1, 1)
        assert [row["pictures"] for row in rows if row["status"] == 304] == [[], [], []]
        assert {row["sha256"] for row in rows if row["page_url"] == "/a"} != {None}


def test_changed_gone_and_unlinked_pages_are_told(known: dict[str, Path]) -> None:
    site = tagged_site()
    site.routes["/"] = html(links("/a", "/new") + "<img src=0.jpg>", etag='"1"')  # no link to /b any more
    site.routes["/a"] = Reply(410)
    site.routes["/new"] = html("<img src=n.jpg>")
    site.routes["/deep"] = moved("/new")
    rows, _ = site.crawl(**known)
    assert statuses(rows) == {"/": 200, "/a": 410, "/b": 304, "/new": 200, "/deep": 301}
    assert rows[0]["etag"] == '"1"'
    assert pq.read_table(known["store"])["page_url"].to_pylist() == [f"{HOST}/", f"{HOST}/new", f"{HOST}/b"]


def test_without_the_links_of_that_very_body_a_page_is_asked_for_as_a_whole(known: dict[str, Path]) -> None:
    known["store"].unlink()
    site = tagged_site()
    assert statuses(site.crawl(**known)[0]) == {"/": 200, "/a": 200, "/b": 200, "/deep": 200}
    other = tagged_site()
    other.routes["/"] = html(links("/a") + "<img src=other.jpg>", etag='"0"')
    other.crawl(store=known["store"])  # the links are now those of another body
    again = tagged_site()
    assert statuses(again.crawl(**known)[0])["/"] == 200
    assert again.conditions["/"] == {}


def test_a_crawl_that_ends_early_forgets_nothing(known: dict[str, Path]) -> None:
    rows, _ = tagged_site().crawl(**known, max_pages=2)
    assert statuses(rows) == {"/": 304, "/a": 304}
    assert statuses(tagged_site().crawl(**known)[0]) == {"/": 304, "/a": 304, "/b": 304, "/deep": 200}


def test_new_terms_with_a_304_are_heeded(known: dict[str, Path]) -> None:
    site = tagged_site()
    for path, tag in (("/a", "noai"), ("/b", "noarchive")):
        body = site.routes[path]
        assert isinstance(body, Reply)
        site.routes[path] = html(body.body.decode(), etag=body.header("etag") or "", x_robots_tag=tag)
    rows, _ = site.crawl(**known)
    by_page = {row["page_url"]: row for row in rows}
    # Refused now: not asked again, and nothing of it is kept, for its next visit either.
    assert site.asked["/a"] == 1
    assert (by_page["/a"]["status"], by_page["/a"]["pictures"], by_page["/a"]["sha256"]) == (200, [], None)
    # Other terms that refuse nothing: read again, to know them.
    assert site.asked["/b"] == 2
    assert (by_page["/b"]["status"], by_page["/b"]["directives"]) == (200, "x-robots-tag: noarchive")
    write_pages(known["pages"], rows)
    assert statuses(site.crawl(**known)[0])["/b"] == 304


def test_a_crawl_without_a_page_leaves_no_links_file(tmp_path: Path) -> None:
    FakeSite().crawl(store=tmp_path / "links.parquet")
    assert list(tmp_path.iterdir()) == []


# Sitemaps.

SITEMAP = '<urlset xmlns:image="http://www.google.com/schemas/sitemap-image/1.1">{}</urlset>'


def test_sitemaps_lead_to_pages_and_name_their_pictures() -> None:
    site = FakeSite(robots=f"Sitemap: {HOST}/index.xml\nSitemap: {OTHER}/theirs.xml\nUser-agent: *\nDisallow: /closed")
    entry = "<url><loc>{}</loc>{}</url>"
    images = (
        "<image:image><image:loc>/a.jpg</image:loc><image:caption>Ann at sea</image:caption></image:image>"
        "<image:image><image:loc>/x.jpg</image:loc><image:title>Ann X</image:title></image:image>"
    )
    site.routes["/"] = html("<img src=0.jpg>")
    pages = "".join(f"<sitemap><loc>{loc}</loc></sitemap>" for loc in ("/1.xml", "/index.xml", "/closed/2.xml"))
    site.routes["/index.xml"] = Reply(200, (), f"<sitemapindex>{pages}</sitemapindex>".encode())
    site.routes["/1.xml"] = Reply(
        200, (), SITEMAP.format(entry.format("/a", images) + entry.format(f"{OTHER}/b", "")).encode()
    )
    site.routes["/a"] = html('<meta name=robots content=noai><img src="/a.jpg" alt="Ann">')
    rows, report = site.crawl(sitemaps=True)
    assert visited(rows) == ["/", "/a"]
    assert site.asked == {"/": 1, "/index.xml": 1, "/1.xml": 1, "/a": 1}
    # What the sitemap says comes after what the page says, and under the page's own terms.
    assert rows[1]["pictures"] == [
        [f"{HOST}/a.jpg", [["alt", "Ann"]]],
        [f"{HOST}/a.jpg", [["meta", "Ann at sea"]]],
        [f"{HOST}/x.jpg", [["meta", "Ann X"]]],
    ]
    assert rows[1]["directives"] == "meta robots: noai"
    assert report.notes == []


def test_sitemap_xml_is_tried_where_robots_txt_names_none() -> None:
    site = FakeSite()
    site.routes |= {"/": html("<img src=0.jpg>"), "/a": html("<img src=a.jpg>")}
    site.routes["/sitemap.xml"] = Reply(200, (), b"http://site.test/a\n")
    assert visited(site.crawl(sitemaps=True)[0]) == ["/", "/a"]
    assert visited(site.crawl(sitemaps=True, max_depth=0)[0]) == ["/"]
    assert site.asked["/sitemap.xml"] == 1


# Pace.


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_pace_keeps_crawl_delay_and_pauses() -> None:
    clock = Clock()
    delays = {HOST: 5.0}
    pace = Pace(delays.get, clock=clock, sleep=clock.sleep)

    async def turns(authority: str, count: int) -> list[float]:
        return [clock.now for _ in range(count) if await pace.turn(authority)]

    assert asyncio.run(turns(HOST, 3)) == [0.0, 5.0, 10.0]
    assert asyncio.run(turns(OTHER, 3)) == [10.0] * 3
    pace.pause(OTHER, 40.0)
    pace.pause(OTHER, 20.0)  # of the same burst: the longer holds
    assert asyncio.run(turns(OTHER, 3)) == [50.0, 51.0, 52.0]  # more slowly from then on
    pace.pause(OTHER, MAX_PAUSE_S + 1)
    assert asyncio.run(turns(OTHER, 3)) == []
    assert list(pace.closed) == [OTHER]


def test_retry_after_is_a_number_or_a_date() -> None:
    now = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
    assert retry_after_s("120") == 120.0
    assert retry_after_s("Sun, 22 Nov 2026 12:01:30 GMT", now) == 90.0
    assert retry_after_s("Sun, 22 Nov 2026 11:00:00 GMT", now) == 0.0
    assert [retry_after_s(text) for text in (None, "", "soon", "-5", "1e9")] == [None] * 5
    assert authority_of(f"{HOST}/x") == HOST
