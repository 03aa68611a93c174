"""Back-up and restore of a root: the catalogue as of one moment, and every file that belongs to it, with its sha256.

    TARGET/backup-00003/files.json       what is in it; written last
    TARGET/backup-00003/catalog.sqlite   (or catalog.dump, of PostgreSQL)
    TARGET/backup-00003/root/...         the files as they lie in the root

Each backup is whole by itself. A file that has not changed since the one before is a hard link to its copy there, so a
backup costs what is new. Left out are embeddings (biometric data would outlive their time; they can be made again),
Prefect's own state, locks and what runs left half-written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from crawler.files import write_json
from flows.steps.space import told_if_full
from warehouse.catalog_copy import POSTGRES, SQLITE, dump_catalog, load_catalog
from warehouse.errors import InputError

_VERSION = 1
_INDEX = "files.json"
_ROOT = "root"
_CHUNK = 1 << 20
_LEFT_OUT = re.compile(
    r"prefect(/|$)|\.lock$|lake/(\.writer$|tmp(/|$)|catalog\.(sqlite|txt))"
    r"|(.*/)?(\.[^/]*\.(tmp|part)|\.[^/]*work|[^/]*\.tmp)(/|$)|.*\.embeddings\.parquet$"
)
Progress = Callable[[float, float], None]


@dataclass(frozen=True)
class Entry:
    """A file of a backup: its size, its sha256, and the time that says whether it has changed since."""

    bytes: int
    sha256: str
    mtime_ns: int


@dataclass(frozen=True)
class BackupSummary:
    """What a backup holds; `copied` bytes are new, the others are links into the one before. `path` is its folder."""

    path: str
    files: int
    bytes: int
    copied: int


def backup(root: Path, target: Path, keep: int = 2, progress: Progress | None = None) -> BackupSummary:
    """Add a backup of `root` to the folder `target`, whose newest `keep` stay.

    Nothing else writes the root meanwhile. Raises InputError where there is no lake, another process writes, `target`
    lies in the root or has too little room, and OSError where it cannot be written; earlier backups then stay.
    """
    from warehouse.lake import has_lake, root_lock
    from warehouse.writers import writer_lock

    if keep < 1:
        raise InputError(f"keep {keep}: choose 1 or more")
    if not has_lake(root):
        raise InputError(f"no lake under {root}: there is nothing to back up")
    if target.resolve().is_relative_to(root.resolve()):
        raise InputError(f"{target} lies in the root: choose a folder elsewhere, best on another disk")
    target.mkdir(parents=True, exist_ok=True)
    earlier = _backups(target)
    number = int(earlier[-1].name.rpartition("-")[2]) + 1 if earlier else 1
    folder, part = target / f"backup-{number:05d}", target / f".backup-{number:05d}.part"
    with told_if_full(target), root_lock(root), writer_lock(root):
        for leftover in target.glob(".backup-*.part"):  # of a killed one
            shutil.rmtree(leftover)
        try:
            copied, entries = _copy_root(root, part, earlier[-1] if earlier else None, progress)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    part.rename(folder)
    for old in [*earlier, folder][:-keep]:
        going = old.rename(target / f".{old.name}.part")  # at once: half a backup is none
        shutil.rmtree(going)
    return BackupSummary(str(folder), len(entries), sum(entry.bytes for entry in entries.values()), copied)


def restore(source: Path, root: Path, catalog: str = "", progress: Progress | None = None) -> BackupSummary:
    """Make `root` what it was at the backup `source` (or the newest one in that folder); every sha256 is checked.

    `catalog`: an empty PostgreSQL database, for a backup of such a catalogue. Raises InputError where there is no
    backup, `root` is not empty, or a file of the backup is damaged; `root` is then as before.
    """
    chosen = _chosen(source)
    entries = _entries(chosen)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"{root} is not empty: move it away, or choose another --root")
    part = root.resolve().with_name(f".{root.resolve().name}.restoring")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    total, done = sum(entry.bytes for entry in entries.values()), 0
    try:
        _check_room(part, total)
        for name, entry in entries.items():
            file = chosen / name
            with told_if_full(root):
                sha256 = _copy(file, part / name.removeprefix(f"{_ROOT}/")) if file.is_file() else None
            if sha256 != entry.sha256:
                raise InputError(f"{file} is missing or damaged: restore an earlier backup of {chosen.parent}")
            done += entry.bytes
            if progress:
                progress(done, total)
        dump = next(part / name for name in (SQLITE, POSTGRES) if name in entries)
        load_catalog(dump, part, catalog)
        dump.unlink()
        if root.exists():
            root.rmdir()
        part.rename(root)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return BackupSummary(str(chosen), len(entries), total, total)


def _copy_root(root: Path, part: Path, before: Path | None, progress: Progress | None) -> tuple[int, dict[str, Entry]]:
    """Fill the folder of a new backup; how many bytes are no links, and all its files."""
    part.mkdir()
    known = _entries(before) if before else {}
    found = {f"{_ROOT}/{name}": path for name, path in _files(root)}
    stats = {name: path.stat() for name, path in found.items()}
    unchanged = {
        name
        for name, stat in stats.items()
        if name in known and (known[name].bytes, known[name].mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    }
    total = sum(stat.st_size for stat in stats.values())
    _check_room(part, sum(stat.st_size for name, stat in stats.items() if name not in unchanged))
    dump = dump_catalog(root, part)
    entries = {dump.name: Entry(dump.stat().st_size, _sha256(dump), dump.stat().st_mtime_ns)}
    copied, done = entries[dump.name].bytes, 0
    for name, path in found.items():
        if name in unchanged and before and _linked(before / name, part / name):
            entries[name] = known[name]
        else:
            entries[name] = Entry(stats[name].st_size, _copy(path, part / name), stats[name].st_mtime_ns)
            copied += stats[name].st_size
        done += stats[name].st_size
        if progress:
            progress(done, total)
    files: dict[str, Any] = {name: asdict(entry) for name, entry in entries.items()}
    write_json(part / _INDEX, {"version": _VERSION, "code_version": version("gptface"), "files": files})
    return copied, entries


def _files(root: Path) -> Iterator[tuple[str, Path]]:
    """(path below the root, file) of all that belongs to a backup, in order; folders behind links included."""
    for folder, below, names in os.walk(root, followlinks=True):
        below.sort()
        for name in sorted(names):
            path = Path(folder) / name
            inside = path.relative_to(root).as_posix()
            if path.is_file() and not _LEFT_OUT.match(inside):
                yield inside, path


def _backups(target: Path) -> list[Path]:
    """Whole backups in a folder, oldest first."""
    return sorted(path for path in target.glob("backup-[0-9]*") if (path / _INDEX).is_file())


def _chosen(source: Path) -> Path:
    found = [source] if (source / _INDEX).is_file() else _backups(source)
    if not found:
        raise InputError(f"no backup in {source}: it has no {_INDEX}, and no folder backup-00001 or the like")
    return found[-1]


def _entries(folder: Path) -> dict[str, Entry]:
    path = folder / _INDEX
    try:
        index = json.loads(path.read_text("utf-8"))
        if index["version"] != _VERSION:
            raise InputError(f"{path} has version {index['version']}, this version of gptface reads {_VERSION}")
        entries = {name: Entry(**entry) for name, entry in index["files"].items()}
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} cannot be read ({error}): take another backup") from error
    strange = [name for name in entries if name.startswith("/") or ".." in name.split("/")]
    if strange or not entries.keys() & {SQLITE, POSTGRES}:
        raise InputError(f"{path} names {strange[0] if strange else 'no catalogue'}: it is no backup of a root")
    return entries


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{folder.parent} has {free / 1e6:,.0f} MB free of the {needed / 1e6:,.0f} MB needed: choose another disk"
        )


def _linked(old: Path, new: Path) -> bool:
    """A hard link, where the file system has them."""
    new.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(OSError):
        os.link(old, new)
        return True
    return False


def _copy(source: Path, target: Path) -> str:
    """Copy bytes and time of a file, flushed to the disk; the sha256 of what was read."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with source.open("rb") as reader, target.open("wb") as writer:
        while chunk := reader.read(_CHUNK):
            digest.update(chunk)
            writer.write(chunk)
        writer.flush()
        os.fsync(writer.fileno())
    shutil.copystat(source, target)
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
