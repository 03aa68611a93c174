"""Files of the lake that go: those that no snapshot needs, and those that none ever knew."""

from __future__ import annotations

from pathlib import Path

import pytest

from warehouse import connect, lake
from warehouse.expire import expire
from warehouse.register import register

pytestmark = pytest.mark.e2e  # a lake

RUN = {"run_id": "r", "kind": "build", "status": "", "started_at": "2026-01-01 00:00:00+00", "host": ""}


def test_what_a_killed_writer_left_goes_and_nothing_else(tmp_path: Path) -> None:
    lake.create(tmp_path)
    for run in ("a", "b"):
        register(tmp_path, "runs", RUN | {"run_id": run, "code_version": "", "config": "{}"})
    folder = tmp_path / "lake" / "data" / "main" / "runs"
    known = sorted(folder.iterdir())
    (folder / "ducklake-half.parquet").write_bytes(b"PAR1 and no more")
    (folder / "ducklake-empty.parquet").touch()
    found = expire(tmp_path, 7, dry_run=True)
    assert (found.files, found.bytes) == (2, 16)
    assert len(list(folder.iterdir())) == len(known) + 2
    assert expire(tmp_path, 7, dry_run=False) == found
    assert sorted(folder.iterdir()) == known
    assert expire(tmp_path, 7, dry_run=False).files == 0
    with connect(tmp_path) as con:
        assert con.execute("SELECT run_id FROM runs ORDER BY 1").fetchall() == [("a",), ("b",)]
