"""A working folder and its store are kept alike; an S3 server (moto) stands for the store."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.object_store import ObjectStore
from warehouse import catalog, lake, mirror, store, storelock, workfolder, writers
from warehouse.errors import InputError

pytestmark = pytest.mark.e2e

RAW, MARK, PAGE = "raw/x/g000/images/00000.tar", "raw/x/g000/images/00000_stats.json", "reports/index.html"


@pytest.fixture
def here(store_root: str) -> Path:
    return store.find_root(store_root)


@pytest.fixture
def there(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same root's working folder on another machine."""
    with monkeypatch.context() as patch:
        patch.setenv("GPTFACE_CACHE", str(tmp_path / "there"))
        return store.find_root(store.shown(here))


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def files(root: Path) -> dict[str, str]:
    return {name: (root / name).read_text() for name in workfolder.files_of(root)}


def test_what_one_machine_made_changed_and_deleted_is_so_on_another(here: Path, there: Path) -> None:
    with mirror.session(here):
        for name in (RAW, MARK, PAGE):
            write(here, name, "one")
        write(here, "progress/run.json", "mine")
    mirror.fetch(there, "raw/*")
    assert files(there) == {RAW: "one", MARK: "one"}, "only what was asked for"
    with mirror.session(there):
        assert files(there) == {RAW: "one", MARK: "one", PAGE: "one"}
        write(there, RAW, "two")
        (there / PAGE).unlink()
    mirror.fetch(here)  # asks for nothing: what is out of date goes all the same
    assert files(here) == {MARK: "one"}
    assert not (here / PAGE).parent.exists(), "an empty folder is left"
    mirror.fetch(here, "*")
    assert files(here) == {RAW: "two", MARK: "one"}


def test_a_marker_is_never_there_before_its_data(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    puts: list[str] = []
    put = mirror.Store.put

    def failing(self: mirror.Store, name: str, source: Path) -> str:
        puts.append(name)
        if name == RAW and len(puts) == 1:
            raise OSError("cut")
        return put(self, name, source)

    monkeypatch.setattr(mirror.Store, "put", failing)
    with pytest.raises(OSError, match="cut"), mirror.session(here):
        write(here, MARK, "{}")  # even where it is the older one
        write(here, RAW, "data")
    assert puts == [RAW]
    with mirror.session(here):  # nothing was lost on this machine
        pass
    assert puts == [RAW, RAW, MARK]


def test_unfinished_work_is_kept_until_somebody_else_has_written(here: Path, there: Path) -> None:
    with mirror.session(here):
        write(here, MARK, "one")
    write(here, RAW, "left by a run that was killed")
    write(here, MARK, "changed by it")
    half = "raw/x/g000/images/.00001.work/picture.jpg"
    write(here, half, "half-written")
    mirror.fetch(here, "*")
    assert files(here) == {RAW: "left by a run that was killed", MARK: "changed by it"}
    assert (here / half).exists()
    with mirror.session(there):
        pass
    mirror.fetch(here, "*")
    assert files(here) == {MARK: "one"}
    assert not (here / half).parent.exists()


def test_what_is_deleted_by_hand_between_runs_is_brought_again(here: Path) -> None:
    with mirror.session(here):
        write(here, RAW, "precious")
    (here / RAW).unlink()
    with mirror.session(here):
        assert files(here) == {RAW: "precious"}


def test_who_lost_the_lock_to_another_machine_writes_no_more(here: Path, there: Path) -> None:
    with pytest.raises(OSError, match=r"is being written by another machine.*start the same command again") as told:  # noqa: SIM117
        with mirror.session(here):
            with mirror.session(there):  # as after a connection that broke without a word
                write(there, PAGE, "theirs")
            write(here, PAGE, "ours")
    assert "\n" not in str(told.value)
    mirror.fetch(here, "*")
    assert files(here) == {PAGE: "theirs"}


def test_a_reader_waits_for_nobody_and_leaves_a_writer_alone(here: Path, there: Path) -> None:
    with mirror.session(here):
        write(here, PAGE, "one")
        mirror._push(here, store.shown(here))
        reader = threading.Thread(target=mirror.fetch, args=(there, "reports/*"))
        reader.start()
        reader.join(60)
        assert files(there) == {PAGE: "one"}


def test_what_a_long_step_has_done_goes_there_meanwhile(
    here: Path, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "EVERY_S", 0.05)
    place, listing = mirror.Store(store.shown(here)).place(RAW), object_store.files()
    with mirror.session(here):
        write(here, RAW, "done")
        for _ in range(600):
            if listing.exists(place):
                break
            threading.Event().wait(0.1)
        assert listing.exists(place)


def test_one_machine_at_a_time_and_the_other_is_told_who(here: Path, there: Path, postgres: str) -> None:
    lake.choose_catalog(here, postgres)
    with writers.root_lock(here):
        with pytest.raises(InputError, match=r"root s3://.* is being written by gptface \d+ on .*: wait") as told:  # noqa: SIM117
            with writers.root_lock(there):
                pass
        assert "\n" not in str(told.value)
        write(there, PAGE, "a reader's")
        storelock.offer(there, PAGE)  # is left out without a fuss: the writer's is newer
        write(here, PAGE, "the writer's")
    mirror.fetch(there, "*")
    assert files(there)[PAGE] == "the writer's"
    write(there, PAGE, "a later reader's")
    storelock.offer(there, PAGE)
    mirror.fetch(here, "*")
    assert files(here)[PAGE] == "a later reader's"


def test_a_root_keeps_the_catalogue_that_it_was_given_first(
    here: Path, there: Path, postgres: str, postgres_cluster: Any
) -> None:
    lake.choose_catalog(here, postgres)
    other = postgres_cluster.new_database()
    with pytest.raises(InputError, match=f"catalogue of s3://.* is {postgres}, not {other}"):
        lake.choose_catalog(there, other)
    assert catalog.catalog_address(there) == postgres
    # Two machines that choose at the same moment: the store takes the first.
    assert mirror.claim(there, "lake/catalog.txt", other).strip() == postgres


def test_a_bucket_that_is_none_is_one_clear_line(store_root: str) -> None:
    with pytest.raises(InputError, match=r"s3://no-such-bucket/x: the store has no such bucket") as told:
        mirror.fetch(store.find_root("s3://no-such-bucket/x"), "*")
    assert "\n" not in str(told.value)


def test_a_store_that_is_away_is_one_clear_line(store_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(OSError, match=r"s3://.* cannot be reached") as told:
        mirror.fetch(store.find_root(store_root), "*")
    assert "\n" not in str(told.value)
    assert not isinstance(told.value, ValueError)


def test_what_the_lake_tells_of_lies_on_the_store_first(here: Path, postgres: str, object_store: ObjectStore) -> None:
    lake.choose_catalog(here, postgres)
    listing, place = object_store.files(), mirror.Store(store.shown(here)).place(RAW)
    with writers.root_lock(here):
        lake.create(here)
        write(here, RAW, "a picture")
        with lake.writing(here):
            assert listing.exists(place)


def test_the_lake_lies_on_the_store_alone(here: Path, there: Path, postgres: str, object_store: ObjectStore) -> None:
    lake.choose_catalog(here, postgres)
    lake.create(here)
    for root in (here, there):
        with contextlib.closing(lake.connect(root)) as con:
            assert con.execute("SELECT count(*) FROM reasons").fetchone() != (0,)
    assert not list(here.rglob("*.parquet"))
    assert any(path.endswith(".parquet") for path in object_store.files().find(f"{store.shown(here)[5:]}/lake/data"))
