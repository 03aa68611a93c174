"""Pictures whose bytes the source itself held: extract/<unit>.stored.bin, with an index beside it.

A stored picture is a downloaded one without a download: its headers may refuse, its bytes are judged like any others.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterator
from datetime import UTC
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from crawler.sources.base import StoredPicture
from warehouse.schema import url_id

logger = logging.getLogger(__name__)

# Of one unit. What comes after is not stored, so that it is downloaded: a unit cannot fill the disk.
MAX_STORED_BYTES = 64 << 30
_BATCH_ROWS = 1000

# `headers` are "name: value" lines, names in lower case; `file` is a name in extract/, sha256 is of the bytes.
STORED = pa.schema(
    [
        pa.field("url_id", pa.string(), nullable=False),
        pa.field("image_url", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("headers", pa.string(), nullable=False),
        pa.field("fetched_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("file", pa.string(), nullable=False),
    ]
)


class StoredWriter:
    """Appends pictures to a file of bytes and rows to its index. `name` is what the file will be called."""

    def __init__(self, bytes_file: Path, index_file: Path, name: str, max_bytes: int = MAX_STORED_BYTES) -> None:
        self._bytes: BinaryIO = bytes_file.open("wb")
        self._index = pq.ParquetWriter(index_file, STORED, compression="zstd")
        self._name = name
        self._max_bytes = max_bytes
        self._rows: list[dict[str, Any]] = []
        self.size = 0
        self.count = 0
        self.left_out = 0

    def add(self, picture: StoredPicture) -> None:
        """Store one picture; beyond the bound of the unit it is counted in `left_out` and nothing else."""
        if self.size + len(picture.body) > self._max_bytes:
            self.left_out += 1
            return
        self._bytes.write(picture.body)
        when = picture.fetched_at
        self._rows.append(
            {
                "url_id": url_id(picture.image_url),
                "image_url": picture.image_url,
                "offset": self.size,
                "bytes": len(picture.body),
                "sha256": hashlib.sha256(picture.body).hexdigest(),
                "headers": "\n".join(f"{name}: {' '.join(value.split())}" for name, value in picture.headers),
                "fetched_at": when if when.tzinfo else when.replace(tzinfo=UTC),
                "file": self._name,
            }
        )
        self.size += len(picture.body)
        self.count += 1
        if len(self._rows) >= _BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._index.write_table(pa.Table.from_pylist(self._rows, schema=STORED))
            self._rows = []

    def close(self) -> None:
        self._flush()
        self._index.close()
        self._bytes.close()


def stored_index_path(plan_dir: Path) -> Path:
    """The planned pictures that are stored, one row per url_id, in its order."""
    return plan_dir / "stored.parquet"


def read_stored(crawl_dir: Path, url_ids: Collection[str]) -> Iterator[tuple[str, StoredPicture]]:
    """The stored pictures among `url_ids` with their url_id, one at a time, in the order of url_id.

    Memory holds one picture (its source bounds its size) and the index rows of `url_ids`. Bytes that do not fit their
    hash are passed over with a warning: the picture is then downloaded like any other.
    """
    index = stored_index_path(crawl_dir / "plan")
    if not url_ids or not index.is_file():
        return
    wanted = set(url_ids)
    filters = [("url_id", ">=", min(wanted)), ("url_id", "<=", max(wanted))]
    with pq.ParquetFile(index) as file:
        if file.metadata.num_rows == 0:
            return
    for row in pq.read_table(index, filters=filters).to_pylist():
        if row["url_id"] in wanted:
            body = _bytes_of(crawl_dir / "extract" / row["file"], row)
            if body is not None:
                yield row["url_id"], StoredPicture(row["image_url"], body, _headers(row["headers"]), row["fetched_at"])


def _bytes_of(path: Path, row: dict[str, Any]) -> bytes | None:
    try:
        with path.open("rb") as file:
            file.seek(row["offset"])
            body = file.read(row["bytes"])
    except OSError as error:
        logger.warning("stored picture %s cannot be read: %s", row["image_url"], error)
        return None
    if hashlib.sha256(body).hexdigest() != row["sha256"]:
        logger.warning("stored picture %s is damaged in %s", row["image_url"], path)
        return None
    return body


def _headers(text: str) -> tuple[tuple[str, str], ...]:
    lines = (line.partition(":") for line in text.split("\n") if line)
    return tuple((name, value.strip()) for name, _, value in lines)
