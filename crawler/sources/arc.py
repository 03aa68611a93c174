"""ARC, the Internet Archive's format before WARC, which FastWARC does not read.

A record is one line "URL IP date type length" (version 2 has more fields before the length), an HTTP answer of that
length, and a line end. (https://archive.org/web/researcher/ArcFileFormat.php)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import BinaryIO

from crawler.compression import DamagedError, Members
from crawler.sources.records import Archive
from crawler.streams import open_raw

_HEADER = re.compile(r"(\S.*) (\S+) (\d{14})\d* (?:.* )?(\d+)")
_MAX_LINE_BYTES = 16 << 10
_READ_BYTES = 64 << 10


@dataclass(frozen=True)
class ArcRecord:
    """One record; `block` is None where it is longer than the reader may hold."""

    url: str
    date: datetime
    block: bytes | None
    offset: int


def arc_records(archive: Archive, max_bytes: int) -> Iterator[ArcRecord]:
    """Records, the file's description of itself apart. Raises DamagedError at a broken header line or block."""
    with open_raw(archive.address) as raw:
        reader = _Reader(raw, archive.compression)
        while (line := reader.line()) is not None:
            if not line.strip():
                continue
            offset = reader.begin
            url, date, length = _header(line, offset)
            block = reader.block(length, max_bytes, offset)
            if not url.startswith("filedesc:"):
                yield ArcRecord(url, date, block, offset)


def _header(line: bytes, offset: int) -> tuple[str, datetime, int]:
    match = _HEADER.fullmatch(line.decode("utf-8", "replace").strip())
    if match is None:
        raise DamagedError(f"no ARC header line where one should be ({line[:60]!r})", offset)
    try:
        date = datetime.strptime(match[3], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError as error:
        raise DamagedError(f"an ARC header line has a date that is none ({match[3]})", offset) from error
    return match[1], date, int(match[4])


class _Reader:
    """Lines and blocks; `begin` is where, in the stored file, the last line or the member around it began."""

    def __init__(self, raw: BinaryIO, compression: str | None) -> None:
        self._members = Members(raw, compression) if compression else None
        self._raw = raw
        self._buffer = b""
        self._source = 0  # plain files: of the buffer's first byte; compressed: of the member it came from
        self.begin = 0

    def line(self) -> bytes | None:
        """Up to and with the next line feed; None at the end of the file."""
        if not self._buffer and not self._fill():
            return None
        self.begin = self._source
        while b"\n" not in self._buffer and len(self._buffer) < _MAX_LINE_BYTES and self._fill():
            pass
        end = self._buffer.find(b"\n", 0, _MAX_LINE_BYTES) + 1
        return self._take(end or min(len(self._buffer), _MAX_LINE_BYTES))

    def block(self, length: int, max_bytes: int, offset: int) -> bytes | None:
        """The next `length` bytes, or None (skipped) where they are over `max_bytes`."""
        parts: list[bytes] = []
        left = length
        while left:
            if not self._buffer and not self._fill():
                message = f"the file ends in the middle of a record ({length - left} of {length} bytes)"
                raise DamagedError(message, offset)
            part = self._take(min(left, len(self._buffer)))
            left -= len(part)
            if length <= max_bytes:
                parts.append(part)
        return b"".join(parts) if length <= max_bytes else None

    def _take(self, count: int) -> bytes:
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        if self._members is None:
            self._source += count
        return taken

    def _fill(self) -> bool:
        data = (self._members or self._raw).read(_READ_BYTES)
        if self._members is not None and not self._buffer:
            self._source = self._members.member_offset
        self._buffer += data or b""
        return bool(data)
