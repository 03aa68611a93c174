"""Downloading a part over real HTTP: each way a row can end, and what the server was asked."""

from __future__ import annotations

import errno
import gzip
import hashlib
import tarfile
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hostile_web import JPEG, PNG, Handler, Web, answer, chunked, drip, redirect, self_signed, slow_headers

from crawler import engine
from crawler.consent import decide_all
from crawler.download import DownloadConfig, DownloadStats, download_part, images_path
from crawler.errors import InputError
from crawler.fetch import FetchConfig, Fetcher, FetchError
from crawler.hosts import ConsentConfig
from crawler.outcomes import retry_after_s
from crawler.plan import write_plan
from crawler.sources import Candidate
from warehouse.schema import IMAGES, PASSING, Reason, url_id

PREFIX = "raw/test/g000/images"


def fetch_config(**changes: Any) -> FetchConfig:
    return FetchConfig(**{"allow_private": True, "total_s": 1.0, "max_bytes": 50_000, **changes})


def prepare(crawl_dir: Path, urls: list[str], directives: str = "") -> None:
    """Plan and consent for `urls`, one part."""
    candidates = [Candidate(f"{url}#page", url, (), directives) for url in urls]
    write_plan(candidates, crawl_dir / "plan", 1000, "test")
    decide_all(crawl_dir, ConsentConfig(fetch=fetch_config()))


def download(crawl_dir: Path, **changes: Any) -> DownloadStats:
    config = {"fetch": fetch_config(), "threads": 8, "backoff_s": 0.01, **changes}
    return download_part(0, crawl_dir, PREFIX, DownloadConfig(**config))


def images(crawl_dir: Path) -> dict[str, dict[str, Any]]:
    """image_url -> row; the table has exactly the agreed schema."""
    table = pq.read_table(images_path(crawl_dir, 0, ".parquet"))
    assert table.schema.equals(IMAGES)
    return {row["image_url"]: row for row in table.to_pylist()}


def one(web: Web, crawl_dir: Path, handler: Handler, **changes: Any) -> dict[str, Any]:
    """The row of a single address /a.jpg with this handler."""
    web.routes["/a.jpg"] = handler
    url = f"{web.url}/a.jpg"
    prepare(crawl_dir, [url])
    stats = download(crawl_dir, **changes)
    assert stats.urls == 1
    return images(crawl_dir)[url]


