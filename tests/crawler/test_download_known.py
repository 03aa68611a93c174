"""Downloading what an earlier release knows, and what the source itself holds."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile_web import JPEG, PNG, Handler, Web, answer, redirect

from crawler.consent import decide_all
from crawler.download import DownloadConfig, DownloadStats, download_part, images_path
from crawler.fetch import FetchConfig
from crawler.files import read_rows
from crawler.hosts import ConsentConfig
from crawler.known import known_images_path
from crawler.plan import write_plan
from crawler.sources.base import Candidate, Found, StoredPicture
from warehouse.schema import IMAGES, url_id

pytestmark = pytest.mark.e2e

THEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
FETCH = FetchConfig(allow_private=True, total_s=1.0)
KNOWN = pa.schema([*IMAGES, pa.field("settled", pa.bool_()), pa.field("recheck", pa.bool_())])


def known_row(url: str, **changes: Any) -> dict[str, Any]:
    """A picture that an earlier release holds."""
    row: dict[str, Any] = {
        "url_id": url_id(url),
        "image_url": url,
        "status": "ok",
        "http_status": 200,
        "image_id": hashlib.sha256(b"old").hexdigest(),
        "raw_shard": "raw/test/g000/images/00007.tar",
        "raw_offset": 512,
        "raw_bytes": 3,
        "attempts": 2,
        "fetched_at": THEN,
        "etag": '"v1"',
        "last_modified": "Fri, 02 Jan 2026 03:04:05 GMT",
        "settled": True,
        "recheck": False,
    }
    return {**dict.fromkeys(KNOWN.names), **row, **changes}


def failed_row(url: str, reason: str, **changes: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(("image_id", "raw_shard", "raw_offset", "raw_bytes", "etag", "last_modified"))
    return known_row(url, status="failed", reason=reason, error="then", **nothing, **changes)


def crawl(
    folder: Path, urls: list[str], known: list[dict[str, Any]], directives: str = "", stored: list[Found] | None = None
) -> tuple[DownloadStats, dict[str, dict[str, Any]]]:
    """Plan, consent and download `urls` with what is known; statistics, and rows by address."""
    if known:
        path = known_images_path(folder)
        path.parent.mkdir(parents=True)
        rows = sorted(known, key=lambda row: row["url_id"])
        pq.write_table(pa.Table.from_pylist(rows, schema=KNOWN), path)
    found: list[Found] = [Candidate(f"{url}#page", url, (), directives) for url in urls]
    write_plan([*found, *(stored or [])], folder / "plan", 1000, "test")
    decide_all(folder, ConsentConfig(fetch=FETCH))
    stats = download_part(0, folder, "raw/test/g001/images", DownloadConfig(fetch=FETCH, backoff_s=0.01))
    return stats, {row["image_url"]: row for row in read_rows(images_path(folder, 0, ".parquet"))}


def conditional(etag: str, body: bytes) -> Handler:
    """304 to the one who names this etag."""

    def handle(request: BaseHTTPRequestHandler) -> None:
        if request.headers.get("If-None-Match") == etag:
            request.send_response(304)
            request.send_header("ETag", etag)
            request.end_headers()
        else:
            answer(body, headers={"ETag": '"v2"'})(request)

    return handle


def test_what_is_settled_is_taken_as_it_is(tmp_path: Path, web: Web) -> None:
    urls = [f"{web.url}/{name}.jpg" for name in ("ok", "gone", "new")]
    web.routes = {f"/{name}.jpg": answer() for name in ("ok", "gone", "new")}
    known = [known_row(urls[0]), failed_row(urls[1], "http_client_error")]
    stats, rows = crawl(tmp_path, urls, known)
    assert rows[urls[0]] == {name: known[0][name] for name in IMAGES.names}
    assert rows[urls[1]] == {name: known[1][name] for name in IMAGES.names}
    assert (stats.ok, stats.kept, stats.bytes) == (2, 2, len(JPEG))
    assert web.asked == {"/robots.txt": 1, "/.well-known/tdmrep.json": 1, "/new.jpg": 1}


def test_a_recheck_is_conditional(tmp_path: Path, web: Web) -> None:
    names = ("same", "changed", "gone", "refuses", "broken")
    urls = dict(zip(names, (f"{web.url}/{name}.jpg" for name in names), strict=True))
    web.routes = {
        "/same.jpg": conditional('"v1"', JPEG),
        "/changed.jpg": conditional('"v2"', PNG),
        "/gone.jpg": answer(b"", 404),
        "/refuses.jpg": answer(headers={"X-Robots-Tag": "noai"}),
        "/broken.jpg": answer(b"", 500),
    }
    known = [known_row(url, settled=False, recheck=True) for url in urls.values()]
    _, rows = crawl(tmp_path, list(urls.values()), known)
    same, changed, gone, refuses, broken = (rows[urls[name]] for name in names)
    assert (same["image_id"], same["raw_shard"]) == (known[0]["image_id"], known[0]["raw_shard"])
    assert (same["attempts"], same["fetched_at"] > THEN) == (3, True)
    assert (changed["image_id"], changed["etag"]) == (hashlib.sha256(PNG).hexdigest(), '"v2"')
    assert (changed["raw_shard"], changed["attempts"]) == ("raw/test/g001/images/00000.tar", 3)
    assert (gone["status"], gone["reason"], gone["image_id"]) == ("failed", "http_client_error", None)
    assert (refuses["status"], refuses["reason"]) == ("refused", "image_opted_out")
    # What passes by itself costs no picture, which is due again next time.
    assert (broken["status"], broken["image_id"], broken["fetched_at"]) == ("ok", known[4]["image_id"], THEN)
    assert broken["attempts"] == 2 + 3


def test_validators_are_sent_and_kept(tmp_path: Path, web: Web) -> None:
    seen: dict[str, str | None] = {}

    def handle(request: BaseHTTPRequestHandler) -> None:
        seen.update({name: request.headers.get(name) for name in ("If-None-Match", "If-Modified-Since")})
        answer(headers={"ETag": '"n"', "Last-Modified": "Sun, 22 Nov 2026 00:00:00 GMT"})(request)

    web.routes = {"/a.jpg": handle, "/b.jpg": answer(headers={"ETag": '"\xe4\x01"', "Last-Modified": "x" * 5000})}
    urls = [f"{web.url}/a.jpg", f"{web.url}/b.jpg"]
    _, rows = crawl(tmp_path, urls, [known_row(urls[0], settled=False, recheck=True)])
    assert seen == {"If-None-Match": '"v1"', "If-Modified-Since": "Fri, 02 Jan 2026 03:04:05 GMT"}
    assert (rows[urls[0]]["etag"], rows[urls[0]]["last_modified"]) == ('"n"', "Sun, 22 Nov 2026 00:00:00 GMT")
    assert (rows[urls[1]]["etag"], rows[urls[1]]["last_modified"]) == (None, None)


def test_attempts_add_up_over_runs(tmp_path: Path, web: Web) -> None:
    web.routes = {"/a.jpg": answer(b"", 500), "/b.jpg": answer()}
    urls = [f"{web.url}/a.jpg", f"{web.url}/b.jpg"]
    known = [failed_row(url, "timeout", settled=False) for url in urls]
    _, rows = crawl(tmp_path, urls, known)
    assert [(rows[url]["status"], rows[url]["attempts"]) for url in urls] == [("failed", 5), ("ok", 3)]


@pytest.mark.parametrize(("robots", "status"), [(b"User-agent: *\nDisallow: /", "refused"), (b"", "ok")])
def test_withdrawn_consent_of_the_host_takes_a_known_picture(
    tmp_path: Path, web: Web, robots: bytes, status: str
) -> None:
    web.routes["/robots.txt"] = answer(robots, kind="text/plain")
    url = f"{web.url}/a.jpg"
    _, rows = crawl(tmp_path, [url], [known_row(url)])
    assert rows[url]["status"] == status
    assert web.asked["/a.jpg"] == 0


def test_a_page_that_opts_out_costs_no_other_page_its_picture(tmp_path: Path, web: Web) -> None:
    url = f"{web.url}/a.jpg"
    _, rows = crawl(tmp_path, [url], [known_row(url)], directives="meta robots: noai")
    assert rows[url]["status"] == "ok"
    [verdict] = read_rows(tmp_path / "consent" / "00000.parquet")
    assert verdict["reason"] == "page_opted_out"


def test_what_the_source_holds_is_not_asked_for(tmp_path: Path, web: Web) -> None:
    bodies = {"good": (JPEG, ()), "refuses": (JPEG, (("x-robots-tag", "noai"),)), "html": (b"<html>", ())}
    urls = {name: f"{web.url}/{name}.jpg" for name in bodies}
    stored: list[Found] = [StoredPicture(urls[name], body, headers, THEN) for name, (body, headers) in bodies.items()]
    stats, rows = crawl(tmp_path, list(urls.values()), [], stored=stored)
    good, refuses, html = (rows[url] for url in urls.values())
    assert (good["status"], good["attempts"], good["fetched_at"]) == ("ok", 0, THEN)
    assert (refuses["status"], refuses["reason"]) == ("refused", "image_opted_out")
    assert (html["status"], html["reason"]) == ("failed", "not_an_image")
    assert stats.kept == 0
    assert not {path for path in web.asked if path.endswith(".jpg")}
    tar = images_path(tmp_path, 0, ".tar").read_bytes()
    assert tar[good["raw_offset"] : good["raw_offset"] + good["raw_bytes"]] == JPEG


def test_two_pairs_and_a_redirect_give_one_final_address(tmp_path: Path, web: Web) -> None:
    web.routes = {"/a.jpg": redirect("/b.jpg"), "/b.jpg": answer()}
    url = f"{web.url}/a.jpg"
    _, rows = crawl(tmp_path, [url], [])
    assert (rows[url]["final_url"], rows[url]["attempts"]) == (f"{web.url}/b.jpg", 1)
    assert json.loads(images_path(tmp_path, 0, "_stats.json").read_text())["kept"] == 0
