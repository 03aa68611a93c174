"""Which columns of a list hold what, and their values as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from crawler.errors import InputError
from crawler.streams import DamagedError

# Columns as lists on the web name them, the first found wins; matched regardless of case.
_URL_COLUMNS = ("image_url", "url", "img_url", "image", "src")
_CAPTION_COLUMNS = ("caption", "text", "alt", "alt_text", "top_caption", "description", "title")
_PAGE_COLUMNS = ("page_url", "page", "source_url", "page_address")

BATCH_ROWS = 20_000
READ_ERRORS = (pa.ArrowException, OSError, DamagedError)


@dataclass(frozen=True)
class Columns:
    """Which columns of a list hold what."""

    url: str
    caption: str | None
    page: str | None


def detect_columns(names: Sequence[str], file: str) -> Columns:
    """Find the columns by name; raises InputError, listing what is there, if none can hold addresses."""
    columns = detected(names)
    if columns is None:
        found = ", ".join(names) or "none"
        raise InputError(f"{file} has no column of picture addresses: name one of its columns url (found: {found})")
    return columns


def detected(names: Sequence[str]) -> Columns | None:
    lower = {name.strip().lower(): name for name in reversed(names)}

    def first(wanted: Sequence[str]) -> str | None:
        return next((lower[name] for name in wanted if name in lower), None)

    url = first(_URL_COLUMNS)
    return None if url is None else Columns(url, first(_CAPTION_COLUMNS), first(_PAGE_COLUMNS))


def columns_table(batch: pa.RecordBatch, columns: Columns) -> pa.Table:
    none = pa.nulls(batch.num_rows, pa.string())
    named = {"url": columns.url, "caption": columns.caption, "page": columns.page}
    return pa.table({new: _string_column(batch.column(old)) if old else none for new, old in named.items()})


def is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_binary)
    return any(test(kind) for test in tests) or pa.types.is_large_binary(kind)


def _string_column(column: pa.Array) -> pa.Array:
    """A column as text; one of another kind (numbers, lists) is all null."""
    if not is_text(column.type):
        return pa.nulls(len(column), pa.string())
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:  # bytes that are not UTF-8
        values = (value.decode("utf-8", "replace") if value is not None else None for value in column.to_pylist())
        return pa.array(list(values), pa.string())


def unreadable(address: str, error: BaseException) -> InputError:
    return InputError(f"cannot read list {address}: {line_of(error)}")


def line_of(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
