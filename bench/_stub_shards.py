"""What the steps of one shard leave behind, made up: the stubs of `bench.scale_sim`, run in worker processes.

The files of consent, download and detection are all written by the stub of the download, from one reading of the part;
the tasks of the other two steps do nothing. One shard in ten has pictures, each with a face that is kept; the addresses
of the others gave none, and their two empty tables of faces are links to one file. Files are handed to pyarrow open,
which costs a stub less time than paths do and gives the same bytes.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flows.steps.crawl import PartJob
from flows.steps.manifest import ManifestJob
from flows.steps.shard import ShardJob
from flows.steps.watched import Tally
from warehouse import schema
from warehouse.manifest import MANIFEST, write_part
from warehouse.shards import ShardRecord

WITH_FACES_EVERY = 10
_AT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
_FACE = {
    "face_index": 0,
    "x0_px": 60.0,
    "y0_px": 60.0,
    "x1_px": 190.0,
    "y1_px": 200.0,
    "points_px": [90.0, 110.0, 160.0, 110.0, 125.0, 140.0, 100.0, 170.0, 150.0, 170.0],
    "score": 0.9,
    "face_px": 130.0,
    "roll_deg": 0.0,
    "yaw_deg": 0.0,
    "pitch_deg": 0.0,
    "sharpness": 100.0,
    "brightness": 120.0,
}
_PICTURE = {"width_px": 256, "height_px": 256, "format": "jpeg", "face_count": 1, "detector": "stub"}
_VALUES: dict[str, Any] = {"string": "", "int32": 0, "int64": 0, "float": 0.0, "binary": bytes(48)}
_SAMPLE = {field.name: _VALUES.get(str(field.type), [0.0] * 10) for field in MANIFEST if not field.nullable}


def nothing(_: PartJob) -> Tally:
    return Tally(0)


def download(job: PartJob) -> Tally:
    crawl, part = Path(job.crawl), f"{job.part:05d}"
    with pa.OSFile(str(crawl / "plan" / f"{part}.pairs.parquet")) as file:
        pairs = pq.ParquetFile(file).read(["row_id", "url_id", "image_url"], use_threads=False).to_pylist()
    has_faces = job.part % WITH_FACES_EVERY == 0
    shard = f"{crawl.relative_to(job.root).as_posix()}/images/{part}.tar"
    _write(crawl / f"consent/{part}.parquet", [_consent(pair) for pair in pairs], schema.CONSENT)
    _write(crawl / f"images/{part}.parquet", [_image(pair, shard, has_faces) for pair in pairs], schema.IMAGES)
    ids = [_image_id(pair) for pair in pairs] if has_faces else []
    _write(crawl / f"faces/{part}.faces.parquet", [{"image_id": each, **_FACE} for each in ids], schema.FACES)
    pictures = [{"image_id": each, "phash": each[:16], **_PICTURE} for each in ids]
    _write(crawl / f"faces/{part}.pictures.parquet", pictures, schema.PICTURES)
    reasons = {} if has_faces else {schema.Reason.DNS.value: len(pairs)}
    stats = json.dumps({"part": job.part, "urls": len(pairs), "ok": len(ids), "reasons": reasons})
    (crawl / f"images/{part}_stats.json").write_text(stats)
    return Tally(len(pairs), reasons)


def _image_id(pair: dict[str, str]) -> str:
    return hashlib.sha256(pair["url_id"].encode()).hexdigest()


def _consent(pair: dict[str, str]) -> dict[str, Any]:
    ids = {"row_id": pair["row_id"], "url_id": pair["url_id"]}
    return {**ids, "allowed": True, "evidence": "stub", "checked_at": _AT}


def _image(pair: dict[str, str], shard: str, has_faces: bool) -> dict[str, Any]:
    address = {"url_id": pair["url_id"], "image_url": pair["image_url"], "attempts": 1, "fetched_at": _AT}
    if not has_faces:
        return {**address, "status": schema.Status.FAILED, "reason": schema.Reason.DNS}
    place = {"image_id": _image_id(pair), "raw_shard": shard, "raw_offset": 512, "raw_bytes": 1000}
    return {**address, "status": schema.Status.OK, "http_status": 200, **place}


def _write(path: Path, rows: list[dict[str, Any]], columns: pa.Schema) -> None:
    """Write rows; without any, link to the one empty file of its kind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if rows:
        with pa.OSFile(str(path), "wb") as file:
            pq.write_table(pa.Table.from_pylist(rows, schema=columns), file, compression="none", use_dictionary=False)
        return
    empty = path.parent / f".empty-{os.getpid()}{''.join(path.suffixes)}"
    if not empty.is_file():
        pq.write_table(columns.empty_table(), empty)
    try:
        os.link(empty, path)
    except OSError:  # a file system allows so many links: the next ones are to another file
        with contextlib.suppress(FileNotFoundError):
            empty.unlink()
        pq.write_table(columns.empty_table(), path)


def shard(job: ShardJob) -> ShardRecord:
    """A record; an empty file stands for the tar."""
    path = Path(job.out_dir) / job.plan.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    digest = hashlib.sha256(job.plan.fingerprint.encode()).hexdigest()
    return ShardRecord(job.plan.split, job.plan.file, digest, len(job.plan.row_ids), 0)


def manifest(job: ManifestJob) -> int:
    rows = [
        {**_SAMPLE, "row_id": row_id, "shard": job.plan.file, "position": position}
        for position, row_id in enumerate(job.plan.row_ids)
    ]
    write_part(Path(job.out_dir), job.plan.file, rows)
    return len(rows)


STUBS: dict[str, Callable[[Any], Any]] = {
    "hosts": nothing,
    "consent": nothing,
    "download": download,
    "detect": nothing,
    "shard": shard,
    "manifest": manifest,
}
