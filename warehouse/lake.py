"""The lake of a root: a DuckLake with its catalogue in SQLite or PostgreSQL and Parquet files, opened and created here.

`connect(root)` gives a DuckDB connection with the current release's views in reach (`SELECT ... FROM corpus`);
`connect(root, at=3)` the same as release 3 was. A plain DuckDB connection reads it as well:
`ATTACH 'ducklake:sqlite:ROOT/lake/catalog.sqlite' AS lake`, or `'ducklake:postgres:ADDRESS'`, then `lake.corpus` (after
the root was moved, until the next publish there: with `DATA_PATH 'ROOT/lake/data/', OVERRIDE_DATA_PATH true`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import duckdb

from warehouse import mirror, tables
from warehouse.catalog import (
    adopt_moved_root,
    catalog_of,
    catalog_path,
    choose_catalog,
    data_path,
    find_catalog,
    has_lake,
)
from warehouse.commit import commit, restore
from warehouse.duck import CONFIG, load_extension, quoted
from warehouse.errors import InputError
from warehouse.store import find_root, open_store, shown, store_of
from warehouse.tables import LAKE
from warehouse.writers import LakeBusyError, close_quietly, lake_errors, patiently, root_lock, writer_lock

__all__ = [
    "LakeBusyError",
    "catalog_path",
    "choose_catalog",
    "commit",
    "connect",
    "create",
    "data_path",
    "has_lake",
    "lake_errors",
    "load_extension",
    "open_for_writing",
    "patiently",
    "quoted",
    "root_lock",
    "writing",
]
_CREATE_PATIENCE_S = 30


def connect(root: Path | str, at: int | None = None, read_only: bool = True) -> duckdb.DuckDBPyConnection:
    """A connection in which `corpus`, `pairs`, `funnel`, ... mean the current release, or release `at`.

    Time zone is UTC. The caller closes it. A lake of an older format is brought up to this one first. Raises InputError
    where there is no lake, or no such release, OSError where an older lake cannot be written.
    """
    root = find_root(root)
    with lake_errors(root):
        con, version = _opened(root, read_only)
        if version < tables.FORMAT_VERSION:
            con.close()
            create(root)
            con, _ = _opened(root, read_only)
        try:
            if at is not None:
                _travel(con, root, at)
            con.execute(f"USE {LAKE}")
        except (duckdb.Error, InputError):
            con.close()
            raise
    return con


def _opened(root: Path, read_only: bool) -> tuple[duckdb.DuckDBPyConnection, int]:
    """A connection to the lake that is there, and the format of its tables. Raises InputError where there is none."""
    place = shown(root)
    no_lake = InputError(f"no lake under {place}: run `gptface build --root {place} ...` first")
    find_catalog(root)
    if not has_lake(root):
        raise no_lake
    try:
        con = _attach(root, read_only)
    except duckdb.InvalidInputException as error:
        if "does not exist" in str(error):  # an empty file: a crash came before DuckLake's own tables
            raise no_lake from error
        raise
    try:
        version = _check_format(con, root)
        if version == 0:  # a crash came before the first tables
            raise no_lake
    except (duckdb.Error, InputError):
        con.close()
        raise
    return con, version


def create(root: Path | str) -> None:
    """Make the lake of a root, or bring an existing one up to this version's tables and views. Idempotent.

    Raises OSError where the root cannot be written, InputError where another process holds the catalogue.
    """

    def create_once() -> None:
        with writing(root):
            pass

    patiently(create_once, _CREATE_PATIENCE_S)


@contextlib.contextmanager
def writing(root: Path | str) -> Iterator[duckdb.DuckDBPyConnection]:
    """The only writing connection to the lake of a root, which is made where there is none. Time for one transaction.

    Raises as `lake_errors` and `writer_lock` say: LakeBusyError where another process writes (see `patiently`).
    """
    root = Path(root)
    mirror.flush(root)  # what the lake will tell of lies on the store first
    with lake_errors(root), writer_lock(root):
        con = open_for_writing(root)
        try:
            yield con
        finally:
            close_quietly(con)
            restore(root)


def open_for_writing(root: Path | str) -> duckdb.DuckDBPyConnection:
    """A writing connection to the lake of a root, which is made where there is none; `writing` keeps others out."""
    root = Path(root)
    (root / "lake" / "data").mkdir(parents=True, exist_ok=True)
    with lake_errors(root):
        restore(root)  # what a killed process had in hand
        con = _attach(root, read_only=False)
        try:
            adopt_moved_root(con, root, LAKE)
            con.execute(f"USE {LAKE}")
            found = _check_format(con, root)
            if found != tables.FORMAT_VERSION or not _reasons_are_current(con):
                _make_tables(con, root, found)
        except (duckdb.Error, InputError):
            con.close()
            raise
    return con


def _attach(root: Path, read_only: bool) -> duckdb.DuckDBPyConnection:
    catalog = catalog_of(root)
    con = duckdb.connect(config=CONFIG)
    try:
        load_extension(con, "ducklake")
        load_extension(con, catalog.extension)
        if (store := store_of(root)) is not None:
            open_store(con, store)
        con.execute("SET TimeZone = 'UTC'")
        con.execute(f"SET temp_directory = {quoted(str(root / 'lake' / 'tmp'))}")  # not the current folder
        # Small inserts go to Parquet as well: what the lake holds lies in one kind of place. A moved root still fits.
        options = [f"DATA_PATH {quoted(data_path(root))}", "OVERRIDE_DATA_PATH true", "DATA_INLINING_ROW_LIMIT 0"]
        if read_only:
            options.append("READ_ONLY")
        con.execute(f"ATTACH {quoted(catalog.uri)} AS {LAKE} ({', '.join(options)})")
    except (duckdb.Error, InputError):
        con.close()
        raise
    return con


def _make_tables(con: duckdb.DuckDBPyConnection, root: Path, found: int) -> None:
    """Bring a lake of format `found` (0: an empty one) to this version, in one transaction."""
    con.execute("BEGIN")
    for version in range(found or tables.FORMAT_VERSION, tables.FORMAT_VERSION):
        for statement in tables.migration(version):
            con.execute(statement)
    for statement in tables.table_ddl():
        con.execute(statement)
    con.execute(f"DELETE FROM {LAKE}.main.reasons")
    rows = ", ".join(f"('{reason}', '{stage}', {order})" for reason, stage, order in tables.reason_rows())
    con.execute(f"INSERT INTO {LAKE}.main.reasons VALUES {rows}")
    con.execute(f"DELETE FROM {LAKE}.main.lake_format")
    con.execute(f"INSERT INTO {LAKE}.main.lake_format VALUES ({tables.FORMAT_VERSION})")
    for name, select in tables.view_selects("release_to IS NULL").items():
        con.execute(f"CREATE OR REPLACE VIEW {LAKE}.main.{name} AS {select}")
    # Ids and addresses, most of what is read, take Snappy twice as long and get no smaller. (Parquet's version 2 would
    # do as well, but pyarrow cannot read its texts as dictionaries.)
    con.execute(f"CALL {LAKE}.set_option('parquet_compression', 'lz4_raw')")
    con.execute(f"CALL {LAKE}.set_commit_message('gptface', 'tables of format {tables.FORMAT_VERSION}')")
    commit(con, root)


def _format_version(con: duckdb.DuckDBPyConnection) -> int:
    """Version of the lake's tables; 0 before there are any."""
    try:
        row = con.execute(f"SELECT max(version) FROM {LAKE}.main.lake_format").fetchone()
    except duckdb.CatalogException:
        return 0
    return int(row[0]) if row and row[0] is not None else 0


