"""A disk that is full in any step: one line that names the folder, and afterwards the same rows and bytes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

import warehouse
from flows.cli.ui import describe, is_user_error
from flows.steps import pipeline
from flows.steps.config import TrainConfig
from flows.steps.space import DiskFullError, is_disk_full, told_if_full
from gptface_core.config import RunOptions
from gptface_core.tokens import tokenise_split
from tests.flows.small_crawl import config, content, rows_of
from tests.flows.small_disk import FillingRunner, mounted
from tests.flows.test_build import leftovers
from tests.flows.test_model_steps import MICRO
from warehouse.expire import expire

BUILD_STEPS = ("extract", "plan", "hosts", "consent", "download", "detect", "publish", "shard", "index", "manifest")
TRAIN_STAGES = ("tokenizer", "tokens", "main")


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device", "/x/y"),
        OSError(122, "Disk quota exceeded"),
        RuntimeError("site crawl ended with code 1: OSError: [Errno 28] No space left on device"),
        duckdb.IOException('IO Error: Could not write file "/x/y": No space left on device'),
        duckdb.Error('Failed to execute query "COMMIT": database or disk is full'),
    ],
)
def test_whatever_a_library_says_is_one_line(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(DiskFullError) as caught, told_if_full(tmp_path):
        raise error
    line = describe(caught.value)
    assert is_user_error(caught.value) and "\n" not in line
    assert ("/x" if getattr(error, "filename", None) else str(tmp_path)) in line
    assert "free some there and start the same command again" in line


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    for error in (PermissionError(13, "Permission denied", "/x"), ValueError("no foo")):
        assert not is_disk_full(error)
        with pytest.raises(type(error)) as caught, told_if_full(tmp_path):
            raise error
        assert caught.value is error


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", "64m") as folder:
        yield folder


@pytest.mark.e2e
def test_every_step_of_a_build(disk: Path, undisturbed: Path, small_source: str) -> None:
    root, whole = disk / "root", rows_of(undisturbed)
    runner = FillingRunner(disk)
    for step in BUILD_STEPS:
        runner.full_at = step
        with pytest.raises(DiskFullError, match=f"No space left under {root}: free some there") as caught:
            pipeline.build(config(small_source, root), runner)
        assert "\n" not in str(caught.value)
        runner.free()
        is_published = BUILD_STEPS.index(step) > BUILD_STEPS.index("publish")
        assert rows_of(root) == (whole if is_published else dict.fromkeys(whole, 0)), step
    pipeline.build(config(small_source, root), runner)
    assert content(root) == content(undisturbed)
    assert leftovers(root) == []
    expire(root, days=7, dry_run=False)  # as `gptface prune` does
    assert strangers(root) == set()
    assert content(root) == content(undisturbed)


def strangers(root: Path) -> set[Path]:
    """Files in the lake's folder that its catalogue does not know."""
    with warehouse.connect(root) as con:
        known = con.execute("SELECT path FROM __ducklake_metadata_lake.ducklake_data_file").fetchall()
    names = {Path(path).name for (path,) in known}
    return {path for path in (root / "lake" / "data").rglob("*.parquet") if path.name not in names}


@pytest.mark.e2e
def test_every_stage_of_a_training(
    disk: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, other = disk / "root", tmp_path / "undisturbed"
    preset = tmp_path / "micro.json"
    preset.write_text(json.dumps(MICRO))
    for target in (root, other):
        for name in ("lake", "shards"):
            shutil.copytree(undisturbed / name, target / name)
    runner, options = FillingRunner(disk), RunOptions(device="cpu", checkpoint_every=2)

    def tokenise(*words: Any, **more: Any) -> None:
        runner.progress("tokens", 0, None)  # a training has nothing to tell about this stage
        tokenise_split(*words, **more)

    monkeypatch.setattr("gptface_core.training.tokenise_split", tokenise)
    pipeline.train(TrainConfig(str(other), str(preset), options=options), runner)
    for stage in TRAIN_STAGES:
        runner.full_at = stage
        with pytest.raises(DiskFullError, match=f"No space left under {root}"):
            pipeline.train(TrainConfig(str(root), str(preset), options=options), runner)
        runner.free()
        with warehouse.connect(root) as con:
            assert con.execute("SELECT count(*) FROM models").fetchone() == (0,)
        assert not list((root / "models").rglob("*.tmp"))
    summary = pipeline.train(TrainConfig(str(root), str(preset), options=options), runner)
    for name in ("model.safetensors", "image_tokenizer.safetensors", "history.jsonl"):
        assert (Path(summary.path) / name).read_bytes() == (other / "models" / summary.model / name).read_bytes(), name
    with warehouse.connect(root) as con:
        assert con.execute("SELECT model FROM models").fetchall() == [(summary.model,)]
