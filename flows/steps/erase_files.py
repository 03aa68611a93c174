"""Erasing from the files below a root: rows of Parquet tables, members of raw shards, stored bytes, texts.

Everything here may be repeated: what is gone already is passed over. Files of rows are written anew, whole or not at
all. Bytes of pictures are overwritten where they lie, so that the places of all others stay what the lake says.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from crawler.files import replacing
from flows.steps.layout import Layout
from flows.steps.space import is_disk_full
from gptface_core.errors import InputError
from warehouse.removal import TEXTS, Removal
from warehouse.schema import content_id

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_CHUNK = 1 << 20
_GONE_MEMBER = "0" * 32 + ".gone"
_SCANNED_TEXTS = ("*.json", "*.jsonl", "*.log", "*.csv", "*.md")


def drop_unfinished(layout: Layout) -> None:
    """Remove what a killed run left half-written below raw/: it is made again, and nobody knows what it holds."""
    for path in list(layout.raw.rglob(".*")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.suffix in (".tmp", ".part"):
            path.unlink(missing_ok=True)
    for tar in layout.raw.glob("*/g*/images/*.tar"):
        if not tar.with_name(f"{tar.stem}_stats.json").is_file():
            tar.unlink()
    for stored in layout.raw.glob("*/g*/extract/*.stored.bin"):
        if not stored.with_name(stored.name.replace(".stored.bin", "_done.json")).is_file():
            stored.unlink()


def overwrite(root: Path, copies: Iterable[tuple[str, int, int]]) -> int:
    """Put zeros over pictures at (file below the root, offset, bytes); how many files there were to write to.

    In a tar the member's header becomes one that names nothing, so that it stays a tar with all others in their places.
    """
    by_file: dict[str, list[tuple[int, int]]] = {}
    for name, offset, size in copies:
        by_file.setdefault(name, []).append((offset, size))
    written = 0
    for name, places in sorted(by_file.items()):
        path = root / name
        if not path.is_file() or not path.resolve().is_relative_to(root.resolve()):
            continue
        with path.open("r+b") as file:
            for offset, size in places:
                if path.suffix == ".tar":
                    _unname_member(file, offset, size)
                _zero(file, offset, size)
            file.flush()
            os.fsync(file.fileno())
        written += 1
    return written


def _unname_member(file: BinaryIO, offset: int, size: int) -> None:
    """Replace the header of the member whose bytes begin at `offset` by a neutral one."""
    start = offset - tarfile.BLOCKSIZE
    file.seek(max(0, start))
    if start < 0 or file.read(tarfile.BLOCKSIZE)[257:262] != b"ustar":
        raise InputError(f"{file.name} has no member at byte {offset}: restore it, or remove it with its crawl")
    member = tarfile.TarInfo(_GONE_MEMBER)
    member.size = size
    file.seek(start)
    file.write(member.tobuf(tarfile.USTAR_FORMAT))


def _zero(file: BinaryIO, offset: int, size: int) -> None:
    end = file.seek(0, os.SEEK_END)
    file.seek(offset)
    left = min(size, max(0, end - offset))
    while left:
        left -= file.write(bytes(min(left, _CHUNK)))


def tables_below(root: Path) -> Iterator[Path]:
    """All Parquet files of a root but the lake's own."""
    lake = root / "lake"
    for path in sorted(root.rglob("*.parquet")):
        if not path.is_relative_to(lake):
            yield path


def scrub_tables(paths: Iterable[Path], removal: Removal) -> int:
    """Take the rows that go out of Parquet files, and addresses that go out of lists and texts; how many rows."""
    return sum(scrub_table(path, removal) for path in paths)


