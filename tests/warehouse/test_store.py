"""Roots on an object store: their addresses, and what a working folder of this machine is and is not."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import warehouse
from flows.cli import main
from flows.steps.config import chosen_root
from warehouse import catalog, mirror, objects, store, workfolder, writers
from warehouse.errors import InputError

ADDRESS = "s3://faces/corpus"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GPTFACE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_an_address_has_one_working_folder_that_remembers_it(cache: Path) -> None:
    root = store.find_root(ADDRESS)
    assert root.parent == cache and store.store_of(root) == ADDRESS and store.shown(root) == ADDRESS
    # A trailing slash, a Path (which makes one slash of two) and the folder itself name the same root.
    assert {store.find_root(place) for place in (f"{ADDRESS}/", Path(ADDRESS), root, str(root))} == {root}
    assert chosen_root(ADDRESS) == str(root)
    assert store.find_root("s3://faces/corpus2") != root
    assert catalog.data_path(root) == f"{ADDRESS}/lake/data/"


def test_a_folder_stays_a_folder(tmp_path: Path) -> None:
    assert store.find_root(tmp_path / "a") == tmp_path / "a"
    assert store.store_of(tmp_path) is None and store.shown(tmp_path) == str(tmp_path)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "address", ["s3://", "s3://x", "s3://Faces/x", "s3://faces/a b", "s3://faces/../x", "gs://faces/x", "http://h/x"]
)
def test_what_is_no_address_is_refused_in_one_line(address: str, cache: Path) -> None:
    with pytest.raises(InputError, match=r"no root '.*': give a folder, or s3://bucket/folder"):
        store.find_root(address)
    assert not cache.exists()


def test_what_is_of_this_machine_alone_or_half_written_does_not_go_to_the_store() -> None:
    ours = ["raw/x/g000/images/00000.tar", "lake/catalog.txt", "lake/tombstone.key", "models/m/training.json"]
    others = [
        "lake/data/main/t/a.parquet",
        "lake/tmp/x",
        "progress/run.json",
        "prefect/prefect.db",
        "store.txt",
        ".lock",
    ]
    half = ["raw/x/.00000.work/a", "shards/r00001/.train-00000.tar.tmp", "models/m/x.tmp", "raw/../../etc/passwd"]
    assert all(map(objects.belongs, ours))
    assert not any(map(objects.belongs, [*others, *half]))


def test_a_new_root_needs_a_catalogue_in_postgresql(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "fetch", lambda *_: None)  # nothing is there
    with (
        pytest.raises(InputError, match=r"root s3://faces/corpus has no catalogue yet.*--catalog postgres://user@host"),
        writers.root_lock(store.find_root(ADDRESS)),
    ):
        pass


@pytest.mark.parametrize(
    "words",
    [["backup", "somewhere"], ["restore", "somewhere"], ["rebuild", "somewhere"], ["ablate"], ["demo"]],
)
def test_commands_for_roots_on_disk_say_so_in_one_line(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gptface", *words, "--root", ADDRESS])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert f"gptface {words[0]} works on a root on disk, not on {ADDRESS}: give a folder" in said
    assert len(said.splitlines()) == 1


def test_s3fs_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(InputError, match=r"needs s3fs: pip install 'gptface\[s3,postgres\]'"):
        warehouse.connect(ADDRESS)


def test_credentials_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="no credentials: set AWS_ACCESS_KEY_ID") as told:
        warehouse.connect(ADDRESS)
    assert "\n" not in str(told.value)


def test_data_goes_before_the_files_that_tell_of_it() -> None:
    names = ["a/00000_stats.json", "a/00000.tar", "b/index.json", "a/00000.parquet"]
    assert mirror._data_first(names) == (["a/00000.parquet", "a/00000.tar"], ["a/00000_stats.json", "b/index.json"])


def test_a_state_that_was_cut_short_is_none(tmp_path: Path) -> None:
    state = workfolder.State("g", {"a": (workfolder.Stat(1, 2), "e")})
    workfolder.write_state(tmp_path, state)
    assert workfolder.read_state(tmp_path) == state
    file = next(tmp_path.glob(".store.json"))
    file.write_text(json.dumps({"generation": "g"})[:-3])
    assert workfolder.read_state(tmp_path) == workfolder.State()
