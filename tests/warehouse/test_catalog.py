"""A catalogue in PostgreSQL (a real server), and two writers at once there and on SQLite."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from literal_crawls import Shot, write_crawl

from tests.postgres_cluster import Cluster
from warehouse import catalog, connect, lake, publish, writers
from warehouse.diff import diff
from warehouse.errors import InputError
from warehouse.parameters import RuleParameters
from warehouse.query import run_query
from warehouse.register import register
from warehouse.whatif import what_if

pytestmark = pytest.mark.e2e

FIRST = [Shot("a"), Shot("b", face_px=70), Shot("c", refused="robots_txt")]
SECOND = [Shot("a", captions=(("alt", "A man with a grey beard"),)), Shot("d")]


def fill(root: Path) -> None:
    """Two releases, as every command finds them."""
    publish.publish(root, [write_crawl(root / "raw/x/g000", FIRST)])
    publish.publish(root, [write_crawl(root / "raw/x/g001", SECOND)])
    row = {"run_id": "r", "kind": "build", "status": "", "started_at": "2026-01-01 00:00:00+00", "host": ""}
    register(root, "runs", row | {"code_version": "", "config": "{}"})


def answers(root: Path) -> list[Any]:
    """What the reading commands say about a root, times left out."""
    strict, loose = RuleParameters(min_face_px=96), RuleParameters()
    found: list[Any] = [diff(root, 1, 2).as_dict(), what_if(root, loose, strict).total]
    for at in (None, 1):
        for query in (
            "FROM corpus ORDER BY ALL",
            "FROM funnel",
            "SELECT run_id FROM runs",
            "FROM captions ORDER BY ALL",
        ):
            out = io.StringIO()
            run_query(root, query, "json", out, at)
            found.append(json.loads(out.getvalue()))
    return found


@pytest.mark.slow
def test_postgresql_says_what_sqlite_says(tmp_path: Path, postgres: str) -> None:
    lake.choose_catalog(tmp_path / "p", postgres)
    lake.choose_catalog(tmp_path / "p", postgres)  # again: nothing to do
    for name in ("p", "s"):
        fill(tmp_path / name)
    assert answers(tmp_path / "p") == answers(tmp_path / "s")
    assert answers(tmp_path / "p")[1].lost == 1
    assert not lake.catalog_path(tmp_path / "p").exists()
    assert catalog.catalog_address(tmp_path / "p") == postgres
    again = publish.publish(tmp_path / "p", [tmp_path / "p/raw/x/g000", tmp_path / "p/raw/x/g001"])
    assert (again.number, again.created) == (2, False)


def test_a_moved_root_is_found_and_a_copied_one_is_refused(tmp_path: Path, postgres: str) -> None:
    lake.choose_catalog(tmp_path / "a", postgres)
    publish.publish(tmp_path / "a", [write_crawl(tmp_path / "a/raw/x/g000", FIRST)])
    (tmp_path / "a").rename(tmp_path / "b")
    crawl = write_crawl(tmp_path / "b/raw/x/g001", SECOND)
    assert publish.publish(tmp_path / "b", [crawl]).kept == 3
    shutil.copytree(tmp_path / "b", tmp_path / "c")
    with pytest.raises(InputError, match=r"c is a copy of .*b, whose catalogue is"):
        publish.publish(tmp_path / "c", [crawl])
    with pytest.raises(InputError, match=r"holds the lake of .*b: give .*d a database of its own"):
        lake.choose_catalog(tmp_path / "d", postgres)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("postgres://u:secret@h/db", "holds a password"),
        ("postgres://h/db?password=secret", "holds a password"),
        ("mysql://h/db", "no catalogue address 'mysql://h/db': give postgres://"),
        ("postgres://h", "no catalogue address"),
        ("postgres://u@127.0.0.1:1/db", r"catalogue postgres://u@127.0.0.1:1/db cannot be reached: .*refused"),
    ],
)
def test_wrong_addresses_are_refused_in_one_line(tmp_path: Path, address: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        lake.choose_catalog(tmp_path, address)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert not lake.has_lake(tmp_path)


def test_a_root_keeps_its_catalogue(tmp_path: Path, postgres: str, postgres_cluster: Cluster) -> None:
    lake.create(tmp_path / "s")
    with pytest.raises(InputError, match=r"catalogue of .* is .*catalog\.sqlite, not postgres"):
        lake.choose_catalog(tmp_path / "s", postgres)
    lake.choose_catalog(tmp_path / "p", postgres)
    with pytest.raises(InputError, match=f"is {postgres}, not postgres"):
        lake.choose_catalog(tmp_path / "p", postgres_cluster.new_database())


def test_a_database_that_is_gone_is_one_clear_line(
    tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.choose_catalog(tmp_path, postgres)
    with pytest.raises(InputError, match="no lake under"):
        connect(tmp_path)
    lake.create(tmp_path)
    monkeypatch.setenv("PGPASSWORD", "wrong")
    for action in (connect, lake.create):
        with pytest.raises(InputError, match=r"cannot be reached: .*password authentication failed") as caught:
            action(tmp_path)
        assert "\n" not in str(caught.value)


def test_a_connection_that_breaks_loses_nothing(
    tmp_path: Path, postgres: str, postgres_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.choose_catalog(tmp_path, postgres)
    publish.publish(tmp_path, [write_crawl(tmp_path / "raw/x/g000", FIRST)])
    second = write_crawl(tmp_path / "raw/x/g001", SECOND)
    record = publish._record

    def cut(*arguments: Any) -> None:
        record(*arguments)
        others = "pid <> pg_backend_pid() AND datname IS NOT NULL"
        kill = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"
        postgres_cluster.run("psql", "-c", kill, "postgres")

    with monkeypatch.context() as patch:
        patch.setattr(publish, "_record", cut)
        with pytest.raises(OSError, match=r"lake under .* broke") as caught:
            publish.publish(tmp_path, [second], patience_s=0)
    assert "\n" not in str(caught.value)
    with connect(tmp_path) as con:
        assert con.execute("SELECT max(release), count(*) FROM releases").fetchone() == (1, 1)
        assert con.execute("SELECT count(*) FROM history.pairs").fetchone() == (3,)
    assert publish.publish(tmp_path, [second]).number == 2


@pytest.mark.parametrize(
    "sql",
    [
        "from postgres_query('lake', 'select 1')",
        "from postgres_query('__ducklake_metadata_lake', 'select 1')",
        "from postgres_scan('{address}', 'public', 'ducklake_metadata')",
        "from __ducklake_metadata_lake.public.ducklake_metadata",
        "from '{address}'",
        "call postgres_execute('__ducklake_metadata_lake', 'drop table ducklake_metadata')",
        "attach '{address}' as x (type postgres)",
        "select * from read_text('/etc/passwd')",
    ],
)
def test_user_sql_reaches_the_views_and_nothing_else(filled_postgres: Path, sql: str) -> None:
    address = catalog.catalog_address(filled_postgres)
    with pytest.raises(InputError) as caught:
        run_query(filled_postgres, sql.format(address=address), "json", io.StringIO())
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def filled_postgres(tmp_path_factory: pytest.TempPathFactory, postgres_cluster: Cluster) -> Any:
    root = tmp_path_factory.mktemp("filled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSWORD", postgres_cluster.password)
        lake.choose_catalog(root, postgres_cluster.new_database())
        publish.publish(root, [write_crawl(root / "raw/x/g000", FIRST)])
        yield root


@pytest.fixture(params=["sqlite", "postgres"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A root on either catalogue."""
    if request.param == "postgres":
        lake.choose_catalog(tmp_path, request.getfixturevalue("postgres"))
    return tmp_path