def scrub_table(path: Path, removal: Removal) -> int:
    """Write a Parquet file anew without what goes, with the same schema and row groups; rows that went.

    Raises InputError where the file cannot be read: nobody could tell what it holds.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            looked_at = [name for name in file.schema_arrow.names if _concerns(name)]
            changed = any(
                _cleaned(file.read_row_group(group, columns=looked_at), file.schema_arrow.names, removal)[1]
                for group in range(file.num_row_groups)
            )
            if not changed:
                return 0
            with (
                replacing(path) as temporary,
                pq.ParquetWriter(temporary, file.schema_arrow, compression="zstd") as writer,
            ):
                return _rewrite(file, writer, removal)
    except (pa.ArrowInvalid, OSError) as error:
        if is_disk_full(error):  # its new version could not be written: nobody must delete it
            raise
        raise InputError(f"{path} cannot be read ({error}): delete it, then run gptface takedown again") from error


def _rewrite(file: pq.ParquetFile, writer: pq.ParquetWriter, removal: Removal) -> int:
    gone = 0
    for group in range(file.num_row_groups):
        table = file.read_row_group(group)
        kept, _ = _cleaned(table, table.column_names, removal)
        gone += table.num_rows - kept.num_rows
        if kept.num_rows:
            writer.write_table(kept.cast(file.schema_arrow))
    return gone


_IDS = {"row_id": "row_ids", "url_id": "url_ids", "image_id": "image_ids", "sha256": "image_ids"}


def _concerns(name: str) -> bool:
    return name in _IDS or name in TEXTS or name in ("page_url", "image_url", "host", "links", "captions")


def _cleaned(table: pa.Table, names: list[str], removal: Removal) -> tuple[pa.Table, bool]:
    """The rows that stay, their lists and texts without addresses that go; and whether that is any change."""
    import pyarrow as pa
    import pyarrow.compute as pc

    gone = pa.chunked_array([pa.array([False] * table.num_rows, pa.bool_())])
    for name in _IDS.keys() & set(names):
        wanted = pa.array(sorted(getattr(removal, _IDS[name])), pa.string())
        gone = pc.or_(gone, pc.is_in(table[name].cast(pa.string()), value_set=wanted))
    if "row_id" not in names and "url_id" not in names:  # what has one is named by it
        for name, is_gone in (
            ("page_url", removal.has_address),
            ("image_url", removal.has_address),
            ("host", removal.has_host),
        ):
            if name in names:
                found = [value for value in pc.unique(table[name]).to_pylist() if value and is_gone(value)]
                gone = pc.or_(gone, pc.is_in(table[name], value_set=pa.array(found, table[name].type)))
    kept = table.filter(pc.invert(gone))
    changed = kept.num_rows < table.num_rows
    for name in (TEXTS | {"captions"}) & set(names):
        kept, has = _scrubbed_column(kept, name, removal)
        changed |= has
    if "links" in names:
        kept, has = _scrubbed_links(kept, removal)
        changed |= has
    return kept, changed


def _scrubbed_column(table: pa.Table, name: str, removal: Removal) -> tuple[pa.Table, bool]:
    import pyarrow as pa
    import pyarrow.compute as pc

    column = table[name]
    if name == "captions":
        return _scrubbed_captions(table, removal)
    if not pa.types.is_string(column.type):
        return table, False
    new = {old: removal.scrubbed(old, name) for old in pc.unique(column).to_pylist() if old}
    if all(old == text for old, text in new.items()):
        return table, False
    texts = [None if old is None else new.get(old, old) for old in column.to_pylist()]
    return table.set_column(table.column_names.index(name), name, pa.array(texts, column.type)), True


def _scrubbed_captions(table: pa.Table, removal: Removal) -> tuple[pa.Table, bool]:
    """The same for the lists of captions of what was extracted (crawler.rows.EXTRACTED)."""
    import pyarrow as pa

    column = table["captions"]
    old = column.to_pylist()
    new = [
        captions and [{**each, "text": removal.scrubbed(each["text"], "text")} for each in captions] for captions in old
    ]
    if new == old:
        return table, False
    return table.set_column(table.column_names.index("captions"), "captions", pa.array(new, column.type)), True


def _scrubbed_links(table: pa.Table, removal: Removal) -> tuple[pa.Table, bool]:
    import pyarrow as pa

    column = table["links"]
    if not pa.types.is_list(column.type):
        return table, False
    rows = column.to_pylist()
    gone = {link for link in {link for row in rows for link in row or ()} if removal.has_address(link)}
    if not gone:
        return table, False
    kept = [row if row is None else [link for link in row if link not in gone] for row in rows]
    return table.set_column(table.column_names.index("links"), "links", pa.array(kept, column.type)), True


def scrub_texts(layout: Layout, removal: Removal) -> int:
    """Take addresses that go out of small files and logs below the root; how many were changed."""
    changed = 0
    lake = layout.root / "lake"
    for pattern in _SCANNED_TEXTS:
        for path in sorted(layout.root.rglob(pattern)):
            if path.is_file() and not path.is_relative_to(lake):
                changed += _scrub_lines(path, removal)
    for folder in layout.raw.glob("*/g*/consent/refusals"):
        for path in sorted(folder.iterdir()):
            changed += _scrub_refusals(path, removal)
    return changed


def _scrub_lines(path: Path, removal: Removal) -> bool:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as lines:
        if all(_clean(line, removal) == line for line in lines):
            return False
    with replacing(path) as temporary:
        with (
            path.open(encoding="utf-8", errors="surrogateescape", newline="") as lines,
            temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as out,
        ):
            for line in lines:
                out.write(_clean(line, removal))
        shutil.copymode(path, temporary)
    return True


def _clean(line: str, removal: Removal) -> str:
    return removal.scrubbed_ids(removal.scrubbed(line))


def _scrub_refusals(path: Path, removal: Removal) -> bool:
    """A host's file of refusals (crawler.refusals): lines of addresses that go, or all of it."""
    if path.name in removal.host_ids:
        path.unlink()
        return True
    old = path.read_text("utf-8", "replace").splitlines(keepends=True)
    kept = [removal.scrubbed(line) for line in old if not removal.url_ids.intersection(line.split("\t")[1:2])]
    if kept == old:
        return False
    with replacing(path) as temporary:
        temporary.write_text("".join(kept), "utf-8")
    return True


def drop_folders(layout: Layout, removal: Removal) -> int:
    """Remove the crawls of sources on hosts that go, where nothing of them is left: their folders' names tell hosts."""
    import pyarrow.parquet as pq

    dropped = 0
    for folder in sorted(layout.raw.glob("*")):
        if content_id(folder.name) in removal.folder_ids:
            pairs = (path for step in ("plan", "extract") for path in folder.glob(f"g*/{step}/*.pairs.parquet"))
            if not any(pq.read_metadata(path).num_rows for path in pairs):
                shutil.rmtree(folder)
                dropped += 1
    return dropped


def write_durably(path: Path, value: object) -> None:
    """Write JSON so that it is on disk when this returns."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        json.dump(value, stream)
        stream.flush()
        os.fsync(stream.fileno())
