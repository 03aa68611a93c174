"""A root on an S3 server (moto, over HTTP) with its catalogue in PostgreSQL: the same corpus, from any machine."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

import warehouse
from flows.steps import shard
from flows.steps.layout import Layout
from flows.steps.pipeline import build
from flows.steps.report import write_report
from flows.steps.takedown import TakedownConfig, take_down
from tests.flows.conftest import Gptface
from tests.flows.small_crawl import config, content
from tests.flows.takedown_root import crop_of, residue
from tests.flows.test_recrawl_e2e import InlineRunner
from tests.object_store import ObjectStore
from warehouse import mirror, store
from warehouse.errors import InputError

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def objects(object_store: ObjectStore, address: str) -> list[str]:
    """All objects of a root, by their path below it."""
    base = address.removeprefix("s3://")
    return sorted(path.removeprefix(f"{base}/") for path in object_store.files().find(base))


@pytest.fixture
def built(store_root: str, postgres: str, small_source: str) -> str:
    """The address of a root that one build made."""
    build(config(small_source, store.find_root(store_root), catalog=postgres), InlineRunner())
    return store_root


def another_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str) -> Path:
    """The root's working folder where no other was before."""
    monkeypatch.setenv("GPTFACE_CACHE", str(tmp_path / "elsewhere"))
    return store.find_root(address)


def test_any_machine_finds_the_corpus_that_a_root_on_disk_has(
    built: str, undisturbed: Path, object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert content(store.find_root(built)) == content(undisturbed)
    held = objects(object_store, built)
    assert any(name.startswith("lake/data/") and name.endswith(".parquet") for name in held)
    assert not any("/." in name or name.startswith(("progress/", "store.txt")) for name in held)

    elsewhere = another_machine(monkeypatch, tmp_path, built)
    with contextlib.closing(warehouse.connect(elsewhere)) as con:
        kept = con.execute("SELECT count(*) FROM corpus").fetchone()
    assert kept is not None and kept[0] > 0
    assert not (elsewhere / "raw").exists(), "a query needs no raw picture"
    mirror.fetch(elsewhere, "shards/*")
    assert content(elsewhere) == content(undisturbed)
    assert shard.verify(Layout(elsewhere), 1) > 0
    page = write_report(elsewhere)
    assert f"reports/{page.name}" in objects(object_store, built)
