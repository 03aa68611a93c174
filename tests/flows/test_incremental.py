"""What is laid beside a crawl from the lake: known pairs, settled addresses, and what is due again."""

from __future__ import annotations

import contextlib
import datetime as dt
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import warehouse
from crawler.extraction import write_units
from crawler.known import read_known
from crawler.plan import plan_crawl
from flows.steps.incremental import GIVE_UP_DAYS, REDECIDE_DAYS, KnownStats, done_units, write_known
from flows.steps.layout import Layout
from warehouse import schema
from warehouse.publish import publish

sys.path.insert(0, str(Path(__file__).parents[1] / "warehouse"))
from literal_crawls import FETCHED, Shot, Visit, write_crawl

pytestmark = pytest.mark.e2e  # a lake

SOURCE = "list:test"
NIGHT = FETCHED + dt.timedelta(days=1)
SHOTS = {
    "ok": Shot("ok", captions=(("alt", "A smiling woman"), ("title", "Her name"))),
    "mute": Shot("mute", captions=()),
    "dns": Shot("dns", failed="dns", attempts=3),
    "spent": Shot("spent", failed="timeout", attempts=6),
    "lost": Shot("lost", failed="http_client_error"),
    "no_image": Shot("no_image", failed="not_an_image"),
    "opted_out": Shot("opted_out", refused="image_opted_out"),
    "host_out": Shot("host_out", refused="host_opted_out"),
    "robots": Shot("robots", refused="robots_txt"),
    "tdmrep": Shot("tdmrep", refused="tdm_reserved"),
    "page_out": Shot("page_out", refused="page_opted_out"),
    "unreachable": Shot("unreachable", refused="robots_unreachable"),
    "expires": Shot("expires", directives="x-robots-tag: unavailable_after: 25 jun 2030 15:00:00 gmt"),
    "foreign": Shot("foreign", page="p1", failed="dns", source="list:other"),
}
# Those of them that nothing is asked for again; what page or host refused is decided anew whenever it is seen.
SETTLED = {"ok", "mute", "spent", "lost", "no_image", "opted_out", "host_out", "expires"}
UNITS = [
    {"source": SOURCE, "unit": "a.parquet", "fingerprint": "17", "pairs": 7},
    {"source": SOURCE, "unit": "site", "fingerprint": "", "pairs": 7},
    {"source": "list:other", "unit": "b.parquet", "fingerprint": "18", "pairs": 7},
]


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    root = tmp_path_factory.mktemp("lake")
    visits = [Visit("p0"), Visit("p8", 404), Visit("p1", source="list:other")]
    crawl = write_crawl(root / "raw/x/g000", list(SHOTS.values()), visits=visits, units=UNITS)
    publish(root, [crawl])
    # Releases are made now; the literal rows are of 2026-01-01.
    with contextlib.closing(warehouse.connect(root, read_only=False)) as con:
        con.execute("UPDATE releases SET created_at = ?", [FETCHED])
    return Layout(root)


def due(layout: Layout, crawl: Path, **more: Any) -> set[str]:
    stats = write_known(layout, crawl, SOURCE, **{"now": NIGHT, **more})
    file = crawl / "extract/retry.pairs.parquet"
    found = pq.read_table(file)["row_id"].to_pylist() if file.is_file() else []
    assert len(found) == stats.due
    return {name for name, shot in SHOTS.items() if shot.row_id in found}


