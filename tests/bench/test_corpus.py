"""The writer of corpora: shards that training reads, the same bytes every time, nothing in them but pixels."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import pytest
from PIL import Image

import bench.corpus
from bench.corpus import drawn_rows, plain_jpeg, write_corpus
from gptface_core.datasets.captions import telling_words
from gptface_core.datasets.fer2013 import load_fer2013
from gptface_core.errors import InputError
from gptface_core.shards import decode_jpeg, open_index, read_shard
from tests.gptface_core.micro import write_corpus as write_shards
from tests.gptface_core.small_sets import picture, write_fer2013


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """240 training pictures of noise in FER2013's layout, one of them also a test picture, and a release's shards."""
    counts = {"Training": 240, "PublicTest": 7, "PrivateTest": 7}
    faces = load_fer2013(write_fer2013(tmp_path / "data" / "fer2013", counts, twins=1), whole=False)
    monkeypatch.setattr(bench.corpus, "load_faces", lambda name, root: {"fer2013": faces}[name])
    monkeypatch.setenv("GPTFACE_TEST_DATA", str(tmp_path / "data"))
    shards, _ = write_shards(tmp_path / "made")
    (tmp_path / "root" / "shards").mkdir(parents=True)
    shards.rename(tmp_path / "root" / "shards" / "r00003")
    return argparse.Namespace(
        out=tmp_path / "out",
        sets=f"fer2013,{tmp_path / 'root'}",
        captions="labels",
        untrue=0.25,
        samples_per_shard=100,
        limit=0,
        cache=tmp_path / "cache",
    )


def test_shards_are_what_training_reads_and_the_same_bytes_again(options: argparse.Namespace, tmp_path: Path) -> None:
    summary = write_corpus(options)
    assert summary["dropped"]["fer2013"]["same_as_held_out"] == 1
    index = open_index(options.out)
    assert {split: index.samples(split) for split in index.splits} == {
        split: sum(table[split] for table in summary["samples"].values()) for split in ("train", "val", "test")
    }
    assert sum(summary["samples"]["fer2013"].values()) == 239 and summary["samples"]["drawn"]["test"] == 8
    samples = [sample for shard in index.splits["train"] for sample in read_shard(shard)]
    assert len({sample.row_id for sample in samples}) == index.samples("train")
    assert all(decode_jpeg(sample.jpeg, 64).shape == (64, 64, 3) for sample in samples[:5])
    assert json.loads((options.out / "corpus.json").read_text())["captions"] == "labels"
    before = (options.out / "train-00000.tar").stat().st_mtime_ns
    write_corpus(options)
    assert (options.out / "train-00000.tar").stat().st_mtime_ns == before, "what verifies is not written again"
    options.out = tmp_path / "again"
    write_corpus(options)
    assert open_index(options.out).digest() == index.digest()


def test_a_neutral_corpus_tells_no_class_in_any_split(options: argparse.Namespace) -> None:
    options.captions = "neutral"
    write_corpus(options)
    index = open_index(options.out)
    captions = [s.caption for split in index.splits.values() for shard in split for s in read_shard(shard)]
    assert len(captions) == 239 + 38 and not any(telling_words(caption) for caption in captions)
    assert sum("draw" in caption for caption in captions) == 38


def test_drawn_faces_keep_their_ids_splits_and_captions(options: argparse.Namespace) -> None:
    root = Path(options.sets.split(",")[1])
    rows = drawn_rows(root, "labels")
    index = open_index(root / "shards" / "r00003")
    known = {
        (s.row_id, split, s.caption)
        for split in index.splits
        for shard in index.splits[split]
        for s in read_shard(shard)
    }
    assert {(row.row_id, row.split, row.caption) for row in rows} == known
    with pytest.raises(InputError, match="holds no shards: run `gptface shard --root"):
        drawn_rows(options.out, "labels")


def test_metadata_never_reaches_a_shard_and_plain_files_stay_as_they_are() -> None:
    data = picture(3)
    assert plain_jpeg(data) == data
    with Image.open(io.BytesIO(data)) as image:
        exif = Image.Exif()
        exif[0x010E] = "somebody's name"
        out = io.BytesIO()
        image.save(out, "JPEG", exif=exif, quality=95)
    assert b"somebody" in out.getvalue() and b"somebody" not in plain_jpeg(out.getvalue())
    png = io.BytesIO()
    Image.open(io.BytesIO(data)).save(png, "PNG")
    assert plain_jpeg(png.getvalue())[:2] == b"\xff\xd8"
    with pytest.raises(InputError, match="does not decode"):
        plain_jpeg(b"no picture")
