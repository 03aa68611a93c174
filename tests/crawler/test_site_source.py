"""site:URL over real HTTP, through the real spider process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hostile_web import Web, answer, page, redirect

from crawler.errors import InputError
from crawler.sources import Candidate, CrawlLimits, open_source


def crawl(url: str, **limits: Any) -> list[Candidate]:
    bounds = CrawlLimits(**{"delay_s": 0.0, "concurrency": 8, "allow_private": True, "timeout_s": 3.0, **limits})
    return list(open_source(f"site:{url}", bounds).candidates())


def site(web: Web, other: Web) -> None:
    """A front page with 6 sections of 4 pages; one section is forbidden, one page opts out, one is broken."""
    web.routes["/robots.txt"] = answer(b"User-agent: gptface\nDisallow: /s5\n", kind="text/plain")
    sections = "".join(f'<a href="/s{i}/">section</a>' for i in range(6))
    web.routes["/"] = page(f'{sections}<a href="{other.url}/away">away</a><a href="/file.pdf">f</a><img src=logo.png>')
    for i in range(6):
        web.routes[f"/s{i}/"] = page(
            "".join(f'<a href="p{j}.html#top">page</a>' for j in range(4)) + '<a href="/">up</a>'
        )
        for j in range(4):
            web.routes[f"/s{i}/p{j}.html"] = page(f'<img src="{other.url}/{i}{j}.jpg" alt="Person {i} {j}">')
    web.routes["/s0/p0.html"] = page('<meta name=robots content="noai"><img src="/00.jpg"><a href="/hidden">x</a>')
    web.routes["/s0/p1.html"] = page('<meta name=robots content="nofollow"><img src="/01.jpg"><a href="/closed">x</a>')
    web.routes["/s0/p2.html"] = answer(b"", 404)
    web.routes["/s0/p3.html"] = redirect("/s1/p3.html")
    web.routes["/hidden"] = page('<img src="/h.jpg">', {"X-Robots-Tag": "noimageai"})


def test_a_site_is_crawled_politely_and_completely(web: Web, other_web: Web) -> None:
    site(web, other_web)
    found = crawl(web.url)
    pages = {candidate.page_url.removeprefix(web.url) for candidate in found}
    assert pages == {"/", "/s0/p0.html", "/s0/p1.html", "/hidden"} | {
        f"/s{i}/p{j}.html" for i in range(1, 5) for j in range(4)
    }
    by_page = {candidate.page_url.removeprefix(web.url): candidate for candidate in found}
    assert by_page["/s2/p1.html"].image_url == f"{other_web.url}/21.jpg"
    assert by_page["/s2/p1.html"].captions[0].text == "Person 2 1"
    assert by_page["/s0/p0.html"].page_directives == "meta robots: noai"
    assert by_page["/hidden"].page_directives == "x-robots-tag: noimageai"
    # Forbidden, nofollow, off-site and other kinds of files were not asked for; robots.txt once.
    asked = set(web.asked)
    assert not any(path.startswith("/s5") for path in asked)
    assert not asked & {"/closed", "/file.pdf", "/01.jpg", "/logo.png"}
    assert web.asked["/robots.txt"] == 1
    assert not other_web.asked
    assert web.asked["/s0/p2.html"] == 1


@pytest.mark.e2e
def test_the_page_budget_always_takes_the_same_pages(web: Web, other_web: Web) -> None:
    site(web, other_web)
    web.routes["/s1/"] = page('<a href="p0.html">p</a><img src="/section.jpg">')
    first, second = ({c.page_url for c in crawl(web.url, max_pages=12)} for _ in range(2))
    assert first == second
    assert len(first) == 6  # 1 front page, 6 sections (1 forbidden), 5 pages of section 0 and 1
    assert {c.page_url for c in crawl(web.url, max_depth=1)} == {f"{web.url}/", f"{web.url}/s1/"}


def test_refusals_are_not_asked_again_and_accidents_are(web: Web) -> None:
    web.routes["/"] = page('<img src=a.jpg><a href="/busy">b</a><a href="/no">n</a><a href="/oops">o</a>')
    web.routes |= {"/busy": answer(b"", 503), "/no": answer(b"", 403), "/oops": answer(b"", 500)}
    assert len(crawl(web.url)) == 1
    assert (web.asked["/busy"], web.asked["/no"], web.asked["/oops"]) == (1, 1, 3)


def test_a_seed_that_moved_is_followed(web: Web, other_web: Web) -> None:
    web.routes["/"] = redirect(f"{other_web.url}/home/")
    other_web.routes["/home/"] = page('<img src="a.jpg">')
    assert [c.image_url for c in crawl(web.url)] == [f"{other_web.url}/home/a.jpg"]


def test_sites_that_cannot_be_crawled_are_one_line(web: Web, closed_port: int) -> None:
    web.routes["/"] = page("<p>words only")
    cases = [
        (f"http://127.0.0.1:{closed_port}/", "cannot reach http://127.0.0.1"),
        (f"{web.url}/nothing", "HTTP 404"),
        (f"{web.url}/", "no picture found"),
        ("ftp://example.org/", "scheme 'ftp' is not http"),
    ]
    for url, message in cases:
        with pytest.raises(InputError, match=message) as caught:
            crawl(url)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="--allow-private"):
        crawl(web.url, allow_private=False)


def test_a_site_that_forbids_us_sees_robots_txt_alone(web: Web) -> None:
    web.routes |= {"/robots.txt": answer(b"User-agent: *\nDisallow: /"), "/": page("<img src=a.jpg>")}
    with pytest.raises(InputError, match=r"robots\.txt disallows gptface"):
        crawl(web.url)
    assert web.asked == {"/robots.txt": 1}


def test_limits_are_checked() -> None:
    with pytest.raises(InputError, match="max_pages must be over 0"):
        CrawlLimits(max_pages=0)
    with pytest.raises(InputError, match="delay_s"):
        CrawlLimits(delay_s=-1)


def test_the_spider_dies_with_its_parent(web: Web, tmp_path: Path) -> None:
    def slow(request: Any) -> None:
        time.sleep(30)

    web.routes |= {"/": page('<a href="/slow">s</a><img src=a.jpg>'), "/slow": slow}
    code = (
        "from crawler.sources import CrawlLimits, open_source\n"
        f"limits = CrawlLimits(delay_s=0.0, allow_private=True, timeout_s=60.0)\n"
        f"list(open_source('site:{web.url}', limits).candidates())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "TMPDIR": str(tmp_path)}
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    if not children.exists():
        parent.kill()
        pytest.skip("needs /proc")
    deadline = time.monotonic() + 20
    while not web.asked["/slow"] and time.monotonic() < deadline:
        time.sleep(0.05)
    [child] = [int(pid) for pid in children.read_text().split()]
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    while Path(f"/proc/{child}/stat").exists() and time.monotonic() < deadline + 5:
        if Path(f"/proc/{child}/stat").read_text().split()[2] == "Z":
            break
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{child}/stat").exists()
