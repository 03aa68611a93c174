"""The shards of a rebuild: tars from downloaded pictures with the boxes and points of a manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warehouse.errors import InputError
from warehouse.manifest import SAMPLE_COLUMNS, Manifest
from warehouse.rebuild import Verdict

if TYPE_CHECKING:
    from warehouse.shards import Sample, ShardPlan, ShardRecord

_ENCODING = ("crop_px", "crop_version", "jpeg_quality", "encoder")


@dataclass(frozen=True)
class ShardJob:
    """What a worker needs to write one tar anew."""

    part: int
    root: str
    out_dir: str
    plan: ShardPlan
    manifest: str
    matched: str


@dataclass(frozen=True)
class RebuiltShard:
    """A written tar: crops that are not the manifest's bytes, and by how much their blocks differ at most."""

    record: ShardRecord
    other_crops: int
    max_difference: int


def check_encoders(manifest: Manifest, pixels_close: bool) -> None:
    """Other versions make other bytes: refused, unless pixels are to be compared."""
    from flows.steps.shard import crop_config

    here = crop_config()
    for name in _ENCODING:
        there = manifest.config.get(name)
        if there == here[name]:
            continue
        if name == "crop_px" or not pixels_close:
            raise InputError(
                f"the manifest was made with {name} {there!r}, here it is {here[name]!r}: install that version"
                + ("" if name == "crop_px" else ", or compare pixels instead of bytes with --pixels-close")
            )


def plan_shards(manifest: Manifest, matched: Path, config: Mapping[str, Any]) -> list[ShardPlan]:
    """The manifest's shards with the samples that are still there; a shard without any is left out."""
    import pyarrow.parquet as pq

    from warehouse.shards import ShardPlan

    found = pq.read_table(matched, columns=["shard", "row_id"], filters=[("verdict", "==", Verdict.SAME.value)])
    by_shard: dict[str, list[str]] = {}
    for shard, row_id in zip(found["shard"].to_pylist(), found["row_id"].to_pylist(), strict=True):
        by_shard.setdefault(shard, []).append(row_id)
    plans = []
    for shard in manifest.shards():
        split, file = shard["split"], shard["file"]
        row_ids = tuple(by_shard.get(file, ()))
        if row_ids:
            text = json.dumps([manifest.table_sha256, file, row_ids, config], sort_keys=True)
            fingerprint = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
            index = int(Path(file).stem.rpartition("-")[2])
            plans.append(ShardPlan(manifest.release, split, index, row_ids, fingerprint))
    return plans


def config_here(manifest: Manifest, pixels_close: bool) -> dict[str, Any]:
    """The config of the shards' index: the manifest's, with the encoders that are really used."""
    from flows.steps.shard import crop_config

    return {**manifest.config, **(crop_config() if pixels_close else {})}


def write_one(job: ShardJob) -> RebuiltShard:
    """Write one tar from what was downloaded, with the manifest's rows for it (in a worker)."""
    import pyarrow.parquet as pq

    from flows.steps.manifest import list_tar
    from warehouse.shards import finished_shard, write_shard

    of_shard = [("shard", "==", job.plan.file)]
    rows = {row["row_id"]: row for row in pq.read_table(job.manifest, filters=of_shard).to_pylist()}
    places = {row["row_id"]: row for row in pq.read_table(job.matched, filters=of_shard).to_pylist()}
    out_dir = Path(job.out_dir)
    record = finished_shard(job.plan, out_dir)
    if record is None:
        record = write_shard(job.plan, _samples(job, rows, places), out_dir)
    listed = list_tar(out_dir, job.plan.file, rows)
    other = [row for row in listed if row["crop_sha256"] != rows[row["row_id"]]["crop_sha256"]]
    difference = max((_difference(row, rows[row["row_id"]]) for row in other), default=0)
    return RebuiltShard(record, len(other), difference)


def _samples(job: ShardJob, rows: dict[str, Any], places: dict[str, Any]) -> Iterator[Sample]:
    from gptface_core.faces.crop import encode_crop
    from warehouse.shards import Sample

    for row_id in job.plan.row_ids:
        row, place = rows[row_id], places[row_id]
        with (Path(job.root) / place["raw_shard"]).open("rb") as raw:
            raw.seek(place["raw_offset"])
            data = raw.read(place["raw_bytes"])
        if hashlib.sha256(data).hexdigest() != row["image_id"]:
            raise InputError(f"{place['raw_shard']} under {job.root} is damaged: delete it and start again")
        metadata = {name: row[name] for name in SAMPLE_COLUMNS}
        yield Sample(row_id, encode_crop(data, row["points_px"]), metadata, row["caption"])


def _difference(row: dict[str, Any], other: dict[str, Any]) -> int:
    return max(abs(a - b) for a, b in zip(row["block_means"], other["block_means"], strict=True))
