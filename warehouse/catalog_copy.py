"""The catalogue of a lake as one file, and back: SQLite by its own backup, PostgreSQL by pg_dump and pg_restore.

Callers hold `lake.root_lock` and `writers.writer_lock`, so that the Parquet files which they copy beside it fit.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import subprocess
from pathlib import Path

from warehouse.catalog import catalog_address, catalog_path, check_address, store_address
from warehouse.errors import InputError

SQLITE, POSTGRES = "catalog.sqlite", "catalog.dump"


def dump_catalog(root: Path, folder: Path) -> Path:
    """Write the catalogue of `root` into `folder`; the file, whose name says which kind it is.

    Raises InputError where PostgreSQL or its pg_dump cannot be had.
    """
    address = catalog_address(root)
    if address is not None:
        file = folder / POSTGRES
        _run("pg_dump", "--format=custom", "--no-owner", f"--file={file}", address)
        return file
    file = folder / SQLITE
    source = sqlite3.connect(f"file:{catalog_path(root).resolve()}?mode=ro", uri=True)
    with contextlib.closing(source), contextlib.closing(sqlite3.connect(file)) as target:
        source.backup(target)
    return file


def load_catalog(file: Path, root: Path, address: str) -> None:
    """Give `root`, which has none, the catalogue in `file`; one of PostgreSQL goes into the empty database `address`.

    Raises InputError where an address is missing or of no use, or the database cannot take it.
    """
    if file.name == SQLITE:
        if address:
            raise InputError(f"the catalogue of this backup is SQLite: leave --catalog {address} out")
        target = catalog_path(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
        return
    if not address:
        raise InputError(
            "the catalogue of this backup is PostgreSQL: name an empty database with --catalog postgres://..."
        )
    _run(
        "pg_restore",
        "--no-owner",
        "--exit-on-error",
        "--single-transaction",
        f"--dbname={check_address(address)}",
        file,
    )
    store_address(root, address)


def _run(tool: str, *words: str | Path) -> None:
    program = shutil.which(tool)
    if program is None:
        raise InputError(f"{tool} is not on the PATH: install PostgreSQL's client programs")
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise InputError(f"{tool} failed: {said}")
