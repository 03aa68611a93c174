"""site:URL over real HTTP, through the real spider process."""

from __future__ import annotations

import gzip
import itertools
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile_web import Web, answer, drip, page, redirect

from crawler.errors import InputError
from crawler.sources import CrawlLimits, open_source
from crawler.sources.base import Candidate, Damage, Found, PageVisit
from crawler.sources.site_net import MAX_HEADER_BYTES
from sample_web.server import SampleWeb
from warehouse.schema import PAGES

ROOT = Path(__file__).resolve().parents[2]


def crawl(url: str, **limits: Any) -> tuple[list[Candidate], list[PageVisit]]:
    found = crawl_all(url, **limits)
    visits = [item for item in found if isinstance(item, PageVisit)]
    return [item for item in found if isinstance(item, Candidate)], visits


def crawl_all(url: str, **limits: Any) -> list[Found]:
    bounds = CrawlLimits(**{"delay_s": 0.0, "concurrency": 8, "allow_private": True, "timeout_s": 3.0, **limits})
    source = open_source(f"site:{url}", bounds)
    [unit] = source.units()
    return list(source.read(unit))


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
    web.routes["/hidden"] = page('<a href="/beyond">x</a><img src="/h.jpg">', {"X-Robots-Tag": "noimageai"})


@pytest.mark.e2e
def test_a_site_is_crawled_politely_and_completely(web: Web, other_web: Web) -> None:
    site(web, other_web)
    found = crawl_all(f"{web.url} {web.url}/s2/", max_depth=3)
    assert found[-1] == Damage("crawl ended early", -1, "depth 3 reached")
    visits = [item for item in found if isinstance(item, PageVisit)]
    by_page = {item.page_url.removeprefix(web.url): item for item in found if isinstance(item, Candidate)}
    assert set(by_page) == {"/", "/s0/p0.html", "/s0/p1.html", "/hidden"} | {
        f"/s{i}/p{j}.html" for i in range(1, 5) for j in range(4)
    }
    assert by_page["/s2/p1.html"].image_url == f"{other_web.url}/21.jpg"
    assert by_page["/s2/p1.html"].captions[0].text == "Person 2 1"
    assert by_page["/s0/p0.html"].page_directives == "meta robots: noai"
    assert by_page["/hidden"].page_directives == "x-robots-tag: noimageai"
    assert {visit.page_url.removeprefix(web.url) for visit in visits if visit.http_status == 200} == set(by_page) | {
        f"/s{i}/" for i in range(5)
    }
    assert [visit.page_url for visit in visits if visit.http_status == 404] == [f"{web.url}/s0/p2.html"]
    # Forbidden, nofollow, off-site and other kinds of files were not asked for; everything else once.
    assert set(web.asked.values()) == {1}
    asked = set(web.asked)
    assert not any(path.startswith("/s5") for path in asked)
    assert not asked & {"/closed", "/file.pdf", "/01.jpg", "/logo.png", "/beyond"}
    assert asked >= {"/robots.txt", "/.well-known/tdmrep.json", "/sitemap.xml"}
    assert not other_web.asked


@pytest.mark.e2e
def test_requests_to_a_host_are_spaced(web: Web) -> None:
    times: list[float] = []

    def timed(request: BaseHTTPRequestHandler) -> None:
        times.append(time.monotonic())
        page("".join(f'<a href="/{i}">x</a>' for i in range(5)) + "<img src=a.jpg>")(request)

    web.routes |= dict.fromkeys(("/", *(f"/{i}" for i in range(5))), timed)
    assert len(crawl(web.url, delay_s=0.3, sitemaps=False)[0]) == 6
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) > 0.25


@pytest.mark.e2e
def test_sites_that_cannot_be_crawled_are_one_line(web: Web, closed_port: int) -> None:
    web.routes["/"] = page("<p>words only")
    cases = [
        (f"http://127.0.0.1:{closed_port}/", {}, "cannot reach http://127.0.0.1"),
        (f"{web.url}/nothing", {}, "HTTP 404"),
        (f"{web.url}/", {}, "no picture found"),
        (web.url, {"allow_private": False}, "--allow-private"),
    ]
    for url, limits, message in cases:
        with pytest.raises(InputError, match=message) as caught:
            crawl(url, **limits)
        assert "\n" not in str(caught.value)
    assert web.asked["/nothing"] == web.asked["/"] == 1


