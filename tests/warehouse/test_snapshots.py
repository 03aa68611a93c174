"""`gptface snapshots`: what each release kept, and what came and went."""

from __future__ import annotations

import datetime as dt
import io
import json
from pathlib import Path

import pytest
from literal_crawls import Shot, Visit, write_crawl

from warehouse.errors import InputError
from warehouse.publish import publish
from warehouse.rules import RuleParameters
from warehouse.snapshots import Snapshot, snapshots, write_snapshots

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Snapshot]:
    """Three kept; one gone and another caption; stricter rules that cost one."""
    root = tmp_path_factory.mktemp("snapshots")
    first = write_crawl(root / "raw/x/g000", [Shot("a"), Shot("b"), Shot("c", face_px=80)], visits=[Visit()])
    publish(root, [first], provenance={"run_id": "run-1", "code_version": "1.0"})
    changed = Shot("a", captions=(("alt", "A man with a grey beard"),))
    later = Visit(body="two", at=Visit().at + dt.timedelta(days=30))
    publish(root, [write_crawl(root / "raw/x/g001", [changed, Shot("d")], visits=[later], seen=[Shot("c")])])
    publish(root, [], RuleParameters(min_face_px=96), {"run_id": "run-3"})
    write_snapshots(root, "csv", root / "out.csv")
    assert (root / "out.csv").read_text().count("\n") == 4
    out = io.StringIO()
    assert write_snapshots(root, "json", out) == 3
    assert [row["release"] for row in json.loads(out.getvalue())] == [3, 2, 1]
    return snapshots(root)


def test_each_release_says_what_it_kept_and_what_changed(found: list[Snapshot]) -> None:
    assert [(s.release, s.pairs, s.kept, s.new, s.gone) for s in found] == [
        (3, 3, 2, 0, 1),
        (2, 3, 3, 1, 1),
        (1, 3, 3, 3, 0),
    ]


def test_each_release_names_its_run_code_and_rules(found: list[Snapshot]) -> None:
    assert [s.run_id for s in found] == ["run-3", "", "run-1"]
    assert found[2].code_version == "1.0"
    assert found[2].rules == found[1].rules != found[0].rules
    assert found[0].created_at > found[1].created_at > found[2].created_at


def test_wrong_formats_and_no_lake(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no output format 'xml'"):
        write_snapshots(tmp_path, "xml")
    with pytest.raises(InputError, match="give one with --out"):
        write_snapshots(tmp_path, "parquet")
    with pytest.raises(InputError, match="no lake under"):
        snapshots(tmp_path)
