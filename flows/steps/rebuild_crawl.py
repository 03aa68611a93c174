"""The crawl of a rebuild: the addresses of a manifest, planned, asked consent for, and downloaded like any others."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.steps import crawl
from flows.steps.config import BuildConfig
from flows.steps.layout import Layout, is_published, source_key
from flows.steps.runner import Runner
from warehouse.errors import InputError
from warehouse.manifest import Manifest

if TYPE_CHECKING:
    from crawler.sources.base import Candidate
    from crawler.tombstones import Tombstones


@dataclass(frozen=True)
class RebuildConfig:
    """One rebuild. `tombstones`: another root whose takedowns are honoured, beside those of the manifest's own root."""

    manifest: str
    root: str
    tombstones: str = ""
    pixels_close: bool = False
    allow_private: bool = False
    workers: int = 0
    part_urls: int = 2_000
    download_threads: int = 32
    host_concurrency: int = 8
    host_delay_s: float = 0.0
    refusal_limit: int = 3
    retries: int = 2

    def build_config(self) -> BuildConfig:
        """The same bounds for the crawler's steps."""
        names = {f.name for f in dataclasses.fields(BuildConfig)} & {f.name for f in dataclasses.fields(self)}
        return BuildConfig(source="rebuild", **{name: getattr(self, name) for name in names})


def open_crawl(layout: Layout, manifest: Manifest) -> Path:
    """The folder of this manifest's crawl: the unfinished one, or a new one that knows what the last one found."""
    from warehouse.lake import has_lake

    key = f"rebuild r{manifest.release:05d} {manifest.table_sha256}"
    generations = sorted((layout.raw / source_key(key)).glob("g[0-9][0-9][0-9]"))
    if has_lake(layout.root) or (not generations and (layout.shards(manifest.release) / "index.json").is_file()):
        raise InputError(f"{layout.root} holds another corpus: rebuild into an empty --root")
    if generations and is_published(generations[-1]):
        return _next_crawl(layout, key, generations[-1])
    return layout.open_crawl(key, refresh=False)