def test_an_address_that_is_none_is_one_line() -> None:
    for url, message in (("ftp://example.org/", "scheme 'ftp' is not http"), ("https://", "no valid host")):
        with pytest.raises(InputError, match=message):
            open_source(f"site:{url}").units()


@pytest.mark.e2e
def test_a_site_that_forbids_us_sees_its_rules_alone(web: Web, other_web: Web) -> None:
    web.routes |= {"/robots.txt": answer(b"User-agent: *\nDisallow: /"), "/": page("<img src=a.jpg>")}
    with pytest.raises(InputError, match=r"robots\.txt disallows gptface"):
        crawl(web.url)
    assert web.asked == {"/robots.txt": 1}
    reservation = b'[{"location": "/", "tdm-reservation": 1}]'
    other_web.routes |= {"/.well-known/tdmrep.json": answer(reservation, kind="application/json"), "/": page("<img>")}
    with pytest.raises(InputError, match=r"tdmrep\.json reserves"):
        crawl(other_web.url)
    assert other_web.asked == {"/robots.txt": 1, "/.well-known/tdmrep.json": 1}


def test_limits_are_checked() -> None:
    with pytest.raises(InputError, match="max_pages must be over 0"):
        CrawlLimits(max_pages=0)
    with pytest.raises(InputError, match="delay_s"):
        CrawlLimits(delay_s=-1)
    with pytest.raises(InputError, match="max_pages_per_host"):
        CrawlLimits(max_pages_per_host=-1)


# Hostile answers.


