"""The files of a working folder, and what it knows of its store (see `warehouse.mirror`)."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from warehouse.files import replacing
from warehouse.objects import belongs

_STATE = ".store.json"
_WITH_PICTURES = ("raw", "shards", "models")


class Stat(NamedTuple):
    """A file of the working folder."""

    bytes: int
    mtime_ns: int


@dataclass
class State:
    """What the working folder knows of the store: its generation, and the files that are alike (stat here, etag)."""

    generation: str = ""
    files: dict[str, tuple[Stat, str]] = field(default_factory=dict)

    def changed(self, name: str, stat: Stat) -> bool:
        known = self.files.get(name)
        return known is None or known[0] != stat


def files_of(root: Path) -> dict[str, Stat]:
    """What belongs to the root in its working folder, by path."""
    found: dict[str, Stat] = {}
    for folder, below, names in os.walk(root, onerror=_unreadable):
        inside = Path(folder).relative_to(root).as_posix()
        prefix = "" if inside == "." else f"{inside}/"
        below[:] = [name for name in below if belongs(f"{prefix}{name}/")]
        for name in names:
            if belongs(f"{prefix}{name}"):
                with contextlib.suppress(FileNotFoundError):
                    found[f"{prefix}{name}"] = stat_of(Path(folder, name))
    return found


def _unreadable(error: OSError) -> None:
    """A folder that cannot be listed is not one that was deleted."""
    if not isinstance(error, FileNotFoundError):
        raise error


def remove(root: Path, name: str) -> None:
    """Delete a file, and the folders that it leaves empty: the name of a crawl's tells a host."""
    path = root / name
    path.unlink()
    for folder in path.parents:
        if folder == root or any(folder.iterdir()):
            return
        folder.rmdir()


def drop_half_written(root: Path) -> None:
    """What a killed run has left under hidden names: a takedown elsewhere did not see the pictures in it."""
    for folder in _WITH_PICTURES:
        for path in list((root / folder).rglob(".*")):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def read_state(root: Path) -> State:
    try:
        told = json.loads((root / _STATE).read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return State()
    return State(told["generation"], {n: (Stat(*stat), etag) for n, (stat, etag) in told["files"].items()})


def write_state(root: Path, state: State) -> None:
    with replacing(root / _STATE) as part:
        part.write_text(json.dumps({"generation": state.generation, "files": state.files}), "utf-8")


def stat_of(path: Path) -> Stat:
    found = path.stat()
    return Stat(found.st_size, found.st_mtime_ns)
