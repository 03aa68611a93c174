"""Rebuilding shards from a manifest: every address is asked for again; what still has its bytes makes the same tars.

    NEW/raw/rebuild-.../g000/    a crawl like any other: plan, consent, images; and matched.parquet (warehouse.rebuild)
    NEW/shards/rNNNNN/           tars, index and manifest
    NEW/reports/rebuild.json     RebuildReport

Faces are never looked for again: boxes and points are the manifest's. A rebuild that was killed goes on where it was;
one that ended is taken up again by the same command, which asks anew for what had failed for a passing reason.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.steps.embeddings import expire_embeddings
from flows.steps.layout import Layout, mark_published, prepare_root
from flows.steps.rebuild_crawl import RebuildConfig, drop_faces, fetch, open_crawl, plan
from flows.steps.rebuild_shards import RebuiltShard, ShardJob, check_encoders, config_here, plan_shards, write_one
from flows.steps.runner import Runner
from flows.steps.space import told_if_full
from warehouse.manifest import Manifest, read_manifest
from warehouse.rebuild import match, missing_rows, verdict_counts

PIXELS_TOLERANCE = 2  # levels of 255 by which the means of a block may differ under another encoder
LISTED = 1000  # samples that the report names; all are in matched.parquet


@dataclass(frozen=True)
class RebuildReport:
    """What a rebuild found.

    verdicts: samples by Verdict and reason. identical: shards with the bytes of the manifest. short: shards that lack
    samples and whose others are identical. close: whole shards of another encoder with the same pixels, about. other:
    shards that are none of these. dropped: shards of which nothing is left. max_difference: of block means, in levels,
    where a crop has other bytes.
    """

    release: int
    manifest_sha256: str
    samples: int
    rebuilt: int
    verdicts: dict[str, dict[str, int]]
    identical: list[str]
    short: list[str]
    close: list[str]
    other: list[str]
    dropped: list[str]
    index_identical: bool
    pixels_close: bool
    max_difference: int
    missing: list[dict[str, str | None]] = field(default_factory=list)

    @property
    def is_verified(self) -> bool:
        """Whether all that could be fetched is what the manifest says."""
        return not self.other

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def rebuild(config: RebuildConfig, runner: Runner) -> RebuildReport:
    """Make the shards of a manifest again. Raises InputError for a damaged manifest, a root that holds something else,
    or encoders of other versions (unless `pixels_close`)."""
    from warehouse.lake import root_lock

    manifest = read_manifest(config.manifest)
    check_encoders(manifest, config.pixels_close)
    layout = prepare_root(Path(config.root))
    with told_if_full(layout.root), root_lock(layout.root):
        expire_embeddings(layout.root)
        folder = open_crawl(layout, manifest)
        barred = runner.step("plan", plan, manifest, folder, config)
        fetch(config, manifest, folder, runner)
        drop_faces(config, manifest, folder, layout, runner)
        matched = folder / "matched.parquet"
        runner.step("match", match, manifest.table, folder, barred, matched)
        plans = plan_shards(manifest, matched, config_here(manifest, config.pixels_close))
        out_dir = layout.shards(manifest.release)
        rows = (str(manifest.table), str(matched))
        jobs = [ShardJob(i, str(layout.root), str(out_dir), plan, *rows) for i, plan in enumerate(plans)]
        written = runner.map("shard", write_one, jobs)
        report = runner.step("index", _close, config, layout, manifest, matched, written)
        mark_published(folder, manifest.release)
    return report


def _close(
    config: RebuildConfig, layout: Layout, manifest: Manifest, matched: Path, written: list[RebuiltShard]
) -> RebuildReport:
    """Write index and manifest of what is there, and the report."""
    from crawler.files import write_json
    from warehouse.manifest import write_manifest
    from warehouse.shards import file_sha256, write_index

    report = _report(config, manifest, matched, written)
    if written:
        out_dir = layout.shards(manifest.release)
        records = [shard.record for shard in written]
        settings = config_here(manifest, config.pixels_close)
        index = write_index(out_dir, manifest.release, records, manifest.crop_px, settings)
        write_manifest(out_dir, manifest.provenance)
        report = dataclasses.replace(report, index_identical=file_sha256(index) == manifest.index_sha256)
    write_json(layout.reports / "rebuild.json", report.as_dict())
    return report


def _report(config: RebuildConfig, manifest: Manifest, matched: Path, written: list[RebuiltShard]) -> RebuildReport:
    there = {shard.record.file: shard for shard in written}
    shards: dict[str, list[str]] = {kind: [] for kind in ("identical", "short", "close", "other", "dropped")}
    for listed in manifest.shards():
        shards[_kind(there.get(listed["file"]), listed, config.pixels_close)].append(listed["file"])
    return RebuildReport(
        release=manifest.release,
        manifest_sha256=manifest.table_sha256,
        samples=manifest.samples,
        rebuilt=sum(shard.record.samples for shard in written),
        verdicts=verdict_counts(matched, manifest.samples),
        **shards,
        index_identical=False,
        pixels_close=config.pixels_close,
        max_difference=max((shard.max_difference for shard in written), default=0),
        missing=missing_rows(matched, LISTED),
    )


def _kind(shard: RebuiltShard | None, listed: Mapping[str, Any], pixels_close: bool) -> str:
    """Which list of the report a shard of the manifest's index belongs to."""
    if shard is None:
        return "dropped"
    if shard.record.sha256 == listed["sha256"]:
        return "identical"
    is_whole = shard.record.samples == listed["samples"]
    if pixels_close and shard.max_difference <= PIXELS_TOLERANCE:
        return "close" if is_whole else "short"
    return "other" if shard.other_crops or is_whole else "short"
