"""What the bare img2dataset command line does on a hostile web, and what ours does on the same server.

Each test first shows the weakness of the bare tool, so that it says so when the tool has been mended.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile_web import JPEG, Handler, Web, answer, drip
from PIL import Image

from crawler import engine
from crawler.consent import decide_all
from crawler.download import DownloadConfig, download_part, images_path
from crawler.extraction import extract_unit, list_units
from crawler.fetch import FetchConfig
from crawler.files import read_rows
from crawler.hosts import ConsentConfig
from crawler.known import known_images_path
from crawler.plan import plan_crawl, write_plan
from crawler.sources.base import Candidate, CrawlLimits
from gptface_core.faces.decode import Picture, decode_upright
from warehouse.schema import IMAGES, PASSING, Reason

pytestmark = pytest.mark.slow

FETCH = FetchConfig(allow_private=True, total_s=2.0, max_bytes=1_000_000)
TOOL = Path(sys.executable).with_name("img2dataset")


def picture(width: int, height: int, orientation: int = 1, kind: str = "JPEG") -> bytes:
    """A picture whose left half is black, stored with an EXIF orientation."""
    image = Image.new("RGB", (width, height), "white")
    image.paste("black", (0, 0, width // 2, height))
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, kind, **({"exif": exif} if kind == "JPEG" else {}))
    return file.getvalue()


GOOD = picture(64, 64)


def big(mebibytes: int, sent: list[int]) -> Handler:
    def handle(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(mebibytes << 20))
        request.end_headers()
        for _ in range(mebibytes):
            request.wfile.write(JPEG[:4] + bytes((1 << 20) - 4))
            sent[0] += 1

    return handle


def start_bare(folder: Path, url_list: Path, **options: Any) -> subprocess.Popen[str]:
    settings = {
        "url_list": url_list,
        "input_format": "txt",
        "output_folder": folder,
        "output_format": "webdataset",
        "processes_count": 1,
        "thread_count": 8,
        "image_size": 256,
        "timeout": 2,
        **options,
    }
    command = [str(TOOL), *(f"--{name}={value}" for name, value in settings.items())]
    environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1"}
    return subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, start_new_session=True
    )


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL to the tool and its workers."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def run_bare(folder: Path, url_list: Path, **options: Any) -> tuple[int, str]:
    """Exit code and output of a whole run."""
    process = start_bare(folder, url_list, **options)
    try:
        output, _ = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            kill(process)
    return process.returncode, output


def bare_rows(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["url"]: row for path in sorted(folder.glob("*.parquet")) for row in read_rows(path)}


def listed(folder: Path, urls: list[str]) -> Path:
    file = folder / "urls.txt"
    file.write_text("\n".join(urls) + "\n")
    return file


def run_ours(folder: Path, urls: list[str], part_urls: int = 1000) -> dict[str, dict[str, Any]]:
    plan = write_plan((Candidate("", url, (), "") for url in urls), folder / "plan", part_urls, "test")
    return finish_ours(folder, plan.parts)


def finish_ours(folder: Path, parts: int) -> dict[str, dict[str, Any]]:
    decide_all(folder, ConsentConfig(fetch=FETCH))
    config = DownloadConfig(fetch=FETCH, backoff_s=0.01, refusal_limit=99)
    for part in range(parts):
        download_part(part, folder, "raw/test/g000/images", config)
    tables = [read_rows(images_path(folder, part, ".parquet")) for part in range(parts)]
    return {row["image_url"]: row for rows in tables for row in rows}


def our_picture(folder: Path, row: dict[str, Any]) -> Picture:
    tar = images_path(folder, 0, ".tar").read_bytes()
    found = decode_upright(tar[row["raw_offset"] : row["raw_offset"] + row["raw_bytes"]])
    assert isinstance(found, Picture)
    return found


OPT_OUTS = {
    "/noai.jpg": "noai",
    "/none.jpg": "none",
    "/noindex.jpg": "noindex, max-image-preview: large",
    "/expired.jpg": "unavailable_after: 2020-01-01, noai",
}


def test_addresses_bytes_orientation_size_and_consent(tmp_path: Path, web: Web) -> None:
    """file:// is read; no byte limit; EXIF ignored; 1x1 padded; refusals asked again or misread; robots.txt unread."""
    sent = [0]
    web.routes = {path: answer(GOOD, headers={"X-Robots-Tag": value}) for path, value in OPT_OUTS.items()}
    web.routes |= {
        "/good.jpg": answer(GOOD),
        "/turned.jpg": answer(picture(120, 80, orientation=6)),
        "/tiny.gif": answer(picture(1, 1, kind="GIF")),
        "/big.jpg": big(30, sent),
        "/private/a.jpg": answer(GOOD),
        "/robots.txt": answer(b"User-agent: *\nDisallow: /private/", kind="text/plain"),
    }
    local = tmp_path / "local.jpg"
    local.write_bytes(GOOD)
    urls = [web.url + path for path in web.routes if path != "/robots.txt"] + [local.as_uri()]

    code, output = run_bare(tmp_path / "bare", listed(tmp_path, urls), resize_mode="border", retries=2)
    assert code == 0, output
    bare = bare_rows(tmp_path / "bare")
    assert bare[local.as_uri()]["status"] == "success"
    assert sent[0] >= 30  # all of it, though it is no picture at all
    turned, tiny = bare[f"{web.url}/turned.jpg"], bare[f"{web.url}/tiny.gif"]
    assert (turned["original_width"], turned["original_height"]) == (120, 80)  # as stored: it lies on its side
    assert (tiny["status"], tiny["width"], tiny["height"]) == ("success", 256, 256)
    assert web.asked["/noai.jpg"] == 3
    assert [bare[web.url + path]["status"] for path in list(OPT_OUTS)[1:]] == ["success"] * 3
    assert web.asked["/robots.txt"] == 0
    assert bare[f"{web.url}/private/a.jpg"]["status"] == "success"

    before, sent[0] = web.asked.copy(), 0
    ours = run_ours(tmp_path / "ours", urls)
    asked = web.asked - before
    assert ours[local.as_uri()]["reason"] == "bad_address"
    assert (ours[f"{web.url}/big.jpg"]["reason"], sent[0] < 20) == ("too_large", True)
    assert our_picture(tmp_path / "ours", ours[f"{web.url}/turned.jpg"]).rgb.shape == (120, 80, 3)
    assert our_picture(tmp_path / "ours", ours[f"{web.url}/tiny.gif"]).rgb.shape == (1, 1, 3)
    assert {ours[web.url + path]["reason"] for path in OPT_OUTS} == {"image_opted_out"}
    assert {asked[path] for path in OPT_OUTS} == {1}
    assert ours[f"{web.url}/private/a.jpg"]["reason"] == "robots_txt"
    assert (asked["/robots.txt"], asked["/private/a.jpg"]) == (1, 0)
    assert ours[f"{web.url}/good.jpg"]["status"] == "ok"


