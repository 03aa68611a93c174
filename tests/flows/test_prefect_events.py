"""What starts and ends by itself on a real server: a training after a release, an evaluation after a model, zombies."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

import warehouse
from flows.automations import EVALUATION, HEARTBEAT, SNAPSHOT_PUBLISHED, TRAINING, AutoTrain, automations, crash_zombies
from flows.cli.prefect_api import PrefectApi
from tests.flows.test_model_steps import MICRO
from tests.flows.up_process import Up, start_up

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("preset") / "micro.json"
    path.write_text(json.dumps(MICRO))
    return path


@pytest.fixture(scope="module")
def auto_up(tmp_path_factory: pytest.TempPathFactory, preset: Path) -> Iterator[Up]:
    """A `gptface up` on which releases start trainings in two processes."""
    words = ("--auto-train", "--train-preset", str(preset), "--train-processes", "2")
    up = start_up(tmp_path_factory.mktemp("up"), *words)
    yield up
    if up.process.poll() is None:
        up.stop()


def _until(found: Callable[[], Any], limit_s: float = 120) -> Any:
    deadline = time.monotonic() + limit_s
    while not (value := found()):
        assert time.monotonic() < deadline, f"nothing after {limit_s} s"
        time.sleep(0.2)
    return value


def _deployment(up: Up, name: str) -> str:
    return str(up.ask(f"/deployments/name/{name}")["id"])


def _runs(up: Up, deployment: str) -> list[dict[str, Any]]:
    """Flow runs of a deployment, the oldest first."""
    body = {"deployments": {"id": {"any_": [_deployment(up, deployment)]}}}
    runs: list[dict[str, Any]] = up.ask("/flow_runs/filter", body)
    return sorted(runs, key=lambda run: run["created"])


def _trainers(up: Up) -> dict[str, psutil.Process]:
    """The processes that train now, by rank of two."""
    found = {}
    for process in psutil.Process(up.process.pid).children(recursive=True):
        try:
            env = process.environ()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if env.get("WORLD_SIZE") == "2" and "gptface_core" in process.cmdline():
            found[env["RANK"]] = process
    return found


def _events(up: Up, name: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = up.ask("/events/filter", {"filter": {"event": {"name": [name]}}})["events"]
    return events


def test_a_release_starts_training_by_two_processes_on_the_gpu_pool_and_that_an_evaluation(
    auto_up: Up, preset: Path
) -> None:
    build = ("deployment", "run", "build-dataset/local", "--param", "detector=cascade")
    build += ("--param", "source=sample:120", "--watch")
    done = auto_up.prefect(*build)
    assert done.returncode == 0, done.stdout + done.stderr
    root = str(auto_up.root.resolve())

    training = _until(lambda: _runs(auto_up, TRAINING))[0]
    assert training["work_pool_name"] == "gptface-gpu"
    assert training["created_by"]["type"] == "AUTOMATION"
    told = {"root": root, "release": 1, "preset": str(preset), "processes": 2}
    assert training["parameters"] == training["parameters"] | told
    assert set(_until(lambda: len(found := _trainers(auto_up)) == 2 and found)) == {"0", "1"}
    state = auto_up.until_ended(training["id"], 180)
    assert state["type"] == "COMPLETED", state

    evaluation = _until(lambda: _runs(auto_up, EVALUATION))[0]
    assert evaluation["work_pool_name"] == "gptface-cpu"
    told = {"root": root, "release": 1, "model": "micro-r00001-s0"}
    assert evaluation["parameters"] == evaluation["parameters"] | told
    state = auto_up.until_ended(evaluation["id"], 180)
    assert state["type"] == "COMPLETED", state
    with warehouse.connect(auto_up.root) as con:
        assert con.execute("SELECT model, release FROM models").fetchall() == [("micro-r00001-s0", 1)]
        assert con.execute("SELECT DISTINCT model, release FROM evaluations").fetchall() == [("micro-r00001-s0", 1)]

    # Nothing new: no event, hence no second training.
    again = auto_up.prefect(*build)
    assert again.returncode == 0, again.stdout + again.stderr
    assert len(_events(auto_up, SNAPSHOT_PUBLISHED)) == len(_runs(auto_up, TRAINING)) == 1


def test_automations_are_changed_and_not_doubled_when_up_starts_again(auto_up: Up, preset: Path) -> None:
    def installed() -> dict[str, bool]:
        found = auto_up.ask("/automations/filter", {})
        assert len({row["name"] for row in found}) == len(found)
        return {row["name"]: row["enabled"] for row in found}

    def install(train: AutoTrain) -> None:
        documents = automations({name: _deployment(auto_up, name) for name in (TRAINING, EVALUATION)}, train)
        _until(lambda: all(map(PrefectApi(auto_up.api).put_automation, documents)))

    before = installed()
    assert len(before) == 3 and all(before.values())
    try:
        install(AutoTrain())
        assert [name for name, on in installed().items() if on] == [crash_zombies()["name"]]
        assert set(installed()) == set(before)
    finally:
        install(AutoTrain(True, str(preset), 2))


def test_a_run_without_heartbeats_is_marked_as_crashed_and_one_with_them_is_not(auto_up: Up) -> None:
    """The automation that `up` installs, with a shorter time."""
    quick = crash_zombies(within_s=20) | {"name": "zombies at once"}
    _until(lambda: PrefectApi(auto_up.api).put_automation(quick))
    flow = auto_up.ask("/flows/", {"name": "stand-in"})["id"]
    running = {"type": "RUNNING", "name": "Running"}
    dead, alive = (auto_up.ask("/flow_runs/", {"flow_id": flow, "state": running})["id"] for _ in range(2))

    def beat(*runs: str) -> None:
        now = datetime.now(UTC).isoformat()
        resources = [{"prefect.resource.id": f"prefect.flow-run.{run}"} for run in runs]
        events = [
            {"occurred": now, "event": HEARTBEAT, "resource": each, "id": str(uuid.uuid4())} for each in resources
        ]
        auto_up.ask("/events", events)

    def is_crashed() -> bool:
        beat(alive)
        time.sleep(2)
        return bool(auto_up.state(dead)["type"] == "CRASHED")

    beat(dead, alive)
    try:
        _until(is_crashed)
    finally:  # a training tells of itself once a minute: this one would end the next test's
        named = auto_up.ask("/automations/filter", {"automations": {"name": {"any_": [quick["name"]]}}})
        auto_up.ask(f"/automations/{named[0]['id']}", method="DELETE")
    assert auto_up.state(dead)["message"].startswith("no sign of life")
    assert auto_up.state(alive)["type"] == "RUNNING"


def test_a_suspended_and_a_cancelled_training_leave_no_process_and_save_their_step(auto_up: Up, tmp_path: Path) -> None:
    """Of torchrun, too. Between the two the training is resumed."""
    long = tmp_path / "long.json"
    long.write_text(json.dumps(MICRO | {"name": "long", "tokenizer_training": {"steps": 100_000, "batch": 8}}))
    given = {"root": str(auto_up.root), "preset": str(long), "processes": 2, "release": 1}
    run = auto_up.ask(f"/deployments/{_deployment(auto_up, TRAINING)}/create_flow_run", {"parameters": given})["id"]
    model = auto_up.root / "models" / "long-r00001-s0"

    def family() -> list[psutil.Process]:
        """Both processes, torchrun and the flow's own, once they take steps."""
        curves = model / "tensorboard" / "tokenizer"
        before = len(list(curves.glob("events.*")))
        _until(lambda: len(list(curves.glob("events.*"))) > before, 180)
        workers = list(_trainers(auto_up).values())
        assert len(workers) == 2
        return [*workers, *workers[0].parents()[:2]]

    def saved() -> list[str]:
        return sorted(path.name for path in (model / "checkpoints").glob("tokenizer-*.safetensors"))

    running = family()
    suspended = {"type": "PAUSED", "name": "Suspended", "state_details": {"pause_reschedule": True}}
    answer = auto_up.ask(f"/flow_runs/{run}/set_state", {"state": suspended})
    assert answer["status"] == "ACCEPT", answer
    _, left = psutil.wait_procs(running, timeout=60)
    assert not left
    assert auto_up.state(run)["name"] == "Suspended"
    first = saved()
    assert first

    answer = auto_up.ask(f"/flow_runs/{run}/resume", {})
    assert answer["status"] == "ACCEPT", answer
    running = family()
    assert auto_up.prefect("flow-run", "cancel", run).returncode == 0
    assert auto_up.until_ended(run)["type"] == "CANCELLED"
    _, left = psutil.wait_procs(running, timeout=40)
    assert not left
    assert saved()[-1] > first[-1], "the resumed training went not on from where it was"
