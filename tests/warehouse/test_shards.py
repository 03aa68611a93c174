"""Shards: the same bytes everywhere, nothing half-written, what is there and verifies is kept."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from literal_crawls import Shot, write_crawl

from warehouse import connect
from warehouse.errors import InputError
from warehouse.publish import publish
from warehouse.rules import RuleParameters
from warehouse.shards import (
    Sample,
    ShardPlan,
    ShardRecord,
    finished_shard,
    plan_rows,
    plan_shards,
    read_index,
    shards_dir,
    verify_index,
    write_index,
    write_shard,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    shots = [Shot(f"s{i}") for i in range(40)]
    rules = RuleParameters(val_share=0.2, test_share=0.2, near_duplicate_bits=0)
    publish(root, [write_crawl(root / "raw/x/g001", shots)], rules)
    return root


def written(root: Path, out: Path, samples_per_shard: int = 10) -> list[ShardRecord]:
    with connect(root) as con:
        plans = plan_shards(con, samples_per_shard, {"crop_px": 256})
        records = []
        for plan in plans:
            samples = [
                Sample(
                    r["row_id"], r["image_id"].encode(), {"caption": r["caption"], "score": r["score"]}, r["caption"]
                )
                for r in plan_rows(con, plan)
            ]
            records.append(finished_shard(plan, out) or write_shard(plan, samples, out))
        write_index(out, plans[0].release, records, 256, {"crop_px": 256})
    return records


def test_plan_covers_every_kept_row_once_and_no_shard_is_empty(root: Path) -> None:
    with connect(root) as con:
        plans = plan_shards(con, 10)
        kept = con.execute("SELECT split, row_id FROM corpus").fetchall()
    assert sorted((p.split, row_id) for p in plans for row_id in p.row_ids) == sorted(kept)
    assert all(0 < len(p.row_ids) <= 10 for p in plans)
    assert {p.split for p in plans} == {"train", "val", "test"}
    assert len({p.fingerprint for p in plans}) == len(plans)


def test_same_bytes_again_and_index_verifies(root: Path, tmp_path: Path) -> None:
    assert shards_dir(root, 3).name == "r00003"
    first, second = written(root, tmp_path / "a"), written(root, tmp_path / "b")
    assert first == second
    assert verify_index(tmp_path / "a") == []
    index = read_index(tmp_path / "a")
    assert (index["version"], index["release"], index["crop_px"], index["config"]) == (1, 1, 256, {"crop_px": 256})
    assert sum(split["samples"] for split in index["splits"].values()) == 40
    assert (tmp_path / "a/index.json").read_bytes() == (tmp_path / "b/index.json").read_bytes()


def test_tar_holds_sorted_samples_without_time_or_owner(root: Path, tmp_path: Path) -> None:
    record = written(root, tmp_path)[0]
    with tarfile.open(tmp_path / record.file) as tar:
        members = tar.getmembers()
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}
        names = [m.name for m in members]
        row_ids = [name.split(".")[0] for name in names[::3]]
        assert row_ids == sorted(row_ids)
        assert names == [f"{row_id}.{suffix}" for row_id in row_ids for suffix in ("jpg", "json", "txt")]
        metadata = tar.extractfile(names[1])
        assert metadata is not None
        assert json.load(metadata)["caption"] == "A smiling woman with brown hair"


def test_finished_shards_are_kept_and_spoilt_ones_written_again(root: Path, tmp_path: Path) -> None:
    records = written(root, tmp_path)
    tars = [tmp_path / r.file for r in records]
    times = [path.stat().st_mtime_ns for path in tars]
    tars[1].write_bytes(tars[1].read_bytes()[:-512])  # a crash left it short
    assert verify_index(tmp_path) == [
        f"{tars[1].name} has {records[1].bytes - 512} bytes, the index says {records[1].bytes}"
    ]
    assert written(root, tmp_path) == records
    assert verify_index(tmp_path) == []
    changed = [path.stat().st_mtime_ns != time for path, time in zip(tars, times, strict=True)]
    assert changed == [i == 1 for i in range(len(tars))]


def test_another_plan_in_the_same_folder_leaves_nothing_old(root: Path, tmp_path: Path) -> None:
    written(root, tmp_path, samples_per_shard=5)
    records = written(root, tmp_path, samples_per_shard=100)
    assert sorted(p.name for p in tmp_path.glob("*.tar")) == sorted(r.file for r in records)
    assert verify_index(tmp_path) == []


def test_failing_encoder_leaves_no_tar(tmp_path: Path) -> None:
    plan = ShardPlan(1, "train", 0, ("a", "b"), "f")

    def samples() -> object:
        yield Sample("a", b"x", {}, "")
        raise RuntimeError("no crop")

    with pytest.raises(RuntimeError):
        write_shard(plan, samples(), tmp_path)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_samples_out_of_order_are_refused_and_missing_ones_counted(tmp_path: Path) -> None:
    plan = ShardPlan(1, "train", 0, ("a", "b", "c"), "f")
    with pytest.raises(ValueError, match="sample a is not next"):
        write_shard(plan, [Sample("b", b"", {}, ""), Sample("a", b"", {}, "")], tmp_path)
    assert write_shard(plan, [Sample("a", b"", {}, ""), Sample("c", b"", {}, "")], tmp_path).samples == 2


def test_problems_are_named(root: Path, tmp_path: Path) -> None:
    records = written(root, tmp_path)
    (tmp_path / records[0].file).unlink()
    data = bytearray((tmp_path / records[1].file).read_bytes())
    data[600] ^= 1
    (tmp_path / records[1].file).write_bytes(data)
    assert verify_index(tmp_path) == [
        f"{records[0].file} is missing",
        f"{records[1].file} has other bytes than the index says (sha256)",
    ]
    with pytest.raises(InputError, match="run `gptface shard` first"):
        verify_index(tmp_path / "nowhere")


@pytest.mark.e2e
def test_empty_corpus_and_wrong_size_are_named(root: Path, tmp_path: Path) -> None:
    with connect(root) as con, pytest.raises(InputError, match="samples_per_shard=0"):
        plan_shards(con, 0)
    publish(tmp_path, [write_crawl(tmp_path / "raw/x/g001", [Shot("a", faces=0)])])
    with connect(tmp_path) as con, pytest.raises(InputError, match="release 1 keeps no picture"):
        plan_shards(con, 10)


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.text("0123456789abcdef", min_size=32, max_size=32), st.binary(max_size=2000), max_size=6))
def test_bytes_depend_on_the_samples_alone(tmp_path_factory: pytest.TempPathFactory, samples: dict[str, bytes]) -> None:
    plan = ShardPlan(1, "train", 0, tuple(sorted(samples)), "f")
    listed = [Sample(row_id, samples[row_id], {"b": 1, "a": "ü"}, "Bär") for row_id in plan.row_ids]
    mixed = [Sample(s.row_id, s.jpeg, {"a": "ü", "b": 1}, s.caption) for s in listed]
    folder = tmp_path_factory.mktemp("tars")
    assert write_shard(plan, listed, folder / "a") == write_shard(plan, mixed, folder / "b")
