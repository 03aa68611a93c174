"""Rows for the tables that only grow: shards, models, evaluations, runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from warehouse import lake, tables
from warehouse.errors import InputError

_OPEN_TABLES = ("shards", "models", "evaluations", "runs")


def register(
    root: Path | str, table: str, rows: Mapping[str, Any] | Sequence[Mapping[str, Any]], patience_s: float = 10
) -> None:
    """Write rows to `shards`, `models`, `evaluations` or `runs` in one small transaction.

    A row with the same key (`tables.GROWING`) as one that is there replaces it, so a repeated step registers once and a
    run can be registered when it starts and again when it ends; a model keeps its alias. Columns that may be null may
    be left out. Raises InputError for an unknown table or column, a missing value, or a lake that another process keeps
    writing for longer than `patience_s`.
    """
    if table not in _OPEN_TABLES:
        raise InputError(f"no table {table!r} to register in: choose {', '.join(_OPEN_TABLES)}")
    listed = [rows] if isinstance(rows, Mapping) else list(rows)
    if not listed:
        return
    schema = tables.schemas()[table]
    for row in listed:
        for name in row:
            if name not in schema.names:
                raise InputError(f"table {table} has no column {name!r}: choose from {', '.join(schema.names)}")
        for field in schema:
            if not field.nullable and row.get(field.name) is None:
                raise InputError(f"table {table} needs a value for {field.name}")
    lake.patiently(lambda: _write(Path(root), table, listed), patience_s)


def _write(root: Path, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    schema, keys = tables.schemas()[table], tables.GROWING[table]
    # Times may be texts: DuckDB reads them.
    kinds = {field.name: None if pa.types.is_timestamp(field.type) else field.type for field in schema}
    given = pa.table({name: pa.array([row.get(name) for row in rows], kind) for name, kind in kinds.items()})
    with lake.writing(root) as con:
        con.execute("BEGIN")
        con.execute(f"CREATE TEMP TABLE fresh ({tables.column_ddl(table)})")
        con.register("given", given)  # one insert, not a statement per row: a release may have 50,000 shards
        con.execute("INSERT INTO fresh BY NAME SELECT * FROM given")
        match = " AND ".join(f"t.{key} = fresh.{key}" for key in keys)
        if table == "models":
            con.execute(f"UPDATE fresh SET alias = t.alias FROM models t WHERE {match} AND fresh.alias IS NULL")
        con.execute(f"DELETE FROM {table} t WHERE EXISTS (SELECT 1 FROM fresh WHERE {match})")
        con.execute(f"INSERT INTO {table} SELECT * FROM fresh")
        con.execute(f"CALL {tables.LAKE}.set_commit_message('gptface', {lake.quoted(f'register {table}')})")
        lake.commit(con, root)
