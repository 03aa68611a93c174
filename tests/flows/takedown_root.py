"""What the tests of takedowns look for: any byte of a picture or of an address, in any file of a root."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow.parquet as pq

CHUNK = 48


def chunks_of(jpeg: bytes) -> list[bytes]:
    """Some pieces of a JPEG's own data: tables and headers, which other pictures share, left out."""
    start = jpeg.rfind(b"\xff\xda") + 16
    body = jpeg[start:-2]
    places = (len(body) * i // 6 for i in range(6))
    return [piece for place in places if len(piece := body[place : place + CHUNK]) == CHUNK and len(set(piece)) > 12]


def residue(root: Path, needles: Iterable[bytes]) -> dict[str, set[bytes]]:
    """Files of the root that hold a needle, as they lie on disk or as rows of Parquet."""
    wanted = list(needles)
    found: dict[str, set[bytes]] = {}
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        for data in _readings(path):
            hits = {needle for needle in wanted if needle in data}
            if hits:
                found.setdefault(path.relative_to(root).as_posix(), set()).update(hits)
    return found


def _readings(path: Path) -> Iterator[bytes]:
    yield path.read_bytes()
    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            yield repr(file.metadata.to_dict()).encode()
            yield "\n".join(map(repr, file.read().to_pylist())).encode("utf-8", "surrogatepass")


def shard_hashes(root: Path) -> dict[str, bytes]:
    """Bytes of every shard of a root."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.glob("shards/*/*.tar"))}


def crop_of(root: Path, row_id: str) -> tuple[str, bytes]:
    """The shard that holds a sample, and the sample's JPEG."""
    for path in sorted(root.glob("shards/*/*.tar")):
        with tarfile.open(path) as tar:
            if f"{row_id}.jpg" in tar.getnames():
                file = tar.extractfile(f"{row_id}.jpg")
                assert file is not None
                return path.relative_to(root).as_posix(), file.read()
    raise AssertionError(f"no shard holds {row_id}")
