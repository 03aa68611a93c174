"""robots.txt as RFC 9309 says, and the gate that asks each host once, over real HTTP."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler

import pytest
from hostile_web import Web, answer, drip, redirect

from crawler import robots as robots_module
from crawler.fetch import FetchConfig, Fetcher
from crawler.robots import NOT_ASKED, HostRecord, HostRules, RobotsGate, normalise_agents
from warehouse.schema import Reason

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOST = "http://example.org"
TDMREP = "/.well-known/tdmrep.json"
RESERVED = b'[{"location": "/", "tdm-reservation": 1}]'

ROBOTS: list[tuple[str, str, str, bool]] = [
    ("empty", "", "/a.jpg", True),
    ("all", "User-agent: *\nDisallow: /", "/a.jpg", False),
    ("nothing disallowed", "User-agent: *\nDisallow:", "/a.jpg", True),
    ("ours", "User-agent: gptface\nDisallow: /private", "/private/a.jpg", False),
    ("ours, elsewhere", "User-agent: gptface\nDisallow: /private", "/a.jpg", True),
    ("ours wins over all", "User-agent: *\nDisallow: /\n\nUser-agent: GPTFace\nAllow: /", "/a.jpg", True),
    ("ours with a version", "User-agent: gptface/2.0\nDisallow: /", "/a.jpg", False),
    ("ours with a word after it", "User-agent: gptface bot\nDisallow: /", "/a.jpg", False),
    ("another", "User-agent: otherbot\nDisallow: /", "/a.jpg", True),
    ("a prefix of our name is not us", "User-agent: gpt\nDisallow: /", "/a.jpg", True),
    ("nor with a star", "User-agent: gpt*\nDisallow: /", "/a.jpg", True),
    ("nor without a colon", "User-agent gpt\nDisallow: /", "/a.jpg", True),
    ("a longer name is not us", "User-agent: gptfacebot\nDisallow: /", "/a.jpg", True),
    ("nor one with a hyphen", "User-agent: gptface-news\nDisallow: /", "/a.jpg", True),
    ("ours without a colon", "User-agent gptface\nDisallow: /", "/a.jpg", False),
    ("a star with a word after it", "User-agent: * all\nDisallow: /", "/a.jpg", False),
    ("two names, one group", "User-agent: otherbot\nUser-agent: gptface\nDisallow: /", "/a.jpg", False),
    ("two groups of ours", "User-agent: gptface\nDisallow: /x\n\nUser-agent: gptface\nDisallow: /y", "/y/a.jpg", False),
    ("another's group after ours", "User-agent: gptface\nAllow: /\nUser-agent: x\nDisallow: /", "/a.jpg", True),
    ("a sitemap inside a group", "User-agent: *\nSitemap: http://e.org/s.xml\nDisallow: /", "/a.jpg", False),
    ("longest match allows", "User-agent: *\nDisallow: /p\nAllow: /p/open", "/p/open/a.jpg", True),
    ("longest match disallows", "User-agent: *\nAllow: /p\nDisallow: /p/closed", "/p/closed/a.jpg", False),
    ("allow wins a tie", "User-agent: *\nDisallow: /p\nAllow: /p", "/p/a.jpg", True),
    ("wildcard", "User-agent: *\nDisallow: /*.jpg$", "/x/a.jpg", False),
    ("end anchor", "User-agent: *\nDisallow: /*.jpg$", "/x/a.jpg?size=1", True),
    ("query", "User-agent: *\nDisallow: /*?size=", "/x/a.jpg?size=1", False),
    ("case of paths", "User-agent: *\nDisallow: /P", "/p/a.jpg", True),
    ("case of fields", "USER-AGENT: *\nDISALLOW: /", "/a.jpg", False),
    ("percent-encoding", "User-agent: *\nDisallow: /ä/", "/%C3%A4/a.jpg", False),
    ("needless percent-encoding", "User-agent: *\nDisallow: /private/", "/%70rivate/a.jpg", False),
    ("dot segments", "User-agent: *\nDisallow: /private/", "/open/../private/a.jpg", False),
    ("encoded dot segments", "User-agent: *\nDisallow: /private/", "/open/%2e%2E/private/a.jpg", False),
    ("double slashes", "User-agent: *\nDisallow: /private/", "//private//a.jpg", False),
    ("dots that are no segments", "User-agent: *\nDisallow: /private/", "/.../a..b.jpg", True),
    ("byte-order mark", "\ufeffUser-agent: *\nDisallow: /", "/a.jpg", False),
    ("carriage returns", "User-agent: *\rDisallow: /\r", "/a.jpg", False),
    ("CRLF", "User-agent: otherbot\r\nDisallow: /\r\n\r\nUser-agent: *\r\nAllow: /\r\n", "/a.jpg", True),
    ("comment after the name", "User-agent: gptface # us\nDisallow: /", "/a.jpg", False),
    ("garbage", "<html>no robots here</html>", "/a.jpg", True),
    ("rules before any name", "Disallow: /\nUser-agent: *\nAllow: /", "/a.jpg", True),
]


def record(robots: str = "", status: int = 200, tdmrep: str = "", tdmrep_status: int = 404) -> HostRecord:
    return HostRecord(HOST, status, robots, tdmrep_status, tdmrep, NOW)


@pytest.mark.parametrize(("text", "target", "allowed"), [row[1:] for row in ROBOTS], ids=[row[0] for row in ROBOTS])
def test_robots_txt(text: str, target: str, allowed: bool) -> None:
    verdict = HostRules(record(text)).verdict(target)
    assert verdict.allowed is allowed
    assert verdict.reason is (None if allowed else Reason.ROBOTS_TXT)


@pytest.mark.parametrize(
    ("status", "allowed", "reason"),
    [
        (200, True, None),
        (204, True, None),
        (301, True, None),  # a redirect that leads nowhere
        (310, True, None),  # over five redirects
        (401, True, None),
        (403, True, None),
        (404, True, None),
        (410, True, None),
        (429, False, Reason.ROBOTS_UNREACHABLE),
        (500, False, Reason.ROBOTS_UNREACHABLE),
        (503, False, Reason.ROBOTS_UNREACHABLE),
        (0, False, Reason.ROBOTS_UNREACHABLE),
        (-1, False, Reason.PRIVATE_ADDRESS),
    ],
)
def test_answers_other_than_rules(status: int, allowed: bool, reason: Reason | None) -> None:
    verdict = HostRules(record(status=status)).verdict("/a.jpg")
    assert (verdict.allowed, verdict.reason) == (allowed, reason)


def test_agent_lines_alone_are_rewritten() -> None:
    text = "user-agent: GPT\nDisallow: /user-agent\nUser-Agent : gptface/1.2 (x)\nuser-agent: * # all\n"
    assert normalise_agents(text).splitlines() == [
        "User-agent: other",
        "Disallow: /user-agent",
        "User-agent: gptface",
        "User-agent: *",
    ]


@pytest.mark.parametrize(("status", "refused"), [(200, True), (404, False), (500, False), (0, False), (-2, False)])
def test_tdmrep_counts_where_it_was_given(status: int, refused: bool) -> None:
    verdict = HostRules(record(tdmrep=RESERVED.decode(), tdmrep_status=status)).verdict("/a.jpg")
    assert verdict.allowed is not refused
    assert verdict.reason is (Reason.TDM_RESERVED if refused else None)


def test_evidence_names_file_and_location() -> None:
    rules = HostRules(
        record(
            "User-agent: *\nDisallow: /x",
            tdmrep='[{"location": "/y", "tdm-reservation": 1, "tdm-policy": "https://e.org/p"}]',
            tdmrep_status=200,
        )
    )
    assert rules.verdict("/x").evidence == f"{HOST}/robots.txt disallows gptface"
    assert rules.verdict("/y").evidence == f"{HOST}/.well-known/tdmrep.json reserves /y, policy https://e.org/p"
    assert rules.verdict("/z").evidence == f"{HOST}/robots.txt"


def test_crawl_delay() -> None:
    text = "User-agent: *\nCrawl-delay: 9\n\nUser-agent: gptface\nCrawl-delay: 2.5\nDisallow: /x"
    assert HostRules(record(text)).crawl_delay_s == 2.5
    assert HostRules(record("User-agent: *\nCrawl-delay: soon")).crawl_delay_s is None
    assert HostRules(record(status=404)).crawl_delay_s is None


def test_hostile_rules_cost_little() -> None:
    lines = "\n".join(f"Disallow: /{'*a' * 50}{i}" for i in range(2000))
    rules = HostRules(record(f"User-agent: *\n{lines}"))
    started = time.perf_counter()
    assert rules.verdict("/" + "a" * 2000).allowed
    assert time.perf_counter() - started < 0.5


# The gate.


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Web, Web]]:
    """Two servers for the module: starting and stopping them for each test takes longer than the tests."""
    both = Web(), Web()
    yield both
    for server in both:
        server.close()


@pytest.fixture
def web(servers: tuple[Web, Web]) -> Web:
    servers[0].routes.clear()
    servers[0].asked.clear()
    return servers[0]


@pytest.fixture
def other_web(servers: tuple[Web, Web]) -> Web:
    servers[1].routes.clear()
    servers[1].asked.clear()
    return servers[1]


@pytest.fixture(scope="module")
def fetcher() -> Iterator[Fetcher]:
    with Fetcher(FetchConfig(total_s=2.0, max_bytes=512 * 1024, allow_private=True)) as fetcher:
        yield fetcher


def test_a_host_without_rules_is_asked_for_two_files_once(web: Web, fetcher: Fetcher) -> None:
    gate = RobotsGate(fetcher)
    assert all(gate.verdict(f"{web.url}/{i}.jpg").allowed for i in range(5))
    assert web.asked == {"/robots.txt": 1, TDMREP: 1}
    assert gate.asked == 1
    assert gate.records[web.url].tdmrep_status == 404


@pytest.mark.parametrize("status", [200, 429, 500, 503])
def test_a_host_that_forbids_us_sees_robots_txt_alone(web: Web, fetcher: Fetcher, status: int) -> None:
    web.routes["/robots.txt"] = answer(b"User-agent: gptface\nDisallow: /", status, kind="text/plain")
    gate = RobotsGate(fetcher)
    assert not gate.verdict(f"{web.url}/a.jpg").allowed
    assert web.asked == {"/robots.txt": 1}
    assert gate.records[web.url].tdmrep_status == NOT_ASKED


def test_tdmrep_is_not_asked_where_robots_txt_forbids_its_path(web: Web, fetcher: Fetcher) -> None:
    web.routes["/robots.txt"] = answer(b"User-agent: *\nDisallow: /.well-known/", kind="text/plain")
    web.routes[TDMREP] = answer(RESERVED)
    assert RobotsGate(fetcher).verdict(f"{web.url}/a.jpg").allowed
    assert web.asked == {"/robots.txt": 1}


def test_a_reservation_refuses(web: Web, fetcher: Fetcher) -> None:
    web.routes[TDMREP] = answer(b'[{"location": "/open/", "tdm-reservation": 0}, ' + RESERVED[1:])
    gate = RobotsGate(fetcher)
    assert gate.verdict(f"{web.url}/open/a.jpg").allowed
    verdict = gate.verdict(f"{web.url}/a.jpg")
    assert (verdict.reason, verdict.evidence) == (Reason.TDM_RESERVED, f"{web.url}{TDMREP} reserves /")


@pytest.mark.parametrize("status", [403, 404, 429, 500, 503])
def test_tdmrep_that_cannot_be_had_reserves_nothing(web: Web, fetcher: Fetcher, status: int) -> None:
    web.routes[TDMREP] = answer(RESERVED, status)
    gate = RobotsGate(fetcher)
    assert gate.verdict(f"{web.url}/a.jpg").allowed
    assert (gate.records[web.url].tdmrep_status, gate.records[web.url].tdmrep_json) == (status, "")


def test_a_page_in_place_of_tdmrep_is_kept_in_short(web: Web, fetcher: Fetcher) -> None:
    web.routes[TDMREP] = answer(b"<html>" + b"x" * 100_000, kind="text/html")
    gate = RobotsGate(fetcher)
    assert gate.verdict(f"{web.url}/a.jpg").allowed
    assert len(gate.records[web.url].tdmrep_json) == 200


def _hops(web: Web, path: str, count: int) -> None:
    for i in range(count):
        web.routes[path if i == 0 else f"/hop{i}"] = redirect(f"/hop{i + 1}")


@pytest.mark.parametrize(("hops", "allowed"), [(5, False), (6, True)])
def test_five_redirects_of_robots_txt_are_followed(web: Web, fetcher: Fetcher, hops: int, allowed: bool) -> None:
    _hops(web, "/robots.txt", hops)
    web.routes[f"/hop{hops}"] = answer(b"User-agent: *\nDisallow: /", kind="text/plain")
    assert RobotsGate(fetcher).verdict(f"{web.url}/a.jpg").allowed is allowed


def test_a_redirected_robots_txt_holds_for_the_host_that_was_asked(web: Web, other_web: Web, fetcher: Fetcher) -> None:
    web.routes["/robots.txt"] = redirect(f"{other_web.url}/rules.txt")
    other_web.routes["/rules.txt"] = answer(b"User-agent: *\nDisallow: /", kind="text/plain")
    gate = RobotsGate(fetcher)
    assert gate.verdict(f"{web.url}/a.jpg").reason is Reason.ROBOTS_TXT
    assert gate.verdict(f"{other_web.url}/a.jpg").allowed


def test_a_redirect_of_robots_txt_to_a_private_address_is_no_answer(web: Web, fetcher: Fetcher) -> None:
    web.routes["/robots.txt"] = redirect("http://169.254.169.254/latest/meta-data")
    verdict = RobotsGate(fetcher).verdict(f"{web.url}/a.jpg")
    assert verdict.reason is Reason.ROBOTS_UNREACHABLE


def test_redirects_of_tdmrep_obey_the_robots_txt_they_lead_to(web: Web, other_web: Web, fetcher: Fetcher) -> None:
    web.routes[TDMREP] = redirect(f"{other_web.url}/closed/tdm.json")
    other_web.routes["/closed/tdm.json"] = answer(RESERVED)
    assert RobotsGate(fetcher).verdict(f"{web.url}/a.jpg").reason is Reason.TDM_RESERVED
    other_web.asked.clear()
    other_web.routes["/robots.txt"] = answer(b"User-agent: *\nDisallow: /closed/", kind="text/plain")
    assert RobotsGate(fetcher).verdict(f"{web.url}/a.jpg").allowed
    assert other_web.asked == {"/robots.txt": 1}


def test_hosts_that_redirect_to_each_other_do_not_stop_the_gate(web: Web, other_web: Web, fetcher: Fetcher) -> None:
    web.routes[TDMREP] = redirect(f"{other_web.url}{TDMREP}")
    other_web.routes[TDMREP] = redirect(f"{web.url}{TDMREP}")
    gate = RobotsGate(fetcher)
    with ThreadPoolExecutor(2) as pool:
        verdicts = list(pool.map(gate.verdict, [f"{web.url}/a.jpg", f"{other_web.url}/a.jpg"], timeout=10))
    assert all(verdict.allowed for verdict in verdicts)
    assert web.asked["/robots.txt"] == other_web.asked["/robots.txt"] == 1


def test_what_is_read_of_robots_txt_is_bounded_and_ends_with_a_line(web: Web, fetcher: Fetcher) -> None:
    head = b"User-agent: *\nDisallow: /0.jpg\nDisallow: /private\n"
    line = b"Allow: /private/open\n"
    padding = b"#" * (512 * 1024 - len(head) - len(b"\nAllow: /private")) + b"\n"
    web.routes["/robots.txt"] = answer(head + padding + line + b"Disallow: /1.jpg\n", kind="text/plain")
    gate = RobotsGate(fetcher)
    assert not gate.verdict(f"{web.url}/0.jpg").allowed
    assert gate.verdict(f"{web.url}/1.jpg").allowed  # beyond the 512 KiB that are read
    assert not gate.verdict(f"{web.url}/private/a.jpg").allowed  # "Allow: /private" would be the cut line


def test_a_long_robots_txt_is_left_after_its_bound_whatever_a_picture_may_have(web: Web) -> None:
    chunk, sent = b"Disallow: /x\n" * 5_000, [0]

    def endless(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        with contextlib.suppress(OSError):  # the other side closes
            while sent[0] < 15_000_000:
                request.wfile.write(chunk)
                sent[0] += len(chunk)

    web.routes["/robots.txt"] = endless
    with Fetcher(FetchConfig(total_s=20.0, max_bytes=20_000_000, allow_private=True)) as fetcher:
        RobotsGate(fetcher).verdict(f"{web.url}/a.jpg")
    assert sent[0] < 10_000_000  # 512 KiB are read, the rest is what the two sockets hold


@pytest.mark.e2e
def test_a_robots_txt_that_drips_is_no_answer(web: Web, fetcher: Fetcher) -> None:
    web.routes["/robots.txt"] = drip(1000)
    started = time.monotonic()
    assert RobotsGate(fetcher).verdict(f"{web.url}/a.jpg").reason is Reason.ROBOTS_UNREACHABLE
    assert time.monotonic() - started < 4


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file:///etc/passwd", Reason.BAD_ADDRESS),
        ("ftp://example.org/a.jpg", Reason.BAD_ADDRESS),
        ("http://user:secret@example.org/a.jpg", Reason.BAD_ADDRESS),
        ("http://", Reason.BAD_ADDRESS),
    ],
)
def test_addresses_that_cannot_be_asked(fetcher: Fetcher, url: str, reason: Reason) -> None:
    gate = RobotsGate(fetcher)
    assert gate.verdict(url).reason is reason
    assert gate.asked == 0


def test_records_that_are_given_are_not_asked_for(web: Web, fetcher: Fetcher) -> None:
    known = HostRecord(web.url, 200, "User-agent: *\nDisallow: /x", 200, RESERVED.decode(), NOW)
    gate = RobotsGate(fetcher, {web.url: known})
    assert gate.verdict(f"{web.url}/x").reason is Reason.ROBOTS_TXT
    assert gate.verdict(f"{web.url}/y").reason is Reason.TDM_RESERVED
    assert not web.asked


def test_threads_ask_each_host_once(web: Web, other_web: Web, fetcher: Fetcher) -> None:
    gate = RobotsGate(fetcher)
    start = threading.Barrier(8)

    def ask(i: int) -> bool:
        start.wait()
        return all(gate.verdict(f"{site.url}/{i}.jpg").allowed for site in (web, other_web))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(8)))
    assert web.asked == other_web.asked == {"/robots.txt": 1, TDMREP: 1}
    assert gate.asked == 2


def test_parsed_rules_are_bounded_and_no_host_is_asked_twice_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robots_module, "_PARSED_BYTES", 10_000)
    hosts = [f"http://h{i}.example" for i in range(20)]
    given = {host: HostRecord(host, 200, "User-agent: *\nDisallow: /x\n" + "#" * 3000, 404, "", NOW) for host in hosts}
    with Fetcher(FetchConfig()) as fetcher:
        gate = RobotsGate(fetcher, given)
        for _ in range(2):
            assert [gate.verdict(f"{host}/x").reason for host in hosts] == [Reason.ROBOTS_TXT] * 20
            assert all(gate.verdict(f"{host}/y").allowed for host in hosts)
        assert len(gate._rules) == 2
        assert gate._parsed_bytes == sum(rules.size for rules in gate._rules.values())
        assert gate.asked == 0


def test_a_verdict_takes_microseconds() -> None:
    rules = "\n".join(f"Disallow: /dir{i}/*.php$" for i in range(20))
    known = {HOST: record(f"User-agent: *\n{rules}", tdmrep='[{"location": "/t/", "tdm-reservation": 1}]',
                          tdmrep_status=200)}  # fmt: skip
    with Fetcher(FetchConfig()) as fetcher:
        gate = RobotsGate(fetcher, known)
        urls = [f"{HOST}/images/{i}/portrait-{i}.jpg" for i in range(1000)]
        gate.verdict(urls[0])
        started = time.perf_counter()
        assert all(gate.verdict(url).allowed for url in urls)
        assert (time.perf_counter() - started) / len(urls) < 500e-6
