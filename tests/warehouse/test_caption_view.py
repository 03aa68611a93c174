"""The lake's view of all caption candidates, and that a boilerplate text gives way to the next candidate."""

from __future__ import annotations

from pathlib import Path

import pytest
from literal_crawls import Shot, write_crawl

from warehouse import connect
from warehouse.publish import publish

_CAPTIONS = (("alt", "portrait_01.jpg"), ("title", "Photo"), ("figcaption", "A man with a hat"), ("nearby", "Team"))


@pytest.mark.slow
def test_rejected_candidates_are_seen_with_their_reason(tmp_path: Path) -> None:
    crawl = write_crawl(tmp_path / "raw/test/g001", [Shot("a", captions=_CAPTIONS)])
    publish(tmp_path, [crawl])
    with connect(tmp_path) as con:
        shown = con.execute("SELECT kind, reason FROM caption_candidates ORDER BY rank").fetchall()
        kept = con.execute("SELECT caption FROM decisions").fetchall()
    with connect(tmp_path, at=1) as con:
        assert con.execute("SELECT kind, reason FROM caption_candidates ORDER BY rank").fetchall() == shown
    assert shown == [
        ("alt", "caption_boilerplate"),
        ("title", "caption_boilerplate"),
        ("figcaption", None),
        ("nearby", "caption_too_short"),
    ]
    assert kept == [("A man with a hat",)]
