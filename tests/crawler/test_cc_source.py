"""cc: against a server with a small Common Crawl tree, over HTTP and S3."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest
from archives import pairs, wat, write
from ranges_server import serve_ranges

from crawler.errors import InputError
from crawler.extraction import list_units
from crawler.sources import CrawlLimits, open_source

CRAWL = "CC-MAIN-2024-10"
FILES = [f"crawl-data/{CRAWL}/segments/1/wat/{n:05d}.warc.wat.gz" for n in range(4)]

pytestmark = pytest.mark.e2e


def make_tree(root: Path) -> None:
    for number, name in enumerate(FILES):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        link = {"path": "IMG@/src", "url": f"{number}.jpg", "alt": f"Picture {number}"}
        write(root / name, wat([link], f"https://example.org/{number}/"))
    (root / f"crawl-data/{CRAWL}/wat.paths.gz").write_bytes(gzip.compress("\n".join([*FILES, ""]).encode()))


@pytest.fixture
def base(tmp_path: Path) -> Iterator[str]:
    make_tree(tmp_path / "web")
    with serve_ranges(tmp_path / "web") as server:
        yield server.address


def test_a_crawl_is_its_published_wat_files(base: str) -> None:
    source = open_source(f"cc:{CRAWL}", CrawlLimits(cc_base=base))
    units = source.units()
    assert [unit.name for unit in units] == [f"{base}/{name}" for name in FILES]
    assert {unit.fingerprint for unit in units} == {CRAWL}
    assert pairs(source.read(units[2])) == [("https://example.org/2/", "https://example.org/2/2.jpg")]


def test_a_slice_and_what_lies_beyond(base: str) -> None:
    limits = CrawlLimits(cc_base=f"{base}/")
    assert [u.name[-17:-12] for u in open_source(f"cc:{CRAWL}[1:3]", limits).units()] == ["00001", "00002"]
    with pytest.raises(InputError, match="has 4 WAT files, none of them in the slice"):
        open_source(f"cc:{CRAWL}[9:]", limits).units()


def test_a_limit_counts_files_that_were_not_read_yet(base: str, tmp_path: Path) -> None:
    limits = CrawlLimits(cc_base=base, limit=2)
    first = list_units(f"cc:{CRAWL}", limits, tmp_path / "night1")
    done = {(unit.name, unit.fingerprint) for unit in first}
    second = list_units(f"cc:{CRAWL}", limits, tmp_path / "night2", done)
    third = list_units(f"cc:{CRAWL}", limits, tmp_path / "night3", done | {(u.name, u.fingerprint) for u in second})
    assert [unit.name for unit in first + second] == [f"{base}/{name}" for name in FILES]
    assert third == []


def test_crawls_that_are_not_there_or_broken(base: str, tmp_path: Path, closed_port: int) -> None:
    with pytest.raises(InputError, match="no crawl CC-MAIN-1999-01"):
        open_source("cc:CC-MAIN-1999-01", CrawlLimits(cc_base=base)).units()
    with pytest.raises(InputError, match="no crawl"):
        open_source(f"cc:{CRAWL}", CrawlLimits(cc_base=f"http://127.0.0.1:{closed_port}/")).units()
    paths = tmp_path / f"web/crawl-data/{CRAWL}/wat.paths.gz"
    whole = paths.read_bytes()
    paths.write_bytes(whole[:-12])
    with pytest.raises(InputError, match="is broken"):
        open_source(f"cc:{CRAWL}", CrawlLimits(cc_base=base)).units()
    paths.write_bytes(b"<html>Not here")
    with pytest.raises(InputError, match="is no list of paths"):
        open_source(f"cc:{CRAWL}", CrawlLimits(cc_base=base)).units()


def test_a_crawl_on_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boto3 = pytest.importorskip("boto3")
    s3fs = pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    make_tree(tmp_path)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        for name, value in (("ENDPOINT_URL", endpoint), ("ACCESS_KEY_ID", "test"), ("SECRET_ACCESS_KEY", "test")):
            monkeypatch.setenv(f"AWS_{name}", value)
        s3fs.S3FileSystem.clear_instance_cache()
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="commoncrawl")
        for path in tmp_path.rglob("*.gz"):
            client.put_object(Bucket="commoncrawl", Key=path.relative_to(tmp_path).as_posix(), Body=path.read_bytes())
        source = open_source(f"cc:{CRAWL}[3]", CrawlLimits(cc_base="s3://commoncrawl/"))
        [unit] = source.units()
        assert pairs(source.read(unit)) == [("https://example.org/3/", "https://example.org/3/3.jpg")]
        globbed = open_source(f"wat:s3://commoncrawl/crawl-data/{CRAWL}/segments/*/wat/*.wat.gz").units()
        assert [unit.name for unit in globbed] == [f"s3://commoncrawl/{name}" for name in FILES]
    finally:
        server.stop()
        s3fs.S3FileSystem.clear_instance_cache()
