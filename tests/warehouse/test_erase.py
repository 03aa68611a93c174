"""What a takedown changes in rows that stay: cleared of addresses, and no news to the crawl that told them."""

from __future__ import annotations

import contextlib
import datetime as dt
from pathlib import Path

import pytest
from literal_crawls import Shot, write_crawl

from flows.steps.erase_files import scrub_tables
from warehouse import lake
from warehouse.erase import erase_rows
from warehouse.publish import publish
from warehouse.removal import Removal
from warehouse.schema import GONE_LINK, content_id

pytestmark = pytest.mark.e2e  # a lake
URL = "http://h/gone.jpg"
AUDIT = {"takedown_id": "t", "at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "kind": "url", "raw_pictures": 0}
AUDIT |= {"shards": "{}", "gaps": "{}", "models": "[]", "run_id": "r"}


def test_what_was_cleared_in_lake_and_crawl_is_no_news(tmp_path: Path) -> None:
    told = (("alt", f"A smiling woman, {URL}, with brown hair"), ("title", "A portrait of a woman"))
    crawl = write_crawl(tmp_path / "raw/x/g000", [Shot("named", captions=told), Shot("other")])
    before = publish(tmp_path, [crawl])
    assert before.number == 1 and before.kept == 2
    removal = Removal(address_ids=frozenset({content_id(URL)}))
    for _ in range(2):
        erase_rows(tmp_path, removal, AUDIT, [])
        assert scrub_tables(sorted(crawl.rglob("*.parquet")), removal) == 0
    with contextlib.closing(lake.connect(tmp_path)) as con:
        texts = con.execute(
            "SELECT text FROM history.captions WHERE contains(text, 'smiling') ORDER BY text"
        ).fetchall()
        assert (f"A smiling woman, {GONE_LINK}, with brown hair",) in texts and URL not in str(texts)
        assert con.execute("SELECT count(*) FROM takedowns").fetchone() == (1,)
    again = publish(tmp_path, [crawl])
    assert (again.number, again.created, again.kept) == (1, False, 2)
