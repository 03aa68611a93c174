"""Back-up and restore: a lost root comes back as it was, and a backup says so where it cannot."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from flows.steps import pipeline
from flows.steps.backup import backup, restore
from tests.flows.small_crawl import config, content, rows_of
from tests.flows.test_recrawl_e2e import InlineRunner
from tests.postgres_cluster import Cluster
from warehouse import lake
from warehouse.errors import InputError

pytestmark = pytest.mark.e2e

QUERIES = (
    "select reason, pairs, remaining from funnel order by stage_order",
    "select split, count(*) as faces, sum(face_px) as px from corpus group by split order by split",
    "select row_id, caption, raw_shard from lineage join corpus using (row_id, raw_shard) order by row_id",
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A lake without a release, with a few files of each kind beside it."""
    root = tmp_path / "root"
    lake.create(root)
    for name in ("raw/x/g000/images/00000.tar", "shards/r00001/.train-00000.tar.note", "models/m/config.json"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text(name)
    return root


def ask(*words: object) -> str:
    """What a `gptface` command prints."""
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def files_of(root: Path) -> dict[str, bytes]:
    left_out = (".lock", "lake/.writer")
    found = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name not in left_out}


def answers(root: Path) -> list[str]:
    return [ask("sql", query, "--root", root, "--format", "json") for query in QUERIES]


@pytest.fixture(params=["sqlite", "postgres"])
def catalogs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Addresses of the catalogue before and after; empty for SQLite."""
    if request.param == "sqlite":
        return "", ""
    before = request.getfixturevalue("postgres")
    cluster: Cluster = request.getfixturevalue("postgres_cluster")
    monkeypatch.setenv("PATH", os.pathsep.join([str(cluster.bin), os.environ["PATH"]]))
    return before, cluster.new_database()


def test_the_drill(
    small_source: str, undisturbed: Path, catalogs: tuple[str, str], tmp_path: Path, postgres_gone: Any
) -> None:
    """The root is deleted, restored, `gptface shard --verify` and three queries agree, and the next build works."""
    root, (before, after) = tmp_path / "root", catalogs
    if before:
        pipeline.build(config(small_source, root, catalog=before), InlineRunner())
    else:
        shutil.copytree(undisturbed, root)
    rows, said, verified = rows_of(root), answers(root), ask("shard", "--verify", "--root", root)
    assert rows["corpus"] and "agree with their index" in verified
    ask("backup", tmp_path / "backups", "--root", root)

    shutil.rmtree(root)
    if before:
        postgres_gone(before)
    ask("restore", tmp_path / "backups", "--root", root, *(["--catalog", after] if after else []))

    assert rows_of(root) == rows
    assert answers(root) == said
    assert ask("shard", "--verify", "--root", root) == verified
    assert content(root) == content(undisturbed)
    again = pipeline.build(config(small_source, root), InlineRunner())
    assert (again.release, again.is_new) == (1, False)
    assert rows_of(root) == rows


@pytest.fixture
def postgres_gone(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Drops a database by its address."""

    def drop(address: str) -> None:
        cluster: Cluster = request.getfixturevalue("postgres_cluster")
        cluster.run("dropdb", "--force", address.rpartition("/")[2])

    yield drop


def test_a_backup_costs_what_is_new_and_leaves_out_what_must_not_last(root: Path, tmp_path: Path) -> None:
    for name in ("prefect/prefect.db", "raw/x/g000/faces/00000.embeddings.parquet", "models/m/.x.part", "models/y.tmp"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("not to be kept")
    first = backup(root, tmp_path / "b")
    (root / "models/m/config.json").write_text("changed")
    second = backup(root, tmp_path / "b")
    one, two = (Path(each.path) / "root" for each in (first, second))
    assert (one / "raw/x/g000/images/00000.tar").samefile(two / "raw/x/g000/images/00000.tar")
    assert (one / "models/m/config.json").read_text() == "models/m/config.json"
    assert second.copied < first.copied
    kept = {path.relative_to(two).as_posix() for path in two.rglob("*") if path.is_file()}
    assert {"raw/x/g000/images/00000.tar", "shards/r00001/.train-00000.tar.note", "models/m/config.json"} <= kept
    assert not any(word in name for name in kept for word in ("prefect", "embeddings", ".part", ".tmp", ".lock"))
    backup(root, tmp_path / "b", keep=1)
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["backup-00003"]


def test_files_come_back_with_their_times(root: Path, tmp_path: Path) -> None:
    os.utime(root / "models/m/config.json", (1_000_000_000, 1_000_000_000))  # the newest model is told by them
    backup(root, tmp_path / "b")
    restore(tmp_path / "b/backup-00001", tmp_path / "new")
    assert (tmp_path / "new/models/m/config.json").stat().st_mtime == 1_000_000_000
    before, after = files_of(root), files_of(tmp_path / "new")
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] != after[name]} <= {"lake/catalog.sqlite"}  # SQLite's own header


def rename_in_index(folder: Path, old: str, new: str) -> None:
    index = folder / "files.json"
    index.write_text(index.read_text().replace(f'"{old}"', f'"{new}"'))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder, root: (folder / "root/models/m/config.json").write_text("flipped"), "is missing or damaged"),
        (lambda folder, root: (folder / "catalog.sqlite").unlink(), r"catalog\.sqlite is missing or damaged"),
        (lambda folder, root: (folder / "files.json").unlink(), "no backup in"),
        (lambda folder, root: (folder / "files.json").write_text("{"), r"files\.json cannot be read"),
        (lambda folder, root: rename_in_index(folder, "root/models/m/config.json", "../../x"), r"names \.\./\.\./x"),
        (lambda folder, root: (root.mkdir(), (root / "x").touch()), "is not empty: move it away"),
    ],
)
def test_a_restore_that_cannot_be_changes_nothing(root: Path, tmp_path: Path, spoil: Any, says: str) -> None:
    backup(root, tmp_path / "b")
    target = tmp_path / "new"
    spoil(tmp_path / "b/backup-00001", target)
    before = sorted(target.rglob("*"))
    with pytest.raises(InputError, match=says) as caught:
        restore(tmp_path / "b", target)
    assert "\n" not in str(caught.value)
    assert sorted(target.rglob("*")) == before
    assert not list(tmp_path.glob(".*"))


def test_a_backup_that_fails_leaves_the_earlier_ones(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup(root, tmp_path / "b", keep=1)
    (root / "models/m/config.json").write_text("changed")

    def fail(*_: object) -> str:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("flows.steps.backup._copy", fail)
        with pytest.raises(OSError, match=f"No space left under {tmp_path / 'b'}: free some"):
            backup(root, tmp_path / "b", keep=1)
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["backup-00001"]
    restore(tmp_path / "b", tmp_path / "new")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("backup", "root/inside"), "lies in the root"),
        (("backup", "b", "--root", "nothing"), "no lake under nothing"),
        (("restore", "b", "--root", "new", "--catalog", "postgres://h/db"), "SQLite: leave --catalog"),
        (("restore", "nowhere", "--root", "new"), "no backup in nowhere"),
    ],
)
def test_mistakes_are_one_line(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    backup(root, tmp_path / "b")
    with pytest.raises(InputError, match=says):
        CliRunner().invoke(app, [*words, *(() if "--root" in words else ("--root", "root"))], catch_exceptions=False)


def test_nobody_writes_while_a_backup_is_made(root: Path, tmp_path: Path) -> None:
    with lake.root_lock(root), pytest.raises(InputError, match="is being written by process"):
        backup(root, tmp_path / "b")
    assert list((tmp_path / "b").iterdir()) == []