def flood(line: bytes, total: int, interim: bool = False) -> Any:
    """An answer that has no end of headers."""

    def handle(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for _ in range(total // len(line)):
            request.wfile.write((b"\r\nHTTP/1.1 103 Early Hints\r\n" if interim else b"") + line)
        request.wfile.write(b"Content-Length: 0\r\n\r\n")

    return handle


def endless(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Type", "text/html")
    request.end_headers()
    while True:
        request.wfile.write(b"<p>" * 100_000)


def cut_off(request: BaseHTTPRequestHandler) -> None:
    """Promises more than it sends, after saying what it thinks of our use."""
    request.send_response(200)
    request.send_header("Content-Type", "text/html")
    request.send_header("X-Robots-Tag", "noai")
    request.send_header("Content-Length", "100000")
    request.end_headers()
    request.wfile.write(b"<img src=lost.jpg>")
    raise ConnectionError


@pytest.mark.e2e
def test_hostile_answers_cost_neither_the_crawl_nor_much_time(web: Web, closed_port: int) -> None:
    bomb = gzip.compress(b"<img src=bomb.jpg>" + b" " * 50_000_000)
    web.routes |= {
        "/flood": flood(b"X-Flood: " + b"x" * 1000 + b"\r\n", 40 * MAX_HEADER_BYTES),
        "/hints": flood(b"X-Flood: " + b"x" * 1000 + b"\r\n", 40 * MAX_HEADER_BYTES, interim=True),
        "/endless": endless,
        "/cut": cut_off,
        "/drip": drip(1000),
        "/bomb": answer(bomb, headers={"Content-Encoding": "gzip"}, kind="text/html"),
        "/metadata": redirect("http://169.254.169.254/latest/meta-data/"),
        "/file": redirect("file:///etc/passwd"),
        "/dead": redirect(f"http://127.0.0.1:{closed_port}/"),
        "/refresh": page('<meta http-equiv=refresh content="0;url=/refreshed"><img src=r.jpg>'),
        "/cookie": page("<a href=/cookies>x</a>", {"Set-Cookie": "a=b"}),
        "/deep": page("<div>" * 100_000 + "<img src=deep.jpg>"),
        "/sitemap.xml": answer(bomb, kind="application/xml"),
    }
    told: list[str | None] = []

    def cookies(request: BaseHTTPRequestHandler) -> None:
        told.append(request.headers["Cookie"])
        page("<img src=c.jpg>")(request)

    web.routes["/cookies"] = cookies
    web.routes["/"] = page("".join(f'<a href="{path}">x</a>' for path in web.routes) + "<img src=home.jpg>")
    started = time.monotonic()
    found, _ = crawl(web.url, timeout_s=2.0)
    assert time.monotonic() - started < 60
    assert {c.image_url.removeprefix(web.url) for c in found} >= {"/home.jpg", "/r.jpg", "/c.jpg"}
    assert not {c.image_url.removeprefix(web.url) for c in found} & {"/lost.jpg", "/bomb.jpg"}
    assert told == [None]
    assert web.asked["/cut"] == 1  # it had refused before the accident
    assert web.asked["/flood"] == web.asked["/drip"] == 3
    assert not web.asked["/refreshed"]


_REBINDING = """
import socket, sys
import crawler.sources.site_process as site_process
from crawler.sources.base import CrawlLimits

real, connect, asked, connected = socket.getaddrinfo, socket.socket.connect, [], []

def lookup(host, *args, **kwargs):
    name = host.decode() if isinstance(host, bytes) else host
    if name != "rebinding.test":
        return real(host, *args, **kwargs)
    asked.append(name)
    ip = "127.0.0.1" if len(asked) <= GOOD else "169.254.169.254"
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 0))]

def watched(sock, where):
    connected.append(where[0])
    return connect(sock, where)

class Socket(socket.socket):
    def connect(self, where):
        connected.append(where[0])
        return super().connect(where)
    def connect_ex(self, where):
        connected.append(where[0])
        return super().connect_ex(where)

socket.getaddrinfo, socket.socket = lookup, Socket
site_process.os._exit = lambda code: (print("CONNECTED", sorted(set(connected)), len(asked), flush=True), REAL(code))
"""


@pytest.mark.e2e
@pytest.mark.parametrize("good", [1, 2])
def test_a_name_that_answers_differently_the_second_time_gains_nothing(web: Web, good: int) -> None:
    web.routes["/"] = page('<a href="/a">a</a><img src=h.jpg>')
    web.routes["/a"] = page("<img src=a.jpg>")
    port = urlsplit(web.url).port
    code = _REBINDING.replace("GOOD", str(good)).replace("REAL(code)", "real_exit(code)")
    code = "import os; real_exit = os._exit\n" + code
    code += (
        f"job = {{'seeds': ['http://rebinding.test:{port}/'], 'parent': os.getppid(),\n"
        "       'limits': {'allow_private': True, 'delay_s': 0.0, 'timeout_s': 5.0}}\n"
        "site_process.main(job, sys.stdout)\n"
        "print('CONNECTED', sorted(set(connected)), len(asked))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60)
    [line] = [line for line in done.stdout.splitlines() if line.startswith("CONNECTED")]
    # The robots.txt side and Scrapy's each ask once and keep the answer; nobody connects to what was not vetted.
    assert line == "CONNECTED ['127.0.0.1'] 2", done.stdout + done.stderr
    assert web.asked["/robots.txt"] == 1
    assert web.asked["/a"] == (good == 2)


def certificate(folder: Path, name: str, common: str) -> Path:
    """A self-signed certificate for 127.0.0.1 with its key, in one PEM file."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])
    now = datetime.now(UTC)
    built = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    built = built.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    signed = built.add_extension(x509.SubjectAlternativeName([address]), critical=False).sign(key, hashes.SHA256())
    path = folder / name
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    path.write_bytes(
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain) + signed.public_bytes(encoding)
    )
    return path


@pytest.mark.e2e
def test_certificates_are_verified(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = (certificate(tmp_path, f"{name}.pem", name) for name in ("good", "bad"))
    monkeypatch.setenv("SSL_CERT_FILE", str(good))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(good)
    web.server.socket = context.wrap_socket(web.server.socket, server_side=True)
    url = web.url.replace("http://", "https://")
    web.routes["/"] = page("<img src=a.jpg>")
    assert [c.image_url for c in crawl(url)[0]] == [f"{url}/a.jpg"]

    def swap(request: BaseHTTPRequestHandler) -> None:
        """From now on somebody else answers."""
        context.load_cert_chain(bad)
        answer(b"", 404)(request)

    web.routes["/.well-known/tdmrep.json"] = swap
    with pytest.raises(InputError, match=f"cannot reach {url}/"):
        crawl(url)
    assert web.asked["/"] == 1


# Re-crawls.


def write_pages(path: Path, visits: list[PageVisit]) -> None:
    rows = [{"source": "site:x", **vars(visit)} for visit in visits]
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=PAGES), path)


@pytest.mark.e2e
def test_a_second_crawl_of_an_unchanged_web_transfers_no_page(tmp_path: Path) -> None:
    paths = {"known_pages": str(tmp_path / "known" / "pages.parquet"), "page_links": str(tmp_path / "links.parquet")}
    with SampleWeb(images=200) as web:
        first, visits = crawl(web.url, **paths)
        assert {visit.http_status for visit in visits} == {200}
        assert all(visit.etag and visit.body_sha256 for visit in visits)
        assert len(visits) == 1 + web.site.sections + web.site.pages
        write_pages(Path(paths["known_pages"]), visits)
        second, again = crawl(web.url, **paths)
        truth = web.truth()
    assert {c.image_url for c in first} == set(truth["image_url"].to_pylist())
    assert second == []
    assert {visit.http_status for visit in again} == {304}
    state = [(v.page_url, v.etag, v.body_sha256) for v in visits]
    assert [(v.page_url, v.etag, v.body_sha256) for v in again] == state


# Processes.


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def slow_web(web: Web) -> Iterator[Web]:
    """A site with one page that takes its time."""

    def slow(request: Any) -> None:
        time.sleep(30)

    web.routes |= {"/": page('<a href="/slow">s</a><img src=a.jpg>'), "/slow": slow}
    yield web


def gone(process: psutil.Process, seconds: float) -> bool:
    try:
        process.wait(seconds)
    except psutil.TimeoutExpired:
        return process.status() == psutil.STATUS_ZOMBIE
    return True


@pytest.mark.e2e
def test_pages_come_while_the_crawl_goes_on_and_closing_ends_it(slow_web: Web) -> None:
    source = open_source(
        f"site:{slow_web.url}", CrawlLimits(delay_s=0.0, allow_private=True, timeout_s=60.0, sitemaps=False)
    )
    stream = source.read(source.units()[0])
    started = time.monotonic()
    first = next(stream)
    assert isinstance(first, Candidate) and first.image_url == f"{slow_web.url}/a.jpg"
    [child] = [p for p in psutil.Process().children() if "crawler.sources.site_process" in p.cmdline()]
    assert isinstance(next(stream), PageVisit)
    stream.close()  # type: ignore[attr-defined]
    assert gone(child, 5)
    assert time.monotonic() - started < 20


@pytest.mark.e2e
def test_the_spider_dies_with_the_worker_that_reads_it(slow_web: Web, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from crawler.sources import CrawlLimits, open_source\n"
        "def read():\n"
        "    limits = CrawlLimits(delay_s=0.0, allow_private=True, timeout_s=60.0)\n"
        f"    source = open_source('site:{slow_web.url}', limits)\n"
        "    return len(list(source.read(source.units()[0])))\n"
        "if __name__ == '__main__':\n"
        "    with ProcessPoolExecutor(1) as pool:\n"
        "        pool.submit(read).result()\n"
    )
    script = tmp_path / "worker.py"
    script.write_text(code)
    parent = subprocess.Popen([sys.executable, str(script)], env=environment(), stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not slow_web.asked["/slow"] and time.monotonic() < deadline:
            time.sleep(0.05)
        family = psutil.Process(parent.pid).children(recursive=True)
        [child] = [p for p in family if "crawler.sources.site_process" in p.cmdline()]
        worker = child.parent()
        assert worker is not None and worker.pid != parent.pid
        worker.send_signal(signal.SIGKILL)
        assert gone(child, 10)
    finally:
        parent.kill()
        parent.wait()
