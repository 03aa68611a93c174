"""Planning: identity, order, parts, and what a crash leaves."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crawler.errors import InputError
from crawler.files import read_rows
from crawler.plan import PlanSummary, part_path, read_plan, write_plan
from crawler.sources import Candidate, Caption
from warehouse.schema import CAPTIONS, PAIRS, CaptionKind, row_id


def candidate(page: int, image: int, *texts: str) -> Candidate:
    captions = tuple(Caption(CaptionKind.ALT, text) for text in texts)
    return Candidate(f"https://a.example/p{page}", f"https://img{image % 3}.example/{image}.jpg", captions, "")


def many() -> list[Candidate]:
    """100 pages with two pictures each; every third picture is on two pages."""
    return [candidate(p, i, f"text {p} {i}") for p in range(100) for i in (p, p // 3 * 3)]


def parts(plan_dir: Path, summary: PlanSummary, table: str) -> list[list[dict[str, object]]]:
    return [read_rows(part_path(plan_dir, part, table)) for part in range(summary.parts)]


def test_the_plan_depends_on_content_alone(tmp_path: Path) -> None:
    shuffled = many()
    random.Random(0).shuffle(shuffled)
    first = write_plan(many(), tmp_path / "a", 7, "s")
    second = write_plan(iter(shuffled), tmp_path / "b", 7, "s")
    assert first == second
    for table in ("pairs", "captions"):
        assert parts(tmp_path / "a", first, table) == parts(tmp_path / "b", second, table)
    for part in range(first.parts):
        files = [part_path(tmp_path / name, part, "pairs").read_bytes() for name in ("a", "b")]
        assert files[0] == files[1]


def test_parts_hold_whole_addresses_in_order_and_everything_once(tmp_path: Path) -> None:
    summary = write_plan(many(), tmp_path, 7, "s")
    expected = {row_id(c.page_url, c.image_url) for c in many()}
    pairs = parts(tmp_path, summary, "pairs")
    assert summary.pairs == len(expected) == sum(len(part) for part in pairs)
    assert {row["row_id"] for part in pairs for row in part} == expected
    urls = [{row["url_id"] for row in part} for part in pairs]
    assert [len(part) for part in urls] == [7] * (len(urls) - 1) + [len(urls[-1])]
    assert summary.urls == len(set().union(*urls)) == sum(len(part) for part in urls) == 100
    flat = [(row["url_id"], row["row_id"]) for part in pairs for row in part]
    assert flat == sorted(flat)
    for part, captions in zip(pairs, parts(tmp_path, summary, "captions"), strict=True):
        assert {row["row_id"] for row in captions} == {row["row_id"] for row in part}


def test_tables_follow_the_schema(tmp_path: Path) -> None:
    write_plan([candidate(1, 1, "x")], tmp_path, 10, "site:x")
    assert pq.read_schema(part_path(tmp_path, 0, "pairs")).equals(PAIRS)
    assert pq.read_schema(part_path(tmp_path, 0, "captions")).equals(CAPTIONS)
    [row] = read_rows(part_path(tmp_path, 0, "pairs"))
    assert (row["page_host"], row["image_host"], row["source"]) == (
        "https://a.example",
        "https://img1.example",
        "site:x",
    )


def test_a_second_sighting_adds_texts_and_directives(tmp_path: Path) -> None:
    again = candidate(1, 1, "second", "first")
    sightings = [
        candidate(1, 1, "first", "other"),
        Candidate(again.page_url, again.image_url, again.captions, "meta robots: x"),
    ]
    summary = write_plan(sightings, tmp_path, 10, "s")
    assert (summary.pairs, summary.captions) == (1, 3)
    captions = [(row["rank"], row["text"]) for row in read_rows(part_path(tmp_path, 0, "captions"))]
    assert captions == [(0, "first"), (1, "other"), (2, "second")]
    assert read_rows(part_path(tmp_path, 0, "pairs"))[0]["page_directives"] == "meta robots: x"


@pytest.mark.parametrize("as_array", [False, True])
def test_known_rows_are_left_out(tmp_path: Path, as_array: bool) -> None:
    known = {row_id(c.page_url, c.image_url) for c in many()[:50]}
    summary = write_plan(many(), tmp_path, 7, "s", pa.array(sorted(known)) if as_array else known)
    rows = {row["row_id"] for part in parts(tmp_path, summary, "pairs") for row in part}
    assert not rows & known
    assert summary.known == len(known)


def test_everything_known_is_an_empty_plan(tmp_path: Path) -> None:
    summary = write_plan(
        [candidate(1, 1)], tmp_path, 7, "s", {row_id("https://a.example/p1", "https://img1.example/1.jpg")}
    )
    assert (summary.parts, summary.pairs, summary.known) == (0, 0, 1)
    assert read_plan(tmp_path) == summary


def test_a_finished_plan_is_reused_without_reading_the_source(tmp_path: Path) -> None:
    def never() -> Iterator[Candidate]:
        raise AssertionError("the source was read again")
        yield

    first = write_plan(many(), tmp_path, 7, "s")
    assert write_plan(never(), tmp_path, 7, "s") == first


def test_a_plan_that_was_cut_short_starts_anew(tmp_path: Path) -> None:
    def dies() -> Iterator[Candidate]:
        yield candidate(9, 9, "x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_plan(dies(), tmp_path, 7, "s")
    assert read_plan(tmp_path) is None
    assert not tmp_path.exists(), "a source that fails leaves something behind"
    tmp_path.mkdir()
    part_path(tmp_path, 77, "pairs").write_bytes(b"litter of another size of parts")
    summary = write_plan(many(), tmp_path, 7, "s")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [part_path(tmp_path, p, t).name for p in range(summary.parts) for t in ("pairs", "captions")] + ["done.json"]
    )


def test_bad_addresses_are_planned_and_not_lost(tmp_path: Path) -> None:
    summary = write_plan([Candidate("ftp://x/y.jpg", "ftp://x/y.jpg", (), "")], tmp_path, 7, "s")
    assert summary.pairs == 1
    assert read_rows(part_path(tmp_path, 0, "pairs"))[0]["image_host"] == ""


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gave no picture"):
        write_plan([], tmp_path / "plan", 7, "list:x")
    assert not (tmp_path / "plan").exists()
    with pytest.raises(InputError, match="part_urls"):
        write_plan(many(), tmp_path / "plan", 0, "s")
