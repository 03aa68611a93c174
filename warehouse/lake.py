"""The lake of a root: a DuckLake with a SQLite catalogue and Parquet files, opened, created and locked here.

`connect(root)` gives a DuckDB connection with the current release's views in reach (`SELECT ... FROM corpus`);
`connect(root, at=3)` the same as release 3 was. A plain DuckDB connection reads it as well:
`ATTACH 'ducklake:sqlite:ROOT/lake/catalog.sqlite' AS lake`, then `lake.corpus` (after the root was moved, until the
next publish there: with `DATA_PATH 'ROOT/lake/data/', OVERRIDE_DATA_PATH true`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import duckdb

from warehouse import tables
from warehouse.errors import InputError
from warehouse.tables import LAKE

T = TypeVar("T")

_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    # Nothing is downloaded: the extensions come with our packages. Python variables are not tables.
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
    # The extensions are files of installed packages, as trusted as their Python code. Checking their signatures would
    # hash 70 MB at every start: 0.3 s where 0.01 s does.
    "allow_unsigned_extensions": "true",
}


def catalog_path(root: Path) -> Path:
    return root / "lake" / "catalog.sqlite"


def data_path(root: Path) -> str:
    """Folder of the lake's Parquet files, with the trailing slash that DuckLake stores."""
    return f"{(root / 'lake' / 'data').resolve()}/"


def quoted(text: str) -> str:
    """A SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def load_extension(con: duckdb.DuckDBPyConnection, name: str) -> None:
    """Load an extension from its wheel by path: no network, no file in the home folder.

    Raises InputError where the wheel is missing or made for another DuckDB.
    """
    spec = find_spec(f"duckdb_extension_{name}")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for folder in folders:
        file = Path(folder) / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
        if file.is_file():
            con.execute(f"LOAD {quoted(str(file))}")
            return
    wheel = f"duckdb-extension-{name.replace('_', '-')}=={duckdb.__version__}"
    raise InputError(f"DuckDB's extension {name!r} is not installed: pip install {wheel}")


class LakeBusyError(InputError):
    """Another process is committing to the lake right now."""


@contextlib.contextmanager
def lake_errors(root: Path) -> Iterator[None]:
    """Turn DuckDB's errors about the world into ours: LakeBusyError for another writer, OSError for disk and rights."""
    try:
        yield
    except duckdb.Error as error:
        line, text = str(error).splitlines()[0], str(error).lower()
        if "database is locked" in text or "transaction conflict" in text:
            busy = f"lake under {root} is being written by another process: try again when it ends"
            raise LakeBusyError(busy) from error
        disk = ("disk i/o", "disk is full", "readonly database", "unable to open database")
        if isinstance(error, duckdb.IOException) or any(sign in text for sign in disk):
            raise OSError(f"lake under {root}: {line}") from error
        raise


def patiently(action: Callable[[], T], patience_s: float) -> T:
    """Repeat a whole transaction while another process is committing, for up to `patience_s`; then LakeBusyError.

    SQLite lets one process commit at a time and gives up at once where both have read before; commits are short.
    """
    deadline, wait_s = time.monotonic() + patience_s, 0.05
    while True:
        try:
            return action()
        except LakeBusyError:
            if time.monotonic() + wait_s > deadline:
                raise
        time.sleep(wait_s)
        wait_s = min(2 * wait_s, 1.0)


def connect(root: Path | str, at: int | None = None, read_only: bool = True) -> duckdb.DuckDBPyConnection:
    """A connection in which `corpus`, `pairs`, `funnel`, ... mean the current release, or release `at`.

    Time zone is UTC. The caller closes it. Raises InputError where there is no lake, or no such release.
    """
    root = Path(root)
    no_lake = InputError(f"no lake under {root}: run `gptface build --root {root} ...` first")
    if not catalog_path(root).is_file():
        raise no_lake
    with lake_errors(root):
        try:
            con = _attach(root, read_only)
        except duckdb.InvalidInputException as error:
            if "does not exist" in str(error):  # an empty file: a crash came before DuckLake's own tables
                raise no_lake from error
            raise
        try:
            if _check_format(con, root) == 0:  # a crash came before the first tables
                raise no_lake
            if at is not None:
                _travel(con, root, at)
            con.execute(f"USE {LAKE}")
        except (duckdb.Error, InputError):
            con.close()
            raise
    return con


