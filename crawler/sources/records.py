"""WARC records one after another (FastWARC), with what FastWARC does not do: every kind of damage found, and its place.

FastWARC ends without a word where a gzip file is cut between blocks, gives cut bodies as if they were whole, and knows
no offsets in files that were compressed in one piece. Those files are therefore decompressed here, and the end of every
file is checked against its last record.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO, cast

from crawler.compression import DamagedError, Members
from crawler.errors import InputError
from crawler.streams import open_raw, sniff

if TYPE_CHECKING:
    from fastwarc.warc import WarcRecord, WarcRecordType

_HEAD_BYTES = 512
_MAX_FIRST_MEMBER_BYTES = 64 << 20  # a longer one is no record: the file was compressed in one piece
_MAX_HEADER_BYTES = 64 << 10


@dataclass(frozen=True)
class Archive:
    """What the beginning of a file says about it."""

    address: str
    compression: str | None
    by_record: bool  # each record is a member of its own: offsets are those of the stored file
    head: bytes  # its first plain bytes

    @property
    def is_arc(self) -> bool:
        return self.head.startswith(b"filedesc:")

    @property
    def is_warc(self) -> bool:
        return self.head.startswith(b"WARC/")


def open_archive(address: str) -> Archive:
    """Look at the beginning of a file. Raises InputError where it cannot be opened, DamagedError where it is broken."""
    with open_raw(address) as raw:
        kind = sniff(raw, address)
        if kind is None:
            return Archive(address, None, False, raw.read(_HEAD_BYTES))
        members = Members(raw, kind)
        plain = io.BufferedReader(members, _HEAD_BYTES)
        head = plain.read(_HEAD_BYTES)
        count = len(head)
        while members.members == 1 and count < _MAX_FIRST_MEMBER_BYTES:
            try:
                block = plain.read(1 << 16)
            except DamagedError:
                break  # met again where the records are read
            if not block:
                break
            count += len(block)
        return Archive(address, kind, members.members > 1, head)


def warc_records(archive: Archive, record_types: WarcRecordType) -> Iterator[WarcRecord]:
    """Records of these types, HTTP not parsed. Raises DamagedError after the last whole one of a broken file."""
    from fastwarc.warc import ArchiveIterator

    # Line feeds alone in the headers are against the standard, but in circulation.
    lenient = b"\r" not in archive.head.split(b"\n", 1)[0]
    last = -1
    with _plain_or_by_record(archive) as stream:
        # One record object for all: none outlives its turn.
        records = ArchiveIterator(stream, record_types, parse_http=False, quirks_mode=lenient, inplace=True)
        try:
            for record in records:
                last = record.stream_pos
                yield record
        except DamagedError:
            raise
        except BaseException as error:
            if not _is_fastwarc_error(error):
                raise
            raise DamagedError(str(error), _after(archive, last)) from error
        _check_end(archive, stream, last)


def body_of(record: WarcRecord, max_bytes: int) -> bytes | None:
    """The whole block of a record; None where it is longer than `max_bytes`. Raises DamagedError where it is cut."""
    if record.content_length > max_bytes:
        return None
    try:
        block = record.reader.read()
    except BaseException as error:
        if not _is_fastwarc_error(error):
            raise
        raise DamagedError(str(error), getattr(error, "offset", record.stream_pos)) from error
    if len(block) < record.content_length:
        message = f"the file ends in the middle of a record ({len(block)} of {record.content_length} bytes)"
        raise DamagedError(message, record.stream_pos)
    return block


def record_date(record: WarcRecord) -> datetime:
    """WARC-Date; the epoch where it is missing or no date (FastWARC gives None)."""
    date: datetime | None = record.record_date
    if date is None:
        return datetime.fromtimestamp(0, UTC)
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _is_fastwarc_error(error: BaseException) -> bool:
    """A panic of FastWARC's Rust code comes as a BaseException of no public class; a hostile file may cause one."""
    return isinstance(error, OSError) or type(error).__name__ == "PanicException"


def _plain_or_by_record(archive: Archive) -> BinaryIO:
    raw = open_raw(archive.address)
    if archive.compression is None or archive.by_record:
        return raw
    return cast(BinaryIO, Members(raw, archive.compression))


def _check_end(archive: Archive, stream: BinaryIO, last: int) -> None:
    """After the last record that FastWARC gave: is that the end of the file?"""
    if archive.compression is not None and not archive.by_record:
        if stream.read(1):
            raise DamagedError("no record where one should be", -1)
        return
    if last < 0:
        return
    place = _after(archive, last)
    with open_raw(archive.address) as raw:
        raw.seek(place)
        rest = raw.read(_HEAD_BYTES)
    if not rest:
        return
    if archive.compression is None and not rest.strip() and len(rest) < _HEAD_BYTES:
        return
    raise DamagedError("no record where one should be", place)


def _after(archive: Archive, last: int) -> int:
    """Where the record after the one at `last` begins; `last` itself where that one is broken."""
    if last < 0:
        return 0
    with open_raw(archive.address) as raw:
        raw.seek(last)
        if archive.compression is not None:
            try:
                return Members(raw, archive.compression, last).next_member() if archive.by_record else -1
            except DamagedError as error:
                return error.offset
        return _after_plain(raw, last)


def _after_plain(raw: BinaryIO, last: int) -> int:
    head = raw.read(_MAX_HEADER_BYTES)
    ends = [place + len(mark) for mark in (b"\r\n\r\n", b"\n\n") if (place := head.find(mark)) >= 0]
    lines = head[: min(ends, default=0)].lower().split(b"\n")
    lengths = [line.partition(b":")[2].strip() for line in lines if line.startswith(b"content-length:")]
    if not ends or not lengths or not lengths[0].isdigit():
        return last
    place = last + min(ends) + int(lengths[0])
    raw.seek(0, io.SEEK_END)
    if place > raw.tell():
        raise DamagedError("the file ends in the middle of a record", last)
    raw.seek(place)
    gap = raw.read(4)
    return place + len(gap) - len(gap.lstrip(b"\r\n"))


def not_an_archive(archive: Archive, kind: str) -> InputError:
    """For a file whose beginning is something else altogether."""
    head = archive.head.lstrip()[:40]
    looks = "HTML" if head[:1] == b"<" else "JSON" if head[:1] == b"{" else f"something that begins with {head[:12]!r}"
    return InputError(f"{archive.address} is no {kind} file but {looks}: give the crawl file itself")
