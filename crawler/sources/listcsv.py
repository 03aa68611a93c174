"""CSV and TSV lists, streamed: a damaged end, odd rows and other encodings cost what they touch and no more."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, cast

import pyarrow as pa

from crawler.sources.base import Damage
from crawler.sources.listcolumns import READ_ERRORS, columns_table, detect_columns, line_of, unreadable
from crawler.streams import DamagedError, open_binary

_CSV_BLOCK_BYTES = 4 << 20  # also the longest row
_READ_BYTES = 64 << 10


def csv_batches(address: str, delimiter: str) -> Iterator[pa.Table | Damage]:
    from pyarrow import csv

    skipped = 0

    def skip(row: Any) -> str:
        nonlocal skipped
        skipped += 1
        return "skip"

    columns = detect_columns(_csv_names(address, delimiter), address)
    wanted = [name for name in (columns.url, columns.caption, columns.page) if name]
    # As bytes: what is not UTF-8 costs a character, not the file. "NA" and "null" are words here.
    convert = csv.ConvertOptions(
        column_types=dict.fromkeys(wanted, pa.binary()),
        include_columns=wanted,
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        null_values=[""],
    )
    parse = csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip)
    read = csv.ReadOptions(block_size=_CSV_BLOCK_BYTES)
    with open_binary(address) as file:
        lines = _WholeLines(cast(io.BufferedReader, file))
        try:
            for batch in csv.open_csv(lines, read_options=read, parse_options=parse, convert_options=convert):
                yield columns_table(batch, columns)
        except READ_ERRORS as error:
            yield Damage(address, -1, f"the file is damaged ({line_of(error)})")
        if lines.damage is not None:
            yield Damage(address, lines.damage.offset, f"the file is damaged ({line_of(lines.damage)})")
    if skipped:
        yield Damage(address, -1, f"{skipped} rows have another number of columns than the first and are left out")


def _csv_names(address: str, delimiter: str) -> list[str]:
    """The names in the first line that is not empty."""
    from pyarrow import csv

    with open_binary(address) as file:
        try:
            while not (line := file.readline(_CSV_BLOCK_BYTES)).strip() and line:
                pass
            parse = csv.ParseOptions(delimiter=delimiter)
            return list(csv.read_csv(io.BytesIO(line), parse_options=parse).schema.names)
        except (*READ_ERRORS, UnicodeDecodeError) as error:
            raise unreadable(address, error) from error


class _WholeLines(io.RawIOBase):
    """A stream that ends before the line that is damaged, instead of raising in the middle of a block of good ones."""

    def __init__(self, inner: io.BufferedReader) -> None:
        self._inner = inner
        self._pending = bytearray()
        self._ended = False
        self.damage: DamagedError | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        while not self._ended and len(self._pending) < len(view):
            self._fill()
        end = min(len(view), len(self._pending))
        if not self._ended:  # the last line may prove to be cut
            end = self._pending.rfind(b"\n", 0, end) + 1 or end
        view[:end] = self._pending[:end]
        del self._pending[:end]
        return end

    def _fill(self) -> None:
        try:
            more = self._inner.read1(_READ_BYTES)  # what comes before damage, and only then the damage
        except DamagedError as error:
            self.damage = error
            del self._pending[self._pending.rfind(b"\n") + 1 :]
            more = b""
        self._pending += more
        self._ended = not more
