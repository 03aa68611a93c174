"""Everything hostile at once, with all odd pictures, from plan to detection: bounded, and nothing good is lost."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hostile_web import JPEG, Handler, Web, answer, chunked, drip, raw, redirect, reset, self_signed, slow_headers

from crawler.download import images_path
from warehouse.schema import IMAGES, PICTURES, Reason, Status

PROCESS = Path(__file__).with_name("crawl_process.py")
FETCH = {"total_s": 2.0, "connect_s": 1.0, "max_bytes": 2_000_000}
CRAWL = "raw/test/g000"  # where crawl_process.py says that the raw shards lie
MAX_S, MAX_MIB = 60.0, 1024.0
LENGTH = b"Content-Length: %d\r\n\r\n" % len(JPEG)
BEGIN = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n"


def bomb() -> bytes:
    return gzip.compress(b"\xff\xd8\xff" + bytes(300_000_000), 1)


def hops() -> dict[str, Handler]:
    routes = {f"/hop{i}.jpg": redirect(f"/hop{i + 1}.jpg") for i in range(100)}
    return {**routes, "/hop100.jpg": answer()}


# path -> handler, status, reason, how often it may be asked
HOSTILE: dict[str, tuple[Handler, str, str | None, int]] = {
    "/drip.jpg": (drip(1000, 0.5), "failed", "timeout", 1),
    "/slow-headers.jpg": (slow_headers, "failed", "timeout", 1),
    "/endless.jpg": (chunked(b"\xff" * 65536, 100_000), "failed", "too_large", 1),
    "/huge.jpg": (raw(BEGIN + b"Content-Length: 999999999999\r\n\r\n" + JPEG), "failed", "too_large", 1),
    "/bomb.jpg": (answer(bomb(), headers={"Content-Encoding": "gzip"}), "failed", "too_large", 1),
    "/bomb-chunked.jpg": (chunked(bomb(), 1, {"Content-Encoding": "gzip"}), "failed", "too_large", 1),
    "/flood.jpg": (raw(BEGIN + b"X-Flood: 1\r\n" * 100_000 + b"\r\n"), "failed", "too_large", 1),
    "/flood-line.jpg": (raw(BEGIN + b"X-Flood: " + b"1" * 5_000_000 + b"\r\n\r\n"), "failed", "too_large", 1),
    "/flood-interim.jpg": (raw(b"HTTP/1.1 100 Continue\r\n\r\n" * 100_000), "failed", "too_large", 1),
    "/hop0.jpg": (redirect("/hop1.jpg"), "failed", "too_many_redirects", 1),
    "/metadata.jpg": (redirect("http://169.254.169.254/latest/meta-data/"), "failed", "private_address", 1),
    "/file.jpg": (redirect("file:///etc/passwd"), "failed", "bad_address", 1),
    "/data.jpg": (redirect("data:image/png;base64,AAAA"), "failed", "bad_address", 1),
    "/html.jpg": (answer(b"<!DOCTYPE html><p>not found"), "failed", "not_an_image", 1),
    "/reset.jpg": (reset, "failed", "broken_transfer", 3),
    "/short.jpg": (raw(BEGIN + b"Content-Length: 5000\r\n\r\n" + JPEG), "failed", "broken_transfer", 3),
    # A kept connection may hold the rest of an answer whose length was a lie: each attempt may take a new one.
    "/no-http.jpg": (raw(b"\0\1\2\3" * 50), "failed", "broken_transfer", 6),
    "/204.jpg": (raw(b"HTTP/1.1 204 No Content\r\n\r\n"), "failed", "empty_body", 1),
    "/206.jpg": (answer(status=206, headers={"Content-Range": "bytes 0-99/5000"}), "failed", "broken_transfer", 3),
    "/304.jpg": (raw(b"HTTP/1.1 304 Not Modified\r\n\r\n"), "failed", "http_client_error", 1),
    "/410.jpg": (answer(b"", 410), "failed", "http_client_error", 1),
    "/500.jpg": (answer(b"", 500), "failed", "http_server_error", 3),
    "/noai.jpg": (answer(headers={"X-Robots-Tag": "noai"}), "refused", "image_opted_out", 1),
    "/reserved.jpg": (answer(headers={"TDM-Reservation": "1"}), "refused", "image_opted_out", 1),
    "/wrong-type.jpg": (answer(kind="text/html"), "ok", None, 1),
    "/length-lies.jpg": (raw(BEGIN + b"Content-Length: 100\r\n\r\n" + JPEG), "ok", None, 1),
    "/206-whole.jpg": (
        answer(status=206, headers={"Content-Range": f"bytes 0-{len(JPEG) - 1}/{len(JPEG)}"}),
        "ok",
        None,
        1,
    ),
    "/early-hints.jpg": (
        raw(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + BEGIN + LENGTH + JPEG),
        "ok",
        None,
        1,
    ),
    "/gzip.jpg": (answer(gzip.compress(JPEG), headers={"Content-Encoding": "gzip"}), "ok", None, 1),
}

# Odd files that are no raster picture by their first bytes, or of a kind that is not taken (icons).
NO_PICTURES = {
    "pillow__decompression_bomb.ico",
    "pillow__python.ico",
    "sharp__check.svg",
    "web-html-as-image__movies.sports.jpg",
    "web-html-as-image__robots.jpg",
    "web-html-as-image__texts.americana.jpg",
}


@dataclass
class Hosts:
    """The webs of the test, by what they do."""

    main: Web
    noai: Web
    forbidden: Web
    patient: Web
    busy: Web
    tls: Web
    urls: list[str] = field(default_factory=list)

    def all(self) -> list[Web]:
        return [self.main, self.noai, self.forbidden, self.patient, self.busy, self.tls]


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    webs = [Web() for _ in range(5)]
    found = Hosts(*webs, tls=Web(self_signed(tmp_path)))
    yield found
    for web in found.all():
        web.close()


def once_limited(web: Web, retry_after: str) -> Handler:
    def handle(request: Any) -> None:
        first = web.asked[request.path] == 1 and sum(web.asked.values()) < 5
        (answer(b"", 429, {"Retry-After": retry_after}) if first else answer())(request)

    return handle


def furnish(hosts: Hosts, odd: list[Path]) -> None:
    for path, (handler, *_) in HOSTILE.items():
        hosts.main.routes[path] = handler
    hosts.main.routes |= {path: route for path, route in hops().items() if path != "/hop0.jpg"}
    for file in odd:
        hosts.main.routes[f"/odd/{file.name}"] = answer(file.read_bytes())
    hosts.forbidden.routes["/robots.txt"] = answer(b"User-agent: gptface\nDisallow: /", kind="text/plain")
    for i in range(12):
        hosts.noai.routes[f"/{i}.jpg"] = answer(headers={"X-Robots-Tag": "noai"})
        hosts.forbidden.routes[f"/{i}.jpg"] = answer()
        hosts.patient.routes[f"/{i}.jpg"] = once_limited(hosts.patient, "1")
        hosts.busy.routes[f"/{i}.jpg"] = answer(b"", 429, {"Retry-After": "86400"})
        hosts.tls.routes[f"/{i}.jpg"] = answer()
    hosts.urls = [f"{hosts.main.url}{path}" for path in HOSTILE]
    hosts.urls += [f"{hosts.main.url}/odd/{file.name}" for file in odd]
    for web in (hosts.noai, hosts.forbidden, hosts.patient, hosts.busy, hosts.tls):
        hosts.urls += [f"{web.url}/{i}.jpg" for i in range(12)]


def crawl(folder: Path, hosts: Hosts, **config: Any) -> dict[str, float]:
    """Run the crawl in a process of its own; its seconds and peak MiB."""
    pairs = [(f"{hosts.main.url}/page", url) for url in hosts.urls]
    settings = {"fetch": FETCH, "download": {"backoff_s": 0.05}, "detect": True, **config}
    for name, value in (("urls", pairs), ("config", settings)):
        (folder / f"{name}.json").write_text(json.dumps(value))
    command = [sys.executable, str(PROCESS), *(str(folder / name) for name in (CRAWL, "urls.json", "config.json"))]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=MAX_S * 2, env=environment)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def rows_of(folder: Path) -> dict[str, dict[str, Any]]:
    table = pq.read_table(images_path(folder / CRAWL, 0, ".parquet"))
    assert table.schema.equals(IMAGES)
    return {row["image_url"]: row for row in table.to_pylist()}


@pytest.mark.e2e
@pytest.mark.realdata
def test_everything_hostile_at_once(tmp_path: Path, test_data: Path, hosts: Hosts) -> None:
    odd = sorted((test_data / "odd-images").iterdir())
    furnish(hosts, odd)
    measured = crawl(tmp_path, hosts)
    assert measured["download_s"] < MAX_S
    assert measured["detect_s"] < MAX_S
    assert measured["peak_mib"] < MAX_MIB
    rows = rows_of(tmp_path)
    assert rows.keys() == set(hosts.urls)
    for row in rows.values():
        assert Status(row["status"]) is Status.OK or Reason(row["reason"]) in Reason, row
    check_hostile(hosts.main, rows)
    check_odd(hosts.main, rows, odd)
    check_hosts(hosts, rows)
    check_pictures(tmp_path, rows)
    check_what_may_not_be_asked_again(tmp_path, hosts)


def check_hostile(web: Web, rows: dict[str, dict[str, Any]]) -> None:
    ends = {path: (rows[web.url + path]["status"], rows[web.url + path]["reason"]) for path in HOSTILE}
    assert ends == {path: (status, reason) for path, (_, status, reason, _) in HOSTILE.items()}
    assert not {path: web.asked[path] for path, (*_, most) in HOSTILE.items() if not 1 <= web.asked[path] <= most}
    assert web.asked["/robots.txt"] == 1
    assert web.asked["/page"] == 0
    assert web.asked["/hop6.jpg"] == 0


def check_odd(web: Web, rows: dict[str, dict[str, Any]], odd: list[Path]) -> None:
    """No good row is lost: every odd picture came as it was served, once."""
    for file in odd:
        row = rows[f"{web.url}/odd/{file.name}"]
        if file.name in NO_PICTURES:
            assert (row["status"], row["reason"]) == ("failed", "not_an_image"), file.name
        else:
            assert row["status"] == "ok", (file.name, row["reason"], row["error"])
            assert row["image_id"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert web.asked[f"/odd/{file.name}"] == 1


def check_hosts(hosts: Hosts, rows: dict[str, dict[str, Any]]) -> None:
    def reasons(web: Web) -> dict[str | None, int]:
        found = [row["reason"] for url, row in rows.items() if url.startswith(f"{web.url}/")]
        return {reason: found.count(reason) for reason in set(found)}

    pictures = {web.url: {p: n for p, n in web.asked.items() if p.endswith(".jpg")} for web in hosts.all()}
    assert reasons(hosts.noai) == {"image_opted_out": 3, "host_opted_out": 9}
    assert sorted(pictures[hosts.noai.url].values()) == [1, 1, 1]
    assert reasons(hosts.forbidden) == {"robots_txt": 12}
    assert hosts.forbidden.asked == {"/robots.txt": 1}
    assert reasons(hosts.patient) == {None: 12}
    assert reasons(hosts.busy) == {"rate_limited": 12}
    assert list(pictures[hosts.busy.url].values()) == [1]
    # The host's robots.txt cannot be read either, which RFC 9309 takes for "disallowed".
    assert reasons(hosts.tls) == {"robots_unreachable": 12}
    assert not hosts.tls.asked


def check_pictures(folder: Path, rows: dict[str, dict[str, Any]]) -> None:
    """Every picture that came was decoded, or has a reason."""
    table = pq.read_table(folder / CRAWL / "faces" / "00000.pictures.parquet")
    assert table.schema.equals(PICTURES)
    pictures = {row["image_id"]: row for row in table.to_pylist()}
    assert pictures.keys() == {row["image_id"] for row in rows.values() if row["status"] == "ok"}
    for row in pictures.values():
        assert (row["reason"] is None) == (row["width_px"] is not None)
        assert row["reason"] in {None, "not_an_image", "truncated_image", "too_many_pixels"}


def check_what_may_not_be_asked_again(folder: Path, hosts: Hosts) -> None:
    """After a crash (no statistics) the part is done again, but what refused is not asked."""
    refused = {url for url, row in rows_of(folder).items() if row["status"] == "refused"}
    before = {web.url: dict(web.asked) for web in hosts.all()}
    images_path(folder / CRAWL, 0, "_stats.json").unlink()
    crawl(folder, hosts, detect=False)
    for web in hosts.all():
        again = {path for path, count in web.asked.items() if count > before[web.url].get(path, 0)}
        assert not {web.url + path for path in again} & refused
        assert "/robots.txt" not in again
    assert {url for url, row in rows_of(folder).items() if row["status"] == "refused"} == refused
