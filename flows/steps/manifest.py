"""The manifest of a release's shards: rows of the lake joined with what the tars really hold."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.steps.layout import Layout
from flows.steps.runner import Runner
from warehouse.manifest import SAMPLE_COLUMNS

if TYPE_CHECKING:
    from warehouse.shards import ShardPlan


@dataclass(frozen=True)
class ManifestJob:
    """What a worker needs to list the samples of one tar."""

    part: int
    root: str
    out_dir: str
    plan: ShardPlan


def write_manifest(layout: Layout, release: int, plans: Sequence[ShardPlan], runner: Runner) -> Path:
    """Write manifest.parquet and manifest.json beside a release's shards; one that is current stays as it is."""
    import warehouse
    from warehouse.manifest import MANIFEST_FILE, is_current, release_provenance
    from warehouse.manifest import write_manifest as close

    out_dir = layout.shards(release)
    if not is_current(out_dir):
        written = [plan for plan in plans if (out_dir / plan.file).is_file()]
        jobs = [ManifestJob(i, str(layout.root), str(out_dir), plan) for i, plan in enumerate(written)]
        runner.map("manifest", list_samples, jobs)
        with warehouse.connect(layout.root, at=release) as con:
            provenance = release_provenance(con, release)
        close(out_dir, provenance)
    return out_dir / MANIFEST_FILE


def list_samples(job: ManifestJob) -> int:
    """List the samples of one tar (in a worker); how many."""
    import warehouse
    from warehouse.manifest import write_part
    from warehouse.schema import Reason
    from warehouse.shards import plan_rows

    with warehouse.connect(job.root, at=job.plan.release) as con:
        rows = {row["row_id"]: row for row in plan_rows(con, job.plan)}
        directives = dict(
            con.execute(
                "SELECT row_id, page_directives FROM pairs WHERE row_id IN (SELECT unnest(?))", [list(rows)]
            ).fetchall()
        )
    known = {
        row_id: {
            **{name: row[name] for name in SAMPLE_COLUMNS},
            "page_directives": directives[row_id],
            "decision": Reason.KEPT.value,
        }
        for row_id, row in rows.items()
    }
    listed = sample_rows(Path(job.out_dir) / job.plan.file, known)
    write_part(Path(job.out_dir), job.plan.file, listed)
    return len(listed)


def sample_rows(tar: Path, known: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of warehouse.manifest.MANIFEST for what a tar holds, in its order; `known` gives the rest by row_id."""
    from gptface_core.faces.crop import block_means

    return [
        {
            **known[row_id],
            "shard": tar.name,
            "position": position,
            "crop_sha256": hashlib.sha256(jpeg).hexdigest(),
            "block_means": block_means(jpeg),
        }
        for position, (row_id, jpeg) in enumerate(_crops(tar))
    ]


def _crops(path: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path) as tar:
        for member in tar:
            row_id, _, suffix = member.name.partition(".")
            stream = tar.extractfile(member)
            if suffix == "jpg" and stream is not None:
                yield row_id, stream.read()
