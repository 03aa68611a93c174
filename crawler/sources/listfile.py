"""The files of a list as Arrow tables of text columns: Parquet, CSV, TSV, JSONL, streamed in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from crawler.errors import InputError
from crawler.sources.base import Damage
from crawler.sources.listcolumns import (
    BATCH_ROWS,
    READ_ERRORS,
    columns_table,
    detect_columns,
    is_text,
    line_of,
    unreadable,
)
from crawler.streams import open_binary

FORMATS = {".parquet": "parquet", ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_COMPRESSED = (".gz", ".zst", ".lz4", ".bz2")

_PARQUET_BUFFER_BYTES = 1 << 20  # per column, instead of whole column chunks


def format_of(address: str) -> str:
    """ "parquet", "csv", "tsv" or "jsonl", by the ending before .gz and its like; raises InputError for another."""
    name = address.lower().partition("?")[0] if "://" in address else address.lower()
    for ending in _COMPRESSED:
        name = name.removesuffix(ending)
    kind = next((kind for ending, kind in FORMATS.items() if name.endswith(ending)), None)
    if kind is None:
        raise InputError(f"list {address} has an unknown ending: give {', '.join(sorted(FORMATS))}")
    return kind


def text_batches(address: str, row_groups: range | None = None) -> Iterator[pa.Table | Damage]:
    """Tables with the columns url, caption and page (strings, null where there is none), then Damage, if any.

    `row_groups` of a Parquet file, all where None. Raises InputError where the file cannot be opened, is not what its
    ending says, or has no column of addresses; damage further in ends it, odd rows are left out and counted.
    """
    from crawler.sources.listcsv import csv_batches
    from crawler.sources.listjsonl import jsonl_batches

    kind = format_of(address)
    if kind == "parquet":
        yield from _parquet_batches(address, row_groups)
    elif kind == "jsonl":
        yield from jsonl_batches(address)
    else:
        yield from csv_batches(address, "\t" if kind == "tsv" else ",")


def parquet_row_groups(address: str) -> list[int]:
    """Rows of each row group; raises InputError where the file is no Parquet."""
    with open_binary(address) as file:
        metadata = _parquet(file, address).metadata
        return [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]


def _parquet(file: Any, address: str) -> Any:
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file, pre_buffer=False, buffer_size=_PARQUET_BUFFER_BYTES)
    except READ_ERRORS as error:
        raise unreadable(address, error) from error


def _parquet_batches(address: str, row_groups: range | None) -> Iterator[pa.Table | Damage]:
    with open_binary(address) as file:
        parquet = _parquet(file, address)
        columns = detect_columns(parquet.schema_arrow.names, address)
        wanted = [name for name in (columns.url, columns.caption, columns.page) if name]
        kind = parquet.schema_arrow.field(columns.url).type
        if not is_text(kind):
            raise InputError(f"{address}: column {columns.url} holds {kind}, not addresses")
        try:
            for group in row_groups if row_groups is not None else range(parquet.num_row_groups):
                for batch in parquet.iter_batches(BATCH_ROWS, row_groups=[group], columns=wanted, use_threads=False):
                    yield columns_table(batch, columns)
        except READ_ERRORS as error:
            yield Damage(address, -1, f"the file is damaged ({line_of(error)})")