def test_slow_bodies_hang_and_a_kill_leaves_half_a_shard(tmp_path: Path, web: Web) -> None:
    """`timeout` does not bound the body; SIGKILL leaves a truncated tar; a stray file makes resuming crash."""
    web.routes = {f"/{i}.jpg": answer(GOOD + bytes(20_000)) for i in range(20)}
    web.routes["/slow.jpg"] = drip(10_000, 0.5)
    urls = [web.url + path for path in web.routes]
    process = start_bare(tmp_path / "bare", listed(tmp_path, urls), disable_all_reencoding=True, resize_mode="no")
    try:
        wait_until(lambda: web.asked["/slow.jpg"] > 0 and len(web.asked) == 21)
        time.sleep(8)  # four times its timeout
        assert process.poll() is None
    finally:
        kill(process)
    tar = tmp_path / "bare" / "00000.tar"
    assert names_in(tar) is None or len(names_in(tar) or []) < 2 * 20
    assert not (tmp_path / "bare" / "00000_stats.json").exists()
    (tmp_path / "bare" / "notes.json").write_text("{}")
    code, output = run_bare(tmp_path / "bare", tmp_path / "urls.txt")
    assert code != 0
    assert "ValueError" in output

    started = time.monotonic()
    (tmp_path / "ours" / "images").mkdir(parents=True)
    (tmp_path / "ours" / "images" / "notes.json").write_text("{}")
    images_path(tmp_path / "ours", 0, ".tar").write_bytes(tar.read_bytes()[:700])
    ours = run_ours(tmp_path / "ours", urls)
    assert time.monotonic() - started < 30
    assert ours.pop(f"{web.url}/slow.jpg")["reason"] == "timeout"
    assert {row["status"] for row in ours.values()} == {"ok"}
    assert len(names_in(images_path(tmp_path / "ours", 0, ".tar")) or []) == 20


def wait_until(condition: Any) -> None:
    end = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def names_in(tar: Path) -> list[str] | None:
    """Names of the members, or None where the file is no whole tar."""
    try:
        with tarfile.open(tar) as archive:
            return archive.getnames()
    except (tarfile.TarError, EOFError, OSError):
        return None


def test_failed_rows_are_never_asked_again(tmp_path: Path, web: Web) -> None:
    """Resuming is by shard: what failed for a passing reason stays failed."""
    web.routes = {"/passing.jpg": answer(b"", 500), "/gone.jpg": answer(b"", 404), "/good.jpg": answer(GOOD)}
    urls = [web.url + path for path in web.routes]
    for _ in range(2):
        code, output = run_bare(tmp_path / "bare", listed(tmp_path, urls))
        assert code == 0, output
        web.routes["/passing.jpg"] = answer(GOOD)
    assert bare_rows(tmp_path / "bare")[f"{web.url}/passing.jpg"]["status"] == "failed_to_download"
    assert web.asked["/passing.jpg"] == 1

    web.routes["/passing.jpg"] = answer(b"", 500)
    first = run_ours(tmp_path / "one", urls)
    assert first[f"{web.url}/passing.jpg"]["reason"] == "http_server_error"
    web.routes["/passing.jpg"] = answer(GOOD)
    remember(tmp_path / "two", list(first.values()))
    before = web.asked.copy()
    second = run_ours(tmp_path / "two", urls)
    passing = second[f"{web.url}/passing.jpg"]
    assert (passing["status"], passing["attempts"]) == ("ok", 4)
    assert {path: count for path, count in (web.asked - before).items() if path.endswith(".jpg")} == {"/passing.jpg": 1}


