"""The Prefect side without a server: children, locks, parameters, deployments, artifacts."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from pydantic import ValidationError

from flows.automations import EVALUATION, TRAINING, AutoTrain, automations
from flows.cli import up
from flows.parameters import BuildSettings, ChallengeSettings, RetentionSettings
from flows.steps.children import start_child, stop_children
from flows.steps.config import BuildConfig, NightConfig, RetentionConfig, from_dict
from flows.train_gptface import train_gptface
from warehouse.errors import InputError

CLONE = Path(__file__).resolve().parents[2]
# A shell that starts a child of its own; both outlive SIGTERM, as a stuck run would.
STUBBORN = "trap '' TERM; (trap '' TERM; sleep 300) & echo $!; wait; sleep 300"


def _wait_for_number(log: Path) -> int:
    for _ in range(100):
        if log.read_text().strip():
            return int(log.read_text())
        time.sleep(0.05)
    raise AssertionError("the child wrote nothing")


def _gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def _eventually_gone(pid: int) -> bool:
    for _ in range(100):
        if _gone(pid):
            return True
        time.sleep(0.05)
    return False


def test_stop_ends_a_child_that_ignores_sigterm_and_its_own_children(tmp_path: Path) -> None:
    child = start_child("stuck", ["sh", "-c", STUBBORN], tmp_path / "log", dict(os.environ), tmp_path)
    grandchild = _wait_for_number(child.log)
    stop_children([child], grace_s=0.2)
    assert not child.alive()
    assert _eventually_gone(grandchild)


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("the kernel's death signal is a Linux feature")
    script = (
        "import os, sys, time; from pathlib import Path; from flows.steps.children import start_child\n"
        "child = start_child('c', ['sleep', '300'], Path('log'), dict(os.environ), Path('.'))\n"
        "print(child.process.pid, flush=True); time.sleep(300)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert not _gone(pid)
    parent.kill()
    parent.wait()
    assert _eventually_gone(pid)


def test_a_child_that_ended_is_named_with_its_log(tmp_path: Path) -> None:
    child = start_child("server", ["sh", "-c", "echo boom; exit 3"], tmp_path / "log", dict(os.environ), tmp_path)
    child.process.wait()
    with pytest.raises(up.StartError, match="the server ended with code 3") as caught:
        up._check([child])
    assert caught.value.tail == "boom"


def test_environment_names_our_server_and_leaves_the_users_profile_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", "secret")
    monkeypatch.setenv("PREFECT_API_URL", "https://elsewhere.example/api")
    monkeypatch.setenv("PREFECT_PROFILE", "work")
    env = up.child_environment(tmp_path, up.Address(4200, 4201))
    assert env["PREFECT_API_URL"] == "http://127.0.0.1:4200/api"
    assert env["PREFECT_HOME"] == str(tmp_path / "prefect")
    assert env["GPTFACE_ROOT"] == str(tmp_path)
    assert env["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert not {"PREFECT_API_KEY", "PREFECT_PROFILE"} & set(env)


def test_second_up_on_one_root_is_refused(tmp_path: Path) -> None:
    with (
        up._one_per_root(tmp_path),
        pytest.raises(InputError, match="already runs on"),
        up._one_per_root(tmp_path),
    ):
        pass
    with up._one_per_root(tmp_path):  # the lock ends with its holder
        pass


def test_taken_port_is_named() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} .*--port"):
            up._free_address(port)


def test_root_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"not writable .*--root"), up._one_per_root(tmp_path / "file"):
        pass


def test_stop_signal_is_heard_and_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with up._stop_signal() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(2)
    assert signal.getsignal(signal.SIGTERM) == before


def test_settings_are_the_configs_fields_with_its_defaults() -> None:
    top_level = {"source", "root", "detector", "refresh"}
    config = BuildConfig(source="sample:600")
    expected = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    settings = BuildSettings().model_dump()
    assert set(settings) == set(expected) - top_level
    made = from_dict(BuildConfig, {"source": "sample:600", **settings})
    assert made == config


def test_settings_of_a_night_are_the_configs_fields_with_its_defaults() -> None:
    assert RetentionConfig(**RetentionSettings().model_dump()) == RetentionConfig()
    night = NightConfig(BuildConfig(source="sample:600"))
    own = {"build", "preset", "seed", "min_new_rows", "retention"}
    told = {field.name: getattr(night, field.name) for field in dataclasses.fields(night) if field.name not in own}
    assert ChallengeSettings().model_dump() == told


def test_unknown_setting_is_refused() -> None:
    with pytest.raises(ValidationError, match="nonsense"):
        BuildSettings.model_validate({"nonsense": 1})


def test_rules_reach_the_config() -> None:
    made = from_dict(BuildConfig, {"source": "sample:600", **BuildSettings(rules={"min_face_px": 32}).model_dump()})
    assert made.rules.min_face_px == 32


def test_deployments_name_real_flows_and_no_path_of_this_machine() -> None:
    text = (CLONE / "prefect.yaml").read_text()
    assert str(CLONE) not in text
    config = yaml.safe_load(text)
    names = set()
    for deployment in config["deployments"]:
        module, function = deployment["entrypoint"].rsplit(".", 1)
        flow = getattr(importlib.import_module(module), function)
        assert flow.persist_result is False  # a result would be a pickle
        names.add(f"{flow.name}/{deployment['name']}")
        assert deployment["work_pool"]["name"] == (up.GPU_POOL if deployment["name"] == "gpu" else up.POOL)
    local = {f"{name}/local" for name in ("build-dataset", "train-gptface", "evaluate-gptface", "takedown")}
    assert names == {*local, TRAINING, "nightly-retrain/nightly"}
    assert EVALUATION in local
    assert config["pull"]
    nightly = config["deployments"][-1]
    assert nightly["schedules"][0]["cron"]
    assert nightly["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}


def test_automations_are_what_prefect_takes_and_off_unless_asked_for() -> None:
    from prefect.events.schemas.automations import AutomationCore

    deployments = dict.fromkeys((TRAINING, EVALUATION), "5f1d1b4c-2f0e-4c38-9d7c-0d5a5b0c1e00")
    off, on = (automations(deployments, AutoTrain(chosen, "tiny", 2)) for chosen in (False, True))
    assert [each["enabled"] for each in off] == [False, False, True]
    assert [each["enabled"] for each in on] == [True, True, True]
    for each in on:
        AutomationCore.model_validate(each)
    training = on[0]["actions"][0]["parameters"]
    assert (training["preset"], training["processes"]) == ("tiny", 2)
    names = inspect.signature(train_gptface.fn).parameters
    assert set(training) <= set(names)


def test_what_takes_too_long_is_ended_and_says_by_which_parameter() -> None:
    from flows.prefect_runner import PrefectRunner

    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"timeout_minutes=0\.01: finished parts are kept"), PrefectRunner(1, 0.01):
        time.sleep(60)
    assert time.monotonic() - started < 30
    with PrefectRunner(1):
        pass


def test_shards_are_named_after_their_part() -> None:
    from flows.prefect_runner import shard_name

    @dataclasses.dataclass
    class Job:
        part: int

    assert shard_name("detect", Job(3), 0) == "detect-00003"
    assert shard_name("shard", "val", 7) == "shard-00007"


def test_markdown_table_escapes_what_crawled_text_may_hold() -> None:
    from flows.prefect_artifacts import markdown_table

    table = markdown_table({"a|b": "<script>", "n": 1234, "nested": {"x": 0.123456, "ok": True}, "curve": [1.0] * 9})
    assert table.splitlines()[2:] == [
        "| a\\|b | &lt;script> |",
        "| n | 1,234 |",
        "| nested.x | 0.1235 |",
        "| nested.ok | yes |",
    ]
