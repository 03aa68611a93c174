"""SIGKILL in the middle of a download: nothing is lost, nothing twice, and nothing that refused is asked again."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from hostile_web import JPEG, Handler, Web, answer

from crawler.download import images_path
from crawler.files import read_rows
from warehouse.schema import url_id

PROCESS = Path(__file__).with_name("crawl_process.py")
PICTURES, PART_URLS = 400, 100


def slow(body: bytes) -> Handler:
    def handle(request: BaseHTTPRequestHandler) -> None:
        time.sleep(0.02)
        answer(body)(request)

    return handle


def body(path: str) -> bytes:
    return JPEG + path.encode()


def start(folder: Path, urls: list[str]) -> subprocess.Popen[bytes]:
    config = {"fetch": {"total_s": 5.0}, "download": {"backoff_s": 0.05}, "part_urls": PART_URLS}
    (folder / "urls.json").write_text(json.dumps([("", url) for url in urls]))
    (folder / "config.json").write_text(json.dumps(config))
    command = [sys.executable, str(PROCESS), *(str(folder / name) for name in ("crawl", "urls.json", "config.json"))]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)


def wait_for(condition: Any, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.e2e
def test_killed_downloads_end_in_the_same_rows(tmp_path: Path, web: Web) -> None:
    paths = [f"/{i}.jpg" for i in range(PICTURES)]
    web.routes = {path: slow(body(path)) for path in paths}
    refusing = paths[::40]
    web.routes |= {path: answer(headers={"X-Robots-Tag": "noai"}) for path in refusing}
    urls = [web.url + path for path in paths]
    finished: Counter[str] = Counter()
    for target in (0.4, 0.7):  # of the pictures
        process = start(tmp_path, urls)
        wait_for(lambda t=target: sum(1 for path in paths if web.asked[path]) > t * PICTURES, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        done = [part for part in range(4) if images_path(tmp_path / "crawl", part, "_stats.json").is_file()]
        rows = [row for part in done for row in read_rows(images_path(tmp_path / "crawl", part, ".parquet"))]
        finished = Counter({row["image_url"].removeprefix(web.url): 1 for row in rows})
    before = Counter(web.asked)
    process = start(tmp_path, urls)
    assert process.wait(60) == 0
    assert finished
    assert not {path for path in finished if web.asked[path] > before[path]}  # a finished part is not asked again
    # An answer that was on its way when the process died is the one thing that nobody can remember.
    assert sum(web.asked[path] - 1 for path in refusing) <= 1
    assert web.asked["/robots.txt"] == 1
    check(tmp_path / "crawl", web, paths, refusing)


def check(crawl: Path, web: Web, paths: list[str], refusing: list[str]) -> None:
    rows: list[dict[str, Any]] = []
    for part in range(PICTURES // PART_URLS):
        table = read_rows(images_path(crawl, part, ".parquet"))
        raw = images_path(crawl, part, ".tar").read_bytes()
        with tarfile.open(images_path(crawl, part, ".tar")) as archive:
            assert archive.getnames() == [f"{row['url_id']}.jpg" for row in table if row["status"] == "ok"]
        for row in table:
            if row["status"] == "ok":
                data = raw[row["raw_offset"] : row["raw_offset"] + row["raw_bytes"]]
                assert data == body(row["image_url"].removeprefix(web.url))
                assert hashlib.sha256(data).hexdigest() == row["image_id"]
        rows += table
    assert [row["url_id"] for row in rows] == sorted(url_id(web.url + path) for path in paths)
    refused = {row["image_url"] for row in rows if row["status"] == "refused"}
    assert refused == {web.url + path for path in refusing}
    assert not [row for row in rows if row["status"] == "failed"]
    assert sorted(path.name for path in (crawl / "images").iterdir() if path.name.startswith(".")) == []
