"""The dataset card: what the hub and Croissant's readers need is there, and every number is SQL's."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from literal_crawls import Shot, write_crawl

from warehouse import lake
from warehouse.errors import InputError
from warehouse.publish import publish
from warehouse.register import register
from warehouse.report.balance import read_balance, wilson
from warehouse.report.card import CardFigures, Naming, read_card, render_card
from warehouse.report.croissant import croissant, read_naming
from warehouse.rules import RuleParameters

pytestmark = pytest.mark.e2e  # a lake
NAMING = Naming("faces of test", "https://example.org/faces", "takedown@example.org")
HATS = (("alt", "A smiling woman with brown hair and a red hat"),)
SHOTS = [
    *(Shot(f"good{i}", face_px=70.0 + 10 * i, captions=HATS) for i in range(30)),
    *(Shot(f"tiny{i}", face_px=20.0) for i in range(5)),
    Shot("refused", refused="robots_txt"),
    Shot("refused2", refused="page_opted_out"),
    Shot("gone", failed="http_client_error"),
    Shot("landscape", faces=0),
]


@pytest.fixture(scope="module")
def con(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("card")
    rules = RuleParameters(near_duplicate_bits=0, val_share=0.2, test_share=0.2)
    publish(root, [write_crawl(root / "raw/x/g000", SHOTS)], rules, {"run_id": "r", "code_version": "1"})
    with contextlib.closing(lake.connect(root)) as con:
        splits = con.execute("SELECT split, count(*) FROM corpus GROUP BY split").fetchall()
    rows = [
        {"release": 1, "split": s, "file": f"shards/r00001/{s}-00000.tar", "sha256": f"{i:064x}"}
        | {"samples": n, "bytes": 1000 * n}
        for i, (s, n) in enumerate(splits)
    ]
    register(root, "shards", rows)
    with contextlib.closing(lake.connect(root)) as con:
        yield con


@pytest.fixture(scope="module")
def card(con: duckdb.DuckDBPyConnection) -> CardFigures:
    return read_card(con)


@pytest.fixture(scope="module")
def text(card: CardFigures) -> str:
    return render_card(card, NAMING)


def one(con: duckdb.DuckDBPyConnection, query: str) -> Any:
    row = con.execute(query).fetchone()
    assert row is not None
    return row[0]


def test_the_front_matter_is_what_the_hub_reads(con: duckdb.DuckDBPyConnection, text: str) -> None:
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["license"] == "other"
    assert front["license_name"]
    assert front["language"] == ["en"]
    assert front["size_categories"] == ["n<1K"]
    splits = {s["name"]: (s["num_examples"], s["num_bytes"]) for s in front["dataset_info"]["splits"]}
    found = con.execute("SELECT split, sum(samples), sum(bytes) FROM shards GROUP BY split").fetchall()
    assert splits == {name: (samples, size) for name, samples, size in found}
    assert sum(samples for samples, _ in splits.values()) == one(con, "SELECT count(*) FROM corpus")
    patterns = {f["split"]: f["path"] for f in front["configs"][0]["data_files"]}
    assert patterns == {name: f"{name}-*.tar" for name in splits}


def test_the_hubs_own_library_parses_the_front_matter(text: str) -> None:
    from datasets import DatasetInfo
    from huggingface_hub import DatasetCard

    data = DatasetCard(text).data.to_dict()
    info = DatasetInfo._from_yaml_dict(data["dataset_info"])
    assert info.features is not None
    assert set(info.features) == {"__key__", "__url__", "jpg", "txt", "json"}


def test_numbers_of_the_text_are_those_of_sql(con: duckdb.DuckDBPyConnection, text: str) -> None:
    for reason, pairs in con.execute("SELECT reason, pairs FROM funnel").fetchall():
        assert f"| {reason} | {pairs} |" in text
    kept, pairs = one(con, "SELECT count(*) FROM corpus"), one(con, "SELECT count(*) FROM pairs")
    assert text.count(f"{kept} aligned face crops") == 1
    allowed = one(con, "SELECT count(*) FROM consent WHERE allowed")
    assert f"Of {pairs} pairs {allowed} were allowed" in text
    assert (kept, pairs, allowed) == (30, len(SHOTS), len(SHOTS) - 2)
    assert "takedown@example.org" in text
    assert "gptface rebuild shards/r00001" in text


def test_no_host_and_no_address_is_named(con: duckdb.DuckDBPyConnection, text: str) -> None:
    for (host,) in con.execute("SELECT DISTINCT unnest([page_host, image_host]) FROM pairs").fetchall():
        assert host.partition("://")[2] not in text


def test_croissant_lists_every_shard_and_every_column_of_the_manifest(
    con: duckdb.DuckDBPyConnection, card: CardFigures
) -> None:
    from warehouse.manifest import MANIFEST

    found = croissant(con, card, NAMING, "ab" * 32)
    required = ("@context", "@type", "conformsTo", "name", "description", "license", "url", "version", "datePublished")
    assert all(found[key] for key in (*required, "creator", "distribution", "recordSet"))
    assert found["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    files = {d["@id"]: d for d in found["distribution"] if d["@type"] == "cr:FileObject"}
    for file, sha256, size in con.execute("SELECT file, sha256, bytes FROM shards").fetchall():
        assert (files[Path(file).name]["sha256"], files[Path(file).name]["contentSize"]) == (sha256, f"{size} B")
    assert files["manifest.parquet"]["sha256"] == "ab" * 32
    columns = {f["source"]["extract"]["column"] for f in found["recordSet"][0]["field"]}
    assert columns <= set(MANIFEST.names)
    assert {"row_id", "image_url", "caption", "split", "points_px"} <= columns


def test_croissant_tells_its_naming_and_release_again(con: duckdb.DuckDBPyConnection, card: CardFigures) -> None:
    for naming in (NAMING, Naming()):
        assert read_naming(croissant(con, card, naming, "ab" * 32)) == (naming, 1)
    with pytest.raises(InputError, match=r"no metadata of a release .*gptface card"):
        read_naming({"name": "x", "url": "", "creator": []})


def test_balance_counts_each_pair_once_and_names_what_a_rule_drops_unevenly(con: duckdb.DuckDBPyConnection) -> None:
    for balance in read_balance(con):
        population = (
            "SELECT count(*) FROM pairs JOIN images USING (url_id) JOIN faces USING (image_id) WHERE face_index = 0"
            if balance.of_faces
            else "SELECT count(*) FROM pairs"
        )
        assert sum(group.kept.whole for group in balance.groups) == one(con, population)
        assert sum(group.kept.part for group in balance.groups) == one(con, "SELECT count(*) FROM corpus")
        for rule in balance.rules:
            assert sum(drop.dropped.part for drop in rule.groups) == rule.overall.part
    sizes = next(balance for balance in read_balance(con) if balance.by == "face_size")
    face_px = next(rule for rule in sizes.rules if rule.reason == "face_px")
    dropped = {drop.group: (drop.dropped.part, drop.differs) for drop in face_px.groups}
    assert dropped["under 64"] == (5, True)
    assert dropped["128 and more"] == (0, True)


@given(whole=st.integers(1, 10_000), data=st.data())
def test_wilson_intervals_hold_the_share_and_lie_within_0_and_1(whole: int, data: st.DataObject) -> None:
    part = data.draw(st.integers(0, whole))
    found = wilson(part, whole)
    assert 0 <= found.low <= found.share <= found.high <= 1
    mirrored = wilson(whole - part, whole)
    assert found.low == pytest.approx(1 - mirrored.high, abs=1e-12)


def test_wilson_is_the_published_value() -> None:
    found = wilson(8, 10)  # Agresti and Coull 1998, and any table: 0.4901 to 0.9433
    assert (round(found.low, 4), round(found.high, 4)) == (0.4902, 0.9433)
