"""Pruning: what goes, what stays whatever the policy, and that what went can be made again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import warehouse
from flows.cli.app import app
from flows.steps.champions import promote
from flows.steps.config import ConfigError, RetentionConfig
from flows.steps.layout import Layout
from flows.steps.model import resolve_model
from flows.steps.retention import CHECKPOINTS, MODELS, RAW, SHARDS, plan, prune
from flows.steps.shard import ensure_shards, verify
from flows.steps.takedown import TakedownConfig, take_down
from tests.flows.lake_models import add_model
from tests.flows.test_recrawl_e2e import AT_ONCE, InlineRunner, Site, run, serving
from warehouse import lake
from warehouse.champions import challenge
from warehouse.manifest import is_current
from warehouse.shards import file_sha256

pytestmark = pytest.mark.e2e
RUNNER = InlineRunner()


def paths(found: object, kind: str) -> list[str]:
    return [item.path for item in found.items if item.kind == kind]  # type: ignore[attr-defined]


def test_models_beyond_the_policy_go_but_never_those_in_use(tmp_path: Path) -> None:
    """a, b were champions, c is one, d the challenger: of the others (a, e, f, g) the newest stays."""
    layout = Layout(tmp_path)
    lake.create(tmp_path)
    for day, name in enumerate("abcdefg"):
        add_model(tmp_path, name, 1, day)
    for name in "abc":
        promote(layout, name, "test")
    challenge(tmp_path, "d")
    unfinished = layout.models / "unfinished" / "checkpoints"
    unfinished.mkdir(parents=True)
    (unfinished / "main-00000100.safetensors").write_bytes(b"x")

    policy = RetentionConfig(keep_models=1)
    found = plan(layout, policy)
    assert found.dry_run and paths(found, MODELS) == ["models/f", "models/e", "models/a"]
    assert set(paths(found, CHECKPOINTS)) == {
        f"models/{name}/{file}" for name in "bcdg" for file in ("checkpoints/main.safetensors", "tokens/x.arrow")
    }
    assert all((layout.models / name).is_dir() for name in "abcdefg"), "a plan removes nothing"

    before = sum(p.stat().st_size for p in layout.models.rglob("*") if p.is_file())
    done = prune(layout, policy, RUNNER)
    after = sum(p.stat().st_size for p in layout.models.rglob("*") if p.is_file())
    assert done.bytes == found.bytes == before - after
    assert sorted(p.name for p in layout.models.iterdir()) == ["b", "c", "d", "g", "unfinished"]
    assert (unfinished / "main-00000100.safetensors").is_file(), "what is not finished may go on"
    assert resolve_model(layout, "") == layout.models / "c"
    again = prune(layout, policy, RUNNER)
    assert again.items == () and "Nothing was there to prune" in again.sentence()


@pytest.fixture
def nights(tmp_path: Path) -> Iterator[tuple[Site, Path]]:
    """Three releases of a site, whose third picture is another one each night: its old bytes nobody needs any more."""
    caption = "A smiling woman with brown hair"
    names = ["one", "two", "turns"]
    with serving(Site(pages={"/": {"old": caption}, "/new.html": dict.fromkeys(names, caption)})) as site:
        for face, name in enumerate(["old", *names]):
            site.put(name, face)
        run(site, tmp_path)
        for night in (60, 61):
            site.put("turns", night)
            site.put(f"extra{night}", night + 10)
            site.pages["/new.html"][f"extra{night}"] = caption
            assert run(site, tmp_path, refresh=True, recheck_days=AT_ONCE).is_new
        yield site, tmp_path


@pytest.mark.slow
def test_what_goes_can_be_made_again_and_what_is_needed_stays(nights: tuple[Site, Path]) -> None:
    site, root = nights
    layout = Layout(root)
    add_model(root, "first", 1, 1)
    add_model(root, "second", 2, 2)
    promote(layout, "second", "test")
    _shards_of_old_releases(layout)
    _raw_shard_that_nothing_needs(site, layout)
    _takedown_of_what_was_pruned(site, layout)


def _shards_of_old_releases(layout: Layout) -> None:
    sizes = {p: p.stat().st_size for p in layout.shards(1).glob("*.tar")}
    hashes = {p.name: file_sha256(p) for p in sizes}
    done = prune(layout, RetentionConfig(keep_releases=1, checkpoints=False), RUNNER)
    assert set(paths(done, SHARDS)) == {p.relative_to(layout.root).as_posix() for p in sizes}, "2 is the champion's"
    assert done.bytes == sum(sizes.values())
    assert not list(layout.shards(1).glob("*.tar")) and is_current(layout.shards(1))
    assert verify(layout, 2) and verify(layout, 3)
    with warehouse.connect(layout.root) as con:
        kept = con.execute("SELECT DISTINCT release FROM shards ORDER BY release").fetchall()
        assert con.execute("SELECT max(release) FROM releases").fetchone() == (3,), "releases stay"
    assert kept == [(2,), (3,)]
    assert paths(done, RAW) == [], "the releases that are kept show a picture of each"

    ensure_shards(layout, 1, 1000, RUNNER)
    assert {p.name: file_sha256(p) for p in layout.shards(1).glob("*.tar")} == hashes


def _raw_shard_that_nothing_needs(site: Site, layout: Layout) -> None:
    """The second crawl brought only "turns" and "extra60": once both have other bytes, only old releases show these."""
    (second,) = layout.raw.glob("*/g001/images/*.tar")
    site.put("extra60", 95)
    run(site, layout.root, refresh=True, recheck_days=AT_ONCE)
    policy = RetentionConfig(keep_releases=1, checkpoints=False)
    assert paths(plan(layout, policy), RAW) == [], "the champion's release shows it"
    promote(layout, "first", "test")
    assert paths(plan(layout, policy), RAW) == [], "and so does that of the champion before"
    shutil.rmtree(layout.models / "second")
    with lake.writing(layout.root) as con:
        con.execute("DELETE FROM models WHERE model = 'second'")
    done = prune(layout, policy, RUNNER)
    assert paths(done, RAW) == [second.relative_to(layout.root).as_posix()]
    assert not second.exists()
    assert verify(layout, 4)
    with warehouse.connect(layout.root) as con:
        rows = con.execute("SELECT raw_shard FROM images WHERE raw_shard IS NOT NULL").fetchall()
    assert all((layout.root / row[0]).is_file() for row in rows)
    quiet = run(site, layout.root, refresh=True)
    assert (quiet.release, quiet.is_new) == (4, False), "the crawl whose raw shard went is not done again"


def _takedown_of_what_was_pruned(site: Site, layout: Layout) -> None:
    """The tars of releases 2 and 3 are gone, their manifests name what goes."""
    add_model(layout.root, "third", 3, 3)
    add_model(layout.root, "heir", 9, 4, parent="third")
    assert not list(layout.shards(3).glob("*.tar"))
    (done,) = take_down(TakedownConfig(str(layout.root), urls=(f"{site.url}/one.jpg",)), RUNNER)
    assert {"first", "third", "heir"} <= set(done.models)
    assert is_current(layout.shards(3)), "the manifest agrees with its table again"
    assert not any(url.endswith("/one.jpg") for url in _manifest_urls(layout, 3))


def _manifest_urls(layout: Layout, release: int) -> list[str]:
    import pyarrow.parquet as pq

    urls: list[str] = pq.read_table(layout.shards(release) / "manifest.parquet")["image_url"].to_pylist()
    return urls


def test_commands_list_promote_roll_back_and_prune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")

    def gptface(*words: object) -> str:
        done = CliRunner().invoke(app, [*map(str, words), "--root", str(tmp_path)])
        if done.exception:
            raise done.exception
        return done.stdout

    lake.create(tmp_path)
    for day, name in enumerate(("early", "late")):
        add_model(tmp_path, name, 1, day)
        gptface("promote", name, "--why", f"{name} it is")
    rows = json.loads(gptface("models", "--json"))
    assert [(row["model"], row["alias"], row["release"]) for row in rows] == [("late", "champion", 1), ("early", "", 1)]
    assert "The champion is early, before it late." in gptface("rollback")
    told = gptface("models", "--history")
    assert told.index("rollback") < told.index("late it is") < told.index("early it is")
    assert "early" in gptface("models")

    shown = gptface("prune", "--dry-run", "--keep-models", 0)
    assert "models/late" in shown and "Nothing was removed." in shown
    assert (tmp_path / "models" / "late").is_dir()
    assert "add --yes to do it" in gptface("prune", "--keep-models", 0)
    assert "1 models" in gptface("prune", "--keep-models", 0, "--yes")
    assert not (tmp_path / "models" / "late").exists()
    with pytest.raises(ConfigError, match="no trained model 'late' under"):
        gptface("promote", "late")


def test_a_policy_that_keeps_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="keep_releases=0: must be at least 1"):
        RetentionConfig(keep_releases=0)
