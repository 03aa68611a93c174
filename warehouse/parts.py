"""Part files of crawls: which there must be, and their way into temporary tables of a DuckDB connection.

A crawl folder is read only when it is complete: `plan/done.json` says how many parts there are, and each must have its
consent, images and faces. Files that are not named there are never looked at.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb

from warehouse import tables
from warehouse.errors import InputError
from warehouse.lake import quoted

# The files that a step writes last: where they are, the part is whole.
_DONE_MARKERS = (
    "plan/{part:05d}.captions.parquet",
    "consent/{part:05d}.parquet",
    "images/{part:05d}_stats.json",
    "faces/{part:05d}.pictures.parquet",
)
# SQL of a part's number from the name of its file; it has five digits or, from the 100,000th on, more.
PART_SQL = "coalesce(try_cast(regexp_extract(filename, '([0-9]{5,})[^/]*$', 1) AS INTEGER), 0)"
_FILES_AT_ONCE = 500  # DuckDB holds what it knows of every file of a query until that ends
_SEEN = "plan/seen.parquet"
_PAGES = "plan/pages.parquet"


@dataclass(frozen=True)
class Crawl:
    """One complete crawl of one source. `name` is its folder below the root (or its full path outside)."""

    name: str
    folder: Path
    parts: int

    def files(self, folder: str, suffix: str) -> list[Path]:
        return [self.folder / folder / f"{part:05d}{suffix}.parquet" for part in range(self.parts)]


def read_crawl(root: Path, folder: Path) -> Crawl:
    """The crawl in `folder`; raises InputError where it is not complete."""
    done = folder / "plan" / "done.json"
    if not done.is_file():
        raise InputError(f"crawl {folder} has no finished plan: run `gptface build` for its source again")
    try:
        parts = int(json.loads(done.read_text("utf-8"))["parts"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{done} cannot be read ({error}): delete it and run `gptface build` again") from error
    for part in range(parts):
        for marker in _DONE_MARKERS:
            if not (folder / marker.format(part=part)).is_file():
                missing = marker.format(part=part)
                raise InputError(f"crawl {folder} is incomplete, {missing} is missing: run `gptface build` again")
    if (folder / _PAGES).is_file() and not (
        folder / _SEEN
    ).is_file():  # else every known pair of its pages would be gone
        raise InputError(f"crawl {folder} is incomplete, {_SEEN} is missing: run `gptface build` again")
    return Crawl(_name(root, folder), folder, parts)


def by_crawl(root: Path, files: Iterable[Path]) -> dict[str, list[Path]]:
    """Files <crawl>/<step>/<file> of a root by the names of their crawls."""
    found: dict[str, list[Path]] = {}
    for file in sorted(files):
        found.setdefault(_name(root, file.parents[1]), []).append(file)
    return found


def _name(root: Path, folder: Path) -> str:
    inside = folder.resolve().is_relative_to(root.resolve())
    return folder.resolve().relative_to(root.resolve()).as_posix() if inside else folder.resolve().as_posix()


def stage(
    con: duckdb.DuckDBPyConnection, crawls: list[Crawl], optional: Mapping[str, list[Path]] | None = None
) -> None:
    """Read all parts of `crawls` into temporary tables `part_<table>`: the contract's columns, `crawl` and `part`.

    `optional`: by crawl, the files of the unit that is not part of every crawl.

    Raises InputError where a file cannot be read, does not fit the contract, or holds a reason outside the enum.
    """
    with _in_any_order(con):
        for unit in tables.UNITS:
            if unit.optional:
                _make_table(con, unit.parent)
                for name, files in (optional or {}).items():
                    _read(con, unit.parent, name, files)
                continue
            _stage_table(con, unit.parent, unit.folder, unit.suffix, crawls)
            if unit.child:
                _stage_table(con, unit.child, unit.folder, unit.child_suffix, crawls)
        for unit in tables.NOTES:
            _make_table(con, unit.parent)
            for crawl in crawls:
                _read(con, unit.parent, crawl.name, sorted((crawl.folder / unit.folder).glob(unit.suffix)))
        _stage_seen(con, crawls)
        _stage_sources(con, crawls)
    for table in ("consent", "images", "pictures"):
        _check_reasons(con, table)


@contextlib.contextmanager
def _in_any_order(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Inserts of the block need not keep the order of the files: else DuckDB makes a table of its own of every file,
    however small, which takes as long as to read it. What goes from there into the lake is put in order then.

    After an error the transaction can do nothing any more, nor this set the connection right: the caller closes it.
    """
    con.execute("SET preserve_insertion_order = false")
    yield
    con.execute("SET preserve_insertion_order = true")