def cut_short(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", "5000")
    request.end_headers()
    request.wfile.write(JPEG)
    request.wfile.flush()
    request.close_connection = True


def no_answer(request: BaseHTTPRequestHandler) -> None:
    request.close_connection = True


def header_flood(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"X-Flood: 1\r\n" * 5000 + b"\r\n")


def bomb() -> bytes:
    return gzip.compress(b"\xff\xd8\xff" + bytes(30_000_000))


# path -> handler, status, reason, how often it may be asked
FAILURES: dict[str, tuple[Handler, str, str, int]] = {
    "/404": (answer(b"", 404), "failed", "http_client_error", 1),
    "/403": (answer(b"no", 403), "failed", "http_client_error", 1),
    "/503-for-good": (answer(b"", 503), "failed", "http_server_error", 3),
    "/slow-body": (drip(1000), "failed", "timeout", 1),
    "/slow-headers": (slow_headers, "failed", "timeout", 1),
    "/announced-too-large": (answer(b"\xff" * 60_000), "failed", "too_large", 1),
    "/endless-chunks": (chunked(b"\xff" * 1000, 500), "failed", "too_large", 1),
    "/gzip-bomb": (answer(bomb(), headers={"Content-Encoding": "gzip"}), "failed", "too_large", 1),
    "/header-flood": (header_flood, "failed", "too_large", 1),
    "/empty-body": (answer(b""), "failed", "empty_body", 1),
    # A kept connection that ends without an answer may have been too old: each attempt may take a new one.
    "/no-answer": (no_answer, "failed", "broken_transfer", 6),
    "/ends-in-mid-body": (cut_short, "failed", "broken_transfer", 3),
    "/html-as-jpg": (answer(b"<!DOCTYPE html><p>not found"), "failed", "not_an_image", 1),
    "/redirect-to-a-file": (redirect("file:///etc/passwd"), "failed", "bad_address", 1),
    "/redirect-to-metadata": (redirect("http://169.254.169.254/meta-data/"), "failed", "private_address", 1),
    "/redirect-to-itself": (redirect("/redirect-to-itself"), "failed", "too_many_redirects", 6),
    "/noai": (answer(headers={"X-Robots-Tag": "noindex, noai"}), "refused", "image_opted_out", 1),
    "/noai-on-an-error": (answer(b"", 500, {"X-Robots-Tag": "noai"}), "refused", "image_opted_out", 1),
    "/reserved": (answer(headers={"tdm-reservation": "1"}), "refused", "image_opted_out", 1),
}


@pytest.mark.e2e
def test_every_failure_has_its_reason_and_is_asked_no_oftener_than_it_may(web: Web, tmp_path: Path) -> None:
    web.routes |= {path: handler for path, (handler, *_) in FAILURES.items()}
    prepare(tmp_path, [web.url + path for path in FAILURES])
    started = time.monotonic()
    download(tmp_path, refusal_limit=9)
    assert time.monotonic() - started < 8
    rows = images(tmp_path)
    ends = {path: (rows[web.url + path]["status"], rows[web.url + path]["reason"]) for path in FAILURES}
    assert ends == {path: (status, reason) for path, (_, status, reason, _) in FAILURES.items()}
    for path, (*_, most) in FAILURES.items():
        assert 1 <= web.asked[path] <= most, path
    for row in rows.values():
        assert row["image_id"] is None
        assert row["raw_offset"] is None


@pytest.mark.e2e
def test_a_server_error_that_passes_is_asked_again(web: Web, tmp_path: Path) -> None:
    def handle(request: BaseHTTPRequestHandler) -> None:
        (answer(b"", 500) if web.asked["/a.jpg"] < 3 else answer(JPEG))(request)

    row = one(web, tmp_path, handle)
    assert (row["status"], row["attempts"], row["reason"]) == ("ok", 3, None)


def test_nothing_listens(tmp_path: Path, web: Web, closed_port: int) -> None:
    # The robots.txt of the first address allows; the picture then moved to where nothing is.
    row = one(web, tmp_path, redirect(f"http://127.0.0.1:{closed_port}/a.jpg"))
    assert (row["status"], row["reason"]) == ("refused", "robots_unreachable")


def test_redirects_obey_the_robots_txt_of_where_they_lead(tmp_path: Path, web: Web, other_web: Web) -> None:
    other_web.routes |= {"/robots.txt": answer(b"User-agent: *\nDisallow: /"), "/b.jpg": answer(JPEG)}
    row = one(web, tmp_path, redirect(f"{other_web.url}/b.jpg"))
    assert row["reason"] == "robots_txt"
    assert other_web.asked == {"/robots.txt": 1}


def test_good_redirects_arrive(tmp_path: Path, web: Web, other_web: Web) -> None:
    other_web.routes["/b.jpg"] = answer(PNG)
    row = one(web, tmp_path, redirect(f"{other_web.url}/b.jpg"))
    assert (row["status"], row["image_id"]) == ("ok", hashlib.sha256(PNG).hexdigest())
    assert (row["final_url"], row["attempts"]) == (f"{other_web.url}/b.jpg", 1)


def test_a_host_that_refuses_is_not_reached_by_redirects_either(tmp_path: Path, web: Web, other_web: Web) -> None:
    other_web.routes = {f"/{i}.jpg": answer(headers={"X-Robots-Tag": "noai"}) for i in range(9)}
    web.routes |= {f"/{i}.jpg": redirect(f"{other_web.url}/{i}.jpg") for i in range(9)}
    prepare(tmp_path, [f"{web.url}/{i}.jpg" for i in range(9)])
    assert download(tmp_path).reasons == {"host_opted_out": 6, "image_opted_out": 3}
    assert sum(count for path, count in other_web.asked.items() if path.endswith(".jpg")) == 3


def test_an_address_that_refused_is_not_asked_again_through_a_redirect(
    tmp_path: Path, web: Web, other_web: Web
) -> None:
    other_web.routes["/b.jpg"] = answer(headers={"X-Robots-Tag": "noai"})
    web.routes |= {f"/{i}.jpg": redirect(f"{other_web.url}/b.jpg") for i in range(5)}
    prepare(tmp_path, [f"{web.url}/{i}.jpg" for i in range(5)])
    assert download(tmp_path).reasons == {"image_opted_out": 5}
    assert other_web.asked["/b.jpg"] == 1


def test_private_addresses_are_refused_unless_allowed(tmp_path: Path, web: Web) -> None:
    web.routes["/a.jpg"] = answer(JPEG)
    url = f"{web.url}/a.jpg"
    prepare(tmp_path, [url])
    row_before = dict(web.asked)
    download(tmp_path, fetch=fetch_config(allow_private=False))
    row = images(tmp_path)[url]
    assert (row["status"], row["reason"]) == ("failed", "private_address")
    assert dict(web.asked) == row_before


def test_bad_addresses_end_as_rows(tmp_path: Path, web: Web) -> None:
    urls = [
        "ftp://example.org/a.jpg",
        "file:///etc/passwd",
        "http://",
        "http://[::1/a.jpg",
        "http://user:pw@example.org/",
    ]
    prepare(tmp_path, urls)
    stats = download(tmp_path)
    assert stats.urls == len(urls)
    assert {row["reason"] for row in images(tmp_path).values()} == {"bad_address"}


def test_pages_that_opted_out_are_never_asked_for_pictures(tmp_path: Path, web: Web) -> None:
    web.routes["/a.jpg"] = answer(JPEG)
    prepare(tmp_path, [f"{web.url}/a.jpg"], directives="meta robots: noimageai")
    stats = download(tmp_path)
    assert stats.reasons == {"page_opted_out": 1}
    assert stats.refused == 1
    assert not web.asked


@pytest.mark.e2e
@pytest.mark.parametrize(("ttl_h", "asked", "reasons"), [(24.0, 1, {}), (0.0, 2, {"robots_txt": 1})])
def test_consent_is_looked_at_again_and_records_expire(
    tmp_path: Path, web: Web, ttl_h: float, asked: int, reasons: dict[str, int]
) -> None:
    web.routes["/a.jpg"] = answer(JPEG)
    prepare(tmp_path, [f"{web.url}/a.jpg"])
    web.routes["/robots.txt"] = answer(b"User-agent: *\nDisallow: /", kind="text/plain")
    assert download(tmp_path, hosts_ttl_h=ttl_h).reasons == reasons
    assert web.asked["/robots.txt"] == asked


@pytest.mark.e2e
def test_crawl_delay_is_kept(tmp_path: Path, web: Web) -> None:
    times: list[float] = []

    def handle(request: BaseHTTPRequestHandler) -> None:
        times.append(time.monotonic())
        answer(JPEG)(request)

    web.routes = {f"/{i}.jpg": handle for i in range(4)}
    web.routes["/robots.txt"] = answer(b"User-agent: *\nCrawl-delay: 0.3", kind="text/plain")
    prepare(tmp_path, [f"{web.url}/{i}.jpg" for i in range(4)])
    assert download(tmp_path).ok == 4
    assert min(later - sooner for sooner, later in pairwise(times)) > 0.25


def test_a_certificate_that_does_not_verify_is_final(tmp_path: Path) -> None:
    web = Web(self_signed(tmp_path))
    try:
        with Fetcher(fetch_config()) as fetcher, pytest.raises(FetchError) as caught:
            fetcher.get(f"{web.url}/a.jpg")
    finally:
        web.close()
    assert caught.value.reason is Reason.TLS
    assert Reason.TLS not in PASSING


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        ("Wed, 01 Jan 2025 00:01:00 GMT", 60.0),
        ("Wed, 01 Jan 2024 00:01:00 GMT", 0.0),
        ("soon", None),
        ("-1", None),
        ("9" * 400, 999_999_999.0),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert retry_after_s([("retry-after", value)], datetime(2025, 1, 1, tzinfo=UTC)) == seconds


def some_pictures(web: Web, count: int) -> list[str]:
    for i in range(count):
        web.routes[f"/{i}.jpg"] = answer(JPEG + str(i).encode())
    web.routes["/gone.jpg"] = answer(b"", 410)
    return [f"{web.url}/{i}.jpg" for i in range(count)] + [f"{web.url}/gone.jpg"]


def test_the_tar_holds_the_bytes_at_the_recorded_places(tmp_path: Path, web: Web) -> None:
    urls = some_pictures(web, 30)
    prepare(tmp_path, urls)
    stats = download(tmp_path)
    assert (stats.ok, stats.failed, stats.urls) == (30, 1, 31)
    tar = images_path(tmp_path, 0, ".tar")
    raw = tar.read_bytes()
    with tarfile.open(tar) as archive:
        members = archive.getmembers()
    assert [m.name for m in members] == sorted(f"{url_id(url)}.jpg" for url in urls[:-1])
    assert {(m.mtime, m.uid, m.uname) for m in members} == {(0, 0, "")}
    for url, row in images(tmp_path).items():
        if row["status"] == "ok":
            data = raw[row["raw_offset"] : row["raw_offset"] + row["raw_bytes"]]
            assert data == JPEG + url.rsplit("/", 1)[1].removesuffix(".jpg").encode()
            assert hashlib.sha256(data).hexdigest() == row["image_id"]
            assert row["raw_shard"] == f"{PREFIX}/00000.tar"
    assert sorted(path.name for path in tar.parent.iterdir()) == ["00000.parquet", "00000.tar", "00000_stats.json"]


@pytest.mark.e2e
def test_two_runs_give_the_same_bytes_and_rows(tmp_path: Path, web: Web) -> None:
    urls = some_pictures(web, 20)
    for name in ("one", "two"):
        prepare(tmp_path / name, urls)
        download(tmp_path / name, threads=1 if name == "one" else 8)
    tars = [images_path(tmp_path / name, 0, ".tar").read_bytes() for name in ("one", "two")]
    assert tars[0] == tars[1]
    rows = [[{**r, "fetched_at": 0} for r in images(tmp_path / name).values()] for name in ("one", "two")]
    assert rows[0] == rows[1]


def test_a_finished_part_is_not_asked_for_again(tmp_path: Path, web: Web) -> None:
    prepare(tmp_path, some_pictures(web, 3))
    first = download(tmp_path)
    asked = dict(web.asked)
    assert asdict(download(tmp_path)) == asdict(first)
    assert dict(web.asked) == asked


@pytest.mark.e2e
@pytest.mark.parametrize("damage", ["truncated tar", "no stats", "no stats, truncated tar and litter"])
def test_what_a_crash_left_is_replaced(tmp_path: Path, web: Web, damage: str) -> None:
    prepare(tmp_path, some_pictures(web, 3))
    download(tmp_path)
    tar = images_path(tmp_path, 0, ".tar")
    whole = tar.read_bytes()
    if "tar" in damage:
        tar.write_bytes(whole[:700])
    if "no stats" in damage:
        images_path(tmp_path, 0, "_stats.json").unlink()
    if "litter" in damage:
        (tar.parent / ".00000.work").mkdir()
        (tar.parent / ".00000.work" / "0.feather").write_bytes(b"half")
    stats = download(tmp_path)
    assert tar.read_bytes() == whole
    assert stats.tar_bytes == len(whole)


@pytest.mark.e2e
def test_a_part_that_takes_too_long_ends_with_timeouts(tmp_path: Path, web: Web) -> None:
    for i in range(12):
        web.routes[f"/{i}.jpg"] = drip(1000)
    urls = [f"{web.url}/{i}.jpg" for i in range(12)]
    prepare(tmp_path, urls)
    started = time.monotonic()
    stats = download(tmp_path, threads=2, part_s=0.6, fetch=fetch_config(total_s=0.4))
    assert stats.reasons == {"timeout": 12}
    assert time.monotonic() - started < 4


def test_a_row_that_the_engine_loses_is_an_internal_error(
    tmp_path: Path, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    def losing(*_: object) -> None:
        """An engine that does nothing at all."""

    monkeypatch.setattr("crawler.download.download_shard", losing)
    assert one(web, tmp_path, answer(JPEG))["reason"] == "internal_error"


def test_one_part_missing_its_plan_or_verdicts_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run the plan step first"):
        download(tmp_path)


@pytest.mark.e2e
def test_connections_are_kept_alive(tmp_path: Path, web: Web) -> None:
    opened: list[object] = []
    accept: Callable[..., Any] = web.server.get_request

    def counting() -> Any:
        opened.append(1)
        return accept()

    web.server.get_request = counting  # type: ignore[method-assign]
    prepare(tmp_path, some_pictures(web, 40))
    before = len(opened)
    download(tmp_path, threads=2)
    assert len(opened) - before <= 3


def test_loading_the_downloader_leaves_no_trace_of_the_hollow_package() -> None:
    import sys

    before = {name for name in sys.modules if name.startswith(("img2dataset", "wandb"))}
    module = engine.load_downloader()
    assert hasattr(module, "Downloader")
    assert {name for name in sys.modules if name.startswith(("img2dataset", "wandb"))} == before


@pytest.mark.parametrize("where", ["crawler.rawshard.RawShardWriter.add", "crawler.refusals.HostRefusals._write"])
def test_a_full_disk_ends_the_part_and_no_row_pays_for_it(
    tmp_path: Path, web: Web, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """img2dataset takes errors of its writer for failed pictures; one in its threads would stop it for good."""
    urls = some_pictures(web, 6)
    web.routes["/opted-out.jpg"] = answer(headers={"X-Robots-Tag": "noai"})
    prepare(tmp_path, [*urls, f"{web.url}/opted-out.jpg"])

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(where, full)
        with pytest.raises(OSError, match="No space left"):
            download(tmp_path)
    assert list((tmp_path / "images").iterdir()) == []
    stats = download(tmp_path)
    assert (stats.ok, stats.refused, stats.failed) == (6, 1, 1)  # one of them is gone for good
