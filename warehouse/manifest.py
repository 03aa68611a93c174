"""The manifest of a release's shards: all that it takes to make them again, and no picture.

    manifest.parquet   schema MANIFEST, one row per sample: addresses, hashes, box, points, caption, split, place
    manifest.json      versions, config, rules, counts of decisions, the index, and sha256 of index and table; last

Both are the same bytes for the same shards and release. The table is put together from one hidden part per shard, so
that the parts can be written by many processes and memory holds one of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.errors import InputError
from warehouse.files import replacing
from warehouse.schema import CORPUS
from warehouse.shards import INDEX_FILE, file_sha256, read_index

TABLE_FILE = "manifest.parquet"
MANIFEST_FILE = "manifest.json"
MANIFEST_VERSION = 1

# Columns of the corpus that go into a sample's JSON; the rest (offsets, paths of a root) is nobody's business.
SAMPLE_COLUMNS = (
    "row_id",
    "image_id",
    "page_url",
    "image_url",
    "caption",
    "caption_kind",
    "split",
    "cluster_id",
    "width_px",
    "height_px",
    "x0_px",
    "y0_px",
    "x1_px",
    "y1_px",
    "points_px",
    "score",
    "face_px",
    "detector",
    "source",
)

# `block_means` are the mean R, G, B (0..255) of 4 x 4 blocks of the crop, row by row: enough to tell whether another
# encoder made the same crop, and too little to show anybody.
MANIFEST = pa.schema(
    [
        *(CORPUS.field(name) for name in SAMPLE_COLUMNS),
        pa.field("page_directives", pa.string(), nullable=False),
        pa.field("decision", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),  # among the shard's samples, from 0
        pa.field("crop_sha256", pa.string(), nullable=False),
        pa.field("block_means", pa.binary(), nullable=False),
    ]
)
# What a run was told that does not change what it builds.
_NOT_CONFIG = frozenset(
    {"root", "workers", "download_threads", "catalog", "clip_device", "runner", "ray_address", "ray_gpus"}
)


@dataclass(frozen=True)
class Manifest:
    """A manifest as read. `config` is the shards' (crop size, quality, encoder), `provenance` the release's."""

    folder: Path
    release: int
    samples: int
    config: Mapping[str, Any]
    provenance: Mapping[str, Any]
    index: Mapping[str, Any]
    index_sha256: str
    table_sha256: str

    @property
    def table(self) -> Path:
        return self.folder / TABLE_FILE

    @property
    def crop_px(self) -> int:
        return int(self.index["crop_px"])

    def shards(self) -> list[dict[str, Any]]:
        """Every shard as the index lists it (file, sha256, samples, bytes), with its split, in the index's order."""
        splits = self.index["splits"]
        return [{**shard, "split": split} for split in splits for shard in splits[split]["shards"]]


def release_provenance(con: duckdb.DuckDBPyConnection, release: int) -> dict[str, Any]:
    """How the release that `con` shows came to be: config, rules, code version, detectors, decisions by reason."""
    row = con.execute("SELECT config, rules, code_version FROM releases WHERE release = ?", [release]).fetchone()
    if row is None:
        raise InputError(f"the lake has no release {release}")
    config = {name: value for name, value in json.loads(row[0]).items() if name not in _NOT_CONFIG}
    detectors = con.execute("SELECT DISTINCT detector FROM corpus ORDER BY detector").fetchall()
    decisions = con.execute("SELECT reason, count(*) FROM decisions GROUP BY reason ORDER BY reason").fetchall()
    return {
        "config": config,
        "rules": json.loads(row[1]),
        "code_version": row[2],
        "detectors": [detector for (detector,) in detectors],
        "decisions": dict(decisions),
    }


def has_part(out_dir: Path, shard: str) -> bool:
    """Whether the manifest's rows of this shard are written down."""
    return _part_path(out_dir, shard).is_file()


def drop_parts(out_dir: Path, shard: str = "") -> None:
    """Forget the rows of one shard, which is about to change, or of all."""
    for part in [_part_path(out_dir, shard)] if shard else out_dir.glob(_part_path(out_dir, "*").name):
        part.unlink(missing_ok=True)


