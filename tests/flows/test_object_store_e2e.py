"""A root on an S3 server (moto, over HTTP) with its catalogue in PostgreSQL: the same corpus, from any machine."""

from __future__ import annotations

import contextlib
import json
import subprocess
from pathlib import Path

import pytest

import warehouse
from flows.steps import shard
from flows.steps.champions import read_models
from flows.steps.config import BuildConfig, TrainConfig
from flows.steps.layout import Layout
from flows.steps.model import resolve_model
from flows.steps.pipeline import build, train
from flows.steps.report import write_report
from flows.steps.takedown import TakedownConfig, take_down
from tests.flows.conftest import command
from tests.flows.small_crawl import config, content
from tests.flows.takedown_root import chunks_of, crop_of, residue
from tests.flows.test_model_steps import MICRO
from tests.flows.test_recrawl_e2e import InlineRunner
from tests.flows.up_process import start_up
from tests.object_store import ObjectStore
from tests.postgres_cluster import USER, Cluster
from warehouse import mirror, store

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


def test_a_model_trained_on_one_machine_is_used_on_another(
    built: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, elsewhere = store.find_root(built), another_machine(monkeypatch, tmp_path, built)
    preset = tmp_path / "micro.json"
    preset.write_text(json.dumps(MICRO))
    train(TrainConfig(str(elsewhere), str(preset), "micro"), InlineRunner())
    assert read_models(Layout(here))[0].whole
    folder = resolve_model(Layout(here), "")
    assert folder == here / "models/micro"
    weights = [path.relative_to(elsewhere) for path in (elsewhere / "models/micro").glob("*.safetensors")]
    assert weights and all((here / path).read_bytes() == (elsewhere / path).read_bytes() for path in weights)


def test_a_takedown_on_one_machine_leaves_nothing_on_the_store_and_on_another(
    built: str, object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = store.find_root(built)
    write_report(here)
    with contextlib.closing(warehouse.connect(here)) as con:
        found = con.execute("SELECT row_id, image_url, raw_shard, raw_offset, raw_bytes FROM corpus LIMIT 1").fetchone()
    assert found is not None
    row_id, url, raw_shard, offset, size = found
    picture = (here / raw_shard).read_bytes()[offset : offset + size]
    traces = [url.encode(), *chunks_of(picture), *chunks_of(crop_of(here, row_id)[1])]
    assert {Path(name).parts[0] for name in residue(downloaded(object_store, built, tmp_path / "before"), traces)} >= {
        "lake",
        "raw",
        "shards",
    }

    elsewhere = another_machine(monkeypatch, tmp_path, built)
    [done] = take_down(TakedownConfig(str(elsewhere), urls=(url,)), InlineRunner())
    assert done.pictures == 1
    assert residue(downloaded(object_store, built, tmp_path / "after"), traces) == {}
    assert residue(elsewhere, traces) == {}
    mirror.fetch(here, "shards/*")  # any command that reads files does
    assert residue(here, traces) == {}
    assert shard.verify(Layout(here), 1) > 0


def downloaded(object_store: ObjectStore, address: str, folder: Path) -> Path:
    """All objects of a root as files."""
    base = address.removeprefix("s3://")
    for path in object_store.files().find(base):
        target = folder / path.removeprefix(f"{base}/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(object_store.files().cat_file(path))
    return folder


def test_the_demo_build_on_postgresql_and_s3_under_prefect_is_that_of_a_plain_root(
    store_root: str, object_store: ObjectStore, postgres: str, postgres_cluster: Cluster, tmp_path: Path
) -> None:
    """Catalogue and Prefect's own database in PostgreSQL at once; then a second, empty machine asks."""
    plain = tmp_path / "plain"
    build(BuildConfig("sample:60", str(plain), "cascade"), InlineRunner())

    prefect = postgres_cluster.new_database()
    reached = prefect.replace(f"postgres://{USER}@", f"postgresql+asyncpg://{USER}:{postgres_cluster.password}@")
    environment = object_store.environment | {
        "PGPASSWORD": postgres_cluster.password,
        "GPTFACE_ROOT": store_root,
        "GPTFACE_CACHE": str(tmp_path / "worker"),
    }
    up = start_up(tmp_path, more=environment | {"PREFECT_API_DATABASE_CONNECTION_URL": reached}, limit_s=600)
    try:
        settings = json.dumps({"catalog": postgres, "workers": 1})
        asked = ("--param", "source=sample:60", "--param", "detector=cascade", "--param", f"settings={settings}")
        done = up.prefect("deployment", "run", "build-dataset/local", *asked, "--watch", limit_s=600)
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        up.stop()
    runs = "SELECT count(*) FROM flow_run WHERE state_type = 'COMPLETED'"
    database = prefect.rpartition("/")[2]
    assert int(postgres_cluster.run("psql", "-At", "-c", runs, database)) == 1, "Prefect's runs are not in PostgreSQL"
    assert "reports/index.html" in objects(object_store, store_root)

    second = {**up.env, **environment, "GPTFACE_CACHE": str(tmp_path / "second")}

    def gptface(*words: str) -> str:
        told = subprocess.run(command(*words), env=second, capture_output=True, text=True, timeout=240, check=False)
        assert told.returncode == 0, told.stderr
        return told.stdout

    for query in (
        "SELECT row_id, reason FROM decisions ORDER BY row_id",
        "SELECT reason, sum(pairs)::int AS pairs FROM funnel GROUP BY reason ORDER BY reason",
        "SELECT file, sha256, samples FROM shards ORDER BY file",
    ):
        here, there = (gptface("sql", query, "--format", "json", *root) for root in ((), ("--root", str(plain))))
        assert json.loads(here) == json.loads(there) != []
    assert "shards agree with their index" in gptface("shard", "--verify")
    [machine] = (tmp_path / "second").iterdir()
    assert {path.name for path in machine.iterdir() if path.is_dir()} == {"lake", "shards"}, "more was brought"
    indexes = [(root / "shards/r00001/index.json").read_text() for root in (machine, plain)]
    assert indexes[0] == indexes[1]
