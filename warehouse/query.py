"""SQL given by a user: read-only, and closed to files, network and the catalogue's own tables.

Three fences, each enough for most of what could be tried: the lake is attached READ_ONLY; DuckDB may open nothing but
the lake's Parquet folder, and that setting is locked; and the query is parsed first: one SELECT, whose table functions
are on a short list and which names no file. (The third is needed: the SQLite extension opens files past the second.)
"""

from __future__ import annotations

import contextlib
import csv
import datetime as dt
import decimal
import json
import math
import os
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import duckdb

from warehouse import lake
from warehouse.errors import InputError
from warehouse.queries import ready_queries

FORMATS = ("table", "csv", "json", "parquet")
_TABLE_FUNCTIONS = frozenset(
    {
        "range",
        "generate_series",
        "unnest",
        "repeat",
        "duckdb_columns",
        "duckdb_tables",
        "duckdb_views",
        "duckdb_functions",
        "duckdb_types",
        "pragma_table_info",
        "pragma_version",
    }
)
_BATCH = 10_000
_MAX_TABLE_ROWS = 1000
_MAX_CELL = 80


def run_query(
    root: Path | str,
    sql: str,
    format: str = "table",
    out: Path | TextIO | None = None,
    at: int | None = None,
) -> int:
    """Run one query over the views of the current release (or `at`) and write the result; how many rows.

    `sql` is a query, or the name of a ready-made one. `out` is a file (replaced at once when all is written), a text
    stream, or None for standard output; parquet needs a file. Raises InputError for anything but one SELECT that stays
    inside the lake, for SQL errors, and for an unknown format.
    """
    if format not in FORMATS:
        raise InputError(f"no output format {format!r}: choose {', '.join(FORMATS)}")
    if format == "parquet" and not isinstance(out, Path):
        raise InputError("parquet is written to a file: give one with --out")
    if sql.strip() in (ready := ready_queries()):
        sql = ready[sql.strip()].filled({})
    with contextlib.closing(open_for_queries(root, at)) as con:
        return query_into(con, sql, format, sys.stdout if out is None else out)


def open_for_queries(root: Path | str, at: int | None = None) -> duckdb.DuckDBPyConnection:
    """A connection that can read the lake and nothing else (for a prompt: pass each query through `query_into`)."""
    con = lake.connect(root, at)
    try:
        con.execute("SET temp_directory = ''")  # spilling would need a folder to write to
        con.execute(f"SET allowed_directories = [{lake.quoted(lake.data_path(Path(root)))}]")
        con.execute("SET enable_external_access = false")
        con.execute("SET lock_configuration = true")
    except duckdb.Error:
        con.close()
        raise
    return con


def query_into(con: duckdb.DuckDBPyConnection, sql: str, format: str, out: Path | TextIO) -> int:
    """Check and run one query on a connection of `open_for_queries`; see `run_query`."""
    try:
        _check_query(con, sql)
        cursor = con.execute(sql)
    except duckdb.Error as error:
        raise InputError(f"query: {_one_line(error)}") from error
    return write_result(cursor, format, out)


def write_result(cursor: duckdb.DuckDBPyConnection, format: str, out: Path | TextIO) -> int:
    """Write the rows of an executed query in one of FORMATS; how many. A file is replaced at once, when all is written.

    Raises InputError where the query fails on the way, and for parquet where `out` is no path.
    """
    if not isinstance(out, Path):
        return _write_text(cursor, format, out)
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        if format == "parquet":
            count = _write_parquet(cursor, part)
        else:
            with part.open("w", encoding="utf-8", newline="") as stream:
                count = _write_text(cursor, format, stream)
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
    return count


def _one_line(error: Exception) -> str:
    return " ".join(line.strip() for line in str(error).splitlines()[:2] if line.strip())


