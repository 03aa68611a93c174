"""The step from a release to training shards: aligned faces in deterministic WebDataset tars."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.steps.layout import Layout
from flows.steps.manifest import known_samples, list_tar, write_manifest
from flows.steps.runner import Runner
from warehouse.manifest import SAMPLE_COLUMNS

if TYPE_CHECKING:
    from warehouse.shards import Sample, ShardPlan, ShardRecord

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardJob:
    """What a worker needs to write one tar."""

    part: int
    root: str
    out_dir: str
    plan: ShardPlan


@dataclass(frozen=True)
class ShardSummary:
    """The shards of a release."""

    release: int
    shard_count: int
    samples: dict[str, int]


def resolve_release(layout: Layout, release: int) -> int:
    """`release`, or the newest where it is 0. Raises InputError where the lake has no such release."""
    import warehouse
    from warehouse.shards import shown_release

    with warehouse.connect(layout.root, at=release or None) as con:
        return shown_release(con)


def write_shards(layout: Layout, release: int, samples_per_shard: int, runner: Runner) -> ShardSummary:
    """Write the shards of a release, their index and manifest; what is there and verifies is left as it is.

    Raises InputError where the release keeps nothing.
    """
    import warehouse
    from warehouse.shards import plan_shards

    config = {**crop_config(), "samples_per_shard": samples_per_shard}
    with warehouse.connect(layout.root, at=release) as con:
        plans = plan_shards(con, samples_per_shard, config)
    out_dir = layout.shards(release)
    jobs = [ShardJob(i, str(layout.root), str(out_dir), plan) for i, plan in enumerate(plans)]
    records = runner.map("shard", write_one, jobs)
    runner.step("index", _close, layout, release, records, int(config["crop_px"]), config)
    write_manifest(layout, release, plans, runner)
    samples: dict[str, int] = {}
    for record in records:
        samples[record.split] = samples.get(record.split, 0) + record.samples
    return ShardSummary(release, sum(1 for record in records if record.samples), samples)


def ensure_shards(layout: Layout, release: int, samples_per_shard: int, runner: Runner) -> None:
    """Write the shards of a release again where some are gone (a `prune`), cut as they were."""
    from warehouse.lake import root_lock
    from warehouse.shards import INDEX_FILE, read_index

    folder = layout.shards(release)
    if (folder / INDEX_FILE).is_file():
        index = read_index(folder)
        files = [shard["file"] for split in index["splits"].values() for shard in split["shards"]]
        if all((folder / file).is_file() for file in files):
            return
        samples_per_shard = int(index["config"].get("samples_per_shard", samples_per_shard))
    with root_lock(layout.root):
        write_shards(layout, release, samples_per_shard, runner)


def crop_config() -> dict[str, Any]:
    """What here decides the bytes of a crop: size, quality, versions of code and encoders."""
    from gptface_core.faces.align import CROP_PX
    from gptface_core.faces.crop import CROP_VERSION, JPEG_QUALITY, encoder_version

    return {
        "crop_px": CROP_PX,
        "crop_version": CROP_VERSION,
        "jpeg_quality": JPEG_QUALITY,
        "encoder": encoder_version(),
    }


def write_one(job: ShardJob) -> ShardRecord:
    """Write one tar and list it for the manifest (in a worker)."""
    import warehouse
    from warehouse.manifest import drop_parts
    from warehouse.shards import finished_shard, plan_rows, write_shard

    out_dir = Path(job.out_dir)
    finished = finished_shard(job.plan, out_dir)
    if finished is not None:
        return finished
    with warehouse.connect(job.root, at=job.plan.release) as con:
        rows = plan_rows(con, job.plan)
        known = known_samples(con, rows)
    drop_parts(out_dir, job.plan.file)
    record = write_shard(job.plan, _samples(Path(job.root), rows), out_dir)
    if record.samples:
        list_tar(out_dir, job.plan.file, known)
    return record


def verify(layout: Layout, release: int) -> int:
    """Check every tar against the index; how many. Raises InputError that names what is wrong."""
    from warehouse.errors import InputError
    from warehouse.shards import read_index, verify_index

    folder = layout.shards(release)
    problems = verify_index(folder)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(
            f"shards of release {release}: {problems[0]}{more}; gptface shard --release {release} mends it"
        )
    return sum(len(split["shards"]) for split in read_index(folder)["splits"].values())


def _samples(root: Path, rows: list[dict[str, Any]]) -> Iterator[Sample]:
    from flows.steps.detect import Member, read_members
    from gptface_core.faces.crop import encode_crop
    from warehouse.shards import Sample

    for row in rows:
        member = Member(row["image_id"], row["raw_offset"], row["raw_bytes"])
        [(_, data)] = read_members(root / row["raw_shard"], [member])
        metadata = {name: row[name] for name in SAMPLE_COLUMNS}
        yield Sample(row["row_id"], encode_crop(data, row["points_px"]), metadata, row["caption"])


def _close(layout: Layout, release: int, records: list[ShardRecord], crop_px: int, config: dict[str, Any]) -> None:
    from warehouse.register import register
    from warehouse.shards import write_index

    write_index(layout.shards(release), release, records, crop_px, config)
    folder = layout.shards(release).relative_to(layout.root).as_posix()
    register(
        layout.root,
        "shards",
        [
            {
                "release": release,
                "split": record.split,
                "file": f"{folder}/{record.file}",
                "sha256": record.sha256,
                "samples": record.samples,
                "bytes": record.bytes,
            }
            for record in records
            if record.samples
        ],
    )
