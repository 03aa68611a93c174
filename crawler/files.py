"""Tables and small files on disk: whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`; it takes the place of `path` when the block ends well, and goes when not.

    Nobody else has this name, on no machine: two may write the same file at once, and the last to end wins. What a
    killed run leaves goes with `sweep`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def attempt(work: Path) -> Iterator[Path]:
    """A scratch folder of this attempt alone, below the folder `work` that all attempts at the same output name.

    Where a machine is lost from sight a second attempt may begin before the first one has ended. It takes `work` away:
    whatever the first one still moves out of its scratch folder fails with FileNotFoundError, so that files of two
    attempts never mix.
    """
    token = secrets.token_hex(6)
    with suppress(FileNotFoundError):
        old = work.rename(work.with_name(f"{work.stem}.{token}{work.suffix}"))
        shutil.rmtree(old, ignore_errors=True)
    scratch = work / token
    scratch.mkdir(parents=True)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        with suppress(OSError):  # another attempt's by now
            work.rmdir()


def sweep(folder: Path) -> None:
    """Remove what killed runs left half-written anywhere below `folder`. The caller holds the root."""
    for name, folders, files in os.walk(folder):
        for file in files:
            if file.startswith(".") and file.endswith(".tmp"):
                (Path(name) / file).unlink(missing_ok=True)
        for each in [each for each in folders if each.startswith(".") and each.endswith(".work")]:
            folders.remove(each)
            shutil.rmtree(Path(name) / each, ignore_errors=True)


def write_table(path: Path, rows: Sequence[Mapping[str, Any]] | pa.Table, schema: pa.Schema) -> None:
    """Write rows as Parquet of exactly `schema`; raises pyarrow.ArrowInvalid or ValueError where they do not fit."""
    table = rows.cast(schema) if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows), schema=schema)
    for column in schema:
        if not column.nullable and table[column.name].null_count:
            raise ValueError(f"{path.name}: column {column.name!r} may not be null")
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_rows(path: Path, columns: list[str] | None = None) -> list[dict[str, Any]]:
    """All rows of a Parquet file as dictionaries."""
    rows: list[dict[str, Any]] = pq.read_table(path, columns=columns).to_pylist()
    return rows


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
