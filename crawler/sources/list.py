"""list:FILE - pairs from a Parquet, CSV, TSV or JSONL file (LAION style), streamed in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from crawler.errors import InputError
from crawler.extract import Caption, collapse
from crawler.sources.base import Candidate
from warehouse.schema import CaptionKind

# Columns as lists on the web name them, the first found wins; matched regardless of case.
_URL_COLUMNS = ("image_url", "url", "img_url", "image", "src")
_CAPTION_COLUMNS = ("caption", "text", "alt", "alt_text", "top_caption", "description", "title")
_PAGE_COLUMNS = ("page_url", "page", "source_url", "page_address")

_BATCH_ROWS = 20_000
_FORMATS = {".parquet": "parquet", ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}


@dataclass(frozen=True)
class Columns:
    """Which columns of a list hold what."""

    url: str
    caption: str | None
    page: str | None


def detect_columns(names: Sequence[str], file: str) -> Columns:
    """Find the columns by name; raises InputError, listing what is there, if none can hold addresses."""
    lower = {name.strip().lower(): name for name in reversed(names)}

    def first(wanted: Sequence[str]) -> str | None:
        return next((lower[name] for name in wanted if name in lower), None)

    url = first(_URL_COLUMNS)
    if url is None:
        found = ", ".join(names) or "none"
        raise InputError(f"{file} has no column of picture addresses: name one of its columns url (found: {found})")
    return Columns(url, first(_CAPTION_COLUMNS), first(_PAGE_COLUMNS))


def _csv_batches(path: Path, delimiter: str) -> Iterator[pa.RecordBatch]:
    from pyarrow import csv

    with path.open("rb") as head:
        names = csv.open_csv(head, parse_options=csv.ParseOptions(delimiter=delimiter)).schema.names
    options = csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, quoted_strings_can_be_null=False
    )
    parse = csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    yield from csv.open_csv(path, parse_options=parse, convert_options=options)


def _jsonl_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Line by line: types may differ between rows, and one object per line needs no schema of the whole."""
    import json

    rows: list[dict[str, Any]] = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise InputError(f"{path}, line {number} is not JSON: {error}") from error
            if not isinstance(row, dict):
                raise InputError(f"{path}, line {number} is not a JSON object: give one object a line")
            rows.append({name: value for name, value in row.items() if isinstance(value, str)})
            if len(rows) == _BATCH_ROWS:
                yield _batch(rows)
                rows = []
    if rows:
        yield _batch(rows)


def _batch(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    names = dict.fromkeys(name for row in rows for name in row)
    columns = [pa.array([row.get(name) for row in rows], pa.string()) for name in names]
    return pa.RecordBatch.from_arrays(columns, names=list(names))


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    kind = _FORMATS.get(path.suffix.lower())
    if kind == "parquet":
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            columns = detect_columns(names, str(path))
            wanted = [name for name in (columns.url, columns.caption, columns.page) if name]
            yield from file.iter_batches(_BATCH_ROWS, columns=wanted)
    elif kind == "jsonl":
        yield from _jsonl_batches(path)
    elif kind in {"csv", "tsv"}:
        yield from _csv_batches(path, "\t" if kind == "tsv" else ",")
    else:
        raise InputError(f"list {path} has an unknown ending: give {', '.join(sorted(_FORMATS))}")


@dataclass(frozen=True)
class ListSource:
    """Pairs of a list file. A pair without page address belongs to the picture's own address."""

    file: str

    def candidates(self) -> Iterator[Candidate]:
        """Raises InputError for a file that is missing, unreadable, empty or without a URL column."""
        path = Path(self.file)
        if not path.is_file():
            raise InputError(f"no such list file: {self.file}")
        count = 0
        try:
            for batch in _batches(path):
                columns = detect_columns(batch.schema.names, self.file)
                for candidate in _candidates(batch, columns):
                    count += 1
                    yield candidate
        except (pa.ArrowException, UnicodeDecodeError) as error:
            line = str(error).splitlines()[0]
            raise InputError(f"cannot read list {self.file}: {line}") from error
        if count == 0:
            raise InputError(f"list {self.file} holds no picture address: nothing to build from")


def _strings(batch: pa.RecordBatch, name: str | None) -> list[str]:
    if name is None:
        return [""] * batch.num_rows
    return [_cell(value) for value in batch.column(name).to_pylist()]


def _cell(value: object) -> str:
    """A cell as text; what is no string (null, number) is empty."""
    return value.strip() if isinstance(value, str) else ""


def _candidates(batch: pa.RecordBatch, columns: Columns) -> Iterator[Candidate]:
    urls, pages = _strings(batch, columns.url), _strings(batch, columns.page)
    captions = _strings(batch, columns.caption)
    for url, page, caption in zip(urls, pages, captions, strict=True):
        if url:
            text = collapse(caption)
            yield Candidate(page or url, url, (Caption(CaptionKind.LIST, text),) if text else (), "")
