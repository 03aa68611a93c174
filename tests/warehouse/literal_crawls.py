"""Small literal crawls written as the crawler and the detector write them."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from warehouse import schema

FETCHED = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Shot:
    """One picture on one page, and what every step found out about it. The defaults are kept."""

    name: str  # of the image address
    page: str = "p0"
    captions: tuple[tuple[str, str], ...] = (("alt", "A smiling woman with brown hair"),)
    refused: str | None = None
    failed: str | None = None
    content: str | None = None  # same content, same bytes; default: the name
    decode: str | None = None  # reason the picture could not be decoded
    side_px: int = 256
    faces: int = 1
    score: float = 0.9
    face_px: float = 100.0
    yaw_deg: float = 1.5
    flatness: float | None = None
    phash: str | None = None  # default: far from every other
    fetched: dt.datetime = FETCHED
    detector: str = "test 1"
    directives: str = ""
    source: str = "list:test"
    attempts: int = 1
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def page_url(self) -> str:
        return f"http://a.example/{self.page}"

    @property
    def image_url(self) -> str:
        return f"http://a.example/{self.name}.jpg"

    @property
    def row_id(self) -> str:
        return schema.row_id(self.page_url, self.image_url)

    @property
    def url_id(self) -> str:
        return schema.url_id(self.image_url)

    @property
    def image_id(self) -> str:
        return hashlib.sha256((self.content or self.name).encode()).hexdigest()

    @property
    def hash64(self) -> str:
        return self.phash or hashlib.md5((self.content or self.name).encode()).hexdigest()[:16]


def _write(path: Path, rows: list[dict[str, Any]], table: pa.Schema) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=table), path)


def _pair(shot: Shot) -> dict[str, Any]:
    host = "http://a.example"
    return {
        "row_id": shot.row_id,
        "url_id": shot.url_id,
        "page_url": shot.page_url,
        "image_url": shot.image_url,
        "page_host": host,
        "image_host": host,
        "source": shot.source,
        "page_directives": shot.directives,
    }


def _image(shot: Shot, raw_shard: str, offset: int) -> dict[str, Any]:
    row: dict[str, Any] = {
        "url_id": shot.url_id,
        "image_url": shot.image_url,
        "status": "refused" if shot.refused else "failed" if shot.failed else "ok",
        "reason": shot.refused or shot.failed,
        "attempts": shot.attempts,
        "fetched_at": shot.fetched,
    }
    if row["status"] == "ok":
        row |= {"image_id": shot.image_id, "raw_shard": raw_shard, "raw_offset": offset, "raw_bytes": 1000}
    return row


def _picture(shot: Shot) -> dict[str, Any]:
    if shot.decode:
        return {"image_id": shot.image_id, "reason": shot.decode, "detector": shot.detector}
    return {
        "image_id": shot.image_id,
        "width_px": shot.side_px,
        "height_px": shot.side_px,
        "format": "jpeg",
        "phash": shot.hash64,
        "face_count": shot.faces,
        "detector": shot.detector,
    }


def _face(shot: Shot, index: int) -> dict[str, Any]:
    numbers = (
        "x0_px",
        "y0_px",
        "x1_px",
        "y1_px",
        "roll_deg",
        "yaw_deg",
        "pitch_deg",
        "sharpness",
        "brightness",
        "padded_share",
    )
    row: dict[str, Any] = dict.fromkeys(numbers, 1.5)
    row |= {"image_id": shot.image_id, "face_index": index, "points_px": [1.0, 2.0] * 5}
    return row | {
        "score": shot.score,
        "face_px": shot.face_px - index,
        "yaw_deg": shot.yaw_deg,
        "flatness": shot.flatness,
    }


@dataclass(frozen=True)
class Visit:
    """A page that a crawl asked for."""

    page: str = "p0"
    status: int = 200
    body: str = "one"
    at: dt.datetime = FETCHED
    source: str = "list:test"

    def row(self) -> dict[str, Any]:
        read = self.status == 200
        return {
            "page_url": f"http://a.example/{self.page}",
            "source": self.source,
            "http_status": self.status,
            "etag": f'"{self.body}"' if read else None,
            "body_sha256": hashlib.sha256(self.body.encode()).hexdigest() if read else None,
            "visited_at": self.at,
        }


def write_crawl(
    folder: Path,
    shots: Sequence[Shot],
    parts: int = 1,
    visits: Sequence[Visit] | None = None,
    seen: Sequence[Shot] = (),
    due: Sequence[Shot] = (),
    units: Sequence[dict[str, Any]] | None = None,
) -> Path:
    """A complete crawl of `shots` in `parts` parts, in the given order.

    With `visits` it knows of pages; it then saw `shots` and `seen`, but not `due`, which are planned nonetheless.
    """
    for part in range(parts):
        chosen = [s for s in (*shots, *due) if int(s.url_id, 16) % parts == part]
        _write_part(folder, f"{part:05d}", chosen)
    host = {"host": "http://a.example", "robots_status": 404, "robots_txt": "", "checked_at": FETCHED}
    _write(folder / "consent/hosts/00000.parquet", [host | {"tdmrep_status": 404, "tdmrep_json": ""}], schema.HOSTS)
    if visits is not None:
        rows = [{"row_id": s.row_id} for s in (*shots, *seen)]
        _write(folder / "plan/seen.parquet", rows, pa.schema([("row_id", pa.string())]))
        _write(folder / "plan/pages.parquet", [visit.row() for visit in visits], schema.PAGES)
    if units is not None:
        ledger = [f for f in schema.SOURCES if f.name not in ("crawl", "release")]
        _write(folder / "plan/sources.parquet", list(units), pa.schema(ledger))
    (folder / "plan").mkdir(parents=True, exist_ok=True)
    (folder / "plan/done.json").write_text(json.dumps({"parts": parts, "pairs": len(shots) + len(due)}))
    return folder


def _write_part(folder: Path, number: str, chosen: Sequence[Shot]) -> None:
    addresses = {s.url_id: s for s in chosen}
    pictures = {s.image_id: s for s in chosen if not s.refused and not s.failed}
    captions = [
        {"row_id": s.row_id, "rank": rank, "kind": kind, "text": text}
        for s in chosen
        for rank, (kind, text) in enumerate(s.captions)
    ]
    consent = [
        {
            "row_id": s.row_id,
            "url_id": s.url_id,
            "allowed": s.refused is None,
            "reason": s.refused,
            "evidence": "",
            "checked_at": s.fetched,
        }
        for s in chosen
    ]
    raw = folder.relative_to(folder.parents[2]).as_posix()
    images = [_image(s, f"{raw}/images/{number}.tar", i * 1024) for i, s in enumerate(addresses.values())]
    faces = [_face(s, i) for s in pictures.values() if not s.decode for i in range(s.faces)]
    _write(folder / f"plan/{number}.pairs.parquet", [_pair(s) for s in chosen], schema.PAIRS)
    _write(folder / f"plan/{number}.captions.parquet", captions, schema.CAPTIONS)
    _write(folder / f"consent/{number}.parquet", consent, schema.CONSENT)
    _write(folder / f"images/{number}.parquet", images, schema.IMAGES)
    (folder / f"images/{number}_stats.json").write_text("{}")
    _write(folder / f"faces/{number}.faces.parquet", faces, schema.FACES)
    _write(folder / f"faces/{number}.pictures.parquet", [_picture(s) for s in pictures.values()], schema.PICTURES)
