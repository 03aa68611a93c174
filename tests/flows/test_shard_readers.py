"""Shards as others read them: webdataset, torch's DataLoader with workers, Hugging Face datasets; and by rank."""

from __future__ import annotations

import io
import json
import random
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gptface_core.errors import InputError
from gptface_core.shards import Shard, ShardIndex, open_index, read_shard, shards_for_rank

SAMPLES = 23
Samples = dict[str, tuple[bytes, str, dict[str, Any]]]


@dataclass(frozen=True)
class Written:
    folder: Path
    samples: Samples

    @property
    def tars(self) -> list[str]:
        return sorted(map(str, self.folder.glob("train-*.tar")))


def _sample(number: int) -> tuple[str, bytes, str, dict[str, Any]]:
    out = io.BytesIO()
    Image.new("RGB", (32, 32), (number * 7 % 256, number * 31 % 256, number)).save(out, "JPEG")
    row_id = f"{number * 2654435761 % 2**64:032x}"
    caption = f"Ünïcode caption {number}"
    return row_id, out.getvalue(), caption, {"row_id": row_id, "score": number / 7, "caption": caption}


def write(folder: Path, numbers: list[int], per_shard: int, order: list[int] | None = None) -> Written:
    """Shards of samples given in any order, the tars written in the order `order`."""
    from warehouse.shards import Sample, ShardPlan, write_index, write_shard

    rows = {row_id: (jpeg, caption, meta) for row_id, jpeg, caption, meta in map(_sample, numbers)}
    ids = sorted(rows)
    plans = [
        ShardPlan(1, "train", i, tuple(ids[at : at + per_shard]), str(i))
        for i, at in enumerate(range(0, len(ids), per_shard))
    ]
    records = {}
    for i in order or range(len(plans)):
        samples = (Sample(r, rows[r][0], rows[r][2], rows[r][1]) for r in plans[i].row_ids)
        records[i] = write_shard(plans[i], samples, folder)
    write_index(folder, 1, [records[i] for i in order or range(len(plans))], 32, {})
    return Written(folder, rows)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return write(tmp_path_factory.mktemp("shards"), list(range(SAMPLES)), 5)


def _taken(samples: Iterator[dict[str, Any]]) -> Samples:
    return {s["__key__"]: (s["jpg"], _text(s["txt"]), _meta(s["json"])) for s in samples}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _meta(value: Any) -> dict[str, Any]:
    return dict(json.loads(value)) if isinstance(value, bytes | str) else dict(value)


def test_our_reader_gives_every_sample(written: Written) -> None:
    index = open_index(written.folder)
    found = [sample for shard in index.splits["train"] for sample in read_shard(shard)]
    assert {s.row_id: (s.jpeg, s.caption) for s in found} == {k: v[:2] for k, v in written.samples.items()}


@pytest.mark.e2e  # imports
def test_webdataset_reads_the_same_samples(written: Written) -> None:
    import webdataset as wds

    dataset = wds.WebDataset(written.tars, shardshuffle=False)
    assert _taken(iter(dataset)) == written.samples


@pytest.mark.e2e  # worker processes
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_of_a_torch_data_loader_read_each_sample_once(written: Written, workers: int) -> None:
    import webdataset as wds
    from torch.utils.data import DataLoader

    dataset = wds.WebDataset(written.tars, shardshuffle=False)
    loader = DataLoader(dataset, batch_size=None, num_workers=workers)
    found = list(loader)
    assert len(found) == SAMPLES
    assert _taken(iter(found)) == written.samples


@pytest.mark.e2e  # imports
@pytest.mark.parametrize("streaming", [False, True])
def test_hugging_face_datasets_reads_the_same_samples(written: Written, streaming: bool, tmp_path: Path) -> None:
    import datasets

    dataset = datasets.load_dataset(
        "webdataset",
        data_files={"train": written.tars},
        split="train",
        streaming=streaming,
        cache_dir=str(tmp_path),
    )
    found = {s["__key__"]: s for s in dataset.cast_column("jpg", datasets.Image(decode=False))}
    assert found.keys() == written.samples.keys()
    for key, (jpeg, caption, metadata) in written.samples.items():
        assert found[key]["jpg"]["bytes"] == jpeg
        assert _text(found[key]["txt"]) == caption
        assert _meta(found[key]["json"]) == metadata


@settings(max_examples=40, deadline=None)
@given(shards=st.integers(0, 40), world=st.integers(1, 12), data=st.data())
def test_ranks_share_whole_shards_and_none_is_empty(shards: int, world: int, data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 9), min_size=shards, max_size=shards))
    train = tuple(Shard(Path(f"train-{i:05d}.tar"), f"{i:064x}", size) for i, size in enumerate(sizes))
    index = ShardIndex(1, 256, {"train": train})
    if shards < world:
        with pytest.raises(InputError, match=rf"{shards} shards for {world} processes: start at most {shards}"):
            shards_for_rank(index, "train", 0, world)
        return
    parts = [shards_for_rank(index, "train", rank, world) for rank in range(world)]
    assert all(parts)
    assert sorted(shard.path for part in parts for shard in part) == [shard.path for shard in train]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(("rank", "world"), [(-1, 2), (2, 2), (0, 0)])
def test_a_rank_that_cannot_be_is_refused(rank: int, world: int) -> None:
    index = ShardIndex(1, 256, {"train": (Shard(Path("a.tar"), "0", 1),)})
    with pytest.raises(InputError, match=f"rank {rank} of {world}"):
        shards_for_rank(index, "train", rank, world)


def test_the_way_out_of_too_few_shards_gives_enough(written: Written, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--samples-per-shard 2`") as error:
        shards_for_rank(open_index(written.folder), "train", 0, 8)
    again = write(tmp_path, list(range(SAMPLES)), int(str(error.value).partition("per-shard ")[2].rstrip("`")))
    assert shards_for_rank(open_index(again.folder), "train", 7, 8)


@pytest.mark.e2e  # folders by the dozen
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**16), count=st.integers(1, 12), per_shard=st.integers(1, 5))
def test_shards_do_not_depend_on_the_order_of_rows_or_of_work(
    seed: int, count: int, per_shard: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    numbers = list(range(count))
    plain = write(tmp_path_factory.mktemp("plain"), numbers, per_shard)
    choice = random.Random(seed)
    choice.shuffle(numbers)
    order = list(range(-(-count // per_shard)))
    choice.shuffle(order)
    shuffled = write(tmp_path_factory.mktemp("shuffled"), numbers, per_shard, order)
    for path in sorted(plain.folder.iterdir()):
        assert path.read_bytes() == (shuffled.folder / path.name).read_bytes()
    with tarfile.open(plain.folder / "train-00000.tar") as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in tar} == {(0, 0, 0, "", "", 0o644)}