def _check_query(con: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Raises InputError unless `sql` is one SELECT (DESCRIBE, SUMMARIZE, SHOW count) that stays inside the lake."""
    # A literal, since binding a parameter makes DuckDB's client import pandas (0.5 s).
    row = con.execute(f"SELECT json_serialize_sql({lake.quoted(sql)})").fetchone()
    assert row is not None
    parsed: dict[str, Any] = json.loads(row[0])
    if parsed["error"]:
        if parsed.get("error_type") == "not implemented":
            raise InputError("only a query can be run here (SELECT, FROM, WITH, DESCRIBE, SUMMARIZE, SHOW)")
        raise InputError(f"query: {' '.join(str(parsed.get('error_message', 'cannot be parsed')).split())}")
    if len(parsed["statements"]) != 1:
        raise InputError("one query at a time")
    for node in _nodes(parsed):
        _check_node(node)


def _check_node(node: dict[str, Any]) -> None:
    if node.get("type") == "TABLE_FUNCTION":
        name = str(node.get("function", {}).get("function_name", "")).lower()
        if name not in _TABLE_FUNCTIONS:
            raise InputError(f"query: the table function {name!r} is not available here: query the lake's views")
    for key in ("table_name", "schema_name", "catalog_name"):
        name = str(node.get(key) or "")
        if any(c in name for c in "/\\*") or name.lower().endswith((".parquet", ".csv", ".json", ".sqlite", ".db")):
            raise InputError(f"query: {name!r} is a file, and files are closed here: query the lake's views")
        if name.lower().startswith("__ducklake"):
            raise InputError("query: the catalogue's own tables are closed here: query the lake's views")


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    """All objects in a parsed query, however deep."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            yield item
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)


def _names(cursor: duckdb.DuckDBPyConnection) -> list[str]:
    return [column[0] for column in cursor.description or ()]


def _rows(cursor: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    try:
        while batch := cursor.fetchmany(_BATCH):
            yield from batch
    except duckdb.Error as error:
        raise InputError(f"query: {_one_line(error)}") from error


def _write_text(cursor: duckdb.DuckDBPyConnection, format: str, stream: TextIO) -> int:
    if format == "table":
        return _write_table(cursor, stream)
    names, count = _names(cursor), 0
    if format == "csv":
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(names)
        for row in _rows(cursor):
            writer.writerow(["" if v is None else v if isinstance(v, str) else _text(v) for v in row])
            count += 1
        return count
    if format != "json":
        raise InputError(f"{format} is written to a file: give one with --out")
    stream.write("[")
    for row in _rows(cursor):
        values = {name: _plain(value) for name, value in zip(names, row, strict=True)}
        stream.write(("\n" if not count else ",\n") + json.dumps(values, ensure_ascii=False))
        count += 1
    stream.write("\n]\n")
    return count


def _write_table(cursor: duckdb.DuckDBPyConnection, stream: TextIO) -> int:
    """Columns under their names, numbers to the right, control characters of hostile captions made harmless."""
    names, shown, count = _names(cursor), [], 0
    numeric = [True] * len(names)
    for row in _rows(cursor):
        count += 1
        if count <= _MAX_TABLE_ROWS:
            shown.append([_cell(value) for value in row])
            numeric = [n and _is_number(v) for n, v in zip(numeric, row, strict=True)]
    widths = [max(map(_width, column)) for column in zip(names, *shown, strict=True)]
    lines = [names, ["-" * width for width in widths], *shown]
    for line in lines:
        padded = [
            " " * (width - _width(cell)) + cell if right else cell + " " * (width - _width(cell))
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ]
        stream.write("  ".join(padded).rstrip() + "\n")
    more = f", the first {_MAX_TABLE_ROWS} shown" if count > _MAX_TABLE_ROWS else ""
    stream.write(f"({count} row{'' if count == 1 else 's'}{more})\n")
    return count


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, (int, float, decimal.Decimal))


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _cell(value: Any) -> str:
    text = "" if value is None else f"{value:.6g}" if isinstance(value, float) else _text(value)
    text = "".join(c if c.isprintable() else "�" for c in text)
    return text if len(text) <= _MAX_CELL else text[: _MAX_CELL - 1] + "…"


def _text(value: Any) -> str:
    plain = _plain(value)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """What JSON can hold: times as ISO 8601, bytes as hex, numbers that are none as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (dt.datetime, dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if value is None or isinstance(value, (str, int, bool)):
        return value
    return float(value) if isinstance(value, decimal.Decimal) else str(value)


def _write_parquet(cursor: duckdb.DuckDBPyConnection, path: Path) -> int:
    import pyarrow.parquet as pq

    count = 0
    reader = cursor.to_arrow_reader(_BATCH * 10)
    with pq.ParquetWriter(path, reader.schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch)
            count += batch.num_rows
    return count