def test_without_a_lake_nothing_is_known(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert write_known(layout, tmp_path / "crawl", SOURCE) == KnownStats()
    assert done_units(layout, SOURCE) == set()
    assert not (tmp_path / "crawl").exists()


def test_known_pairs_with_their_captions_in_rank_order(layout: Layout, tmp_path: Path) -> None:
    stats = write_known(layout, tmp_path, SOURCE, now=NIGHT)
    rows = {row["row_id"]: row for row in pq.read_table(tmp_path / "known/pairs.parquet").to_pylist()}
    assert rows[SHOTS["ok"].row_id] == {
        "row_id": SHOTS["ok"].row_id,
        "url_id": SHOTS["ok"].url_id,
        "page_directives": "",
        "captions": [{"kind": "alt", "text": "A smiling woman"}, {"kind": "title", "text": "Her name"}],
    }
    assert rows[SHOTS["mute"].row_id]["captions"] == []
    left_out = {"dns", "unreachable", "expires"}  # they are due, and so are planned whether or not they are seen
    assert rows.keys() == {shot.row_id for name, shot in SHOTS.items() if name not in left_out}
    assert stats == KnownStats(pairs=len(rows), images=len(SHOTS), pages=1, due=3)
    urls = [row["url_id"] for row in rows.values()]
    assert urls == sorted(urls)


def test_what_is_settled(layout: Layout, tmp_path: Path) -> None:
    write_known(layout, tmp_path, SOURCE, now=NIGHT)
    table = pq.read_table(tmp_path / "known/images.parquet")
    assert table.schema.names == [*schema.IMAGES.names, "recheck", "settled"]
    by_id = {row["url_id"]: row for row in table.to_pylist()}
    assert {name for name, shot in SHOTS.items() if by_id[shot.url_id]["settled"]} == SETTLED
    assert not any(row["recheck"] for row in by_id.values())
    assert by_id[SHOTS["dns"].url_id]["attempts"] == 3


def test_what_is_due_again(layout: Layout, tmp_path: Path) -> None:
    always = {"dns", "unreachable", "expires"}
    assert due(layout, tmp_path / "a") == always
    assert due(layout, tmp_path / "b", max_attempts=3) == always - {"dns"}
    assert due(layout, tmp_path / "c", max_attempts=7) == always | {"spent"}
    week = FETCHED + dt.timedelta(days=REDECIDE_DAYS, hours=1)
    assert due(layout, tmp_path / "d", now=week) == always | {"robots", "tdmrep"}
    assert due(layout, tmp_path / "e", now=week, recheck_days=5) == always | {"robots", "tdmrep", "ok", "mute"}
    assert due(layout, tmp_path / "f", recheck_days=5) == always


def test_a_host_without_robots_txt_is_given_up_to_a_weekly_try(tmp_path: Path) -> None:
    shot, layout = Shot("unreachable", refused="robots_unreachable"), Layout(tmp_path)
    late = FETCHED + dt.timedelta(days=GIVE_UP_DAYS + 1)
    publish(tmp_path, [write_crawl(tmp_path / "raw/x/g000", [Shot("a"), shot])])
    publish(tmp_path, [write_crawl(tmp_path / "raw/x/g001", [replace(shot, fetched=late)])])
    with contextlib.closing(warehouse.connect(tmp_path, read_only=False)) as con:
        con.execute("UPDATE releases SET created_at = ?", [FETCHED])
    after = {days: late + dt.timedelta(days=days) for days in (1, 8)}
    assert write_known(layout, tmp_path / "a", SOURCE, now=after[1]).due == 0
    assert write_known(layout, tmp_path / "b", SOURCE, now=after[8]).due == 1


def test_it_is_written_once(layout: Layout, tmp_path: Path) -> None:
    stats = write_known(layout, tmp_path, SOURCE, now=NIGHT)
    assert write_known(layout, tmp_path, SOURCE, max_attempts=1, now=NIGHT) == stats
    (tmp_path / "known/done.json").unlink()  # cut short before the end
    assert write_known(layout, tmp_path, SOURCE, max_attempts=1, now=NIGHT).due == 2


def test_pages_are_those_that_the_source_has_read(layout: Layout, tmp_path: Path) -> None:
    write_known(layout, tmp_path, SOURCE, now=NIGHT)
    [page] = pq.read_table(tmp_path / "known/pages.parquet").to_pylist()
    assert (page["page_url"], page["etag"], page["http_status"]) == ("http://a.example/p0", '"one"', 200)


def test_units_with_a_fingerprint_are_done(layout: Layout) -> None:
    assert done_units(layout, SOURCE) == {("a.parquet", "17")}
    assert done_units(layout, "list:nothing") == set()


def test_plan_and_download_read_what_was_written(layout: Layout, tmp_path: Path) -> None:
    write_known(layout, tmp_path, SOURCE, now=NIGHT)
    write_units(tmp_path, [])
    planned = plan_crawl(tmp_path, 10, SOURCE)
    assert (planned.pairs, planned.retried, planned.parts) == (3, 3, 1)
    assert pq.read_table(tmp_path / "plan/seen.parquet").num_rows == 0
    pairs = pq.read_table(tmp_path / "plan/00000.pairs.parquet").to_pylist()
    assert {row["image_url"] for row in pairs} == {SHOTS[n].image_url for n in ("dns", "unreachable", "expires")}
    known = read_known(tmp_path, [SHOTS["dns"].url_id, SHOTS["ok"].url_id])
    assert known[SHOTS["dns"].url_id].row["attempts"] == 3
    assert known[SHOTS["ok"].url_id].settled
