"""The lock of a root on an object store: one of the PostgreSQL database that holds its catalogue, for all machines.

It ends with the connection that holds it, however that ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from warehouse import catalog, mirror
from warehouse.errors import InputError
from warehouse.store import shown, store_of

if TYPE_CHECKING:
    import psycopg

logger = logging.getLogger(__name__)
_KEY = 0x677074666164  # beside that of the lake's writer (warehouse.writers); one root per database
_POLL_S = 1.0
_HOLDER = """
    SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND datname = current_database()
      AND (classid::bigint << 32 | objid::bigint) = %s
"""


@contextlib.contextmanager
def store_lock(root: Path, patience_s: float) -> Iterator[None]:
    """Hold a root on an object store for writing, on all machines; nothing to do for a root on disk.

    Raises InputError where it has no catalogue in PostgreSQL, where that cannot be reached, and naming the holder
    where another process keeps the lock for longer than `patience_s`.
    """
    if store_of(root) is None:
        yield
        return
    with contextlib.closing(_connected(root)) as con:
        deadline = time.monotonic() + patience_s
        while not _got(con):
            if time.monotonic() >= deadline:
                holder = _holder(con)
                raise InputError(
                    f"root {shown(root)} is being written by {holder}: wait for it to end, or choose another --root"
                )
            time.sleep(_POLL_S)
        yield


def offer(root: Path, *names: str) -> None:
    """Put files that any machine may make again (reports; paths below the root) on the store of a root.

    They stay on this machine where another one writes, or has written since `mirror.fetch`: theirs are newer. Nothing
    to do for a root on disk, and for who holds the root: all that is new goes to the store then.
    """
    if store_of(root) is None or mirror.is_mine(root):
        return
    with contextlib.suppress(InputError), store_lock(root, 0):
        if mirror.put_if_unchanged(root, names):
            return
    logger.warning("%s is being written: %s stay on this machine, in %s", shown(root), ", ".join(names), root)


def _connected(root: Path) -> psycopg.Connection[tuple[object, ...]]:
    address = catalog.catalog_address(root)
    if address is None:
        raise InputError(
            f"root {shown(root)} has no catalogue yet, and on an object store that is in PostgreSQL: build first, with "
            "--catalog postgres://user@host/database"
        )
    try:
        import psycopg
    except ImportError as error:
        raise InputError("a root on s3:// needs psycopg: pip install 'gptface[s3,postgres]'") from error
    name = f"gptface {os.getpid()} on {platform.node()}"[:63]
    try:
        return psycopg.connect(address, autocommit=True, application_name=name)
    except psycopg.Error as error:
        raise InputError(f"catalogue {address} cannot be reached: {' '.join(str(error).split())}") from error


def _got(con: psycopg.Connection[tuple[object, ...]]) -> bool:
    row = con.execute("SELECT pg_try_advisory_lock(%s)", [_KEY]).fetchone()
    return bool(row and row[0])


def _holder(con: psycopg.Connection[tuple[object, ...]]) -> str:
    """Process and machine of who holds the lock."""
    row = con.execute(_HOLDER, [_KEY]).fetchone()
    return str(row[0]) if row else "another process"
