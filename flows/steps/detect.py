"""One raw shard -> one faces part: every distinct picture is decoded once, its faces found and measured."""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from crawler.files import write_table
from flows.steps.embeddings import EMBED_DAYS, EmbeddingRows, embedded, embeddings_path
from flows.steps.examine import Examined, Row, crops_again, examine_many
from gptface_core.errors import InputError
from gptface_core.faces.decode import MAX_PIXELS
from gptface_core.faces.detector import DEFAULT_MIN_SCORE, Detector, describe_detector, load_detector
from gptface_core.faces.embed import FLOAT32, Embedder, describe_embedder
from gptface_core.faces.network import CPU
from gptface_core.faces.packs import DEFAULT_PACK
from warehouse.schema import FACES, PICTURES, Reason, Status

_LOG = logging.getLogger(__name__)

GPU_BATCH = 16  # pictures that the detector's network takes at once elsewhere than on a CPU, where one gains most
# Options of glibc's mallopt: -1, M_TRIM_THRESHOLD, how much free memory may stay; -3, M_MMAP_THRESHOLD, from what size
# on memory is taken from the system and given back by itself (32 MiB is the most).
_GLIBC_KEEPS = {-1: 256 << 20, -3: 32 << 20}


@dataclass(frozen=True)
class DetectStats:
    """What one faces part holds. `skipped`: it was there already, made by the same detector from the same pictures;
    `reasons`: of pictures that cannot be decoded or show no face."""

    part: int
    pictures: int
    decoded: int
    with_one_face: int
    faces: int
    detector: str
    duration_s: float
    skipped: bool
    reasons: dict[str, int]


@dataclass(frozen=True)
class Member:
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
    provider: str = "CPUExecutionProvider",
    batch: int = 0,
    embed: bool = False,
    embed_days: int = EMBED_DAYS,
    embed_precision: str = FLOAT32,
) -> DetectStats:
    """Write `faces/<part>.faces.parquet` and, last, `faces/<part>.pictures.parquet` from `images/<part>.{tar,parquet}`.

    One row per distinct picture, sorted by image_id; a picture that does not decode has a reason instead of a size.
    A finished part is left as it is, unless another detector made it or the pictures have changed since. With `embed`
    also `faces/<part>.embeddings.parquet`: biometric data that expire after `embed_days` days. Where they alone are
    missing or expired, no face is looked for again. `batch` pictures are looked at together; 0: GPU_BATCH with another
    provider than the CPU's, else one. The faces are the same, to some hundredths of a pixel.

    Raises:
        InputError: the part is not downloaded, its tar is damaged, or the detector or embedder is not to be had.
    """
    started = time.monotonic()
    batch = batch or (1 if provider == CPU else GPU_BATCH)
    description = describe_detector(detector, pack, models_root, det_size, min_score)
    members = _members(part, crawl_dir)
    faces_path, pictures_path = (crawl_dir / "faces" / f"{part:05d}.{kind}.parquet" for kind in ("faces", "pictures"))
    vectors_path = embeddings_path(crawl_dir, part)
    finished = _finished(pictures_path, faces_path, members, description)
    if finished is not None:
        filled = embed and embed_part(
            part,
            crawl_dir,
            models_root,
            pack=pack,
            max_pixels=max_pixels,
            provider=provider,
            embed_days=embed_days,
            embed_precision=embed_precision,
        )
        return _stats(part, finished, description, started, skipped=not filled)
    vectors = _vectors(pack, models_root, provider, embed_precision, embed_days) if embed else None
    pictures: list[Row] = []
    faces: list[Row] = []
    if members:
        with settled_worker():
            finder = load_detector(detector, pack, models_root, det_size, min_score, provider, batch)
            for found in _examine(crawl_dir / "images" / f"{part:05d}.tar", members, finder, max_pixels, batch):
                pictures.append(found.picture)
                faces.extend(found.faces)
                if vectors is not None:
                    vectors.add(found.picture["image_id"], found.crops)
    pictures.sort(key=lambda row: row["image_id"])
    faces.sort(key=lambda row: (row["image_id"], row["face_index"]))
    for stale in (vectors_path, *(crawl_dir / "similarity").glob(f"{part:05d}.*.parquet")):
        stale.unlink(missing_ok=True)  # of other faces than those that follow
    if vectors is not None:
        vectors.write(vectors_path)
    write_table(faces_path, faces, FACES)
    write_table(pictures_path, pictures, PICTURES)
    return _stats(part, pictures, description, started, skipped=False)