def _next_crawl(layout: Layout, key: str, last: Path) -> Path:
    """A new crawl to which all that `last` found for good is known; `last` itself where nothing may have changed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from crawler.files import write_table
    from warehouse.schema import IMAGES, PASSING

    rows = [row for path in sorted((last / "images").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    if not any(row["reason"] in PASSING for row in rows):
        return last
    folder = layout.open_crawl(key, refresh=True)
    known = [{**row, "settled": row["reason"] not in PASSING, "recheck": False} for row in rows]
    schema = pa.schema([*IMAGES, pa.field("settled", pa.bool_()), pa.field("recheck", pa.bool_())])
    write_table(folder / "known" / "images.parquet", sorted(known, key=lambda row: str(row["url_id"])), schema)
    return folder


def plan(manifest: Manifest, folder: Path, config: RebuildConfig) -> set[str]:
    """Plan the addresses of the manifest but for those that were taken down; the row_ids of these."""
    import pyarrow.parquet as pq

    from crawler.plan import write_plan

    def rows() -> Iterator[dict[str, Any]]:
        with pq.ParquetFile(manifest.table) as table:
            for batch in table.iter_batches(10_000):
                yield from batch.to_pylist()

    roots = (config.root, *_other_roots(manifest, config))
    stones = _Tombstones.load(roots, manifest.folder)
    barred = {str(row["row_id"]) for row in rows() if stones.bars(row)}
    if len(barred) == manifest.samples:
        raise InputError("all samples of the manifest were taken down: nothing to rebuild")
    candidates = (_candidate(row) for row in rows() if row["row_id"] not in barred)
    write_plan(candidates, folder / "plan", config.part_urls, "rebuild")
    return barred


def _candidate(row: dict[str, Any]) -> Candidate:
    from crawler.extract import Caption
    from crawler.sources.base import Candidate
    from warehouse.schema import CaptionKind, row_id

    if row_id(row["page_url"], row["image_url"]) != row["row_id"]:
        raise InputError(f"row {row['row_id']} of the manifest does not fit its addresses: fetch the manifest again")
    caption = Caption(CaptionKind(row["caption_kind"]), row["caption"])
    return Candidate(row["page_url"], row["image_url"], (caption,), row["page_directives"])


@dataclass(frozen=True)
class _Tombstones:
    """Takedowns of several roots, and those that readers of the shards were told."""

    stones: tuple[Tombstones, ...]
    readers_key: bytes
    samples: frozenset[str]

    @classmethod
    def load(cls, roots: Sequence[str], shards: Path) -> _Tombstones:
        from crawler.tombstones import load_tombstones
        from warehouse.tombstones import TOMBSTONES_FILE, tombstones_path

        stones = tuple(load_tombstones(tombstones_path(Path(root))) for root in roots)
        beside = shards / TOMBSTONES_FILE
        if not beside.is_file():
            return cls(stones, b"", frozenset())
        told = json.loads(beside.read_text("utf-8"))
        return cls(stones, bytes.fromhex(told["key"]), frozenset(told["samples"]))

    def bars(self, row: dict[str, Any]) -> bool:
        from warehouse.schema import keyed_id

        if self.samples and keyed_id(self.readers_key, "sample", row["row_id"]) in self.samples:
            return True
        return any(
            stones.bars_picture(row["image_id"])
            or stones.bars_address(row["image_url"])
            or stones.bars_address(row["page_url"])
            for stones in self.stones
        )


def _other_roots(manifest: Manifest, config: RebuildConfig) -> tuple[str, ...]:
    """Where takedowns may be told, beside the new root: the one to which the manifest belongs, and one named."""
    if config.tombstones and not (Path(config.tombstones) / "lake").is_dir():
        raise InputError(f"--tombstones {config.tombstones}: give a root, with its folder lake")
    own = manifest.folder.resolve().parents[1]
    return tuple(dict.fromkeys([str(own), *([config.tombstones] if config.tombstones else [])]))


@dataclass(frozen=True)
class FaceJob:
    """What a worker needs to look at the faces of one downloaded part."""

    part: int
    crawl: str
    root: str
    manifest: str
    tombstones: tuple[str, ...]


def drop_faces(config: RebuildConfig, manifest: Manifest, folder: Path, layout: Layout, runner: Runner) -> None:
    """Take out of the crawl what shows the face of a picture that was taken down, where the manifest says it is."""
    from crawler.plan import read_plan
    from crawler.tombstones import load_tombstones
    from flows.steps.kept_out import erase_pictures
    from warehouse.tombstones import tombstones_path

    roots = (config.root, *_other_roots(manifest, config))
    planned = read_plan(folder / "plan")
    if planned is None or not any(load_tombstones(tombstones_path(Path(root))).faces for root in roots):
        return
    where = (str(folder), config.root, str(manifest.table), roots)
    found = runner.map("faces taken down", barred_faces, [FaceJob(part, *where) for part in range(planned.parts)])
    if any(found):
        erase_pictures(layout, folder, set().union(*found))


def barred_faces(job: FaceJob) -> set[str]:
    """image_ids of one part's pictures that are the manifest's, with a face that was taken down (in a worker)."""
    import pyarrow.parquet as pq

    from crawler.tombstones import load_tombstones
    from flows.steps.likeness import face_phash_at
    from warehouse.tombstones import tombstones_path

    stones = [load_tombstones(tombstones_path(Path(root))) for root in job.tombstones]
    images = pq.read_table(Path(job.crawl) / "images" / f"{job.part:05d}.parquet", filters=[("status", "==", "ok")])
    places = {row["image_id"]: row for row in images.to_pylist()}
    of_part = [("image_id", "in", set(places))]
    samples = pq.read_table(job.manifest, columns=["image_id", "points_px"], filters=of_part).to_pylist()
    found = set()
    for image_id, points in ((row["image_id"], row["points_px"]) for row in samples):
        place = places[image_id]
        with (Path(job.root) / place["raw_shard"]).open("rb") as raw:
            raw.seek(place["raw_offset"])
            phash = face_phash_at(raw.read(place["raw_bytes"]), points)
        if any(each.bars_face(phash) for each in stones):
            found.add(image_id)
    return found


def fetch(config: RebuildConfig, manifest: Manifest, folder: Path, runner: Runner) -> None:
    """Ask hosts, decide consent and download, as a build does."""
    from crawler.plan import read_plan

    planned = read_plan(folder / "plan")
    parts = planned.parts if planned else 0
    others = _other_roots(manifest, config)
    crawl.fetch(folder, crawl.part_jobs(config.build_config(), folder, parts, tombstones=others), runner)
