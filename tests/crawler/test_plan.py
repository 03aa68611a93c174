"""Planning: identity, order, parts, what the lake knows, and what a crash leaves."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crawler.errors import InputError
from crawler.extraction import write_unit, write_units
from crawler.files import read_rows
from crawler.plan import PLAN_SOURCES, PlanSummary, part_path, plan_crawl, read_plan, write_plan
from crawler.sources import Candidate, Caption
from crawler.sources.base import Found, PageVisit, Unit
from warehouse.schema import CAPTIONS, PAGES, PAIRS, CaptionKind, row_id, url_id

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def candidate(page: int, image: int, *texts: str, directives: str = "") -> Candidate:
    captions = tuple(Caption(CaptionKind.ALT, text) for text in texts)
    return Candidate(f"https://a.example/p{page}", f"https://img{image % 3}.example/{image}.jpg", captions, directives)


def many() -> list[Candidate]:
    """100 pages with two pictures each; every third picture is on two pages."""
    return [candidate(p, i, f"text {p} {i}") for p in range(100) for i in (p, p // 3 * 3)]


def identity(of: Candidate) -> str:
    return row_id(of.page_url, of.image_url)


def plan_units(crawl_dir: Path, units: Iterable[Iterable[Found]], part_urls: int = 7) -> PlanSummary:
    """Plan several units; each is a list of what was found."""
    listed = list(units)
    write_units(crawl_dir, [Unit(f"file-{i}", "1") for i in range(len(listed))])
    for index, found in enumerate(listed):
        write_unit(crawl_dir, index, Unit(f"file-{index}", "1"), "s", found)
    return plan_crawl(crawl_dir, part_urls, "s")


def parts(plan_dir: Path, summary: PlanSummary, table: str) -> list[list[dict[str, Any]]]:
    return [read_rows(part_path(plan_dir, part, table)) for part in range(summary.parts)]


def planned(crawl_dir: Path) -> dict[str, tuple[str, list[str]]]:
    """Every planned pair with its directives and its texts in rank order."""
    summary = read_plan(crawl_dir / "plan")
    assert summary is not None
    pairs = [row for part in parts(crawl_dir / "plan", summary, "pairs") for row in part]
    texts = [row for part in parts(crawl_dir / "plan", summary, "captions") for row in part]
    return {
        pair["row_id"]: (
            pair["page_directives"],
            [t["text"] for t in sorted(texts, key=lambda t: t["rank"]) if t["row_id"] == pair["row_id"]],
        )
        for pair in pairs
    }


def seen(crawl_dir: Path) -> set[str]:
    return {row["row_id"] for row in read_rows(crawl_dir / "plan" / "seen.parquet")}


def test_the_plan_depends_on_content_alone(tmp_path: Path) -> None:
    again = [*many(), candidate(4, 4, "another text", "text 4 4", directives="meta robots: x")]
    shuffled = list(again)
    random.Random(0).shuffle(shuffled)
    first = plan_units(tmp_path / "a", [again])
    second = plan_units(tmp_path / "b", [shuffled[50:], [], shuffled[:50]])
    assert first == second
    names = sorted(path.name for path in (tmp_path / "a" / "plan").iterdir())
    assert sorted(path.name for path in (tmp_path / "b" / "plan").iterdir()) == names
    for name in set(names) - {"sources.parquet"}:
        files = [(tmp_path / crawl / "plan" / name).read_bytes() for crawl in ("a", "b")]
        assert files[0] == files[1], name


def test_ranges_of_addresses_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [*many(), *[candidate(p, p, "again", directives="b\na") for p in range(0, 100, 5)]]
    first = plan_units(tmp_path / "a", [found])
    monkeypatch.setattr("crawler.plan._RANGE_ROWS", 70)
    second = plan_units(tmp_path / "b", [found])
    assert first == second
    for part in range(first.parts):
        for table in ("pairs", "captions"):
            files = [part_path(tmp_path / name / "plan", part, table).read_bytes() for name in ("a", "b")]
            assert files[0] == files[1]


def test_parts_hold_whole_addresses_in_order_and_everything_once(tmp_path: Path) -> None:
    summary = write_plan(many(), tmp_path / "plan", 7, "s")
    expected = {identity(c) for c in many()}
    pairs = parts(tmp_path / "plan", summary, "pairs")
    assert summary.pairs == len(expected) == sum(len(part) for part in pairs)
    assert {row["row_id"] for part in pairs for row in part} == expected == seen(tmp_path)
    urls = [{row["url_id"] for row in part} for part in pairs]
    assert [len(part) for part in urls] == [7] * (len(urls) - 1) + [len(urls[-1])]
    assert summary.urls == len(set().union(*urls)) == sum(len(part) for part in urls) == 100
    flat = [(row["url_id"], row["row_id"]) for part in pairs for row in part]
    assert flat == sorted(flat)
    for part, captions in zip(pairs, parts(tmp_path / "plan", summary, "captions"), strict=True):
        assert {row["row_id"] for row in captions} == {row["row_id"] for row in part}


def test_one_address_on_many_pages_is_one_part_in_several_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crawler.partwriter._GROUP_ROWS", 100)
    summary = write_plan([candidate(p, 1, f"text {p}") for p in range(250)], tmp_path / "plan", 1, "s")
    assert (summary.parts, summary.pairs, summary.captions) == (1, 250, 250)
    file = pq.ParquetFile(part_path(tmp_path / "plan", 0, "pairs"))
    assert [file.metadata.row_group(i).num_rows for i in range(3)] == [100, 100, 50]
    assert {text for _, [text] in planned(tmp_path).values()} == {f"text {p}" for p in range(250)}


def test_tables_follow_the_schema(tmp_path: Path) -> None:
    visit = PageVisit("https://a.example/p1", 200, '"e"', None, "00", NOW)
    write_plan([candidate(1, 1, "x"), visit], tmp_path / "plan", 10, "site:x")
    assert pq.read_schema(part_path(tmp_path / "plan", 0, "pairs")).equals(PAIRS)
    assert pq.read_schema(part_path(tmp_path / "plan", 0, "captions")).equals(CAPTIONS)
    assert pq.read_schema(tmp_path / "plan" / "pages.parquet").equals(PAGES)
    assert pq.read_schema(tmp_path / "plan" / "sources.parquet").equals(PLAN_SOURCES)
    [row] = read_rows(part_path(tmp_path / "plan", 0, "pairs"))
    assert (row["page_host"], row["image_host"], row["source"]) == (
        "https://a.example",
        "https://img1.example",
        "site:x",
    )


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_sightings_unite_their_texts_and_directives_in_any_order(tmp_path: Path, order: tuple[int, ...]) -> None:
    sightings = [
        candidate(1, 1, "first", "other"),
        candidate(1, 1, "second", "first", directives="meta robots: x\nx-robots-tag: y"),
        candidate(1, 1, directives="meta robots: a\nmeta robots: x"),
    ]
    summary = plan_units(tmp_path, [[sightings[i]] for i in order])
    assert (summary.pairs, summary.captions) == (1, 3)
    # By the best rank that a text has anywhere, then by kind and text.
    assert planned(tmp_path) == {
        identity(sightings[0]): ("meta robots: a\nmeta robots: x\nx-robots-tag: y", ["first", "second", "other"])
    }


def test_a_text_that_comes_twice_counts_once_in_its_better_rank(tmp_path: Path) -> None:
    twice = (Caption(CaptionKind.ALT, "a"), Caption(CaptionKind.TITLE, "b"), Caption(CaptionKind.CARD, "a"))
    write_plan([Candidate("https://a.example/", "https://a.example/1.jpg", twice, "")], tmp_path / "plan", 7, "s")
    rows = read_rows(part_path(tmp_path / "plan", 0, "captions"))
    assert [(row["rank"], row["kind"], row["text"]) for row in rows] == [(0, "alt", "a"), (1, "title", "b")]


def test_captions_of_a_pair_are_bounded(tmp_path: Path) -> None:
    texts = [f"{i:03d}" for i in range(100)]
    found = [candidate(1, 1, *texts), *(candidate(2, 2, text) for text in texts)]
    write_plan(found, tmp_path / "plan", 7, "s")
    assert [kept for _, kept in planned(tmp_path).values()] == [texts[:64]] * 2


def test_the_last_visit_of_a_page_counts(tmp_path: Path) -> None:
    def visit(page: str, status: int, hours: int) -> PageVisit:
        return PageVisit(page, status, None, None, None, NOW + timedelta(hours=hours))

    plan_units(tmp_path, [[candidate(1, 1), visit("p", 200, 1), visit("q", 404, 0)], [visit("p", 304, 2)]])
    rows = read_rows(tmp_path / "plan" / "pages.parquet")
    assert [(r["page_url"], r["http_status"], r["source"]) for r in rows] == [("p", 304, "s"), ("q", 404, "s")]


def test_the_ledger_names_every_unit(tmp_path: Path) -> None:
    plan_units(tmp_path, [[candidate(1, 1), candidate(1, 1)], []])
    assert read_rows(tmp_path / "plan" / "sources.parquet") == [
        {"source": "s", "unit": "file-0", "fingerprint": "1", "pairs": 2, "warning": None},
        {"source": "s", "unit": "file-1", "fingerprint": "1", "pairs": 0, "warning": None},
    ]


def know(crawl_dir: Path, *known: Candidate, settled: bool = True, recheck: bool = False) -> None:
    """Write known/ as the lake would have it after `known` was published."""
    pairs = [
        {
            "row_id": identity(c),
            "url_id": url_id(c.image_url),
            "page_directives": c.page_directives,
            "captions": [{"kind": str(x.kind), "text": x.text} for x in c.captions],
        }
        for c in known
    ]
    images = [
        {"url_id": url, "settled": settled, "recheck": recheck}
        for url in sorted({str(pair["url_id"]) for pair in pairs})
    ]
    text = pa.string()
    schema = pa.schema(
        [
            ("row_id", text),
            ("url_id", text),
            ("page_directives", text),
            ("captions", pa.list_(pa.struct([("kind", text), ("text", text)]))),
        ]
    )
    (crawl_dir / "known").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(pairs, schema=schema), crawl_dir / "known" / "pairs.parquet")
    images_schema = pa.schema([("url_id", text), ("settled", pa.bool_()), ("recheck", pa.bool_())])
    pq.write_table(pa.Table.from_pylist(images, schema=images_schema), crawl_dir / "known" / "images.parquet")


def test_a_quiet_night_plans_nothing(tmp_path: Path) -> None:
    know(tmp_path, *{identity(c): c for c in many()}.values())
    summary = plan_units(tmp_path, [many()])
    assert (summary.parts, summary.pairs, summary.urls, summary.known) == (0, 0, 0, len(seen(tmp_path)))
    assert read_plan(tmp_path / "plan") == summary
    assert seen(tmp_path) == {identity(c) for c in many()}


def test_a_night_without_anything_to_read_plans_nothing(tmp_path: Path) -> None:
    know(tmp_path, candidate(1, 1))
    summary = plan_units(tmp_path, [])
    assert (summary.parts, summary.pairs, summary.known) == (0, 0, 0)
    assert seen(tmp_path) == set()


@pytest.mark.parametrize(
    ("now", "is_planned"),
    [
        (candidate(1, 1, "a", "b", directives="x"), False),
        (candidate(1, 1, "a", "b", "c", directives="x"), True),
        (candidate(1, 1, "b", "a", directives="x"), True),
        (candidate(1, 1, "a", directives="x"), True),
        (candidate(1, 1, directives="x"), True),
        (candidate(1, 1, "a", "b"), True),
        (candidate(2, 1, "a", "b", directives="x"), True),
    ],
)
def test_new_and_changed_pairs_are_planned_and_settled_ones_left_out(
    tmp_path: Path, now: Candidate, is_planned: bool
) -> None:
    know(tmp_path, candidate(1, 1, "a", "b", directives="x"), candidate(9, 9, "gone"))
    summary = plan_units(tmp_path, [[now]])
    assert (identity(now) in planned(tmp_path)) == is_planned == bool(summary.pairs)
    assert summary.known == 1 - summary.pairs
    assert seen(tmp_path) == {identity(now)}


def test_a_known_pair_without_texts_is_unchanged(tmp_path: Path) -> None:
    know(tmp_path, candidate(1, 1))
    assert plan_units(tmp_path, [[candidate(1, 1)]]).known == 1


@pytest.mark.parametrize(("settled", "recheck"), [(False, False), (False, True), (True, True)])
def test_what_is_not_settled_is_planned_again(tmp_path: Path, settled: bool, recheck: bool) -> None:
    know(tmp_path, candidate(1, 1, "a"), settled=settled, recheck=recheck)
    summary = plan_units(tmp_path, [[candidate(1, 1, "a")]])
    assert (summary.pairs, summary.known) == (1, 0)


def retry(crawl_dir: Path, *due: Candidate) -> None:
    """Write the unit of pairs that are due though the source may not show them."""
    scratch = crawl_dir / "scratch"
    write_plan(due, scratch / "plan", 10_000, "s")
    (crawl_dir / "extract").mkdir(parents=True, exist_ok=True)
    for table in ("pairs", "captions"):
        part_path(scratch / "plan", 0, table).replace(crawl_dir / "extract" / f"retry.{table}.parquet")


def test_pairs_that_are_due_are_planned_though_not_seen(tmp_path: Path) -> None:
    retry(tmp_path, candidate(1, 1, "old"), candidate(2, 2, "due", "also"), candidate(3, 3))
    summary = plan_units(tmp_path, [[candidate(1, 1, "new")]])
    assert planned(tmp_path) == {
        identity(candidate(1, 1)): ("", ["new"]),  # as the source shows it now
        identity(candidate(2, 2)): ("", ["due", "also"]),
        identity(candidate(3, 3)): ("", []),
    }
    assert seen(tmp_path) == {identity(candidate(1, 1))}
    assert (summary.pairs, summary.retried, summary.known) == (3, 2, 0)


def test_due_pairs_alone_are_a_plan(tmp_path: Path) -> None:
    retry(tmp_path, candidate(2, 2, "due"))
    assert plan_units(tmp_path, []).pairs == 1


def test_a_finished_plan_is_reused_without_reading_the_source(tmp_path: Path) -> None:
    def never() -> Iterator[Candidate]:
        raise AssertionError("the source was read again")
        yield

    first = write_plan(many(), tmp_path / "plan", 7, "s")
    assert write_plan(never(), tmp_path / "plan", 7, "s") == first


def test_a_plan_that_was_cut_short_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: object) -> Iterator[pa.RecordBatch]:
        raise KeyboardInterrupt
        yield

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("crawler.planquery.PlanQuery.seen", dies)
        plan_units(tmp_path, [many()])
    assert read_plan(tmp_path / "plan") is None
    assert not (tmp_path / "plan").exists(), "a plan that fails leaves something behind"
    (tmp_path / "plan" / ".work").mkdir(parents=True)  # as after kill -9
    part_path(tmp_path / "plan", 77, "pairs").write_bytes(b"litter of another size of parts")
    summary = plan_crawl(tmp_path, 7, "s")
    assert sorted(path.name for path in (tmp_path / "plan").iterdir()) == sorted(
        [part_path(tmp_path, p, t).name for p in range(summary.parts) for t in ("pairs", "captions")]
        + ["done.json", "pages.parquet", "seen.parquet", "sources.parquet", "stored.parquet"]
    )


def test_bad_addresses_are_planned_and_not_lost(tmp_path: Path) -> None:
    summary = write_plan([Candidate("ftp://x/y.jpg", "ftp://x/y.jpg", (), "")], tmp_path / "plan", 7, "s")
    assert summary.pairs == 1
    assert read_rows(part_path(tmp_path / "plan", 0, "pairs"))[0]["image_host"] == ""


def test_quotes_in_a_path_are_no_sql(tmp_path: Path) -> None:
    assert write_plan([candidate(1, 1)], tmp_path / "it's [one]" / "plan", 7, "s'x").pairs == 1


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gave no picture"):
        write_plan([], tmp_path / "plan", 7, "list:x")
    assert not (tmp_path / "plan").exists()
    with pytest.raises(InputError, match="part_urls"):
        write_plan(many(), tmp_path / "plan", 0, "s")
    write_units(tmp_path / "other", [Unit("a"), Unit("b")])
    with pytest.raises(InputError, match=r"2 units of .* are not extracted"):
        plan_crawl(tmp_path / "other", 7, "s")
    with pytest.raises(InputError, match="no list of units"):
        plan_crawl(tmp_path / "none", 7, "s")