PUBLISH = """
import sys, time
from pathlib import Path
from warehouse.publish import publish
root, name, at, patience_s = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
time.sleep(max(0.0, at - time.time()))
for generation in (0, 1):
    try: print(publish(root, [root / f'raw/{name}/g{generation:03d}'], patience_s=patience_s).number, flush=True)
    except ValueError as error: print('refused', error, flush=True)
"""


def publish_twice_in(root: Path, names: str, patience_s: float) -> list[list[str]]:
    """One process per name, all at the same moment, each publishing two crawls; what each printed."""
    for name in names:
        for generation in (0, 1):
            write_crawl(root / f"raw/{name}/g{generation:03d}", [Shot(f"{name}{generation}{i}") for i in range(5)])
    at = str(time.time() + 2)
    command = [sys.executable, "-c", PUBLISH, str(root)]
    processes = [
        subprocess.Popen([*command, name, at, str(patience_s)], stdout=subprocess.PIPE, text=True) for name in names
    ]
    return [process.communicate()[0].splitlines() for process in processes]


@pytest.mark.slow
def test_two_writers_at_once_both_land(root: Path) -> None:
    printed = publish_twice_in(root, "xy", patience_s=120)
    assert sorted(int(number) for lines in printed for number in lines) == [1, 2, 3, 4]
    with connect(root) as con:
        assert con.execute("SELECT release FROM releases ORDER BY release").fetchall() == [(n,) for n in (1, 2, 3, 4)]
        assert con.execute("SELECT count(*), count(DISTINCT row_id) FROM pairs").fetchone() == (20, 20)
        assert con.execute("SELECT count(*) FROM corpus").fetchone() == (20,)
    for release in (1, 2, 3, 4):
        with connect(root, at=release) as con:
            assert con.execute("SELECT count(*) FROM corpus").fetchone() == (5 * release,)


@pytest.mark.slow
def test_of_two_impatient_writers_one_is_told_and_nothing_is_lost(root: Path) -> None:
    printed = publish_twice_in(root, "xy", patience_s=0)
    lines = [line for lines in printed for line in lines]
    landed = [line for line in lines if line.isdigit()]
    for line in set(lines) - set(landed):
        assert "is being written by another process: try again" in line
    assert sorted(map(int, landed)) == list(range(1, len(landed) + 1))
    with connect(root) as con:
        assert con.execute("SELECT count(*) FROM corpus").fetchone() == (5 * len(landed),)
    for name in "xy":  # what was refused goes in the next time
        publish.publish(root, [root / f"raw/{name}/g{generation:03d}" for generation in (0, 1)])
    with connect(root) as con:
        assert con.execute("SELECT count(*) FROM corpus").fetchone() == (20,)


def test_the_lock_is_free_again_when_its_holder_is_killed(root: Path) -> None:
    lake.create(root)
    code = (
        "import sys, time; from pathlib import Path; from warehouse.writers import writer_lock\n"
        "with writer_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(writers.LakeBusyError), lake.writing(root):
            pass
        with contextlib.closing(connect(root)) as con:  # readers do not wait
            assert con.execute("SELECT count(*) FROM corpus").fetchone() == (0,)
        holder.kill()
        holder.wait()
        lake.create(root)
    finally:
        holder.kill()
        holder.wait()


def test_vacuum_leaves_the_catalogue_whole(filled_postgres: Path) -> None:
    address = catalog.catalog_address(filled_postgres)
    assert address is not None
    catalog.vacuum_postgres(address)
    with connect(filled_postgres) as con:
        assert con.execute("SELECT count(*) FROM corpus").fetchone() == (2,)