def _stage_table(con: duckdb.DuckDBPyConnection, table: str, folder: str, suffix: str, crawls: list[Crawl]) -> None:
    _make_table(con, table)
    for crawl in crawls:
        _read(con, table, crawl.name, crawl.files(folder, suffix))


def _stage_seen(con: duckdb.DuckDBPyConnection, crawls: list[Crawl]) -> None:
    """Temporary table `part_seen`: the pairs that each crawl saw, whether or not they had to be planned.

    An older crawl has no such list; it planned all that it saw.
    """
    con.execute("CREATE OR REPLACE TEMP TABLE part_seen (row_id VARCHAR NOT NULL, crawl VARCHAR NOT NULL)")
    for crawl in crawls:
        file = crawl.folder / _SEEN
        if file.is_file():
            with _readable("seen", crawl.name):
                con.execute(f"INSERT INTO part_seen SELECT row_id, {quoted(crawl.name)} FROM {_parquet([file])}")
        else:
            con.execute(
                f"INSERT INTO part_seen SELECT row_id, crawl FROM part_pairs WHERE crawl = {quoted(crawl.name)}"
            )


def _stage_sources(con: duckdb.DuckDBPyConnection, crawls: list[Crawl]) -> None:
    """Temporary table `part_sources`: the units that each crawl read; an older crawl counts as one."""
    names = [name for name in tables.columns("sources") if name not in ("crawl", "release")]
    con.execute(f"CREATE OR REPLACE TEMP TABLE part_sources ({tables.column_ddl('sources')})")
    con.execute("ALTER TABLE part_sources DROP COLUMN release")
    for crawl in crawls:
        file, name = crawl.folder / "plan" / "sources.parquet", quoted(crawl.name)
        if file.is_file():
            with _readable("sources", crawl.name):
                con.execute(
                    f"INSERT INTO part_sources BY NAME SELECT {', '.join(names)}, {name} AS crawl "
                    f"FROM {_parquet([file])}"
                )
        else:
            con.execute(f"""
                INSERT INTO part_sources BY NAME
                SELECT crawl, source, source AS unit, '' AS fingerprint, count(*) AS pairs FROM part_pairs
                WHERE crawl = {name} GROUP BY crawl, source""")


def _make_table(con: duckdb.DuckDBPyConnection, table: str) -> None:
    ddl = f"{tables.column_ddl(table)}, crawl VARCHAR NOT NULL, part INTEGER NOT NULL"
    con.execute(f"CREATE OR REPLACE TEMP TABLE part_{table} ({ddl})")


def _read(con: duckdb.DuckDBPyConnection, table: str, crawl: str, files: list[Path]) -> None:
    """Columns that may be null and that an older version did not write yet are null; others must be there."""
    names = ", ".join(quoted(name) for name in tables.columns(table))
    with _readable(table, crawl):
        for start in range(0, len(files), _FILES_AT_ONCE):
            con.execute(
                f"INSERT INTO part_{table} BY NAME "
                f"SELECT COLUMNS(c -> c IN ({names})), {quoted(crawl)} AS crawl, {PART_SQL} AS part "
                f"FROM {_parquet(files[start : start + _FILES_AT_ONCE])}"
            )


def _parquet(files: list[Path]) -> str:
    listed = ", ".join(quoted(_unglobbed(file)) for file in files)
    return f"read_parquet([{listed}], filename = true, union_by_name = true)"


@contextlib.contextmanager
def _readable(table: str, crawl: str) -> Iterator[None]:
    try:
        yield
    except (
        duckdb.IOException,
        duckdb.InvalidInputException,
        duckdb.BinderException,
        duckdb.ConversionException,
        duckdb.ConstraintException,
    ) as error:
        line = str(error).splitlines()[0]
        raise InputError(f"{table} parts of crawl {crawl} cannot be read: {line}") from error


def _unglobbed(file: Path) -> str:
    """A path that DuckDB's file patterns take literally."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in str(file))


def _check_reasons(con: duckdb.DuckDBPyConnection, table: str) -> None:
    row = con.execute(
        f"SELECT reason, crawl FROM part_{table} WHERE reason NOT IN (SELECT reason FROM reasons) ORDER BY ALL LIMIT 1"
    ).fetchone()
    if row is not None:
        raise InputError(
            f"{table} of crawl {row[1]} hold the unknown reason {row[0]!r}: the enum is warehouse.schema.Reason"
        )