def embed_part(
    part: int,
    crawl_dir: Path,
    models_root: Path | None = None,
    *,
    pack: str = DEFAULT_PACK,
    max_pixels: int = MAX_PIXELS,
    provider: str = "CPUExecutionProvider",
    embed_days: int = EMBED_DAYS,
    embed_precision: str = FLOAT32,
) -> bool:
    """Write the embeddings of a part's stored faces where they are missing, expired or another model's; whether so.

    A part whose faces the cascade found gets none: it guesses their points.
    """
    import pyarrow.parquet as pq

    faces_path, path = crawl_dir / "faces" / f"{part:05d}.faces.parquet", embeddings_path(crawl_dir, part)
    detectors = pq.read_table(faces_path.with_name(f"{part:05d}.pictures.parquet"), columns=["detector"])["detector"]
    if any(detector.startswith("cascade") for detector in detectors.unique().to_pylist()):
        _LOG.info("part %d of %s: no embeddings, the cascade found its faces", part, crawl_dir)
        return False
    model = describe_embedder(pack, models_root, embed_precision)
    if embedded(path, model, pq.read_metadata(faces_path).num_rows):
        return False
    vectors = _vectors(pack, models_root, provider, embed_precision, embed_days)
    embed_stored_faces(part, crawl_dir, vectors, max_pixels).write(path)
    return True


def embed_stored_faces(
    part: int, crawl_dir: Path, vectors: EmbeddingRows, max_pixels: int = MAX_PIXELS
) -> EmbeddingRows:
    """Add the faces that a part's table names to `vectors`, cut out of its raw shard; `vectors` itself."""
    import pyarrow.parquet as pq

    columns = ["image_id", "x0_px", "y0_px", "x1_px", "y1_px", "points_px", "score"]
    faces: dict[str, list[Row]] = {}
    for row in pq.read_table(crawl_dir / "faces" / f"{part:05d}.faces.parquet", columns=columns).to_pylist():
        faces.setdefault(row["image_id"], []).append(row)
    shown = [member for member in _members(part, crawl_dir) if member.image_id in faces]
    with settled_worker():
        for image_id, data in read_members(crawl_dir / "images" / f"{part:05d}.tar", shown):
            vectors.add(image_id, crops_again(data, faces[image_id], max_pixels))
    return vectors


def _examine(tar: Path, members: list[Member], detector: Detector, max_pixels: int, batch: int) -> Iterator[Examined]:
    """What is told about each picture of a raw shard, `batch` pictures at a time."""
    items = read_members(tar, members)
    while some := list(itertools.islice(items, batch)):
        yield from examine_many(some, detector, max_pixels)


def _vectors(pack: str, models_root: Path | None, provider: str, precision: str, days: int) -> EmbeddingRows:
    return EmbeddingRows(Embedder(pack, models_root, provider, precision), days)


def _members(part: int, crawl_dir: Path) -> list[Member]:
    """The distinct pictures of a raw shard, in the order in which they lie there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = crawl_dir / "images" / f"{part:05d}.parquet"
    if not path.is_file():
        raise InputError(f"part {part} of {crawl_dir} is not downloaded ({path.name} is missing): run the build again")
    try:
        table = pq.read_table(path, columns=["status", "image_id", "raw_shard", "raw_offset", "raw_bytes"])
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} is damaged: {_mend(path)}") from error
    members: dict[str, Member] = {}
    # A picture that an earlier crawl has keeps its place in that one's shard, and was looked at there.
    own = f"/{path.with_suffix('.tar').as_posix()}"
    rows = [row for row in table.to_pylist() if row["status"] == Status.OK and own.endswith(f"/{row['raw_shard']}")]
    for row in sorted(rows, key=lambda row: row["raw_offset"]):
        members.setdefault(row["image_id"], Member(row["image_id"], row["raw_offset"], row["raw_bytes"]))
    return list(members.values())


def read_members(tar: Path, members: list[Member]) -> Iterator[tuple[str, bytes]]:
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
    marker = path.with_name(path.stem + "_stats.json")
    return f"remove {marker} and run the build of its source again (without --refresh), it is then downloaded anew"


def _finished(pictures: Path, faces: Path, members: list[Member], description: str) -> list[Row] | None:
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
        reasons=dict(Counter(row["reason"] or Reason.NO_FACE.value for row in pictures if not row["face_count"])),
    )


@contextmanager
def settled_worker() -> Iterator[None]:
    """The settled worker; at the end what its pictures have left free goes back to the system, in one piece. Kept, it
    grows to the most that any part has taken."""
    settle_worker()
    try:
        yield
    finally:
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):
            libc.malloc_trim(0)


def settle_worker() -> None:
    """For parts that run side by side, one per core: OpenCV on one thread, and memory is kept for the next picture.

    glibc gives that of a large picture back to the system, which clears it page by page for the next: a tenth of the
    time of its decode. Where there is no glibc, nothing changes.
    """
    import cv2

    cv2.setNumThreads(1)
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for option, value in _GLIBC_KEEPS.items():
            libc.mallopt(option, value)
