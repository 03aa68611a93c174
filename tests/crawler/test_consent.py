"""Consent: the grammar as tables, robots.txt as RFC 9309 says, and the step over real HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hostile_web import Web, answer, redirect

from crawler.consent import (
    ConsentConfig,
    consent_path,
    decide_consent,
    forbids_following,
    hosts_path,
    refused_by_headers,
    refused_by_page,
    refusing_directive,
    reserves_tdm,
)
from crawler.fetch import FetchConfig
from crawler.files import read_rows, write_table
from crawler.plan import write_plan
from crawler.robots import HostRecord, normalise_agents, parse_robots, robots_verdict
from crawler.sources import Candidate
from warehouse.schema import CONSENT, HOSTS, Reason

NOW = datetime(2026, 1, 1, tzinfo=UTC)

DIRECTIVES: list[tuple[str, str | None]] = [
    ("", None),
    ("all", None),
    ("index, follow", None),
    ("nofollow", None),
    ("noarchive, nosnippet, max-image-preview: large", None),
    ("max-image-preview:none", None),
    ("noai", "noai"),
    ("NoAI", "noai"),
    (" noimageai ", "noimageai"),
    ("none", "none"),
    ("noindex", "noindex"),
    ("noimageindex", "noimageindex"),
    ("noindex, max-image-preview: large", "noindex"),
    ("max-image-preview: large, noai", "noai"),
    ("otherbot: noai", None),
    ("otherbot: noai, noindex", None),
    ("gptface: noai", "noai"),
    ("GPTFace: noai", "noai"),
    ("gptface/1.0: noai", "noai"),
    ("gptfacer: noai", None),
    ("*: noai", "noai"),
    ("otherbot: noindex, gptface: noai", "noai"),
    ("gptface: nofollow, otherbot: noai", None),
    ("noindex, otherbot: nofollow", "noindex"),
    ("unavailable_after: 25 Jun 2010 15:00:00 PST", "unavailable_after"),
    ("unavailable_after: Friday, 25-Jun-10 15:00:00 GMT", "unavailable_after"),
    ("unavailable_after: 2010-06-25", "unavailable_after"),
    ("unavailable_after: 2010-06-25T15:00:00Z", "unavailable_after"),
    ("unavailable_after: 25 Jun 2040 15:00:00 GMT", None),
    ("unavailable_after: 25 Jun 2040 15:00:00 GMT, noai", "noai"),
    ("unavailable_after: Friday, 25-Jun-40 15:00:00 GMT, noai", "noai"),
    ("unavailable_after: some day, noai", "noai"),
    ("noaipreview", None),
    (",,noai,,", "noai"),
]


@pytest.mark.parametrize(("value", "refusal"), DIRECTIVES)
def test_directives(value: str, refusal: str | None) -> None:
    assert refusing_directive(value, NOW) == refusal


@pytest.mark.parametrize(("value", "reserved"), [("1", True), (" 1 ", True), ("0", False), ("", False), ("10", False)])
def test_tdm_reservation(value: str, reserved: bool) -> None:
    assert reserves_tdm(value) is reserved


@pytest.mark.parametrize(
    ("headers", "refusal"),
    [
        ([("content-type", "noai")], None),
        ([("x-robots-tag", "otherbot: noai"), ("x-robots-tag", "noindex")], "x-robots-tag: noindex"),
        ([("x-robots-tag", "all"), ("tdm-reservation", "1")], "tdm-reservation: 1"),
        ([("tdm-reservation", "0"), ("tdm-policy", "https://example.org/policy")], None),
    ],
)
def test_headers(headers: list[tuple[str, str]], refusal: str | None) -> None:
    assert refused_by_headers(headers, NOW) == refusal


@pytest.mark.parametrize(
    ("directives", "refusal"),
    [
        ("", None),
        ("meta robots: index", None),
        ("meta robots: noindex, nofollow", "meta robots: noindex"),
        ("meta gptface: noimageai", "meta gptface: noimageai"),
        ("meta otherbot: noai", None),
        ("meta robots: all\nx-robots-tag: noai", "x-robots-tag: noai"),
        ("x-robots-tag: otherbot: noai", None),
        ("tdm-reservation: 1", "tdm-reservation: 1"),
        ("tdm-reservation: 0\nmeta robots: nofollow", None),
        ("noai", None),
    ],
)
def test_page_directives(directives: str, refusal: str | None) -> None:
    assert refused_by_page(directives, NOW) == refusal


def test_nofollow() -> None:
    assert forbids_following("meta robots: index, nofollow")
    assert forbids_following("x-robots-tag: none")
    assert not forbids_following("meta robots: noai\nx-robots-tag: otherbot: nofollow")


ROBOTS: list[tuple[str, str, str, bool]] = [
    ("empty", "", "/a.jpg", True),
    ("all", "User-agent: *\nDisallow: /", "/a.jpg", False),
    ("nothing disallowed", "User-agent: *\nDisallow:", "/a.jpg", True),
    ("ours", "User-agent: gptface\nDisallow: /private", "/private/a.jpg", False),
    ("ours, elsewhere", "User-agent: gptface\nDisallow: /private", "/a.jpg", True),
    ("ours wins over all", "User-agent: *\nDisallow: /\n\nUser-agent: GPTFace\nAllow: /", "/a.jpg", True),
    ("ours with a version", "User-agent: gptface/2.0\nDisallow: /", "/a.jpg", False),
    ("another", "User-agent: otherbot\nDisallow: /", "/a.jpg", True),
    ("a prefix of our name is not us", "User-agent: gpt\nDisallow: /", "/a.jpg", True),
    ("a longer name is not us", "User-agent: gptfacebot\nDisallow: /", "/a.jpg", True),
    ("two names, one group", "User-agent: otherbot\nUser-agent: gptface\nDisallow: /", "/a.jpg", False),
    ("two groups of ours", "User-agent: gptface\nDisallow: /x\n\nUser-agent: gptface\nDisallow: /y", "/y/a.jpg", False),
    ("longest match allows", "User-agent: *\nDisallow: /p\nAllow: /p/open", "/p/open/a.jpg", True),
    ("longest match disallows", "User-agent: *\nAllow: /p\nDisallow: /p/closed", "/p/closed/a.jpg", False),
    ("wildcard", "User-agent: *\nDisallow: /*.jpg$", "/x/a.jpg", False),
    ("end anchor", "User-agent: *\nDisallow: /*.jpg$", "/x/a.jpg?size=1", True),
    ("query", "User-agent: *\nDisallow: /*?size=", "/x/a.jpg?size=1", False),
    ("percent-encoding", "User-agent: *\nDisallow: /%C3%A4/", "/ä/a.jpg", False),
    ("byte-order mark", "\ufeffUser-agent: *\nDisallow: /", "/a.jpg", False),
    ("comment after the name", "User-agent: gptface # us\nDisallow: /", "/a.jpg", False),
    ("garbage", "<html>no robots here</html>", "/a.jpg", True),
]


@pytest.mark.parametrize(("text", "path", "allowed"), [row[1:] for row in ROBOTS], ids=[row[0] for row in ROBOTS])
def test_robots_txt(text: str, path: str, allowed: bool) -> None:
    record = HostRecord("http://example.org", 200, text, NOW)
    verdict = robots_verdict(f"http://example.org{path}", record, parse_robots(text))
    assert verdict.allowed is allowed
    assert verdict.reason is (None if allowed else Reason.ROBOTS_TXT)


@pytest.mark.parametrize(
    ("status", "allowed", "reason"),
    [
        (404, True, None),
        (403, True, None),
        (429, True, None),
        (310, True, None),
        (500, False, Reason.ROBOTS_UNREACHABLE),
        (503, False, Reason.ROBOTS_UNREACHABLE),
        (0, False, Reason.ROBOTS_UNREACHABLE),
        (-1, False, Reason.PRIVATE_ADDRESS),
    ],
)
def test_answers_other_than_rules(status: int, allowed: bool, reason: Reason | None) -> None:
    record = HostRecord("http://example.org", status, "", NOW)
    verdict = robots_verdict("http://example.org/a.jpg", record, parse_robots(""))
    assert (verdict.allowed, verdict.reason) == (allowed, reason)


def test_only_agent_lines_are_rewritten() -> None:
    text = "user-agent: GPT\nDisallow: /user-agent\nUser-Agent : Other/1.2 (x)\n"
    assert normalise_agents(text) == "user-agent: not-gpt\nDisallow: /user-agent\nUser-Agent : other\n"


# The step.


def config(**changes: Any) -> ConsentConfig:
    return ConsentConfig(fetch=FetchConfig(total_s=2.0, allow_private=True), **changes)


def plan(crawl_dir: Path, *candidates: Candidate) -> None:
    write_plan(candidates, crawl_dir / "plan", 1000, "test")


def verdicts(crawl_dir: Path) -> dict[str, tuple[bool, str | None]]:
    """url -> (allowed, reason)."""
    table = pq.read_table(consent_path(crawl_dir, 0))
    assert table.schema.equals(CONSENT)
    rows = {row["row_id"]: row for row in table.to_pylist()}
    pairs = read_rows(crawl_dir / "plan" / "00000.pairs.parquet")
    assert [p["row_id"] for p in pairs] == list(rows)
    return {p["image_url"]: (rows[p["row_id"]]["allowed"], rows[p["row_id"]]["reason"]) for p in pairs}


def pictures(web: Web, page: str, count: int, directives: str = "") -> list[Candidate]:
    return [Candidate(page, f"{web.url}/{i}.jpg", (), directives) for i in range(count)]


def test_each_host_is_asked_once_and_nothing_else(tmp_path: Path, web: Web, other_web: Web) -> None:
    web.routes["/robots.txt"] = answer(b"User-agent: *\nDisallow: /3.jpg", kind="text/plain")
    plan(tmp_path, *pictures(web, f"{other_web.url}/p", 5))
    stats = decide_consent(0, tmp_path, config())
    assert (stats.pairs, stats.refused, stats.hosts_asked) == (5, 1, 2)
    assert verdicts(tmp_path)[f"{web.url}/3.jpg"] == (False, "robots_txt")
    assert verdicts(tmp_path)[f"{web.url}/2.jpg"] == (True, None)
    assert web.asked == other_web.asked == {"/robots.txt": 1}
    assert {row["host"] for row in read_rows(hosts_path(tmp_path))} == {web.url, other_web.url}


def test_verdicts_hold_for_a_day_and_no_longer(tmp_path: Path, web: Web) -> None:
    plan(tmp_path, *pictures(web, f"{web.url}/p", 2))
    decide_consent(0, tmp_path, config())
    assert decide_consent(0, tmp_path, config()).hosts_asked == 0
    consent_path(tmp_path, 0).unlink()
    assert decide_consent(0, tmp_path, config()).hosts_asked == 0  # the host's record is still current
    for path, schema in ((consent_path(tmp_path, 0), CONSENT), (hosts_path(tmp_path), HOSTS)):
        rows = [{**row, "checked_at": row["checked_at"] - timedelta(hours=25)} for row in read_rows(path)]
        write_table(path, rows, schema)
    web.routes["/robots.txt"] = answer(b"User-agent: gptface\nDisallow: /", kind="text/plain")
    stats = decide_consent(0, tmp_path, config())
    assert (stats.hosts_asked, stats.refused) == (1, 2)


@pytest.mark.parametrize(("status", "allowed"), [(404, True), (401, True), (500, False), (503, False)])
def test_status_of_robots_txt(tmp_path: Path, web: Web, status: int, allowed: bool) -> None:
    web.routes["/robots.txt"] = answer(b"User-agent: *\nDisallow: /", status)
    plan(tmp_path, *pictures(web, f"{web.url}/p", 1))
    decide_consent(0, tmp_path, config())
    assert verdicts(tmp_path)[f"{web.url}/0.jpg"] == ((True, None) if allowed else (False, "robots_unreachable"))


def test_redirected_and_huge_robots_txt(tmp_path: Path, web: Web, other_web: Web) -> None:
    web.routes["/robots.txt"] = redirect(f"{other_web.url}/rules.txt")
    rules = b"User-agent: *\nDisallow: /0.jpg\n" + b"# padding\n" * 100_000 + b"Disallow: /1.jpg\n"
    other_web.routes["/rules.txt"] = answer(rules, kind="text/plain")
    plan(tmp_path, *pictures(web, f"{web.url}/p", 2))
    decide_consent(0, tmp_path, ConsentConfig(fetch=FetchConfig(max_bytes=512 * 1024, allow_private=True)))
    found = verdicts(tmp_path)
    assert found[f"{web.url}/0.jpg"] == (False, "robots_txt")
    assert found[f"{web.url}/1.jpg"] == (True, None)  # beyond the 512 KiB that are read


def test_a_dead_image_host_refuses_and_a_dead_page_host_does_not(tmp_path: Path, web: Web, closed_port: int) -> None:
    dead = f"http://127.0.0.1:{closed_port}"
    plan(
        tmp_path, Candidate(f"{web.url}/p", f"{dead}/a.jpg", (), ""), Candidate(f"{dead}/p", f"{web.url}/b.jpg", (), "")
    )
    decide_consent(0, tmp_path, config())
    assert verdicts(tmp_path) == {
        f"{dead}/a.jpg": (False, "robots_unreachable"),
        f"{web.url}/b.jpg": (True, None),
    }


def test_a_page_host_that_forbids_us_refuses_its_pairs(tmp_path: Path, web: Web, other_web: Web) -> None:
    other_web.routes["/robots.txt"] = answer(b"User-agent: gptface\nDisallow: /", kind="text/plain")
    plan(tmp_path, *pictures(web, f"{other_web.url}/p", 1))
    decide_consent(0, tmp_path, config())
    assert verdicts(tmp_path) == {f"{web.url}/0.jpg": (False, "robots_txt")}


def test_hosts_of_pages_that_opted_out_are_not_asked(tmp_path: Path, web: Web) -> None:
    plan(tmp_path, *pictures(web, f"{web.url}/p", 3, "meta robots: noai"))
    stats = decide_consent(0, tmp_path, config())
    assert (stats.refused, stats.hosts_asked) == (3, 0)
    assert not web.asked


def test_private_hosts_are_not_asked_unless_allowed(tmp_path: Path, web: Web) -> None:
    plan(tmp_path, *pictures(web, f"{web.url}/p", 1))
    decide_consent(0, tmp_path, ConsentConfig(fetch=FetchConfig(total_s=2.0)))
    assert verdicts(tmp_path) == {f"{web.url}/0.jpg": (False, "private_address")}
    assert not web.asked
