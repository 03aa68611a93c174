"""The objects of a root on an object store, and which files of a working folder are of the root at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from warehouse.files import replacing
from warehouse.store import STORE_FILE, filesystem

_HERE_ALONE = frozenset({"prefect", "progress", "cache", STORE_FILE})  # what this machine knows of itself, or can get
_LAKE_ALONE = frozenset({"data", "committing", "tmp"})  # of lake/: DuckDB's own


class Store:
    """The objects below an address, by their path below the root. Raises what s3fs raises: see `store.store_errors`."""

    def __init__(self, address: str) -> None:
        self.fs, self._base = filesystem(), address.removeprefix("s3://")

    def place(self, name: str) -> str:
        return f"{self._base}/{name}"

    def files(self) -> dict[str, Any]:
        """What belongs to the root, but the lake's own: path -> s3fs's description."""
        found: dict[str, Any] = {}
        try:
            tops = self.fs.ls(self._base, detail=True)
        except FileNotFoundError:
            self.fs.info(self._base.partition("/")[0])  # no bucket? else it is empty
            return {}
        for top in tops:
            name = top["name"].removeprefix(f"{self._base}/")
            depth = 1 if name == "lake" else None
            below = {top["name"]: top} if top["type"] == "file" else self.fs.find(top["name"], depth, detail=True)
            found |= {path.removeprefix(f"{self._base}/"): info for path, info in below.items()}
        return {name: info for name, info in found.items() if belongs(name)}

    def read(self, name: str) -> str:
        """A small text; empty where there is none."""
        try:
            return bytes(self.fs.cat_file(self.place(name))).decode()
        except FileNotFoundError:
            return ""

    def write(self, name: str, text: str, only_new: bool = False) -> None:
        """`only_new`: raises FileExistsError where it is there already."""
        self.fs.pipe_file(self.place(name), text.encode(), mode="create" if only_new else "overwrite")

    def get(self, name: str, target: Path) -> None:
        """Download whole or not at all; the file is as old as the object."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as part:
            self.fs.get_file(self.place(name), str(part))

    def put(self, name: str, source: Path) -> str:
        """Upload; the object's etag."""
        self.fs.put_file(str(source), self.place(name))
        return str(self.fs.info(self.place(name))["ETag"])

    def delete(self, name: str) -> None:
        """One by one: s3fs does not tell which of many the store would not delete."""
        self.fs.rm_file(self.place(name))


def belongs(name: str) -> bool:
    """Whether a path below the root is of the root, not of this machine, of DuckDB, or half-written (hidden)."""
    parts = name.split("/")
    if parts[0] in _HERE_ALONE or (parts[0] == "lake" and len(parts) > 1 and parts[1] in _LAKE_ALONE):
        return False
    return not any(part.startswith(".") or part.endswith(".tmp") for part in parts)
