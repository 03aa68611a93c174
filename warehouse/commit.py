"""Commits whose answer may be lost: what the catalogue names stays there.

Where the connection to PostgreSQL breaks at a COMMIT, DuckLake (1.5) takes the transaction for failed and deletes the
files that it had written for it. If the server had got the word, its catalogue then names files that are gone, and the
release cannot be read. So before a COMMIT new files get a second name in lake/committing/ (a hard link on disk, a copy
made by the store itself), which goes after it; where it did not go well, files that are gone get their name back. If
the transaction was not committed after all, nobody names them: the next `gptface prune` deletes them.

A catalogue in SQLite needs none of it: there, nothing lies between DuckDB and its file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from warehouse.catalog import catalog_address
from warehouse.store import filesystem, store_errors, store_of
from warehouse.tables import LAKE

if TYPE_CHECKING:
    import duckdb

_KNOWN = ("ducklake_data_file", "ducklake_delete_file", "ducklake_files_scheduled_for_deletion")
_AT_ONCE = 8


def commit(con: duckdb.DuckDBPyConnection, root: Path | str) -> None:
    """COMMIT. Where that raises, close the connection, then call `restore`."""
    root = Path(root)
    if catalog_address(root) is None:
        con.execute("COMMIT")
        return
    tables = " UNION ALL ".join(f"SELECT path FROM __ducklake_metadata_{LAKE}.{name}" for name in _KNOWN)
    known = {str(path).rpartition("/")[2] for (path,) in con.execute(tables).fetchall()}
    with _told(root):
        shelf = _shelf(root)
        new = [name for name in shelf.files("data") if name.rpartition("/")[2] not in known]
        _each(shelf.keep, new)
    con.execute("COMMIT")
    with _told(root):
        _each(shelf.forget, new)


def restore(root: Path) -> None:
    """Give files of a commit that went wrong their name back. Nothing to do after those that went well."""
    if catalog_address(root) is None:
        return
    with _told(root):
        shelf = _shelf(root)
        kept = shelf.files("committing")
        there = set(shelf.files("data")) if kept else set()
        _each(shelf.bring_back, (name for name in kept if name not in there))
        _each(shelf.forget, kept)


class _Shelf(Protocol):
    """lake/data/ and lake/committing/, in which files have the same paths."""

    def files(self, folder: str) -> list[str]: ...
    def keep(self, name: str) -> None: ...
    def bring_back(self, name: str) -> None: ...
    def forget(self, name: str) -> None: ...


class _Disk:
    def __init__(self, root: Path) -> None:
        self._lake = root / "lake"

    def files(self, folder: str) -> list[str]:
        place = self._lake / folder
        return [path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()]

    def keep(self, name: str) -> None:
        self._link(self._lake / "data" / name, self._lake / "committing" / name)

    def bring_back(self, name: str) -> None:
        self._link(self._lake / "committing" / name, self._lake / "data" / name)

    def forget(self, name: str) -> None:
        (self._lake / "committing" / name).unlink(missing_ok=True)

    def _link(self, old: Path, new: Path) -> None:
        new.parent.mkdir(parents=True, exist_ok=True)
        new.unlink(missing_ok=True)
        try:
            os.link(old, new)
        except OSError:  # a file system without hard links
            shutil.copyfile(old, new)


class _Objects:
    def __init__(self, address: str) -> None:
        self._fs, self._lake = filesystem(), f"{address.removeprefix('s3://')}/lake"

    def files(self, folder: str) -> list[str]:
        base = f"{self._lake}/{folder}/"
        return [str(path).removeprefix(base) for path in self._fs.find(base)]

    def keep(self, name: str) -> None:
        self._fs.cp_file(f"{self._lake}/data/{name}", f"{self._lake}/committing/{name}")

    def bring_back(self, name: str) -> None:
        self._fs.cp_file(f"{self._lake}/committing/{name}", f"{self._lake}/data/{name}")

    def forget(self, name: str) -> None:
        self._fs.rm_file(f"{self._lake}/committing/{name}")


def _shelf(root: Path) -> _Shelf:
    address = store_of(root)
    return _Disk(root) if address is None else _Objects(address)


def _told(root: Path) -> contextlib.AbstractContextManager[None]:
    address = store_of(root)
    return contextlib.nullcontext() if address is None else store_errors(address)


def _each(action: Callable[[str], None], names: Iterable[str]) -> None:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(action, names))
