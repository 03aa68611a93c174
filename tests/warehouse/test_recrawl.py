"""Crawls of a source that was crawled before: what is gone, what stays, what undoes what, and what makes no release."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from literal_crawls import FETCHED, Shot, Visit, write_crawl

from warehouse import connect
from warehouse.errors import InputError
from warehouse.publish import publish
from warehouse.schema import PASSING, Reason

pytestmark = pytest.mark.e2e  # two publications each

LATER = FETCHED + dt.timedelta(days=1)
A, B, C = Shot("a"), Shot("b"), Shot("c", page="p1")
ELSEWHERE = Shot("x", source="list:other")  # on the same page, by another source
FIRST_VISITS = [Visit("p0"), Visit("p1")]


def first(root: Path, *shots: Shot, **more: Any) -> Path:
    """A first crawl of `shots` (default: a and b on p0, c on p1), published as release 1."""
    crawl = write_crawl(root / "raw/x/g001", shots or (A, B, C), **{"visits": FIRST_VISITS, **more})
    assert publish(root, [crawl]).number == 1
    return crawl


def again(root: Path, *shots: Shot, **more: Any) -> Path:
    """A second crawl, a day later."""
    later = [replace(shot, fetched=LATER) for shot in shots]
    return write_crawl(root / "raw/x/g002", later, **{"parts": 1 if shots else 0, **more})


def decided(root: Path, at: int | None = None) -> dict[str, str]:
    with connect(root, at) as con:
        rows = con.execute("SELECT image_url, reason FROM decisions JOIN pairs USING (row_id)").fetchall()
    return {url.rsplit("/", 1)[1].removesuffix(".jpg"): reason for url, reason in rows}


def ask(root: Path, query: str) -> list[tuple[Any, ...]]:
    with connect(root) as con:
        return con.execute(query).fetchall()


def test_a_pair_that_its_page_shows_no_more_is_gone(tmp_path: Path) -> None:
    lost, removed = Shot("lost", page="p2"), Shot("removed", page="p3")  # whose pages are gone
    first(tmp_path, A, B, C, lost, removed, visits=[*FIRST_VISITS, Visit("p2"), Visit("p3")])
    publish(tmp_path, [write_crawl(tmp_path / "raw/y/g001", [ELSEWHERE])])
    visits = [Visit("p0", 200, "two", LATER), Visit("p2", 404, at=LATER), Visit("p3", 410, at=LATER)]
    release = publish(tmp_path, [again(tmp_path, visits=visits, seen=[A])])
    assert (release.number, release.created) == (3, True)
    assert set(decided(tmp_path)) == {"a", "c", "x"}
    assert set(decided(tmp_path, at=2)) == {"a", "b", "c", "x", "lost", "removed"}
    for table in ("pairs", "captions", "consent", "decisions", "corpus"):
        rows = ask(tmp_path, f"SELECT row_id FROM history.{table} WHERE release_to = 3")
        assert {row for (row,) in rows} == {B.row_id, lost.row_id, removed.row_id}, table
    assert ask(tmp_path, f"SELECT status FROM images WHERE url_id = '{B.url_id}'") == [("ok",)]


def test_an_unchanged_page_and_a_page_that_was_not_read_keep_their_pairs(tmp_path: Path) -> None:
    first(tmp_path)
    visits = [Visit("p0", 304, at=LATER), Visit("p9", 200, at=LATER)]
    release = publish(tmp_path, [again(tmp_path, visits=visits)])
    assert (release.number, release.created) == (1, False)
    assert decided(tmp_path) == {"a": "kept", "b": "kept", "c": "kept"}
    pages = ask(tmp_path, "SELECT page_url, http_status, etag FROM pages ORDER BY page_url")
    assert [(url.rsplit("/", 1)[1], status, etag) for url, status, etag in pages] == [
        ("p0", 200, '"one"'),  # what was read stands, for the next conditional request
        ("p1", 200, '"one"'),
        ("p9", 200, '"one"'),
    ]


def test_a_pair_that_is_only_due_is_gone_where_its_page_does_not_show_it(tmp_path: Path) -> None:
    first(tmp_path, A, replace(B, failed="timeout"), C)
    crawl = again(tmp_path, visits=[Visit("p0", 200, "two", LATER)], seen=[A], due=[replace(B, fetched=LATER)], parts=1)
    publish(tmp_path, [crawl])
    assert decided(tmp_path) == {"a": "kept", "c": "kept"}
    assert ask(tmp_path, f"SELECT count(*) FROM consent WHERE row_id = '{B.row_id}'") == [(0,)]


def test_an_older_crawl_brings_nothing_back_and_a_newer_one_does(tmp_path: Path) -> None:
    crawl = first(tmp_path)
    second = again(tmp_path, visits=[Visit("p0", 200, "one", LATER)], seen=[A])  # other pairs, though the same body
    assert publish(tmp_path, [second]).number == 2
    assert publish(tmp_path, [crawl]).created is False
    assert publish(tmp_path, [second]).created is False
    assert publish(tmp_path, [crawl, second]).created is False
    assert decided(tmp_path) == {"a": "kept", "c": "kept"}
    together = tmp_path / "together"
    publish(together, [second, crawl])
    assert decided(together) == decided(tmp_path)
    third = write_crawl(tmp_path / "raw/x/g003", [B], visits=[Visit("p0", at=LATER + dt.timedelta(days=1))], seen=[A])
    assert publish(tmp_path, [third]).number == 3
    assert decided(tmp_path) == {"a": "kept", "b": "kept", "c": "kept"}


def test_all_pairs_may_go(tmp_path: Path) -> None:
    first(tmp_path)
    release = publish(tmp_path, [again(tmp_path, visits=[Visit("p0", 404, at=LATER), Visit("p1", 410, at=LATER)])])
    assert (release.number, release.pairs, release.kept, release.reasons) == (2, 0, 0, {})


def test_what_passes_undoes_nothing_and_what_lasts_does(tmp_path: Path) -> None:
    failures = sorted(reason.value for reason in PASSING - {Reason.ROBOTS_UNREACHABLE})
    cases: list[tuple[dict[str, str], dict[str, str], str]] = [
        *(({}, {"failed": reason}, "kept") for reason in failures),
        ({}, {"refused": "robots_unreachable"}, "kept"),
        ({}, {"failed": "http_client_error"}, "http_client_error"),
        ({}, {"failed": "not_an_image"}, "not_an_image"),
        ({}, {"refused": "robots_txt"}, "robots_txt"),
        ({}, {"refused": "image_opted_out"}, "image_opted_out"),
        ({}, {"refused": "tdm_reserved"}, "tdm_reserved"),
        ({"failed": "timeout"}, {}, "kept"),
        ({"failed": "timeout"}, {"failed": "http_client_error"}, "http_client_error"),
        ({"failed": "http_client_error"}, {"failed": "timeout"}, "http_client_error"),
        ({"refused": "robots_unreachable"}, {}, "kept"),
        ({"refused": "robots_txt"}, {}, "kept"),
        ({"refused": "robots_txt"}, {"refused": "robots_unreachable"}, "robots_txt"),
    ]
    first(tmp_path, *(Shot(f"s{i}", **before) for i, (before, _, _) in enumerate(cases)))
    publish(tmp_path, [again(tmp_path, *(Shot(f"s{i}", **now) for i, (_, now, _) in enumerate(cases)))])
    assert decided(tmp_path) == {f"s{i}": reason for i, (_, _, reason) in enumerate(cases)}


def test_a_page_that_opts_out_leaves_the_picture_to_other_pages(tmp_path: Path) -> None:
    here, there = Shot("a", page="p0"), Shot("a", page="p1", source="list:other")
    first(tmp_path, here)
    publish(tmp_path, [write_crawl(tmp_path / "raw/y/g001", [there])])
    publish(tmp_path, [again(tmp_path, replace(here, refused="page_opted_out", directives="meta robots: noai"))])
    rows = ask(tmp_path, "SELECT page_url, reason FROM decisions JOIN pairs USING (row_id) ORDER BY page_url")
    assert [(url[-2:], reason) for url, reason in rows] == [("p0", "page_opted_out"), ("p1", "kept")]


def test_changed_bytes_are_taken_and_the_same_bytes_stay_where_they_are(tmp_path: Path) -> None:
    first(tmp_path, A, B)
    release = publish(tmp_path, [again(tmp_path, replace(A, content="other"), B)])
    assert release.number == 2
    shards = dict(ask(tmp_path, "SELECT image_url, raw_shard FROM corpus"))
    assert shards == {
        A.image_url: "raw/x/g002/images/00000.tar",
        B.image_url: "raw/x/g001/images/00000.tar",
    }
    times = ask(tmp_path, f"SELECT fetched_at, raw_shard FROM images WHERE url_id = '{B.url_id}'")
    assert times == [(LATER, "raw/x/g001/images/00000.tar")]
    assert publish(tmp_path, [tmp_path / "raw/x/g002"]).created is False


def test_a_quiet_night_makes_no_release_but_counts_its_tries(tmp_path: Path) -> None:
    failing = replace(A, failed="timeout", attempts=3)
    ledger = [{"source": "list:test", "unit": "a.warc", "fingerprint": "1", "pairs": 1}]
    first(tmp_path, failing, B, units=ledger)
    night = again(tmp_path, replace(failing, attempts=6), units=[{**ledger[0], "unit": "b.warc", "warning": "cut"}])
    snapshots = "SELECT count(*) FROM ducklake_snapshots('lake')"
    before = ask(tmp_path, snapshots)
    assert (publish(tmp_path, [night]).number, publish(tmp_path, [night]).created) == (1, False)
    assert ask(tmp_path, snapshots) == [(before[0][0] + 1,)]  # one commit for the notes, none for the repetition
    row = f"SELECT attempts, fetched_at, reason FROM images WHERE url_id = '{A.url_id}'"
    assert ask(tmp_path, row) == [(6, LATER, "timeout")]
    assert ask(tmp_path, "SELECT count(*) FROM history.images") == [(2,)]
    assert ask(tmp_path, "SELECT crawl, unit, fingerprint, warning, release FROM sources ORDER BY unit") == [
        ("raw/x/g001", "a.warc", "1", None, 1),
        ("raw/x/g002", "b.warc", "1", "cut", 1),
    ]


def test_a_crawl_without_parts_is_a_quiet_night(tmp_path: Path) -> None:
    first(tmp_path)
    release = publish(tmp_path, [again(tmp_path)])
    assert (release.number, release.created, release.kept) == (1, False, 3)


def test_pages_without_the_list_of_seen_pairs_are_an_incomplete_crawl(tmp_path: Path) -> None:
    crawl = first(tmp_path)
    (crawl / "plan/seen.parquet").unlink()
    with pytest.raises(InputError, match=r"is incomplete, plan/seen\.parquet is missing"):
        publish(tmp_path, [crawl])
