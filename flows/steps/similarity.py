"""How well captions fit faces, by CLIP: a file per part and model beside the crawl, made only with `--clip`.

    raw/<source>/gNNN/similarity/NNNNN.<hash of the model>.parquet    schema SIMILARITIES

Each pair of aligned face and caption is measured once per model; what a file lacks is filled in by the next build with
`--clip`, in all crawls of the root. A face is the crop of the shards: what a model trains on with this caption.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crawler.files import write_table
from flows.steps.detect import Member, read_members
from warehouse.parameters import RuleParameters
from warehouse.schema import SIMILARITIES
from warehouse.similarities import FaceText, chosen_texts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from flows.steps.config import BuildConfig
    from gptface_core.clip import ClipWeights

_LOG = logging.getLogger(__name__)
_CROPS = 256  # that are in memory at once
_DIGITS = 4  # a cosine says no more; batches of another size differ in the seventh


@dataclass(frozen=True)
class ClipJob:
    """What a worker needs to measure one part of a crawl."""

    part: int
    crawl: str
    root: str
    weights: ClipWeights
    device: str
    rules: RuleParameters


def find_weights(config: BuildConfig) -> ClipWeights | None:
    """The weights that a build asks for; None where it asks for none.

    Raises InputError where they or the device are not to be had.
    """
    if not config.clip:
        return None
    from gptface_core.clip import clip_device, find_clip

    clip_device(config.clip_device)
    return find_clip(config.clip)


def similarity_path(crawl_dir: Path, part: int, model: str) -> Path:
    return crawl_dir / "similarity" / f"{part:05d}.{hashlib.sha256(model.encode()).hexdigest()[:8]}.parquet"


def told(config: BuildConfig, weights: ClipWeights) -> BuildConfig:
    """The config as a release tells it: what the model is, not where it lies; and its similarities count."""
    model = weights.describe()
    return replace(config, clip=model, rules=replace(config.rules, clip_model=model))


def jobs(config: BuildConfig, crawls: Sequence[Path], weights: ClipWeights) -> list[ClipJob]:
    """A job per part whose faces were looked for."""
    from crawler.plan import read_plan

    planned = [(crawl, read_plan(crawl / "plan")) for crawl in crawls]
    return [
        ClipJob(part, str(crawl), config.root, weights, config.clip_device, config.rules)
        for crawl, plan in planned
        for part in range(plan.parts if plan else 0)
        if (crawl / "faces" / f"{part:05d}.pictures.parquet").is_file()
    ]


def files(jobs: Sequence[ClipJob]) -> list[Path]:
    """What the jobs have written."""
    paths = (similarity_path(Path(job.crawl), job.part, job.weights.describe()) for job in jobs)
    return [path for path in paths if path.is_file()]


def measure_part(job: ClipJob) -> int:
    """Measure the pairs of a part that have no similarity by this model yet; how many."""
    crawl, model = Path(job.crawl), job.weights.describe()
    path = similarity_path(crawl, job.part, model)
    there = _read(path)
    known = {(row["image_id"], row["caption_id"]) for row in there}
    lacking = [t for t in chosen_texts(job.part, crawl, job.rules) if (t.image_id, t.caption_id) not in known]
    rows = _measure(lacking, job) if lacking else []
    if rows:
        ordered = sorted([*there, *rows], key=lambda row: (row["image_id"], row["caption_id"]))
        write_table(path, ordered, SIMILARITIES)
    return len(rows)


def _read(path: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path).to_pylist() if path.is_file() else []
    except (pa.ArrowInvalid, OSError):
        _LOG.warning("%s is damaged, making it again", path)
        return []


def _measure(texts: Sequence[FaceText], job: ClipJob) -> list[dict[str, Any]]:
    """Rows of SIMILARITIES; each face and each text goes through the model once."""
    import cv2

    from gptface_core.clip import ClipScorer

    shards = _shards(Path(job.root), texts)
    if not shards:
        return []
    cv2.setNumThreads(1)
    scorer = ClipScorer(job.weights, job.device)
    faces: dict[str, Any] = {}
    crops = _crops(shards)
    while some := list(islice(crops, _CROPS)):
        vectors = scorer.see([crop for _, crop in some])
        faces |= zip((image_id for image_id, _ in some), vectors, strict=True)
    found = [text for text in texts if text.image_id in faces]
    captions = list(dict.fromkeys(text.text for text in found))
    read = dict(zip(captions, scorer.read(captions), strict=True))
    model = job.weights.describe()
    return [
        {
            "image_id": text.image_id,
            "caption_id": text.caption_id,
            "model": model,
            "similarity": round(float(faces[text.image_id] @ read[text.text]), _DIGITS),
        }
        for text in found
    ]


@dataclass(frozen=True)
class _Shard:
    """Pictures of one raw shard, and the five points of their largest faces."""

    tar: Path
    members: list[Member]
    points: dict[str, list[float]]


def _shards(root: Path, texts: Sequence[FaceText]) -> list[_Shard]:
    """Where the pictures with a face lie; what an earlier crawl fetched lies in that one's shards."""
    places = {(t.raw_shard, t.raw_offset, t.image_id): t.raw_bytes for t in texts}
    found = []
    for name, group in groupby(sorted(places), key=lambda place: place[0]):
        tar = root / name
        points = _points(tar.parents[1] / "faces" / f"{tar.stem}.faces.parquet")
        members = [Member(i, offset, places[shard, offset, i]) for shard, offset, i in group if i in points]
        if members and not tar.is_file():
            _LOG.warning("%s is gone: %d of its faces are not compared with their captions", tar, len(members))
        elif members:
            found.append(_Shard(tar, members, points))
    return found


def _points(faces: Path) -> dict[str, list[float]]:
    """The five points of the largest faces of a part; none where nobody looked for faces."""
    import pyarrow.parquet as pq

    if not faces.is_file():
        return {}
    table = pq.read_table(faces, columns=["image_id", "points_px"], filters=[("face_index", "==", 0)])
    return dict(zip(table["image_id"].to_pylist(), table["points_px"].to_pylist(), strict=True))


def _crops(shards: Sequence[_Shard]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Image ids and aligned faces, as they go into shards."""
    from gptface_core.faces.crop import cut_crop

    for shard in shards:
        for image_id, data in read_members(shard.tar, shard.members):
            yield image_id, cut_crop(data, shard.points[image_id])