def create(root: Path | str) -> None:
    """Make the lake of a root, or bring an existing one up to this version's tables and views. Idempotent.

    Raises OSError where the root cannot be written, InputError where another process holds the catalogue.
    """
    open_for_writing(root).close()


def open_for_writing(root: Path | str) -> duckdb.DuckDBPyConnection:
    """A writing connection to the lake of a root, which is made where there is none (see `create`)."""
    root = Path(root)
    (root / "lake" / "data").mkdir(parents=True, exist_ok=True)
    _adopt_moved_root(root)
    with lake_errors(root):
        con = _attach(root, read_only=False)
        try:
            con.execute(f"USE {LAKE}")
            if _check_format(con, root) != tables.FORMAT_VERSION or not _reasons_are_current(con):
                _make_tables(con)
        except (duckdb.Error, InputError):
            con.close()
            raise
    return con


@contextlib.contextmanager
def root_lock(root: Path | str) -> Iterator[None]:
    """Hold the root for writing. The kernel releases it when the process ends, however it ends.

    Raises InputError naming the holder where another process (or another holder in this one) has it.
    """
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise InputError(
                f"root {root} is being written by process {holder}: wait for it to end, or choose another --root"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _attach(root: Path, read_only: bool) -> duckdb.DuckDBPyConnection:
    con = duckdb.connect(config=_CONFIG)
    try:
        load_extension(con, "ducklake")
        load_extension(con, "sqlite_scanner")
        con.execute("SET TimeZone = 'UTC'")
        con.execute(f"SET temp_directory = {quoted(str(root / 'lake' / 'tmp'))}")  # not the current folder
        # Small inserts go to Parquet as well: what the lake holds lies in one kind of place. A moved root still fits.
        options = [f"DATA_PATH {quoted(data_path(root))}", "OVERRIDE_DATA_PATH true", "DATA_INLINING_ROW_LIMIT 0"]
        if read_only:
            options.append("READ_ONLY")
        catalog = quoted(f"ducklake:sqlite:{catalog_path(root).resolve()}")
        con.execute(f"ATTACH {catalog} AS {LAKE} ({', '.join(options)})")
    except (duckdb.Error, InputError):
        con.close()
        raise
    return con


def _make_tables(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("BEGIN")
    for statement in tables.table_ddl():
        con.execute(statement)
    con.execute(f"DELETE FROM {LAKE}.main.reasons")
    rows = ", ".join(f"('{reason}', '{stage}', {order})" for reason, stage, order in tables.reason_rows())
    con.execute(f"INSERT INTO {LAKE}.main.reasons VALUES {rows}")
    con.execute(f"DELETE FROM {LAKE}.main.lake_format")
    con.execute(f"INSERT INTO {LAKE}.main.lake_format VALUES ({tables.FORMAT_VERSION})")
    for name, select in tables.view_selects("release_to IS NULL").items():
        con.execute(f"CREATE OR REPLACE VIEW {LAKE}.main.{name} AS {select}")
    con.execute(f"CALL {LAKE}.set_commit_message('gptface', 'tables of format {tables.FORMAT_VERSION}')")
    con.execute("COMMIT")


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
            f"lake under {root} has format {version}, this version of gptface reads {tables.FORMAT_VERSION}"
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
        raise InputError(f"no release {at} under {root}: {has}")
    con.execute(f"SET VARIABLE release = {at}")
    current = f"release_from <= {at} AND (release_to IS NULL OR release_to > {at})"
    for name, select in tables.view_selects(current, f"{LAKE}.").items():
        con.execute(f"CREATE TEMP VIEW {name} AS {select}")


def _adopt_moved_root(root: Path) -> None:
    """Tell the catalogue of a moved root where its files are now, so that plain connections find them too.

    Through DuckDB's SQLite: a second SQLite library in this process would drop the first one's file locks on closing.
    """
    if not catalog_path(root).is_file():
        return
    with lake_errors(root), duckdb.connect(config=_CONFIG) as con:
        load_extension(con, "sqlite_scanner")
        con.execute(f"ATTACH {quoted(str(catalog_path(root)))} AS catalogue (TYPE sqlite)")
        try:
            found = con.execute("SELECT value FROM catalogue.ducklake_metadata WHERE key = 'data_path'").fetchone()
        except duckdb.CatalogException:  # a crash came before DuckLake made its own tables: they are made next
            return
        if found and found[0] != data_path(root):
            here = quoted(data_path(root))
            con.execute(f"UPDATE catalogue.ducklake_metadata SET value = {here} WHERE key = 'data_path'")
