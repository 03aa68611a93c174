"""Two at the same output at once: where a machine is lost from sight, its shard is begun again elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from crawler.files import attempt, replacing, sweep
from warehouse.files import replacing as warehouse_replacing


@pytest.mark.parametrize("writer", [replacing, warehouse_replacing])
def test_of_two_who_write_a_file_at_once_each_writes_a_whole_one(
    writer: Callable[[Path], AbstractContextManager[Path]], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    with writer(path) as first, first.open("w") as half:
        half.write("first, ")
        half.flush()
        with writer(path) as second:
            second.write_text("second, whole")
        assert path.read_text() == "second, whole"
        half.write("whole")
    assert path.read_text() == "first, whole"
    assert list(tmp_path.iterdir()) == [path]


def test_a_second_attempt_takes_the_scratch_folder_of_the_first(tmp_path: Path) -> None:
    work = tmp_path / ".00003.work"
    with attempt(work) as first:
        (first / "whole").write_text("first")
        with attempt(work) as second:
            (second / "whole").write_text("second")
            with pytest.raises(FileNotFoundError):
                (first / "whole").replace(tmp_path / "whole")
            with pytest.raises(FileNotFoundError):
                (first / "more").open("w")
            (second / "whole").replace(tmp_path / "whole")
    assert (tmp_path / "whole").read_text() == "second"
    assert list(tmp_path.iterdir()) == [tmp_path / "whole"]


def test_the_end_of_a_first_attempt_leaves_the_second_alone(tmp_path: Path) -> None:
    work = tmp_path / ".00003.work"
    ending, second = attempt(work), attempt(work)
    ending.__enter__()
    with second as scratch:
        (scratch / "half").touch()
        ending.__exit__(None, None, None)
        assert (scratch / "half").is_file()


def test_what_killed_runs_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    kept = [tmp_path / "images" / name for name in ("00001.tar", "00001_stats.json", ".hidden", "notes.tmp")]
    gone = [
        tmp_path / "images" / ".00001.tar.0a1b2c3d4e5f.tmp",
        tmp_path / "images" / ".00001.work" / "aa" / "half",
        tmp_path / "faces" / ".00001.embeddings.parquet.0a1b2c3d4e5f.tmp",
    ]
    for path in (*kept, *gone):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    sweep(tmp_path)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)
    assert not (tmp_path / "images" / ".00001.work").exists()
