"""The diff of two releases: every kind of change once, told with its rows, and nothing that did not change."""

from __future__ import annotations

import contextlib
import csv
import datetime as dt
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from literal_crawls import FETCHED, Shot, Visit, write_crawl

from warehouse import lake
from warehouse.diff import KINDS, Diff, diff, write_counts, write_diff
from warehouse.errors import InputError
from warehouse.publish import publish
from warehouse.report.changes import read_changes
from warehouse.report.data import read_corpus
from warehouse.report.page import render_page

pytestmark = pytest.mark.e2e  # a lake of three releases

LATER = FETCHED + dt.timedelta(days=1)
NAMES = ("same", "gone", "rots", "bytes", "refuses", "host", "back", "caption", "smaller", "larger", "unlucky")
BEFORE = {name: Shot(name) for name in NAMES}
BEFORE["back"] = Shot("back", failed="timeout")
BEFORE["larger"] = Shot("larger", face_px=40.0)
NOW = {
    "rots": replace(BEFORE["rots"], failed="http_client_error"),
    "bytes": replace(BEFORE["bytes"], content="other bytes"),
    "refuses": replace(BEFORE["refuses"], refused="image_opted_out"),
    "host": replace(BEFORE["host"], refused="robots_txt"),
    "back": Shot("back"),
    "caption": replace(BEFORE["caption"], captions=(("alt", "Another text about this woman"),)),
    "smaller": replace(BEFORE["smaller"], content="small", face_px=20.0),
    "larger": replace(BEFORE["larger"], content="large", face_px=100.0),
    "unlucky": replace(BEFORE["unlucky"], failed="timeout"),
    "new": Shot("new"),
}
EXPECTED = {
    "new_pairs": {"new"},
    "gone_pairs": {"gone"},
    "link_rot": {"rots"},
    "changed_bytes": {"bytes", "smaller", "larger"},
    "withdrawn_consent": {"refuses", "host"},
    "regained": {"back"},
    "changed_captions": {"caption"},
    "dropped": {"rots", "refuses", "host", "smaller"},
    "taken_in": {"back", "larger"},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Release 1, release 2 with all changes, release 3 with a new pair more."""
    root = tmp_path_factory.mktemp("diff")
    publish(root, [write_crawl(root / "raw/x/g001", list(BEFORE.values()), visits=[Visit("p0")])])
    later = [replace(shot, fetched=LATER) for shot in NOW.values()]
    visits = [Visit("p0", 200, "two", LATER)]
    publish(root, [write_crawl(root / "raw/x/g002", later, visits=visits, seen=[BEFORE["same"]])])
    publish(root, [write_crawl(root / "raw/y/g001", [Shot("more", page="p7")])])
    return root


def rows(root: Path, kind: str, a: int = 1, b: int = 2) -> list[dict[str, Any]]:
    stream = io.StringIO()
    count = write_diff(root, a, b, kind, "json", stream)
    found = json.loads(stream.getvalue())
    assert count == len(found)
    return list(found)


def names(found: list[dict[str, Any]]) -> set[str]:
    return {row["image_url"].rsplit("/", 1)[1].removesuffix(".jpg") for row in found}


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
def test_each_kind_lists_what_changed_so_and_nothing_else(root: Path, kind: str) -> None:
    assert names(rows(root, kind)) == EXPECTED[kind]


def test_counts_agree_with_rows_and_reasons(root: Path) -> None:
    found = diff(root, 1, 2)
    assert found.counts == {kind: len(expected) for kind, expected in EXPECTED.items()}
    assert found.reasons["dropped"] == {
        "face_px": 1,
        "http_client_error": 1,
        "image_opted_out": 1,
        "robots_txt": 1,
    }
    assert found.reasons["withdrawn_consent"] == {"image_opted_out": 1, "robots_txt": 1}
    assert found.reasons["regained"] == {"timeout": 1}
    assert (found.kept_a, found.kept_b) == (9, 7)
    assert json.loads(json.dumps(found.as_dict()))["counts"]["link_rot"] == 1


def test_rows_say_what_it_was_and_what_it_is(root: Path) -> None:
    [rot] = rows(root, "link_rot")
    assert (rot["reason"], rot["old_image_id"]) == ("http_client_error", BEFORE["rots"].image_id)
    changed = {row["url_id"]: (row["old_image_id"], row["image_id"]) for row in rows(root, "changed_bytes")}
    assert changed[BEFORE["bytes"].url_id] == (BEFORE["bytes"].image_id, NOW["bytes"].image_id)
    [caption] = rows(root, "changed_captions")
    assert [caption["old_captions"], caption["captions"]] == [
        [{"kind": "alt", "text": "A smiling woman with brown hair"}],
        [{"kind": "alt", "text": "Another text about this woman"}],
    ]


def test_over_several_releases_and_over_those_that_change_little(root: Path) -> None:
    assert diff(root, 1, 3).counts == {**diff(root, 1, 2).counts, "new_pairs": 2}
    last = diff(root, 2, 3)
    assert {kind: n for kind, n in last.counts.items() if n} == {"new_pairs": 1}
    assert not last.is_empty
    assert Diff(1, 2, 0, 0, dict.fromkeys(last.counts, 0), {}).is_empty


def test_formats(root: Path, tmp_path: Path) -> None:
    assert write_diff(root, 1, 2, "dropped", "parquet", tmp_path / "rows.parquet") == 4
    assert pq.read_table(tmp_path / "rows.parquet")["reason"].to_pylist().count("face_px") == 1
    stream = io.StringIO()
    write_diff(root, 1, 2, "link_rot", "csv", stream)
    assert [row["reason"] for row in csv.DictReader(io.StringIO(stream.getvalue()))] == ["http_client_error"]
    counts = io.StringIO()
    write_counts(diff(root, 1, 2), "csv", counts)
    table = {
        (row["kind"], row["reason"]): int(row["changes"]) for row in csv.DictReader(io.StringIO(counts.getvalue()))
    }
    assert (table["dropped", ""], table["dropped", "face_px"], table["new_pairs", ""]) == (4, 1, 1)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (1, 9, r"no release 9 under .*: it has 1 to 3"),
        (0, 2, r"no release 0 under .*: it has 1 to 3"),
        (2, 1, "releases 2 and 1: give the older one first"),
        (2, 2, "releases 2 and 2: give the older one first"),
    ],
)
def test_releases_that_are_not_there(root: Path, a: int, b: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        diff(root, a, b)


def test_unknown_kind_and_format(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no kind of change 'rot': choose new_pairs"):
        write_diff(root, 1, 2, "rot")
    with pytest.raises(InputError, match="no output format 'xml'"):
        write_diff(root, 1, 2, "link_rot", "xml")
    with pytest.raises(InputError, match="no lake under"):
        diff(tmp_path / "nowhere", 1, 2)


def test_the_report_says_what_changed_since_the_release_before(root: Path) -> None:
    with contextlib.closing(lake.connect(root)) as con:
        first, second = read_changes(con, 1), read_changes(con, 2)
        assert first is None
        assert second is not None
        assert (second.since, second.kept_before) == (1, 9)
        assert {change.kind: change.count for change in second.kinds} == diff(root, 1, 2).counts
        html = render_page(root, read_corpus(con), [], None, second)
        assert "Since release" not in render_page(root, read_corpus(con), [], None)
    assert "Since release 1" in html
    row = r'Link rot[^<]*</th><td class="n">1</td><td>addresses</td><td><code>http_client_error</code> 1'
    assert re.search(row, html)
