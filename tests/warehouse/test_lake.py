"""The lake itself: locks, missing and unwritable roots, registered rows."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from literal_crawls import Shot, Visit, write_crawl

from warehouse import connect, lake
from warehouse.errors import InputError
from warehouse.parameters import RuleParameters
from warehouse.publish import publish
from warehouse.register import register

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
RUN = {"run_id": "r", "kind": "build", "status": "running", "started_at": NOW, "host": "h", "code_version": "v"}


def test_missing_lake_names_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no lake under .*: run `gptface build"):
        connect(tmp_path / "nowhere")


def test_creating_is_idempotent_and_an_interrupted_creation_is_finished(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    lake.catalog_path(tmp_path).touch()  # a crash came right after the file was made
    with pytest.raises(InputError, match="no lake under"):
        connect(tmp_path)
    lake.create(tmp_path)
    lake.create(tmp_path)
    with connect(tmp_path) as con:
        assert con.execute("SELECT count(*) FROM corpus").fetchone() == (0,)
        assert con.execute("SELECT count(DISTINCT reason) FROM reasons").fetchone() == (len(lake.tables.reason_rows()),)


def test_texts_are_stored_so_that_they_are_read_fast(tmp_path: Path) -> None:
    publish(tmp_path, [write_crawl(tmp_path / "raw/x/g001", [Shot("a"), Shot("b")])])
    files = list((tmp_path / "lake" / "data" / "history").rglob("*.parquet"))
    codecs = [pq.ParquetFile(file).metadata.row_group(0).column(0).compression for file in files]
    assert len(codecs) >= 6 and set(codecs) == {"LZ4"}


def test_every_reason_has_a_stage() -> None:
    from warehouse.schema import Reason

    assert [row[0] for row in lake.tables.reason_rows()] == [r for r in Reason if r != "kept"] + ["kept"]


def test_lake_of_a_later_format_is_refused(tmp_path: Path) -> None:
    lake.create(tmp_path)
    with connect(tmp_path, read_only=False) as con:
        con.execute("UPDATE lake_format SET version = 99")
    with pytest.raises(InputError, match="has format 99"):
        connect(tmp_path)


def lake_of_format_1(root: Path) -> None:
    (root / "lake" / "data").mkdir(parents=True)
    statements = (Path(__file__).parent / "format1.sql").read_text().split(";\n")
    with contextlib.closing(lake._attach(root, read_only=False)) as con:
        for statement in filter(str.strip, statements):
            con.execute(statement)


@pytest.mark.e2e
def test_a_lake_of_the_first_format_is_brought_up_and_goes_on(tmp_path: Path) -> None:
    lake_of_format_1(tmp_path)
    with connect(tmp_path) as con:  # a reader brings it up, too
        assert con.execute("SELECT version FROM lake_format").fetchall() == [(lake.tables.FORMAT_VERSION,)]
        assert con.execute("SELECT caption FROM corpus").fetchall() == [("A smiling woman with brown hair",)]
        assert con.execute("SELECT count(*) FROM pages").fetchone() == (0,)
        assert con.execute("SELECT * FROM sources").fetchall() == [
            ("raw/x/g001", "list:test", "list:test", "", 2, None, 1)
        ]
        assert con.execute("SELECT tdmrep_status, tdmrep_json FROM hosts").fetchall() == [(0, "")]
        assert con.execute("SELECT status, etag FROM images ORDER BY status").fetchall() == [
            ("ok", None),
            ("refused", None),
        ]
    shots = [Shot("a"), Shot("b", refused="robots_txt")]
    old = write_crawl(tmp_path / "raw/x/g001", shots)
    for file, lacking in (("images/00000.parquet", ["final_url", "etag", "last_modified"]),):
        pq.write_table(pq.read_table(old / file).drop_columns(lacking), old / file)
    publish(tmp_path, [old])  # as that version wrote it
    new = write_crawl(tmp_path / "raw/x/g002", [Shot("c")], visits=[Visit("p1")])
    publish(tmp_path, [new])
    with connect(tmp_path) as con:
        assert con.execute("SELECT count(*) FROM history.pairs").fetchone() == (3,)
        assert con.execute("SELECT count(*) FROM corpus").fetchone() == (2,)
        assert con.execute("SELECT unit, release FROM sources ORDER BY crawl").fetchall()[0] == ("list:test", 1)
    with connect(tmp_path, at=1) as con:
        assert con.execute("SELECT count(*) FROM corpus").fetchone() == (1,)


@pytest.mark.e2e
def test_a_lake_of_the_format_before_gets_what_is_new_and_keeps_its_rows(tmp_path: Path) -> None:
    crawl = write_crawl(tmp_path / "raw/x/g000", [Shot("a"), Shot("b")])
    publish(tmp_path, [crawl])
    with connect(tmp_path, read_only=False) as con:  # as version 3 had it
        con.execute("DROP TABLE history.similarities")
        con.execute("DROP VIEW similarities")
        for table, column in (("faces", "flatness"), ("decisions", "clip_similarity"), ("corpus", "clip_similarity")):
            con.execute(f"ALTER TABLE history.{table} DROP COLUMN {column}")
        con.execute("DROP TABLE promotions")
        con.execute("ALTER TABLE models DROP COLUMN parent")
        con.execute("UPDATE lake_format SET version = 3")
    with connect(tmp_path) as con:
        assert con.execute("SELECT version FROM lake_format").fetchall() == [(lake.tables.FORMAT_VERSION,)]
        assert con.execute("SELECT count(*), count(clip_similarity) FROM corpus").fetchone() == (2, 0)
        assert con.execute("SELECT count(*), count(flatness) FROM faces").fetchone() == (2, 0)
        assert con.execute("SELECT count(*) FROM similarities").fetchone() == (0,)
        assert con.execute("SELECT count(parent) FROM models").fetchone() == (0,)
        assert con.execute("SELECT count(*) FROM promotions").fetchone() == (0,)
    # Faces parts of older versions have no flatness: such a face is of no known type, and passes.
    path = crawl / "faces/00000.faces.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["flatness"]), path)
    release = publish(tmp_path, [crawl], RuleParameters(image_type="photo"))
    assert (release.number, release.kept) == (2, 2)


@pytest.mark.e2e
def test_an_interrupted_upgrade_leaves_the_lake_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake_of_format_1(tmp_path)

    def die() -> list[str]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(lake.tables, "table_ddl", die)
        with pytest.raises(KeyboardInterrupt):
            connect(tmp_path)
    with contextlib.closing(lake._attach(tmp_path, read_only=True)) as con:
        assert con.execute("SELECT version FROM lake.lake_format").fetchall() == [(1,)]
        assert con.execute("SELECT parts FROM lake.sources").fetchall() == [(1,)]
    with connect(tmp_path) as con:
        assert con.execute("SELECT unit FROM sources").fetchall() == [("list:test",)]


def test_root_lock_names_the_holder_and_ends_with_its_process(tmp_path: Path) -> None:
    code = (
        "import sys, time; from warehouse.lake import root_lock\n"
        "with root_lock(sys.argv[1]): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"is being written by process {holder.pid}"), lake.root_lock(tmp_path):
            pass
        threading.Timer(0.5, holder.send_signal, [signal.SIGKILL]).start()
        with lake.root_lock(tmp_path, patience_s=30):
            assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"
    finally:
        holder.kill()
        holder.wait()


@pytest.mark.e2e
def test_catalogue_held_by_another_writer_is_one_clear_line_and_loses_nothing(tmp_path: Path) -> None:
    crawl = write_crawl(tmp_path / "raw/x/g001", [Shot("a")])
    publish(tmp_path, [crawl])
    second = write_crawl(tmp_path / "raw/x/g002", [Shot("b")])
    with catalogue_held(tmp_path, seconds=60), pytest.raises(InputError, match="is being written by another") as caught:
        publish(tmp_path, [second], patience_s=0)
    assert "\n" not in str(caught.value)
    with connect(tmp_path) as con:
        assert con.execute("SELECT count(*) FROM corpus").fetchone() == (1,)
    with catalogue_held(tmp_path, seconds=1):  # a short commit is waited for
        assert publish(tmp_path, [second]).number == 2


@contextlib.contextmanager
def catalogue_held(root: Path, seconds: float) -> Iterator[None]:
    """Another process in the middle of a commit."""
    code = (
        "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        f"c.execute('BEGIN IMMEDIATE'); print('held', flush=True); time.sleep({seconds}); c.execute('ROLLBACK')"
    )
    command = [sys.executable, "-c", code, str(lake.catalog_path(root))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            yield
        finally:
            holder.kill()


@pytest.mark.e2e
def test_two_processes_that_register_at_once_both_land(tmp_path: Path) -> None:
    lake.create(tmp_path)
    code = (
        "import datetime as dt, sys; from warehouse.register import register\n"
        "row = dict(kind='', status='', host='', started_at=dt.datetime.now(dt.UTC), code_version='', config='{}')\n"
        "for i in range(3): register(sys.argv[1], 'runs', row | {'run_id': f'{sys.argv[2]}{i}'}, patience_s=60)"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name]) for name in "ab"]
    assert [process.wait() for process in processes] == [0, 0]
    with connect(tmp_path) as con:
        assert con.execute("SELECT count(*) FROM runs").fetchone() == (6,)


def test_root_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("a file, no folder")
    with pytest.raises(OSError, match="root"):
        lake.create(tmp_path / "root")
    with pytest.raises(OSError, match="root"), lake.root_lock(tmp_path / "root"):
        pass


@pytest.mark.e2e
def test_full_disk_is_an_os_error_and_the_lake_stays_whole(tmp_path: Path) -> None:
    """A limit on file sizes stands in for the full disk: the write fails in the same place."""
    publish(tmp_path, [write_crawl(tmp_path / "raw/x/g001", [Shot("a")])])
    write_crawl(tmp_path / "raw/x/g002", [Shot(f"b{i}") for i in range(2000)])
    code = (
        "import sys; from pathlib import Path; from warehouse.publish import publish\n"
        "try: publish(Path(sys.argv[1]), [Path(sys.argv[1]) / 'raw/x/g002'])\n"
        "except OSError as error: print('OSError', error); sys.exit(2)"
    )

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))

    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], preexec_fn=limit, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout[:7]) == (2, "OSError"), run.stderr
    assert run.stdout.count("\n") == 1
    with connect(tmp_path) as con:
        assert con.execute("SELECT count(*), count(caption) FROM corpus").fetchone() == (1, 1)
        assert con.execute("SELECT count(*) FROM pairs").fetchone() == (1,)


def test_registered_rows_replace_those_of_the_same_key(tmp_path: Path) -> None:
    register(tmp_path, "runs", RUN | {"config": "{}"})
    register(tmp_path, "runs", RUN | {"config": "{}", "status": "done", "duration_s": 1.5})
    shard = {"release": 1, "split": "train", "file": "a.tar", "sha256": "0", "samples": 1, "bytes": 2}
    register(tmp_path, "shards", [shard, shard | {"file": "b.tar"}])
    with connect(tmp_path) as con:
        assert con.execute("SELECT status, duration_s FROM runs").fetchall() == [("done", 1.5)]
        assert con.execute("SELECT file FROM shards ORDER BY file").fetchall() == [("a.tar",), ("b.tar",)]


@pytest.mark.parametrize(
    ("table", "row", "message"),
    [
        ("corpus", {}, "no table 'corpus' to register in"),
        ("runs", {"colour": 1}, "has no column 'colour'"),
        ("runs", RUN, "needs a value for config"),
    ],
)
def test_wrong_rows_are_refused(tmp_path: Path, table: str, row: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        register(tmp_path, table, row)
