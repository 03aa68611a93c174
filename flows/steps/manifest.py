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
    import duckdb

    from warehouse.shards import ShardPlan


@dataclass(frozen=True)
class ManifestJob:
    """What a worker needs to list the samples of one tar."""

    part: int
    root: str
    out_dir: str
    plan: ShardPlan


def write_manifest(layout: Layout, release: int, plans: Sequence[ShardPlan], runner: Runner) -> Path:
    """Write manifest.parquet and manifest.json beside a release's shards; one that is current stays as it is.

    Who writes a tar lists it; what was there before and is in no manifest is listed now.
    """
    import warehouse
    from warehouse.manifest import MANIFEST_FILE, drop_parts, has_part, is_current, release_provenance
    from warehouse.manifest import write_manifest as close

    out_dir = layout.shards(release)
    if is_current(out_dir):
        drop_parts(out_dir)
    else:
        unlisted = [p for p in plans if (out_dir / p.file).is_file() and not has_part(out_dir, p.file)]
        jobs = [ManifestJob(i, str(layout.root), str(out_dir), plan) for i, plan in enumerate(unlisted)]
        runner.map("manifest", list_samples, jobs)
        with warehouse.connect(layout.root, at=release) as con:
            provenance = release_provenance(con, release)
        close(out_dir, provenance)
    return out_dir / MANIFEST_FILE


def list_samples(job: ManifestJob) -> int:
    """List the samples of one tar (in a worker); how many."""
    import warehouse
    from warehouse.shards import plan_rows

    with warehouse.connect(job.root, at=job.plan.release) as con:
        known = known_samples(con, plan_rows(con, job.plan))
    return len(list_tar(Path(job.out_dir), job.plan.file, known))


def known_samples(con: duckdb.DuckDBPyConnection, rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What the lake tells of each sample of a manifest, by row_id; `rows` as `plan_rows` has them."""
    from warehouse.schema import Reason

    asked = "SELECT row_id, page_directives FROM pairs WHERE row_id IN (SELECT unnest(?))"
    directives = dict(con.execute(asked, [[row["row_id"] for row in rows]]).fetchall())
    return {
        row["row_id"]: {
            **{name: row[name] for name in SAMPLE_COLUMNS},
            "page_directives": directives[row["row_id"]],
            "decision": Reason.KEPT.value,
        }
        for row in rows
    }


def list_tar(out_dir: Path, file: str, known: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Write the manifest's rows of one tar; these rows."""
    from warehouse.manifest import write_part

    listed = sample_rows(out_dir / file, known)
    write_part(out_dir, file, listed)
    return listed


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
