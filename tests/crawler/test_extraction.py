"""Extraction: units become files once, whatever kills the process that makes them."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crawler import sources
from crawler.address import authority_of
from crawler.errors import InputError
from crawler.extraction import (
    extract_unit,
    list_units,
    read_unit_stats,
    unit_path,
    write_unit,
    write_units,
)
from crawler.files import read_rows
from crawler.plan import part_path, plan_crawl, write_plan
from crawler.rows import EXTRACTED, Identifier, content_ids, found_batch
from crawler.sources import Candidate, Caption
from crawler.sources.base import Damage, Found, PageVisit, StoredPicture, Unit
from crawler.sources.list import ListSource
from crawler.stored import STORED, StoredWriter, read_stored
from warehouse.schema import PAGES, CaptionKind, content_id, row_id, url_id

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def picture(name: str, body: bytes, hours: int = 0) -> StoredPicture:
    headers = (("content-type", "image/jpeg"), ("x-robots-tag", "a, b: c"))
    return StoredPicture(f"https://a.example/{name}", body, headers, NOW + timedelta(hours=hours))


def candidate(name: str, page: str = "https://a.example/") -> Candidate:
    return Candidate(page, f"https://a.example/{name}", (Caption(CaptionKind.ALT, "x"),), "")


class Memory:
    """A source with two units, one of each item; counts what is read."""

    reads: list[str]

    def units(self) -> Sequence[Unit]:
        return [Unit("a", "1"), Unit("b", "1"), Unit("c")]

    def read(self, unit: Unit) -> Iterator[Found]:
        self.reads.append(unit.name)
        yield candidate(f"{unit.name}.jpg")
        yield PageVisit(f"https://a.example/{unit.name}", 200, None, None, None, NOW)
        yield picture(f"{unit.name}.jpg", unit.name.encode())
        yield Damage("file", 17, "cut short")


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    source = Memory()
    source.reads = []
    monkeypatch.setattr(sources, "open_source", lambda spec, limits=None: source)
    return source


def files(crawl_dir: Path) -> dict[str, str]:
    """Every file of a crawl with a hash of its bytes."""
    return {
        path.relative_to(crawl_dir).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(crawl_dir.rglob("*"))
        if path.is_file()
    }


def test_units_are_listed_once_and_read_ones_left_out(tmp_path: Path, memory: Memory) -> None:
    assert list_units("m", None, tmp_path, {("a", "1"), ("b", "2"), ("c", "")}) == [Unit("b", "1"), Unit("c")]
    assert list_units("m", None, tmp_path) == [Unit("b", "1"), Unit("c")], "a crawl that goes on reads the same"
    assert list_units("m", None, tmp_path / "other", {("a", "1"), ("b", "1")}) == [Unit("c")]


def test_a_mended_list_is_read_again(tmp_path: Path) -> None:
    """A file that cannot be read stops a crawl; when it is mended or gone, the others are not read twice."""
    spec, crawl_dir = f"list:{tmp_path}/*.csv", tmp_path / "crawl"
    for number in (1, 2, 3):
        (tmp_path / f"{number}.csv").write_text(f"{'link' if number == 2 else 'url'}\nhttp://a.example/{number}\n")
    list_units(spec, None, crawl_dir)
    extract_unit(spec, None, crawl_dir, 0)
    extract_unit(spec, None, crawl_dir, 2)
    with pytest.raises(InputError, match="no column of picture addresses"):
        extract_unit(spec, None, crawl_dir, 1)
    (tmp_path / "2.csv").unlink()
    units = list_units(spec, None, crawl_dir)
    assert [Path(unit.name).name for unit in units] == ["1.csv", "3.csv"]
    assert [read_unit_stats(crawl_dir, index) is not None for index in (0, 1, 2)] == [True, False, False]
    extract_unit(spec, None, crawl_dir, 1)
    assert plan_crawl(crawl_dir, 10, spec).urls == 2


def test_a_source_without_pictures_is_read_again_when_it_has_some(tmp_path: Path) -> None:
    spec, crawl_dir = f"list:{tmp_path}/list.csv", tmp_path / "crawl"
    for text, urls in (("url\n", 0), ("url\nhttp://a.example/1\n", 1)):
        (tmp_path / "list.csv").write_text(text)
        list_units(spec, None, crawl_dir)
        assert extract_unit(spec, None, crawl_dir, 0).pairs == urls
        if urls:
            assert plan_crawl(crawl_dir, 10, spec).urls == urls
        else:
            with pytest.raises(InputError, match=r"gave no picture \(.*holds no picture address\)"):
                plan_crawl(crawl_dir, 10, spec)


def test_a_unit_becomes_its_files(tmp_path: Path, memory: Memory) -> None:
    list_units("m", None, tmp_path)
    stats = extract_unit("m", None, tmp_path, 1)
    assert (stats.unit, stats.fingerprint, stats.pairs, stats.pages, stats.stored) == ("b", "1", 1, 1, 1)
    assert stats.warning == "file, byte 17: cut short"
    assert read_unit_stats(tmp_path, 1) == stats
    assert read_unit_stats(tmp_path, 0) is None
    for suffix, schema in (("pairs", EXTRACTED), ("pages", PAGES), ("stored", STORED)):
        assert pq.read_schema(unit_path(tmp_path, 1, f"{suffix}.parquet")).equals(schema)
    [row] = read_rows(unit_path(tmp_path, 1, "pairs.parquet"))
    assert (row["row_id"], row["url_id"]) == (
        row_id("https://a.example/", "https://a.example/b.jpg"),
        url_id("https://a.example/b.jpg"),
    )
    assert (row["page_host"], row["image_host"], row["source"]) == ("https://a.example", "https://a.example", "m")


def test_a_finished_unit_is_not_read_again(tmp_path: Path, memory: Memory) -> None:
    list_units("m", None, tmp_path)
    first = extract_unit("m", None, tmp_path, 0)
    assert extract_unit("m", None, tmp_path, 0) == first
    assert memory.reads == ["a"]


def test_progress_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "list.csv").write_text("url\n" + "".join(f"http://a.example/{i}\n" for i in range(250)))
    told: list[int] = []
    list_units(f"list:{tmp_path}/list.csv", None, tmp_path / "crawl")
    extract_unit(f"list:{tmp_path}/list.csv", None, tmp_path / "crawl", 0, told.append)
    assert told == [250]


@pytest.mark.parametrize("after", range(4))
def test_a_source_that_fails_leaves_no_file_and_starts_anew(tmp_path: Path, memory: Memory, after: int) -> None:
    def dies() -> Iterator[Found]:
        for _, item in zip(range(after), memory.read(Unit("a")), strict=False):
            yield item
        raise KeyboardInterrupt

    write_units(tmp_path, [Unit("a", "1")])
    with pytest.raises(KeyboardInterrupt):
        write_unit(tmp_path, 0, Unit("a", "1"), "m", dies())
    assert list(files(tmp_path)) == ["extract/units.json"]
    for suffix in ("stored.bin", "stored.parquet", "pages.parquet"):  # renamed by a run that was killed then
        unit_path(tmp_path, 0, suffix).write_bytes(b"from another state of the file")
    write_unit(tmp_path, 0, Unit("a", "1"), "m", [candidate("1.jpg")])
    assert list(files(tmp_path)) == ["extract/00000.pairs.parquet", "extract/00000_done.json", "extract/units.json"]


def test_identities_and_hosts_are_those_of_the_schema() -> None:
    urls = [
        "https://a.example/1.jpg",
        "HTTPS://A.Example:443/x",
        "http://a.example",
        "http://a.example?x",
        "http://ü.example/ü.jpg",
        "http://a.example:99999/",
        "http://u:p@a.example/",
        "http://[::1]:80/x",
        " http://a.example/ ",
        "http://a.example/" + "x" * 9000,
        "http://a.example:8080/\n",
        "ftp://x/y",
        "",
        "http:///x",
        "http://a..example./x",
        "http://" + "a" * 70 + "ü.example/",
    ]
    found = found_batch([Candidate(page, image, (), "") for page in urls for image in urls])
    rows = Identifier("s").extracted(found).to_pylist()
    expected = [(page, image) for page in urls for image in urls]
    assert [(r["row_id"], r["url_id"]) for r in rows] == [(row_id(p, i), url_id(i)) for p, i in expected]
    assert [(r["page_host"], r["image_host"]) for r in rows] == [
        (authority_of(p), authority_of(i)) for p, i in expected
    ]
    part = pa.array(urls).slice(3, 4)
    assert content_ids(part).to_pylist() == [content_id(url) for url in urls[3:7]]


def test_hosts_are_forgotten_and_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crawler.rows._MAX_HOSTS", 2)
    urls = [f"http://h{i % 5}.example/{i}" for i in range(20)]
    rows = Identifier("s").extracted(found_batch([Candidate(url, url, (), "") for url in urls])).to_pylist()
    assert [row["image_host"] for row in rows] == [authority_of(url) for url in urls]


def test_lone_surrogates_do_not_stop_a_unit(tmp_path: Path) -> None:
    odd = Candidate("https://a.example/\ud800", "https://a.example/1", (Caption(CaptionKind.ALT, "\ud800"),), "")
    assert write_unit(tmp_path, 0, Unit("a"), "m", [odd]).pairs == 1
    assert read_rows(unit_path(tmp_path, 0, "pairs.parquet"))[0]["page_url"] == "https://a.example/?"


def test_columns_give_the_same_files_as_rows(tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    lines = [f'{{"url": "http://H{i % 7}.example/{i % 90}", "text": " a  {i} é"}}\n' for i in range(100)]
    path.write_text("".join(lines), encoding="utf-8")
    source = ListSource(str(path))
    [unit] = source.units()
    write_unit(tmp_path / "fast", 0, unit, "s", source.batches(unit))
    write_unit(tmp_path / "slow", 0, unit, "s", source.read(unit))
    assert files(tmp_path / "fast") == files(tmp_path / "slow")


def test_large_units_are_written_in_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crawler.unitfiles._BATCH_ROWS", 10)
    monkeypatch.setattr("crawler.unitfiles._RUN_ROWS", 40)
    monkeypatch.setattr("crawler.unitfiles._GROUP_ROWS", 15)
    assert write_unit(tmp_path, 0, Unit("a"), "m", (candidate(f"{i}.jpg") for i in range(95))).pairs == 95
    rows = [row["url_id"] for row in read_rows(unit_path(tmp_path, 0, "pairs.parquet"))]
    assert set(rows) == {url_id(f"https://a.example/{i}.jpg") for i in range(95)}
    assert all(run == sorted(run) for run in (rows[:40], rows[40:80], rows[80:]))


def test_stored_pictures_of_planned_pairs_are_at_hand(tmp_path: Path) -> None:
    listed = [Unit("a", "1"), Unit("b", "1")]
    write_units(tmp_path, listed)
    found: list[list[Found]] = [
        [candidate("1.jpg"), candidate("2.jpg"), picture("1.jpg", b"old", 0), picture("3.jpg", b"shown by no page")],
        [picture("1.jpg", b"new", 1), picture("2.jpg", b""), picture("2.jpg", b"later", 2), picture("1.jpg", b"x", -1)],
    ]
    for index, items in enumerate(found):
        write_unit(tmp_path, index, listed[index], "s", items)
    plan_crawl(tmp_path, 10, "s")
    ids = [url_id(f"https://a.example/{n}.jpg") for n in (1, 2, 3)]
    at_hand = dict(read_stored(tmp_path, ids))
    assert at_hand == {ids[0]: picture("1.jpg", b"new", 1), ids[1]: picture("2.jpg", b"later", 2)}
    assert [url for url, _ in read_stored(tmp_path, ids[:1])] == ids[:1]
    assert list(read_stored(tmp_path, [])) == []
    assert list(read_stored(tmp_path / "none", ids)) == []


def test_of_stored_pictures_of_one_time_the_same_is_taken_in_any_order(tmp_path: Path) -> None:
    chosen = set()
    for name, items in (("a", [b"x", b"y"]), ("b", [b"y", b"x"])):
        write_plan([candidate("1.jpg"), *(picture("1.jpg", body) for body in items)], tmp_path / name / "plan", 10, "s")
        [(_, found)] = read_stored(tmp_path / name, [url_id("https://a.example/1.jpg")])
        chosen.add(found.body)
    assert len(chosen) == 1


def test_a_stored_picture_that_is_damaged_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_plan([candidate("1.jpg"), picture("1.jpg", b"body")], tmp_path / "plan", 10, "s")
    unit_path(tmp_path, 0, "stored.bin").write_bytes(b"bodx")
    assert list(read_stored(tmp_path, [url_id("https://a.example/1.jpg")])) == []
    assert "damaged" in caplog.text


def test_stored_bytes_are_bounded(tmp_path: Path) -> None:
    writer = StoredWriter(tmp_path / "b", tmp_path / "i", "b", max_bytes=10)
    for body in (b"12345678", b"123", b"12"):
        writer.add(picture("x", body))
    writer.close()
    assert (writer.count, writer.left_out, (tmp_path / "b").read_bytes()) == (2, 1, b"1234567812")


def test_units_of_an_unreadable_file_say_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file matches"):
        list_units(f"list:{tmp_path}/none*.csv", None, tmp_path / "crawl")
    assert not (tmp_path / "crawl").exists()


_CHILD = """
import sys
from pathlib import Path
from crawler.extraction import extract_unit, list_units
from crawler.plan import plan_crawl
source, folder = "list:" + sys.argv[1], Path(sys.argv[2])
for index in range(len(list_units(source, None, folder))):
    extract_unit(source, None, folder, index)
