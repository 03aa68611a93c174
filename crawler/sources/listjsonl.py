"""JSONL lists, line by line: keys and types may differ between rows."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pyarrow as pa

from crawler.errors import InputError
from crawler.rows import strings
from crawler.sources.base import Damage
from crawler.sources.listcolumns import BATCH_ROWS, READ_ERRORS, Columns, detect_columns, detected, line_of
from crawler.streams import open_binary

_MAX_LINE_BYTES = 16 << 20


def jsonl_batches(address: str) -> Iterator[pa.Table | Damage]:
    """Line by line: keys and types may differ between rows."""
    reader = _JsonLines(address)
    rows: list[tuple[str | None, str | None, str | None]] = []
    try:
        for row in reader.rows():
            rows.append(row)
            if len(rows) == BATCH_ROWS:
                yield text_table(rows)
                rows = []
    except READ_ERRORS as error:
        reader.damage = Damage(address, -1, f"the file is damaged ({line_of(error)})")
    if rows:
        yield text_table(rows)
    if not reader.found and reader.keys:
        detect_columns(list(reader.keys), address)
    if reader.damage is not None:
        yield reader.damage
    if reader.bad_lines:
        text = f"{reader.bad_lines} lines are no JSON object and are left out, the first is line {reader.first_bad}"
        yield Damage(address, -1, text)


class _JsonLines:
    """Reads url, caption and page of each line, and keeps account of what was odd."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._layouts: dict[tuple[str, ...], Columns | None] = {}
        self.keys: dict[str, None] = {}  # names seen, in order
        self.found = 0
        self.bad_lines = self.first_bad = 0
        self.damage: Damage | None = None

    def rows(self) -> Iterator[tuple[str | None, str | None, str | None]]:
        with open_binary(self._address) as file:
            number = offset = 0
            while line := file.readline(_MAX_LINE_BYTES):
                number += 1
                if len(line) == _MAX_LINE_BYTES:
                    self.damage = Damage(self._address, offset, f"line {number} is over {_MAX_LINE_BYTES} bytes long")
                    return
                offset += len(line)
                if line.strip():
                    row = self._row(line, number)
                    if row is not None:
                        yield row

    def _row(self, line: bytes, number: int) -> tuple[str | None, str | None, str | None] | None:
        try:
            row = json.loads(line.decode("utf-8-sig", "replace"))
        except (ValueError, RecursionError) as error:
            self._bad(number, f"is not JSON: {error}")
            return None
        if not isinstance(row, dict):
            self._bad(number, "is not a JSON object: give one object a line")
            return None
        layout = self._layout(tuple(row))
        if layout is None:
            return None
        self.found += 1
        return _text(row[layout.url]), _text(row.get(layout.caption)), _text(row.get(layout.page))

    def _layout(self, names: tuple[str, ...]) -> Columns | None:
        if names not in self._layouts:
            if len(self._layouts) > 1000:  # keys that differ from row to row
                self._layouts.clear()
            if len(self.keys) < 50:
                self.keys.update(dict.fromkeys(names))
            self._layouts[names] = detected(names)
        return self._layouts[names]

    def _bad(self, number: int, why: str) -> None:
        if not self.keys:
            raise InputError(f"{self._address}, line {number} {why}")
        self.first_bad = self.first_bad or number
        self.bad_lines += 1


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def text_table(rows: list[tuple[str | None, str | None, str | None]]) -> pa.Table:
    url, caption, page = (strings(column) for column in zip(*rows, strict=True))
    return pa.table({"url": url, "caption": caption, "page": page})
