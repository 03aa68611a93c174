"""The number of a part comes from the name of its file, also beyond the 100,000th; many files are read in turns."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

import warehouse
from tests.warehouse.literal_crawls import Shot, write_crawl
from warehouse import parts
from warehouse.publish import publish


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("/root/raw/list-12345678/g000/plan/00007.pairs.parquet", 7),
        ("/root/raw/x/g000/images/99999.parquet", 99_999),
        ("/root/raw/x/g000/images/100000.parquet", 100_000),
        ("/root/raw/x/g000/faces/200013.pictures.parquet", 200_013),
        ("/root/raw/x/g000/plan/pages.parquet", 0),
    ],
)
def test_the_number_of_a_part(name: str, part: int) -> None:
    found = duckdb.execute(f"SELECT {parts.PART_SQL} FROM (SELECT ? AS filename)", [name]).fetchone()
    assert found == (part,)


def test_files_are_read_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_FILES_AT_ONCE", 2)
    shots = [Shot(f"picture-{i}") for i in range(20)]
    release = publish(tmp_path, [write_crawl(tmp_path / "raw/x/g000", shots, parts=5)])
    with warehouse.connect(tmp_path) as con:
        rows = con.execute("SELECT image_url, count(*) FROM pairs JOIN captions USING (row_id) GROUP BY 1").fetchall()
    assert release.pairs == 20 and sorted(rows) == sorted((shot.image_url, 1) for shot in shots)
