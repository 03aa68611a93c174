"""Files wherever they lie: globs, fingerprints, compression by content, damage with its place, http and s3."""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import os
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import lz4.frame
import pytest
import zstandard
from ranges_server import RangesServer, serve_ranges

from crawler.compression import DamagedError, Members
from crawler.errors import InputError
from crawler.streams import expand, open_binary, open_raw

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.compress,
    "lz4": lz4.frame.compress,
    "bzip2": bz2.compress,
}
PARTS = [b"one " * 5000, bytes(range(256)) * 40, b"three"]


@pytest.mark.parametrize("kind", COMPRESSORS)
@pytest.mark.parametrize("name", ["data.bin", "data.gz", "data.parquet"])
def test_compression_is_told_by_content(kind: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"".join(map(COMPRESSORS[kind], PARTS)))
    with open_binary(str(tmp_path / name)) as file:
        assert file.read() == b"".join(PARTS)


def test_plain_files_stay_seekable(tmp_path: Path) -> None:
    (tmp_path / "data.gz").write_bytes(b"not compressed")
    with open_binary(str(tmp_path / "data.gz")) as file:
        file.seek(4)
        assert file.read() == b"compressed"


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_damage_is_placed_at_the_member_that_is_broken(kind: str, tmp_path: Path) -> None:
    members = list(map(COMPRESSORS[kind], PARTS))
    whole = b"".join(members)
    last = len(whole) - len(members[-1])
    for data, place in ((whole[:-3], last), (whole + b"rubbish", len(whole))):
        (tmp_path / "data").write_bytes(data)
        with open_binary(str(tmp_path / "data")) as file:
            assert file.read(20_000) == PARTS[0]
            with pytest.raises(DamagedError) as error:
                file.read()
        assert error.value.offset == place


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_members_are_walked(kind: str) -> None:
    members = list(map(COMPRESSORS[kind], PARTS))
    walker = Members(io.BytesIO(b"".join(members) + bytes(512)), kind)
    ends = [walker.next_member() for _ in PARTS]
    assert ends[:2] == [len(members[0]), len(members[0]) + len(members[1])]
    assert ends[2] == sum(map(len, members)) + 512  # zero bytes at the end are padding


@pytest.mark.e2e
@pytest.mark.parametrize("kind", COMPRESSORS)
def test_a_bomb_is_read_in_bounded_memory(kind: str) -> None:
    bomb = COMPRESSORS[kind](bytes(30_000_000))
    tracemalloc.start()
    try:
        with io.BufferedReader(Members(io.BytesIO(bomb), kind), 1 << 16) as file:
            count = sum(map(len, iter(functools.partial(file.read, 1 << 20), b"")))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 30_000_000
    assert peak < 25_000_000


def test_globs_are_expanded_in_order_with_fingerprints(tmp_path: Path) -> None:
    for name in ("b/2.gz", "a/1.gz", "a/deep/3.gz", "a/other.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * len(name))
    assert [Path(u.name).relative_to(tmp_path).as_posix() for u in expand(f"{tmp_path}/*/*.gz")] == ["a/1.gz", "b/2.gz"]
    assert len(expand(f"{tmp_path}/**/*.gz")) == 3
    before = expand(f"{tmp_path}/a/1.gz")[0].fingerprint
    assert before.startswith("6-")
    os.utime(tmp_path / "a/1.gz", ns=(1, 1))
    assert expand(f"file://{tmp_path}/a/1.gz")[0].fingerprint != before


def test_a_file_with_glob_characters_in_its_name_is_itself(tmp_path: Path) -> None:
    (tmp_path / "crawl[1].gz").write_bytes(b"")
    assert [Path(unit.name).name for unit in expand(f"{tmp_path}/crawl[1].gz")] == ["crawl[1].gz"]


def test_relative_names_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.gz").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert expand("x.gz")[0].name == str(tmp_path / "x.gz")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("{}/missing.gz", "no file matches"),
        ("{}/*.gz", "no file matches"),
        ("{}", "no file matches"),
        ("gopher://host/x", "gopher"),
    ],
)
def test_what_is_not_there_is_one_clear_line(address: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words) as error:
        expand(address.format(tmp_path))
    assert "\n" not in str(error.value)


def test_opening_what_is_not_there(tmp_path: Path) -> None:
    for name in ("missing", "."):
        with pytest.raises(InputError, match="cannot read"):
            open_raw(str(tmp_path / name))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[RangesServer]:
    with serve_ranges(tmp_path) as server:
        yield server


@pytest.mark.e2e
def test_http_files_are_read_in_ranges(served: RangesServer) -> None:
    address, folder = served.address, served.root
    data = os.urandom(9 << 20)
    (folder / "big.gz").write_bytes(gzip.compress(data, 1))
    [unit] = expand(f"{address}/big.gz")
    assert unit.name == f"{address}/big.gz"
    assert unit.fingerprint.endswith("-state-1")
    with open_binary(unit.name) as file:
        assert file.read(1000) == data[:1000]
        assert len(served.ranges) <= 2  # not the whole file for its first bytes
        assert file.read() == data[1000:]
    assert 3 <= len(served.ranges) <= 5


@pytest.mark.e2e
def test_a_failed_range_is_asked_for_again_and_then_is_damage(
    served: RangesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crawler.streams._RETRY_WAITS_S", (0.0, 0.0))
    address, folder = served.address, served.root
    data = os.urandom(9 << 20)
    (folder / "big").write_bytes(data)
    with open_binary(f"{address}/big") as file:
        assert file.read(10) == data[:10]
        served.failures = 2
        assert file.read() == data[10:]
        file.seek(0)
        served.failures = 3
        with pytest.raises(DamagedError, match="the transfer broke off at byte 0"):
            file.read()


@pytest.mark.e2e
def test_http_files_that_are_not_there(served: RangesServer, closed_port: int) -> None:
    with pytest.raises(InputError, match="no file matches"):
        expand(f"{served.address}/missing.gz")
    with pytest.raises(InputError, match="cannot read"):
        open_raw(f"{served.address}/missing.gz")
    with pytest.raises(InputError, match="cannot read"):
        expand(f"http://127.0.0.1:{closed_port}/x.gz")


@pytest.mark.e2e
def test_s3_globs_and_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    boto3 = pytest.importorskip("boto3")
    s3fs = pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        for name, value in (
            ("AWS_ENDPOINT_URL", endpoint),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
        ):
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        client = boto3.client("s3", endpoint_url=endpoint)
        client.create_bucket(Bucket="crawls")
        for name, body in (("a/1.gz", b"first"), ("a/2.gz", b"second"), ("b/3.txt", b"third")):
            client.put_object(Bucket="crawls", Key=name, Body=gzip.compress(body))
        units = expand("s3://crawls/a/*.gz")
        assert [unit.name for unit in units] == ["s3://crawls/a/1.gz", "s3://crawls/a/2.gz"]
        assert len({unit.fingerprint for unit in units}) == 2
        assert "" not in {unit.fingerprint for unit in units}
        with open_binary(units[1].name) as file:
            assert file.read() == b"second"
        with pytest.raises(InputError, match="no file matches"):
            expand("s3://crawls/c/*.gz")
        with pytest.raises(InputError, match=r"cannot read|no file"):
            expand("s3://no-such-bucket/x.gz")
    finally:
        server.stop()
        s3fs.S3FileSystem.clear_instance_cache()
