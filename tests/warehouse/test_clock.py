"""Crawls written by a machine whose clock was wrong: what they say gives way to what is said at the right time."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import pytest
from literal_crawls import Shot, Visit, write_crawl

from warehouse import connect
from warehouse.publish import publish

pytestmark = pytest.mark.e2e  # two publications each

NOW = dt.datetime.now(dt.UTC)
AHEAD = NOW + dt.timedelta(days=400)
A, B = Shot("a", fetched=AHEAD), Shot("b", fetched=AHEAD)


def reasons(root: Path) -> dict[str, str]:
    with connect(root) as con:
        rows = con.execute("SELECT image_url, reason FROM decisions JOIN pairs USING (row_id)").fetchall()
    return {url.rsplit("/", 1)[1].removesuffix(".jpg"): reason for url, reason in rows}


@pytest.mark.parametrize("second", [NOW, NOW - dt.timedelta(days=400), AHEAD], ids=["right", "behind", "as wrong"])
def test_a_refusal_counts_although_an_earlier_consent_is_of_the_future(tmp_path: Path, second: dt.datetime) -> None:
    publish(tmp_path, [write_crawl(tmp_path / "raw/x/g000", [A, B])])
    assert reasons(tmp_path) == {"a": "kept", "b": "kept"}
    shots = [replace(A, fetched=second, refused="robots_txt"), replace(B, fetched=second, content="new")]
    publish(tmp_path, [write_crawl(tmp_path / "raw/x/g001", shots)])
    assert reasons(tmp_path) == {"a": "robots_txt", "b": "kept"}
    with connect(tmp_path) as con:
        held = con.execute("SELECT image_id FROM images WHERE image_url = ?", [B.image_url]).fetchall()
        assert held == [(shots[1].image_id,)]
        assert con.execute("SELECT count(*) FROM pairs").fetchone() == (2,)


def test_an_older_crawl_still_brings_nothing_back(tmp_path: Path) -> None:
    refusing = replace(A, fetched=NOW, refused="robots_txt")
    publish(tmp_path, [write_crawl(tmp_path / "raw/x/g001", [refusing, replace(B, fetched=NOW)])])
    allowing = replace(A, fetched=NOW - dt.timedelta(days=3))
    publish(tmp_path, [write_crawl(tmp_path / "raw/y/g000", [allowing])])
    assert reasons(tmp_path) == {"a": "robots_txt", "b": "kept"}


def test_a_page_read_in_the_future_does_not_bring_pairs_back(tmp_path: Path) -> None:
    first = [Visit("p0", at=AHEAD)]
    publish(tmp_path, [write_crawl(tmp_path / "raw/x/g000", [A, B], visits=first)])
    later = [Visit("p0", body="two", at=NOW)]
    publish(tmp_path, [write_crawl(tmp_path / "raw/x/g001", [replace(A, fetched=NOW)], visits=later)])
    assert reasons(tmp_path) == {"a": "kept"}