def write_part(out_dir: Path, shard: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the manifest's rows of one shard, for `write_manifest`."""
    with replacing(_part_path(out_dir, shard)) as part:
        pq.write_table(pa.Table.from_pylist(list(rows), schema=MANIFEST), part, compression="zstd")


def write_manifest(out_dir: Path, provenance: Mapping[str, Any]) -> Manifest:
    """Put the parts of all indexed shards together and close the manifest. Raises InputError where one is missing."""
    index = read_index(out_dir)
    files = [shard["file"] for split in index["splits"].values() for shard in split["shards"]]
    parts = [_part_path(out_dir, file) for file in sorted(files)]
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise InputError(f"{out_dir} has no {missing[0]}: run `gptface shard` again")
    with replacing(out_dir / TABLE_FILE) as table, pq.ParquetWriter(table, MANIFEST, compression="zstd") as writer:
        for part in parts:
            writer.write_table(pq.read_table(part))
    _write_document(out_dir, provenance)
    drop_parts(out_dir)
    return read_manifest(out_dir)


def is_current(out_dir: Path) -> bool:
    """Whether a folder of shards has the manifest of its present index."""
    try:
        manifest = read_manifest(out_dir)
    except InputError:
        return False
    return (out_dir / INDEX_FILE).is_file() and manifest.index_sha256 == file_sha256(out_dir / INDEX_FILE)


def refresh(out_dir: Path, provenance: Mapping[str, Any] | None = None) -> None:
    """Make manifest.json agree again with an index and a table from which rows were taken out (a takedown).

    `provenance` takes the place of the old one. Nothing to do where there is no manifest; without an index the manifest
    goes.
    """
    document = out_dir / MANIFEST_FILE
    if not document.is_file():
        return
    if not (out_dir / INDEX_FILE).is_file():
        for path in (document, out_dir / TABLE_FILE):
            path.unlink(missing_ok=True)
        return
    told: Mapping[str, Any] = provenance or json.loads(document.read_text("utf-8"))["provenance"]
    _renumber(out_dir / TABLE_FILE)
    _write_document(out_dir, told)


def _renumber(path: Path) -> None:
    """Set `position` anew; a row group holds rows of one shard."""
    place = MANIFEST.get_field_index("position")
    with (
        pq.ParquetFile(path) as table,
        replacing(path) as part,
        pq.ParquetWriter(part, MANIFEST, compression="zstd") as writer,
    ):
        for group in range(table.num_row_groups):
            rows = table.read_row_group(group).cast(MANIFEST)
            places = pa.array(range(rows.num_rows), pa.int32())
            writer.write_table(rows.set_column(place, MANIFEST.field(place), places))


def read_manifest(path: Path | str) -> Manifest:
    """Read a manifest, named by its folder, its JSON or its table. Raises InputError where it is missing or damaged."""
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    document = folder / MANIFEST_FILE
    if not document.is_file() or not (folder / TABLE_FILE).is_file():
        raise InputError(f"{path} is no manifest: give the folder that holds {MANIFEST_FILE} and {TABLE_FILE}")
    try:
        found = json.loads(document.read_text("utf-8"))
        version = found.pop("version")
        manifest = Manifest(folder=folder, **found)
        same = file_sha256(manifest.table) == manifest.table_sha256
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{document} cannot be read ({error}): fetch it again") from error
    if version != MANIFEST_VERSION:
        raise InputError(f"{document} has version {version}, this version of gptface reads {MANIFEST_VERSION}")
    if not same:
        raise InputError(f"{manifest.table} is not the table that {MANIFEST_FILE} names (sha256): fetch both again")
    return manifest


def _write_document(out_dir: Path, provenance: Mapping[str, Any]) -> None:
    index = read_index(out_dir)
    document = {
        "version": MANIFEST_VERSION,
        "release": index["release"],
        "samples": pq.read_metadata(out_dir / TABLE_FILE).num_rows,
        "config": index["config"],
        "provenance": dict(provenance),
        "index": index,
        "index_sha256": file_sha256(out_dir / INDEX_FILE),
        "table_sha256": file_sha256(out_dir / TABLE_FILE),
    }
    with replacing(out_dir / MANIFEST_FILE) as part:
        part.write_text(json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")


def _part_path(out_dir: Path, shard: str) -> Path:
    return out_dir / f".{shard}.rows.parquet"
