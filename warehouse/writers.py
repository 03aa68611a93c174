"""Who may write: the lock of a root, the lock of a lake's catalogue, and what happens where two want to commit at once.

Two transactions that both read "release 5 is the newest" and add a sixth do not collide for DuckLake: inserts never do.
So whoever writes to a lake holds its writer's lock from the first read to the commit: `flock` on a file beside a SQLite
catalogue, an advisory lock of the database for one in PostgreSQL (where writers may be on several machines). Both end
with the process that holds them, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import duckdb

from warehouse import catalog, mirror
from warehouse.duck import CONFIG
from warehouse.errors import InputError
from warehouse.store import shown
from warehouse.storelock import store_lock

T = TypeVar("T")

ROOT_POLL_S = 1.0
_ADVISORY_KEY = 0x677074666163  # of PostgreSQL; one lake per database
_CONFLICTS = ("database is locked", "transaction conflict", "could not serialize", "deadlock detected")
_GONE = (
    "server closed the connection",
    "terminating connection",
    "connection has been closed",
    "no connection to the",
    'failed to execute query "rollback"',  # not even that: what DuckDB says where the connection breaks before COMMIT
)
_DISK = ("disk i/o", "disk is full", "readonly database", "unable to open database")


class LakeBusyError(InputError):
    """Another process is committing to the lake right now."""


@contextlib.contextmanager
def lake_errors(root: Path) -> Iterator[None]:
    """Turn DuckDB's errors about the world into ours: LakeBusyError for another writer, InputError for a database that
    cannot be reached, OSError for disk, rights and a connection that broke.
    """
    try:
        yield
    except duckdb.Error as error:
        line, text = str(error).splitlines()[0], str(error).lower()
        if any(sign in text for sign in _CONFLICTS):
            raise _busy(root) from error
        unreached = re.search(r'Unable to connect to Postgres at "(?P<at>[^"]*)": *(?P<why>[^\n]*)', str(error))
        if unreached:
            why = unreached["why"].removeprefix("connection to server ").strip()
            raise InputError(f"catalogue {unreached['at']} cannot be reached: {why}") from error
        if any(sign in text for sign in _GONE):
            raise OSError(
                f"lake under {shown(root)}: the connection to its catalogue {catalog.catalog_of(root)} broke"
            ) from error
        if isinstance(error, duckdb.IOException) or any(sign in text for sign in _DISK):
            raise OSError(f"lake under {shown(root)}: {line}") from error
        raise


def patiently(action: Callable[[], T], patience_s: float) -> T:
    """Repeat a whole transaction while another process is committing, for up to `patience_s`; then LakeBusyError."""
    deadline, wait_s = time.monotonic() + patience_s, 0.05
    while True:
        try:
            return action()
        except LakeBusyError:
            if time.monotonic() + wait_s > deadline:
                raise
        time.sleep(wait_s)
        wait_s = min(2 * wait_s, 1.0)


@contextlib.contextmanager
def writer_lock(root: Path) -> Iterator[None]:
    """Be the only writer of the lake of a root, on all machines. Raises LakeBusyError where there is another."""
    address = catalog.catalog_address(root)
    with _advisory_lock(root, address) if address else _file_lock(root):
        yield


def close_quietly(con: duckdb.DuckDBPyConnection) -> None:
    """End a connection whose transaction may be open and whose database may be gone.

    Closing alone aborts the whole process where PostgreSQL went away in the middle of a transaction.
    """
    with contextlib.suppress(duckdb.Error):  # no transaction, or no database any more
        con.execute("ROLLBACK")
    con.close()


@contextlib.contextmanager
def _file_lock(root: Path) -> Iterator[None]:
    (root / "lake").mkdir(parents=True, exist_ok=True)
    descriptor = os.open(root / "lake" / ".writer", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _busy(root) from error
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _advisory_lock(root: Path, address: str) -> Iterator[None]:
    """The lock lives as long as the transaction in which PostgreSQL gave it."""
    con = duckdb.connect(config=CONFIG)
    try:
        catalog.attach_plainly(con, address)
        con.execute("BEGIN")
        ask = f"SELECT pg_try_advisory_xact_lock({_ADVISORY_KEY}) AS got"
        row = con.execute(f"FROM postgres_query('catalogue', '{ask}')").fetchone()
        if row is None or not row[0]:
            raise _busy(root)
        yield
    finally:
        close_quietly(con)


def _busy(root: Path) -> LakeBusyError:
    return LakeBusyError(f"lake under {shown(root)} is being written by another process: try again when it ends")


@contextlib.contextmanager
def root_lock(root: Path | str, patience_s: float = 0.0) -> Iterator[None]:
    """Hold the root for writing. The kernel releases it when the process ends, however it ends.

    A root on an object store is held on all machines, and its working folder kept alike meanwhile: see
    `warehouse.mirror`. Raises InputError naming the holder where another process (or another holder in this one) has
    it, and keeps it for longer than `patience_s`.
    """
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    catalog.find_catalog(root)
    descriptor = os.open(root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            _flock(descriptor, patience_s)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise InputError(
                f"root {shown(root)} is being written by process {holder}: wait for it to end, or choose another --root"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        with store_lock(root, patience_s), mirror.session(root):
            yield
    finally:
        os.close(descriptor)


def _flock(descriptor: int, patience_s: float) -> None:
    """The lock, tried again until the time is up; BlockingIOError then."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(ROOT_POLL_S)
        else:
            return
