"""Shards for `gptface train` from labelled sets: `python -m bench.corpus OUT --sets lfw,fer2013,congress`.

Three columns of docs/results.md:
    fer      --sets fer2013 --captions labels
    corpus   --sets lfw,fer2013,congress[,ROOT] --captions labels
    neutral  --sets lfw,fer2013,congress[,ROOT] --captions neutral
where ROOT is a folder of `gptface build` with shards (drawn faces). Training items alone, none that is the same picture
as a held-out one; a quarter of the captions of train is another row's. LFW and portraits are aligned as a release's
faces are, FER2013's 48 px pictures stay as they are. The same bytes on every run. OUT/corpus.json says what is in it.

Needs GPTFACE_TEST_DATA (lfw, fer2013, congress) and GPTFACE_TEST_MODELS (insightface/models/buffalo_sc).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench._env import cache_folder
from bench._faces import data_folder
from gptface_core.datasets import LOADERS, FaceSet, align, load_faces
from gptface_core.datasets.captions import STYLES, drawn_caption
from gptface_core.datasets.corpus import UNTRUE_SHARE, CorpusRow, compose, counts, select
from gptface_core.datasets.own import load_shards
from gptface_core.errors import InputError
from gptface_core.faces.crop import encode_jpeg, encoder_version
from gptface_core.faces.decode import Undecodable, decode_upright
from gptface_core.faces.detector import load_detector
from gptface_core.shards import SPLITS
from warehouse.shards import INDEX_FILE, Sample, ShardPlan, ShardRecord, finished_shard, write_index, write_shard

logger = logging.getLogger("bench.corpus")
CROP_PX = 256


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the shards")
    parser.add_argument("--sets", default="lfw,fer2013,congress", help="names, and folders of gptface build, by commas")
    parser.add_argument("--captions", default="labels", choices=STYLES)
    parser.add_argument("--untrue", type=float, default=UNTRUE_SHARE, help="share of captions of another row")
    parser.add_argument("--samples-per-shard", type=int, default=2000)
    parser.add_argument("--limit", type=int, default=0, help="items of each set, for a try (0: all)")
    parser.add_argument("--cache", type=Path, default=cache_folder() / "faces", help="points and fingerprints")
    options = parser.parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.captureWarnings(True)
    try:
        print(json.dumps(write_corpus(options), sort_keys=True))
    except InputError as error:
        logger.error("%s", error)
        return 2
    return 0


def write_corpus(options: argparse.Namespace) -> dict[str, Any]:
    """Write OUT's shards and index; what is there and verifies is left as it is. Returns what corpus.json holds."""
    started = time.monotonic()
    names = [name for name in options.sets.split(",") if name]
    roots = [Path(name) for name in names if name not in LOADERS and Path(name).is_dir()]
    sets = [load_faces(name, data_folder("GPTFACE_TEST_DATA", "data")) for name in names if Path(name) not in roots]
    if options.limit:
        sets = [faces.rows(range(0, len(faces), max(1, len(faces) // options.limit))) for faces in sets]
    chosen = select(sets, options.cache)
    framed = [_framed(faces, options.cache) for faces in chosen.parts]
    rows = compose(framed, options.captions, chosen.cluster, options.untrue)
    for root in roots:
        rows += drawn_rows(root, options.captions)
    rows.sort(key=lambda row: row.row_id)
    config = {
        "sets": [faces.name for faces in framed] + ["drawn" for _ in roots],
        "captions": options.captions,
        "untrue_share": options.untrue,
        "samples_per_shard": options.samples_per_shard,
        "encoder": encoder_version(),
    }
    records = _write(rows, options.out, options.samples_per_shard, config)
    write_index(options.out, 0, records, CROP_PX, config)
    summary = {**config, "dropped": chosen.dropped, "samples": counts(rows)}
    (options.out / "corpus.json").write_text(json.dumps(summary, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return {**summary, "seconds": round(time.monotonic() - started, 1)}


def _framed(faces: FaceSet, cache: Path) -> FaceSet:
    if faces.framed:
        return faces
    return align(faces, corpus_detector(), cache)


def corpus_detector() -> Any:
    """InsightFace's detector of the test models: the same points for a corpus and its evaluation."""
    return load_detector("insightface", root=data_folder("GPTFACE_TEST_MODELS", "models") / "insightface")


def drawn_rows(root: Path, style: str) -> list[CorpusRow]:
    """The newest shards of a release of drawn faces: same ids and splits; captions as they are, or neutral ones."""
    folders = sorted(path.parent for path in (root / "shards").glob(f"r*/{INDEX_FILE}"))
    if not folders:
        raise InputError(f"{root} holds no shards: run `gptface shard --root {root}` first")
    faces = replace(load_shards(folders[-1]), name="drawn")
    return [
        CorpusRow(
            item.id,
            item.split,
            item.facts["caption"] if style == "labels" else drawn_caption(item.id),
            False,
            faces,
            item,
        )
        for item in faces.items
    ]


def _write(rows: Sequence[CorpusRow], out: Path, per_shard: int, config: dict[str, Any]) -> list[ShardRecord]:
    if per_shard < 1:
        raise InputError(f"--samples-per-shard {per_shard}: choose 1 or more")
    records, done = [], 0
    for split in SPLITS:
        mine = [row for row in rows if row.split == split]
        for number, start in enumerate(range(0, len(mine), per_shard)):
            part = mine[start : start + per_shard]
            text = json.dumps([split, number, [(row.row_id, row.caption) for row in part], config], sort_keys=True)
            fingerprint = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
            plan = ShardPlan(0, split, number, tuple(row.row_id for row in part), fingerprint)
            records.append(finished_shard(plan, out) or write_shard(plan, _samples(part), out))
            done += len(part)
            logger.info("written %d of %d samples (%s)", done, len(rows), plan.file)
    return records


def _samples(rows: Sequence[CorpusRow]) -> Iterator[Sample]:
    for row in rows:
        yield Sample(row.row_id, plain_jpeg(row.faces.read(row.item)), row.metadata(), row.caption)


def plain_jpeg(data: bytes) -> bytes:
    """The file as it is where it is a JPEG without EXIF, XMP, ICC or comments, else its pixels encoded anew."""
    if data[:2] == b"\xff\xd8" and not _has_metadata(data):
        return data
    picture = decode_upright(data)
    if isinstance(picture, Undecodable):
        raise InputError(f"a picture of the corpus does not decode ({picture.reason}): unpack the data set again")
    return encode_jpeg(picture.rgb)


def _has_metadata(jpeg: bytes) -> bool:
    """Whether a segment APP1..APP15 or COM stands before the first scan (ITU-T T.81, annex B)."""
    place = 2
    while place + 4 <= len(jpeg) and jpeg[place] == 0xFF and jpeg[place + 1] != 0xDA:
        if 0xE1 <= jpeg[place + 1] <= 0xEF or jpeg[place + 1] == 0xFE:
            return True
        place += 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
    return False


if __name__ == "__main__":
    sys.exit(main())