def remember(crawl: Path, rows: list[dict[str, Any]]) -> None:
    """known/images.parquet, as the ledger writes it."""
    path = known_images_path(crawl)
    path.parent.mkdir(parents=True)
    later = [row["reason"] is not None and Reason(row["reason"]) in PASSING for row in rows]
    known = [{**row, "settled": not retry, "recheck": False} for row, retry in zip(rows, later, strict=True)]
    schema = pa.schema([*IMAGES, pa.field("settled", pa.bool_()), pa.field("recheck", pa.bool_())])
    pq.write_table(pa.Table.from_pylist(known, schema=schema), path)


def test_an_unexpected_value_loses_rows_in_silence(tmp_path: Path, web: Web) -> None:
    """A column that its writer does not expect: every row is gone, with exit code 0 and counted as a success."""
    web.routes = {f"/{i}.jpg": answer(GOOD) for i in range(5)}
    urls = [web.url + path for path in web.routes]
    table = pa.table({"url": urls, "caption": ["a face"] * 5, "seen": [datetime(2026, 1, 1, tzinfo=UTC)] * 5})
    pq.write_table(table, tmp_path / "list.parquet")
    code, _ = run_bare(
        tmp_path / "bare",
        tmp_path / "list.parquet",
        input_format="parquet",
        caption_col="caption",
        save_additional_columns='["seen"]',
    )
    assert code == 0
    assert json.loads((tmp_path / "bare" / "00000_stats.json").read_text())["successes"] == 5
    assert not bare_rows(tmp_path / "bare")

    crawl, source, limits = tmp_path / "ours", f"list:{tmp_path / 'list.parquet'}", CrawlLimits()
    for index, _ in enumerate(list_units(source, limits, crawl)):
        extract_unit(source, limits, crawl, index)
    rows = finish_ours(crawl, plan_crawl(crawl, 1000, source).parts)
    assert {url: row["status"] for url, row in rows.items()} == dict.fromkeys(urls, "ok")


def test_keys_are_positions(tmp_path: Path, web: Web) -> None:
    """The same row has another name where shards have another size; ours is named by its address."""
    key = engine.load_downloader().compute_key
    assert key(0, 1, 1, 5) != key(10, 0, 2, 5)  # row 10, in shards of 10 and of 100
    web.routes = {f"/{i}.jpg": answer(GOOD) for i in range(12)}
    urls = [web.url + path for path in web.routes]
    names = []
    for part_urls in (5, 100):
        folder = tmp_path / str(part_urls)
        run_ours(folder, urls, part_urls)
        names.append([name for tar in sorted((folder / "images").glob("*.tar")) for name in names_in(tar) or []])
    assert len(names[0]) == 12
    assert names[0] == names[1]


_PEAK = """
import sys
sys.path.insert(0, sys.argv[1])
import pyarrow as pa
file, out = sys.argv[2], sys.argv[3]
{body}
print(pa.default_memory_pool().max_memory() // 2**20)
"""
_BARE_READER = """
from img2dataset.reader import Reader
next(iter(Reader(file, "parquet", "url", "caption", None, None, None, 100_000, set(), out)))
"""
_OUR_READER = """
from crawler.sources import open_source
from crawler.sources.base import CrawlLimits
source = open_source("list:" + file, CrawlLimits())
next(iter(source.read(source.units()[0])))
"""


def arrow_peak_mib(reader: str, file: Path, out: Path) -> int:
    """The most that Arrow held at a time, up to the first shard (or row) of a list."""
    out.mkdir(parents=True)
    command = [sys.executable, "-c", _PEAK.format(body=reader), str(Path(__file__).parents[2]), str(file), str(out)]
    environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, env=environment)
    return int(done.stdout.splitlines()[-1])


def test_the_whole_list_is_read_into_memory(tmp_path: Path) -> None:
    """For the first shard of a list, the bare tool holds all of it; ours holds a bounded piece."""
    urls = [f"https://example.org/a/long/path/{i:08d}/picture-of-a-face.jpg" for i in range(1_000_000)]
    table = pa.table({"url": urls, "caption": urls})
    file = tmp_path / "list.parquet"
    pq.write_table(table, file, row_group_size=100_000)
    whole_mib = table.nbytes >> 20
    assert arrow_peak_mib(_BARE_READER, file, tmp_path / "bare") >= whole_mib
    assert arrow_peak_mib(_OUR_READER, file, tmp_path / "ours") < whole_mib / 2