def _check_format(con: duckdb.DuckDBPyConnection, root: Path) -> int:
    version = _format_version(con)
    if version > tables.FORMAT_VERSION:
        raise InputError(
            f"lake under {shown(root)} has format {version}, this version of gptface reads {tables.FORMAT_VERSION}"
        )
    return version


def _reasons_are_current(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether the enum is this version's (it grows without a new format)."""
    found = con.execute(f"SELECT reason, stage, stage_order FROM {LAKE}.main.reasons ORDER BY stage_order").fetchall()
    return found == tables.reason_rows()


def _travel(con: duckdb.DuckDBPyConnection, root: Path, at: int) -> None:
    """Temporary views of release `at`; unqualified names find them first."""
    row = con.execute(f"SELECT max(release) FROM {LAKE}.main.releases").fetchone()
    last = int(row[0]) if row and row[0] is not None else 0
    if not 1 <= at <= last:
        has = f"it has 1 to {last}" if last else "it has none yet"
        raise InputError(f"no release {at} under {shown(root)}: {has}")
    con.execute(f"SET VARIABLE release = {at}")
    current = f"release_from <= {at} AND (release_to IS NULL OR release_to > {at})"
    for name, select in tables.view_selects(current, f"{LAKE}.").items():
        con.execute(f"CREATE TEMP VIEW {name} AS {select}")
