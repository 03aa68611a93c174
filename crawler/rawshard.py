"""A raw shard: a tar of original bytes in the order of url_id, with the table that says what lies where.

Rows come in the order in which downloads end. Their bytes are spooled, and the tar is written at the end: sorted,
times and owners zero, so that the same pictures always give the same file.
"""

from __future__ import annotations

import hashlib
import tarfile
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from warehouse.schema import Reason, Status

# A header with an empty name and checksum; the checksum counts its own eight bytes as blanks (POSIX.1-1988 ustar).
_HEADER = tarfile.TarInfo("").tobuf(tarfile.USTAR_FORMAT)
_HEADER = _HEADER[:148] + b"\0" * 7 + _HEADER[155:]
_CHECKSUM_BLANKS = 8 * 32 - _HEADER[155]

_SPOOL_BYTES = 64 * 1024 * 1024  # spooled in memory up to here, in a file beyond


@dataclass(frozen=True)
class Outcome:
    """How the download of one address ended. `kind` is the file ending of the picture where status is ok.

    `kept` is the row of IMAGES that the lake has already, with its bytes in an earlier shard: it is written as it is.
    """

    status: Status
    reason: Reason | None
    error: str | None
    http_status: int | None
    attempts: int
    fetched_at: datetime
    kind: str | None = None
    final_url: str | None = None
    etag: str | None = None
    last_modified: str | None = None
    kept: dict[str, Any] | None = None


@dataclass(frozen=True)
class _Spooled:
    offset: int
    size: int
    sha256: str


class RawShardWriter:
    """Takes the bytes of pictures in any order; `finish` writes the tar and returns the rows of the IMAGES table."""

    def __init__(self, folder: Path) -> None:
        self._spool = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES, dir=str(folder))  # noqa: SIM115
        self._spooled: dict[str, _Spooled] = {}

    def add(self, url_id: str, data: bytes) -> None:
        self._spooled[url_id] = _Spooled(self._spool.tell(), len(data), hashlib.sha256(data).hexdigest())
        self._spool.write(data)

    def __contains__(self, url_id: str) -> bool:
        return url_id in self._spooled

    def close(self) -> None:
        self._spool.close()

    def finish(self, tar: Path, raw_shard: str, urls: dict[str, str], outcomes: dict[str, Outcome]) -> list[Any]:
        """Write `tar`, a name that nobody looks at yet, in a folder that is there; one row per address of `urls`
        (url_id -> address), sorted by url_id."""
        rows = []
        with tar.open("wb") as archive:
            for url_id in sorted(urls):
                row = outcomes[url_id].kept or _row(url_id, urls[url_id], outcomes[url_id])
                if outcomes[url_id].status is Status.OK and outcomes[url_id].kept is None:
                    row |= self._store(archive, url_id, str(outcomes[url_id].kind), raw_shard)
                rows.append(row)
            archive.write(bytes(-(archive.tell() + 2 * tarfile.BLOCKSIZE) % tarfile.RECORDSIZE + 2 * tarfile.BLOCKSIZE))
        return rows

    def _store(self, archive: BinaryIO, url_id: str, kind: str, raw_shard: str) -> dict[str, Any]:
        spooled = self._spooled[url_id]
        archive.write(_member_header(f"{url_id}.{kind}", spooled.size))
        offset = archive.tell()
        self._spool.seek(spooled.offset)
        archive.write(self._spool.read(spooled.size))
        archive.write(bytes(-spooled.size % tarfile.BLOCKSIZE))
        return {
            "image_id": spooled.sha256,
            "raw_shard": raw_shard,
            "raw_offset": offset,
            "raw_bytes": spooled.size,
        }


def _member_header(name: str, size: int) -> bytes:
    """The ustar header of a member: what tarfile.TarInfo(name).tobuf gives, from one made before (10 times faster)."""
    block = bytearray(_HEADER)
    block[: len(name)] = name.encode("ascii")
    block[124:135] = b"%011o" % size
    block[148:155] = b"%06o\0" % (sum(block) + _CHECKSUM_BLANKS)
    return bytes(block)


def _row(url_id: str, image_url: str, outcome: Outcome) -> dict[str, Any]:
    return {
        "url_id": url_id,
        "image_url": image_url,
        "status": outcome.status,
        "reason": outcome.reason,
        "error": outcome.error,
        "http_status": outcome.http_status,
        "attempts": outcome.attempts,
        "fetched_at": outcome.fetched_at,
        "image_id": None,
        "raw_shard": None,
        "raw_offset": None,
        "raw_bytes": None,
        "final_url": outcome.final_url,
        "etag": outcome.etag,
        "last_modified": outcome.last_modified,
    }
