"""What the steps of one shard leave behind, made up: the stubs of `bench.scale_sim`, run in worker processes."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flows.steps.crawl import PartJob
from flows.steps.manifest import ManifestJob
from flows.steps.shard import ShardJob
from warehouse import schema
from warehouse.manifest import MANIFEST, write_part
from warehouse.shards import ShardRecord

_AT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
_FACE = {
    "face_index": 0,
    "x0_px": 60.0,
    "y0_px": 60.0,
    "x1_px": 190.0,
    "y1_px": 200.0,
    "score": 0.9,
    "face_px": 130.0,
    "points_px": [90.0, 110, 160, 110, 125, 140, 100, 170, 150, 170],
    "sharpness": 100.0,
    "brightness": 120.0,
    "roll_deg": 0.0,
    "yaw_deg": 0.0,
    "pitch_deg": 0.0,
}
_PICTURE = {"width_px": 256, "height_px": 256, "format": "jpeg", "face_count": 1, "detector": "stub"}


def _pairs(job: PartJob) -> list[dict[str, str]]:
    file = Path(job.crawl) / "plan" / f"{job.part:05d}.pairs.parquet"
    with pq.ParquetFile(file) as table:
        rows: list[dict[str, str]] = table.read(["row_id", "url_id", "image_url"], use_threads=False).to_pylist()
    return rows


def _write(job: PartJob, name: str, rows: list[dict[str, Any]], columns: pa.Schema) -> None:
    path = Path(job.crawl) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=columns), path)


def _image_id(url_id: str) -> str:
    return hashlib.sha256(url_id.encode()).hexdigest()


def hosts(job: PartJob) -> int:
    """Nobody is asked."""
    return 0


def consent(job: PartJob) -> int:
    rows = [
        {"row_id": pair["row_id"], "url_id": pair["url_id"], "allowed": True, "evidence": "stub", "checked_at": _AT}
        for pair in _pairs(job)
    ]
    _write(job, f"consent/{job.part:05d}.parquet", rows, schema.CONSENT)
    return 0


def download(job: PartJob) -> int:
    shard = f"{Path(job.crawl).relative_to(job.root).as_posix()}/images/{job.part:05d}.tar"
    rows = [
        {
            "url_id": pair["url_id"],
            "image_url": pair["image_url"],
            "status": "ok",
            "http_status": 200,
            "image_id": _image_id(pair["url_id"]),
            "attempts": 1,
            "fetched_at": _AT,
            "raw_shard": shard,
            "raw_offset": 512,
            "raw_bytes": 1000,
        }
        for pair in _pairs(job)
    ]
    _write(job, f"images/{job.part:05d}.parquet", rows, schema.IMAGES)
    stats = {"part": job.part, "urls": len(rows), "ok": len(rows), "reasons": {}}
    (Path(job.crawl) / f"images/{job.part:05d}_stats.json").write_text(json.dumps(stats))
    return len(rows)


def detect(job: PartJob) -> int:
    ids = [_image_id(pair["url_id"]) for pair in _pairs(job)]
    _write(job, f"faces/{job.part:05d}.faces.parquet", [{"image_id": each, **_FACE} for each in ids], schema.FACES)
    pictures = [{"image_id": each, "phash": each[:16], **_PICTURE} for each in ids]
    _write(job, f"faces/{job.part:05d}.pictures.parquet", pictures, schema.PICTURES)
    return len(ids)


def shard(job: ShardJob) -> ShardRecord:
    """A record without a tar; an empty file stands for it."""
    path = Path(job.out_dir) / job.plan.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    digest = hashlib.sha256(job.plan.fingerprint.encode()).hexdigest()
    return ShardRecord(job.plan.split, job.plan.file, digest, len(job.plan.row_ids), 0)


def manifest(job: ManifestJob) -> int:
    made_up = {field.name: _MADE_UP[str(field.type)] for field in MANIFEST if not field.nullable}
    rows = [
        {**made_up, "row_id": row_id, "shard": job.plan.file, "position": position}
        for position, row_id in enumerate(job.plan.row_ids)
    ]
    write_part(Path(job.out_dir), job.plan.file, rows)
    return len(rows)


_MADE_UP: dict[str, Any] = {"string": "", "int32": 0, "int64": 0, "float": 0.0, "binary": bytes(48)}
_MADE_UP["list<element: float>"] = _MADE_UP["list<item: float>"] = [0.0] * 10
STUBS: dict[str, Callable[[Any], Any]] = {
    "hosts": hosts,
    "consent": consent,
    "download": download,
    "detect": detect,
    "shard": shard,
    "manifest": manifest,
}
