"""Real server, worker and deployments, as `gptface up` starts them: what a user does in another terminal works."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import psutil
import pytest

import warehouse
from tests.flows.test_model_steps import MICRO
from tests.flows.up_process import Up, start_up

pytestmark = pytest.mark.e2e
TINY = Path(__file__).with_name("tiny_flow.py")
BUILD = ("deployment", "run", "build-dataset/local", "--param", "detector=cascade")


@pytest.fixture(scope="module")
def prefect_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One `gptface up` for the tests that only use it."""
    up = start_up(tmp_path_factory.mktemp("up"))
    yield up
    if up.process.poll() is None:
        up.stop()


def _tiny(up: Up, kind: str, shards: int, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TINY), kind, str(shards), str(folder)]
    return subprocess.run(command, env=up.env, capture_output=True, text=True, timeout=120, check=False)


def _run_named(words: str) -> str:
    """Identity of the flow run in the output of `prefect deployment run`."""
    return words.split("UUID:")[1].split()[0]


def _tasks(up: Up, run: str) -> list[dict[str, Any]]:
    tasks: list[dict[str, Any]] = up.ask("/task_runs/filter", {"task_runs": {"flow_run_id": {"any_": [run]}}})
    return tasks


def test_deployed_build_completes_and_a_plain_duckdb_connection_reads_the_lake(prefect_up: Up) -> None:
    done = prefect_up.prefect(*BUILD, "--param", "source=sample:120", "--watch")
    assert done.returncode == 0, done.stdout + done.stderr
    kept = _count_with_plain_duckdb(prefect_up.root / "lake")
    assert 20 < kept <= 120

    run = _run_named(done.stdout)
    names = {task["name"] for task in _tasks(prefect_up, run)}
    assert {"extract", "plan", "hosts-00000", "consent-00000", "download-00000"} <= names
    assert {"detect-00000", "publish"} <= names
    artifacts = prefect_up.ask("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})
    by_key = {artifact["key"]: artifact for artifact in artifacts}
    assert {"build-summary", "build-reasons", "report"} <= set(by_key)
    reasons = {row["reason"]: row["pairs"] for row in json.loads(by_key["build-reasons"]["data"])}
    assert reasons["kept"] == kept
    assert f"| kept | {kept} |" in by_key["build-summary"]["data"]
    link = by_key["report"]["data"].split("(")[1].rstrip(")")
    with urllib.request.urlopen(link, timeout=30) as page:  # `gptface up` serves the report
        assert page.read() == (prefect_up.root / "reports" / "index.html").read_bytes()
    assert not (prefect_up.home / ".prefect").exists()  # Prefect's state lies below the root


@pytest.mark.slow
def test_a_second_build_finds_everything_done(prefect_up: Up) -> None:
    source = (*BUILD, "--param", "source=sample:120", "--watch")
    first = prefect_up.prefect(*source)
    assert first.returncode == 0, first.stdout + first.stderr
    kept = _count_with_plain_duckdb(prefect_up.root / "lake")
    again = prefect_up.prefect(*source)
    assert again.returncode == 0, again.stdout + again.stderr
    tasks = {task["name"] for task in _tasks(prefect_up, _run_named(again.stdout))}
    assert "publish" in tasks
    assert not {"download-00000", "detect-00000"} & tasks
    assert _count_with_plain_duckdb(prefect_up.root / "lake") == kept


@pytest.mark.slow
def test_deployed_training_evaluation_and_night(prefect_up: Up, tmp_path: Path) -> None:
    """All four deployments on one root: build, train, evaluate; then a night that finds more, and one that does not.

    So few faces are held out that nobody could tell the models apart: what was there stays.
    """
    preset = tmp_path / "micro.json"
    preset.write_text(json.dumps(MICRO))
    root = prefect_up.root / "night"
    shared = ("--param", f"root={root}", "--watch")
    micro = ("--param", f"preset={preset}")
    night = ("deployment", "run", "nightly-retrain/nightly", "--param", "source=sample:200", *micro, *shared)
    night += ("--param", "min_new_rows=1")
    for words in (
        (*BUILD, "--param", "source=sample:120", *shared),
        ("deployment", "run", "train-gptface/local", *micro, *shared),
        ("deployment", "run", "evaluate-gptface/local", *shared),
        night,
    ):
        done = prefect_up.prefect(*words)
        assert done.returncode == 0, done.stdout + done.stderr
    with warehouse.connect(root) as con:
        models = [row[0] for row in con.execute("SELECT model FROM models ORDER BY created_at").fetchall()]
        measured = con.execute("SELECT DISTINCT model, release FROM evaluations ORDER BY ALL").fetchall()
    assert models == ["micro-r00001-s0", "night-micro-r00002-s0"]
    assert set(measured) == {(models[0], 1), (models[1], 1)}, "not both measured on the faces of the first release"
    parent = json.loads((root / "models" / models[1] / "training.json").read_text())["parent"]
    assert parent == models[0]

    quiet = prefect_up.prefect(*night)
    assert quiet.returncode == 0, quiet.stdout + quiet.stderr
    run = _run_named(quiet.stdout)
    assert not {"train", "evaluate"} & {task["name"] for task in _tasks(prefect_up, run)}
    artifacts = prefect_up.ask("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})
    said = {artifact["key"]: artifact["data"] for artifact in artifacts}
    assert "No new faces" in said["night-summary"]
    with warehouse.connect(root) as con:
        decided = con.execute("SELECT action, model, why FROM promotions").fetchall()
    assert [row[:2] for row in decided] == [("keep", models[1])]
    assert "faces are too few to tell" in decided[0][2]


def _count_with_plain_duckdb(lake: Path) -> int:
    from duckdb_extensions import import_extension

    for extension in ("ducklake", "sqlite_scanner"):
        import_extension(extension)
    with duckdb.connect() as con:
        con.execute(f"ATTACH 'ducklake:sqlite:{lake}/catalog.sqlite' AS lake (READ_ONLY)")
        row = con.execute("SELECT count(*) FROM lake.corpus").fetchone()
    assert row is not None
    return int(row[0])


def test_a_users_mistake_fails_the_run_with_one_clear_line(prefect_up: Up, tmp_path: Path) -> None:
    refused = prefect_up.prefect(*BUILD, "--param", 'settings={"nonsense": 1}')
    assert refused.returncode != 0
    assert "'nonsense' was unexpected" in refused.stdout + refused.stderr
    missing = tmp_path / "missing.csv"
    failed = prefect_up.prefect(*BUILD, "--param", f"source=list:{missing}", "--watch")
    assert failed.returncode != 0
    state = prefect_up.state(_run_named(failed.stdout))
    assert state["type"] == "FAILED"
    assert str(missing) in state["message"]
    assert len(state["message"].splitlines()) == 1


def test_shards_are_named_tasks_in_order_and_a_killed_worker_costs_a_retry(prefect_up: Up, tmp_path: Path) -> None:
    done = _tiny(prefect_up, "die_once", 6, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "died").exists()
    assert (tmp_path / "broke").exists()  # a step whose connection broke is tried again, too
    told = json.loads((tmp_path / "found.json").read_text())
    assert (told["total"], told["found"]) == (7, [1000, 1001, 1004, 1009, 1016, 1025])
    assert told["kept"] == 0, "Prefect holds the result of a shard to the end of the flow"
    assert 0 <= told["waiting"] < 100
    assert "detect-00005" in done.stderr
    assert "plan: 1 of 2, halfway" in done.stderr


@pytest.mark.slow
def test_a_fault_is_not_tried_again_and_starts_no_further_shard(prefect_up: Up, tmp_path: Path) -> None:
    done = _tiny(prefect_up, "reject", 60, tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == "ValueError: no such thing 'foo'"
    tries = {path.name: path.read_text() for path in tmp_path.glob("tried-*")}
    assert set(tries.values()) == {"x"}
    assert len(tries) < 30


@pytest.mark.slow
def test_a_run_that_takes_too_long_is_ended_with_its_processes(prefect_up: Up, tmp_path: Path) -> None:
    done = _tiny(prefect_up, "sleep", 4, tmp_path)
    assert done.returncode == 1
    said = "TimeoutError: not done within timeout_minutes=0.4: finished parts are kept, run it again to go on"
    assert done.stderr.strip().splitlines()[-1] == said
    pids = [int(path.name.removeprefix("pid-")) for path in tmp_path.glob("pid-*")]
    assert pids
    assert not any(psutil.pid_exists(pid) for pid in pids)
    runs = prefect_up.ask("/flow_runs/filter", {"flow_runs": {"state": {"name": {"any_": ["TimedOut"]}}}})
    assert len(runs) == 1


@pytest.mark.slow
def test_cancelling_a_build_stops_all_its_processes(prefect_up: Up) -> None:
    asked = prefect_up.prefect(*BUILD, "--param", "source=sample:3000", "--param", "root=" + str(prefect_up.root / "x"))
    run = _run_named(asked.stdout)
    family = _until_shards_run(prefect_up, run)
    assert prefect_up.prefect("flow-run", "cancel", run).returncode == 0
    assert prefect_up.until_ended(run)["type"] == "CANCELLED"
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive


def _until_shards_run(up: Up, run: str, limit_s: float = 120) -> list[psutil.Process]:
    """Wait for a shard under way; the run's processes: those that our `up` started beyond its own three."""
    deadline = time.monotonic() + limit_s
    while not any(task["name"].startswith(("download-", "detect-")) for task in _tasks(up, run)):
        assert time.monotonic() < deadline, up.state(run)
        time.sleep(0.5)
    time.sleep(2)
    family = psutil.Process(up.process.pid).children(recursive=True)
    engines = [process for process in family if "prefect.engine" in " ".join(process.cmdline())]
    assert len(engines) == 1
    workers = engines[0].children(recursive=True)
    assert workers
    return [*engines, *workers]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_end_of_up_is_the_end_of_all_its_processes(tmp_path: Path, number: int) -> None:
    up = start_up(tmp_path)
    asked = up.prefect(*BUILD, "--param", "source=sample:3000")
    run = _run_named(asked.stdout)
    _until_shards_run(up, run)
    family = psutil.Process(up.process.pid).children(recursive=True)
    assert len(family) >= 5
    code = up.stop(number)
    assert code == (0 if number != signal.SIGKILL else -signal.SIGKILL)
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive

    # The next `up` on this root knows that the run is over.
    again = start_up(tmp_path)
    try:
        assert again.state(run)["type"] in ("CRASHED", "CANCELLED", "FAILED")
    finally:
        again.stop()


@pytest.mark.slow
def test_up_ends_when_its_server_is_killed(tmp_path: Path) -> None:
    up = start_up(tmp_path)
    family = psutil.Process(up.process.pid).children(recursive=True)
    server = next(process for process in family if "server" in process.cmdline())
    server.kill()
    assert up.process.wait(60) == 1
    assert "the server ended with code -9" in (tmp_path / "up.log").read_text()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive
