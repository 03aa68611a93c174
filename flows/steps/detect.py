"""One raw shard -> one faces part: every distinct picture is decoded once, its faces found and measured."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crawler.files import write_table
from gptface_core.errors import InputError
from gptface_core.faces.decode import MAX_PIXELS, Undecodable, decode_upright
from gptface_core.faces.detector import DEFAULT_MIN_SCORE, Detector, describe_detector, load_detector
from gptface_core.faces.packs import DEFAULT_PACK
from gptface_core.faces.phash import perceptual_hash
from gptface_core.faces.quality import measure_face
from warehouse.schema import FACES, PICTURES, Reason, Status

if TYPE_CHECKING:
    from gptface_core.faces.decode import Picture
    from gptface_core.faces.detector import Face

_LOG = logging.getLogger(__name__)

Row = dict[str, Any]


@dataclass(frozen=True)
class DetectStats:
    """What one faces part holds. `skipped`: it was there already, made by the same detector from the same pictures."""

    part: int
    pictures: int
    decoded: int
    with_one_face: int
    faces: int
    detector: str
    duration_s: float
    skipped: bool


@dataclass(frozen=True)
class _Member:
    """Where the bytes of one picture lie in the raw shard."""

    image_id: str
    offset: int
    length: int


def detect_part(
    part: int,
    crawl_dir: Path,
    detector: str = "auto",
    models_root: Path | None = None,
    *,
    pack: str = DEFAULT_PACK,
    det_size: int | None = None,
    min_score: float = DEFAULT_MIN_SCORE,
    max_pixels: int = MAX_PIXELS,
) -> DetectStats:
    """Write `faces/<part>.faces.parquet` and, last, `faces/<part>.pictures.parquet` from `images/<part>.{tar,parquet}`.

    One row per distinct picture, sorted by image_id; a picture that does not decode has a reason instead of a size.
    A finished part is left as it is, unless another detector made it or the pictures have changed since.

    Raises:
        InputError: the part is not downloaded, its tar is damaged, or the detector is not to be had.
    """
    started = time.monotonic()
    description = describe_detector(detector, pack, models_root, det_size, min_score)
    members = _members(part, crawl_dir)
    faces_path, pictures_path = (crawl_dir / "faces" / f"{part:05d}.{kind}.parquet" for kind in ("faces", "pictures"))
    finished = _finished(pictures_path, faces_path, members, description)
    if finished is not None:
        return _stats(part, finished, description, started, skipped=True)
    pictures: list[Row] = []
    faces: list[Row] = []
    if members:
        _one_thread()
        finder = load_detector(detector, pack, models_root, det_size, min_score)
        for image_id, data in _read(crawl_dir / "images" / f"{part:05d}.tar", members):
            picture, found = examine(image_id, data, finder, max_pixels)
            pictures.append(picture)
            faces.extend(found)
    pictures.sort(key=lambda row: row["image_id"])
    faces.sort(key=lambda row: (row["image_id"], row["face_index"]))
    write_table(faces_path, faces, FACES)
    write_table(pictures_path, pictures, PICTURES)
    return _stats(part, pictures, description, started, skipped=False)


def examine(image_id: str, data: bytes, detector: Detector, max_pixels: int = MAX_PIXELS) -> tuple[Row, list[Row]]:
    """One row of PICTURES and the rows of FACES for the bytes of one picture; never raises."""
    row: Row = dict.fromkeys(PICTURES.names)
    row |= {"image_id": image_id, "detector": detector.describe()}
    picture = decode_upright(data, max_pixels)
    if isinstance(picture, Undecodable):
        _LOG.debug("picture %s: %s (%s)", image_id, picture.reason, picture.detail)
        return row | {"reason": Reason(picture.reason).value}, []
    try:
        found = detector.detect(picture.rgb)
        faces = [_face_row(image_id, index, picture, face) for index, face in enumerate(found)]
        phash = perceptual_hash(picture.rgb)
    except Exception:  # noqa: BLE001 row boundary: one odd picture must not cost the part
        _LOG.exception("picture %s: internal error", image_id)
        return row | {"reason": Reason.INTERNAL_ERROR.value}, []
    row |= {"width_px": picture.width_px, "height_px": picture.height_px, "format": picture.format}
    return row | {"phash": phash, "face_count": len(faces)}, faces


def _face_row(image_id: str, index: int, picture: Picture, face: Face) -> Row:
    quality = measure_face(picture.rgb, face)
    x0, y0, x1, y1 = (float(v) for v in face.box)
    return {
        "image_id": image_id,
        "face_index": index,
        "x0_px": x0,
        "y0_px": y0,
        "x1_px": x1,
        "y1_px": y1,
        "points_px": [float(v) for v in face.points.reshape(-1)],
        "score": face.score,
        "face_px": face.face_px,
        "roll_deg": quality.pose.roll_deg,
        "yaw_deg": quality.pose.yaw_deg,
        "pitch_deg": quality.pose.pitch_deg,
        "sharpness": quality.sharpness,
        "brightness": quality.brightness,
    }


def _members(part: int, crawl_dir: Path) -> list[_Member]:
    """The distinct pictures of a raw shard, in the order in which they lie there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = crawl_dir / "images" / f"{part:05d}.parquet"
    if not path.is_file():
        raise InputError(f"part {part} of {crawl_dir} is not downloaded ({path.name} is missing): run the build again")
    try:
        table = pq.read_table(path, columns=["status", "image_id", "raw_offset", "raw_bytes"])
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} is damaged: {_mend(path)}") from error
    members: dict[str, _Member] = {}
    rows = [row for row in table.to_pylist() if row["status"] == Status.OK]
    for row in sorted(rows, key=lambda row: row["raw_offset"]):
        members.setdefault(row["image_id"], _Member(row["image_id"], row["raw_offset"], row["raw_bytes"]))
    return list(members.values())


def _read(tar: Path, members: list[_Member]) -> Iterator[tuple[str, bytes]]:
    """Image id and bytes of each member; the bytes are checked against their sha256."""
    if not tar.is_file():
        raise InputError(f"{tar} is missing: {_mend(tar)}")
    with tar.open("rb") as file:
        for member in members:
            file.seek(member.offset)
            data = file.read(member.length)
            if hashlib.sha256(data).hexdigest() != member.image_id:
                what = "cut short" if len(data) < member.length else "damaged"
                raise InputError(f"{tar} is {what} at picture {member.image_id[:12]}: {_mend(tar)}")
            yield member.image_id, data


def _mend(path: Path) -> str:
    """What to do about a broken raw shard: without its done-marker it is downloaded anew."""
    return f"remove {path.with_name(path.stem + '_stats.json')} and run the build again, it is then downloaded anew"


def _finished(pictures: Path, faces: Path, members: list[_Member], description: str) -> list[Row] | None:
    """Rows of a finished part (reason and face_count), or None where it must be made (again)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not (pictures.is_file() and faces.is_file()):
        return None
    try:
        rows: list[Row] = pq.read_table(pictures, columns=["image_id", "reason", "face_count", "detector"]).to_pylist()
        pq.read_metadata(faces)
    except (pa.ArrowInvalid, OSError):
        _LOG.warning("%s is damaged, making it again", pictures)
        return None
    same = [row["image_id"] for row in rows] == sorted(member.image_id for member in members)
    if not same or any(row["detector"] != description for row in rows):
        return None
    return rows


def _stats(part: int, pictures: list[Row], detector: str, started: float, *, skipped: bool) -> DetectStats:
    counts = [row["face_count"] for row in pictures if row["reason"] is None]
    return DetectStats(
        part=part,
        pictures=len(pictures),
        decoded=len(counts),
        with_one_face=counts.count(1),
        faces=sum(counts),
        detector=detector,
        duration_s=time.monotonic() - started,
        skipped=skipped,
    )


def _one_thread() -> None:
    """OpenCV on one thread: parts run side by side, one per core."""
    import cv2

    cv2.setNumThreads(1)