plan_crawl(folder, 50, source)
"""


@pytest.mark.e2e
def test_sigkill_at_any_time_changes_no_byte(tmp_path: Path) -> None:
    """Killed again and again, ever later, until it gets through: the files are those of a run in one go."""
    for unit in range(3):
        lines = [f"http://h{i % 50}.example/{i % 9000}.jpg,text {i}\n" for i in range(unit, 30_000, 3)]
        (tmp_path / f"{unit}.csv").write_text("url,caption\n" + "".join(lines))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    command = [sys.executable, "-c", _CHILD, f"{tmp_path}/*.csv"]
    started = time.monotonic()
    subprocess.run([*command, str(whole)], check=True)
    wait_s, step_s, kills = 0.2, max(0.05, (time.monotonic() - started) / 12), 0
    while True:
        child = subprocess.Popen([*command, str(killed)])
        try:
            assert child.wait(wait_s) == 0
            break
        except subprocess.TimeoutExpired:
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
            kills += 1
            wait_s += step_s
    assert kills >= 3
    assert not [path for path in killed.rglob("*") if path.name.startswith(".")], "leftovers"
    assert files(killed) == files(whole)
    pairs = [row for path in (killed / "plan").glob("*.pairs.parquet") for row in read_rows(path)]
    assert {row["image_url"] for row in pairs} == {f"http://h{i % 50}.example/{i % 9000}.jpg" for i in range(30_000)}
    assert len(pairs) == len({row["row_id"] for row in pairs}) == 9000
    assert part_path(killed / "plan", 0, "captions").is_file()
