"""The report beyond the funnel: spread, balance, what was dropped; figures are SQL's, and nothing unfit is shown."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from literal_crawls import Shot, write_crawl
from PIL import Image
from sql_bins import sql_bins

from warehouse import lake
from warehouse.publish import publish
from warehouse.report.balance import _reasons_by_rule, read_balance
from warehouse.report.data import read_corpus
from warehouse.report.dropped import read_dropped
from warehouse.report.page import More, percent, render_page
from warehouse.report.spread import read_spread
from warehouse.rules import RULES
from warehouse.schema import IMAGES
from warehouse.tables import reason_rows

pytestmark = pytest.mark.e2e  # a lake
HOSTILE = 'A woman <script>alert(1)</script>"><img src=x onerror=alert(2)> smiling'
SHOTS = [
    *(Shot(f"good{i}", face_px=70.0 + 10 * i, yaw_deg=3.0 * i) for i in range(9)),
    *(Shot(f"tiny{i}", face_px=20.0, captions=(("alt", HOSTILE),)) for i in range(9)),
    Shot("landscape", faces=0),
    Shot("child", captions=(("alt", "A smiling child of six years"),)),
    Shot("refused", refused="robots_txt"),
    Shot("broken", decode="truncated_image"),
    Shot("mute", captions=()),
    Shot("copy", page="p9", content="good0"),
]


def _picture(seed: str) -> bytes:
    out = io.BytesIO()
    colour = tuple(hashlib.sha256(seed.encode()).digest()[:3])
    Image.new("RGB", (200, 100), colour).save(out, "JPEG")
    return out.getvalue()


def _with_bytes(root: Path, crawl: Path) -> None:
    """Lay real pictures where the literal images say that theirs are; one of them is no picture."""
    for path in sorted((crawl / "images").glob("*.parquet")):
        rows = pq.read_table(path).to_pylist()
        data = bytearray()
        for row in rows:
            if row["status"] == "ok":
                picture = (
                    b"\xff\xd8\xff no picture" if row["image_url"].endswith("tiny0.jpg") else _picture(row["url_id"])
                )
                row |= {"raw_offset": len(data), "raw_bytes": len(picture)}
                data += picture
        shards = {row["raw_shard"] for row in rows if row["raw_shard"]}
        assert len(shards) == 1
        file = root / shards.pop()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        pq.write_table(pa.Table.from_pylist(rows, schema=IMAGES), path)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("more")
    crawl = write_crawl(root / "raw/x/g000", SHOTS)
    _with_bytes(root, crawl)
    publish(root, [crawl], provenance={"run_id": "r", "code_version": "1"})
    return root


@pytest.fixture(scope="module")
def con(root: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with contextlib.closing(lake.connect(root)) as con:
        yield con


@pytest.fixture(scope="module")
def more(con: duckdb.DuckDBPyConnection, root: Path) -> More:
    return More(read_spread(con, read_corpus(con).rules), read_balance(con), read_dropped(con, root))


@pytest.fixture(scope="module")
def page(con: duckdb.DuckDBPyConnection, root: Path, more: More) -> str:
    return render_page(root, read_corpus(con), (), None, None, more)


def rows(con: duckdb.DuckDBPyConnection, query: str) -> list[Any]:
    return con.execute(query).fetchall()


def test_hosts_languages_and_duplicates_are_those_of_sql(con: duckdb.DuckDBPyConnection, more: More, page: str) -> None:
    hosts = rows(
        con,
        """SELECT p.image_host, count(*), count(*) FILTER (d.kept) FROM pairs p JOIN decisions d USING (row_id)
           GROUP BY ALL ORDER BY 2 DESC, 1""",
    )
    assert [("http://" + h.host, h.pairs, h.kept) for h in more.spread.hosts] == [
        ("http://" + host.partition("://")[2], pairs, kept) for host, pairs, kept in hosts
    ]
    for host, pairs, kept in hosts:
        row = f'{host.partition("://")[2]}</th><td class="n">{pairs}</td><td class="n">{kept}</td>'
        assert row in page
    assert sum(count for _, count in more.spread.languages) == rows(con, "SELECT count(*) FROM corpus")[0][0]
    assert more.spread.languages[0][0] == "en"
    sizes = rows(con, "SELECT count(*) FROM decisions WHERE cluster_id IS NOT NULL GROUP BY cluster_id")
    assert more.spread.copies == tuple((n, [s for (s,) in sizes].count(n)) for n in sorted({s for (s,) in sizes}))
    assert dict(more.spread.copies)[2] == 1


def test_pose_and_light_count_every_face_once(con: duckdb.DuckDBPyConnection, more: More) -> None:
    faces = rows(con, "SELECT count(*) FROM faces WHERE face_index = 0")[0][0]
    kept = rows(con, "SELECT count(DISTINCT image_id) FROM corpus")[0][0]
    # The other measures are the same for all these faces: a chart of one bar would say nothing.
    assert [chart.title for chart in more.spread.histograms] == ["Yaw, to either side"]
    for chart in more.spread.histograms:
        assert (sum(chart.found), sum(chart.kept)) == (faces, kept), chart.title
    (yaw,) = more.spread.histograms
    turned = "SELECT image_id, round(abs(yaw_deg), 1)::FLOAT AS x FROM faces WHERE face_index = 0"
    assert len(yaw.found) > 3
    assert list(zip(yaw.found, yaw.kept, strict=True)) == sql_bins(con, yaw, turned)


def test_balance_on_the_page_is_that_of_sql(con: duckdb.DuckDBPyConnection, more: More, page: str) -> None:
    found = rows(
        con,
        """SELECT CASE WHEN f.face_px < 64 THEN 'under 64' WHEN f.face_px < 128 THEN '64-127' ELSE '128 and more' END,
                  count(*), count(*) FILTER (d.kept), count(*) FILTER (d.reason = 'face_px'),
                  count(*) FILTER (r.stage_order >= (SELECT stage_order FROM reasons WHERE reason = 'face_px'))
           FROM decisions d JOIN reasons r USING (reason) JOIN pairs USING (row_id) JOIN images i USING (url_id)
           JOIN faces f ON f.image_id = i.image_id AND f.face_index = 0 GROUP BY 1""",
    )
    text = re.sub(r"\s+", " ", page)
    for group, count, kept, dropped, reached in found:
        row = (
            f'{group}</th><td class="n">{count}</td><td class="n">{kept}</td><td class="n">{percent(kept / count)}</td>'
        )
        assert row in text
        assert f'title="{dropped} of {reached}, 95 %:' in text
    assert {row[0]: row[3] for row in found}["under 64"] == 9
    assert any(row[4] < row[1] for row in found), "every face reaches the rule: this proves nothing"


def test_every_rule_that_dropped_something_has_its_share_of_those_that_reached_it(
    con: duckdb.DuckDBPyConnection, more: More
) -> None:
    by_host = next(balance for balance in more.balance if balance.by == "host")
    assert [rule.reason for rule in by_host.rules] == [
        *("robots_txt", "truncated_image", "minor", "no_face", "face_px", "no_caption", "duplicate_image")
    ]
    funnel = {
        reason: (pairs, pairs + left)
        for reason, pairs, left in rows(con, "SELECT reason, pairs, remaining FROM funnel")
    }
    for rule in by_host.rules:  # one reason of each rule here, and one host
        assert (rule.overall.part, rule.overall.whole) == funnel[rule.reason], rule.reason
        assert [(drop.dropped.part, drop.dropped.whole) for drop in rule.groups] == [funnel[rule.reason]]


def test_reasons_of_one_rule_share_those_that_reached_it() -> None:
    rules = _reasons_by_rule()
    assert [reason for reasons in rules for reason in reasons] == [reason for reason, _, _ in reason_rows()[:-1]]
    assert rules[0][0] == "robots_txt" and "taken_down" in rules[0] and "bad_address" not in rules[0]
    assert ["not_an_image", "truncated_image", "too_many_pixels"] in rules
    assert all([rule.reason] in rules for rule in RULES if rule.reason_sql is None)


def test_each_reason_shows_what_it_dropped_and_unfit_pictures_are_not_shown(
    con: duckdb.DuckDBPyConnection, more: More, page: str
) -> None:
    shown = {reason.reason: reason for reason in more.dropped}
    assert set(shown) == {"no_face", "face_px", "no_caption", "duplicate_image"}
    assert rows(con, "SELECT count(*) FROM decisions WHERE reason = 'minor'") == [(1,)]
    assert len(shown["face_px"].pictures) == 6
    assert shown["face_px"].pairs == 9
    wanted = rows(con, "SELECT row_id, image_url FROM decisions d JOIN pairs USING (row_id) WHERE reason = 'face_px'")
    decodes = sorted(row_id for row_id, url in wanted if not url.endswith("tiny0.jpg"))
    assert [picture.row_id for picture in shown["face_px"].pictures] == decodes[:6]
    assert page.count("data:image/jpeg") == sum(len(reason.pictures) for reason in more.dropped)


def test_hostile_captions_stay_text(page: str) -> None:
    assert "<script" not in page
    assert "onerror=alert" not in re.sub(r"&[a-z#0-9]+;[^<]*", "", page)
    assert "&lt;script&gt;" in page


def test_without_any_pair_kept_the_sections_say_so(tmp_path: Path) -> None:
    publish(tmp_path, [write_crawl(tmp_path / "raw/x/g000", [Shot("gone", failed="dns")])])
    with contextlib.closing(lake.connect(tmp_path)) as con:
        corpus = read_corpus(con)
        more = More(read_spread(con, corpus.rules), read_balance(con), read_dropped(con, tmp_path))
        page = render_page(tmp_path, corpus, (), None, None, more)
    assert more.dropped == ()
    assert "No caption was kept." in page
    assert 'id="dropped"' not in page
