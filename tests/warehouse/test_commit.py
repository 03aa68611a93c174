"""Files of a commit whose answer was lost: see tests/flows/test_cut_publish.py for the real thing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.object_store import ObjectStore
from warehouse import catalog, commit, mirror, store

NAME = "main/corpus/ducklake-1.parquet"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    catalog.store_address(tmp_path, "postgres://user@host/db")
    return tmp_path


def below(root: Path, folder: str) -> dict[str, bytes]:
    place = root / "lake" / folder
    return {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}


@pytest.mark.parametrize("has_links", [True, False])
def test_what_was_deleted_comes_back_and_what_is_there_stays(
    root: Path, has_links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_links:
        monkeypatch.setattr(commit.os, "link", _refuse)
    shelf = commit._shelf(root)
    for name in (NAME, "main/pairs/b.parquet"):
        path = root / "lake/data" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(name.encode())
        shelf.keep(name)
    (root / "lake/data" / NAME).unlink()
    assert set(below(root, "committing")) == {NAME, "main/pairs/b.parquet"}
    commit.restore(root)
    assert below(root, "data") == {name: name.encode() for name in (NAME, "main/pairs/b.parquet")}
    assert not below(root, "committing")
    commit.restore(root)  # nothing to do


def _refuse(*_: object) -> None:
    raise OSError("no hard links here")


def test_a_root_with_sqlite_has_no_second_names(tmp_path: Path) -> None:
    kept = tmp_path / "lake/committing/a.parquet"
    kept.parent.mkdir(parents=True)
    kept.touch()
    commit.restore(tmp_path)
    assert kept.is_file()


@pytest.mark.e2e
def test_an_object_store_brings_them_back_too(store_root: str, object_store: ObjectStore) -> None:
    root = store.find_root(store_root)
    catalog.store_address(root, "postgres://user@host/db")
    files, base = object_store.files(), store_root.removeprefix("s3://")
    files.pipe_file(f"{base}/lake/data/{NAME}", b"rows")
    shelf = commit._shelf(root)
    assert shelf.files("data") == [NAME] and shelf.files("committing") == []
    shelf.keep(NAME)
    assert mirror.Store(store_root).files() == {}, "not of the root's own files"
    files.rm_file(f"{base}/lake/data/{NAME}")
    commit.restore(root)
    assert files.find(base) == [f"{base}/lake/data/{NAME}"]
    assert files.cat_file(f"{base}/lake/data/{NAME}") == b"rows"
