"""What earlier releases know of the addresses of a part: known/images.parquet (IMAGES, settled, recheck)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from warehouse.schema import IMAGES, Status

_HEADER_CHARS = 1024


@dataclass(frozen=True)
class Known:
    """A row of IMAGES as the lake has it. `settled`: it is not asked for again; `recheck`: asked conditionally."""

    row: dict[str, Any]
    settled: bool
    recheck: bool

    @property
    def is_ok(self) -> bool:
        return bool(self.row["status"] == Status.OK)

    @property
    def validators(self) -> tuple[tuple[str, str], ...]:
        """The headers of a conditional request (RFC 9110, 13.1), of a known picture; none where it had no validator."""
        if not (self.recheck and self.is_ok):
            return ()
        pairs = (("If-None-Match", self.row["etag"]), ("If-Modified-Since", self.row["last_modified"]))
        return tuple((name, value) for name, value in pairs if value)


def known_images_path(crawl_dir: Path) -> Path:
    return crawl_dir / "known" / "images.parquet"


def read_known(crawl_dir: Path, url_ids: Collection[str]) -> dict[str, Known]:
    """What is known of `url_ids`. A part is a range of url_id, so only row groups of that range are read."""
    path = known_images_path(crawl_dir)
    if not url_ids or not path.is_file():
        return {}
    between = [("url_id", ">=", min(url_ids)), ("url_id", "<=", max(url_ids))]
    wanted = frozenset(url_ids)
    rows = pq.read_table(path, columns=[*IMAGES.names, "settled", "recheck"], filters=between).to_pylist()
    return {
        row["url_id"]: Known({name: row[name] for name in IMAGES.names}, row["settled"], row["recheck"])
        for row in rows
        if row["url_id"] in wanted
    }


def validator(value: str | None) -> str | None:
    """An ETag or Last-Modified value as it may be sent back; None for one that no header could hold."""
    if value is None or len(value) > _HEADER_CHARS or not (value.isascii() and value.isprintable()):
        return None
    return value or None
