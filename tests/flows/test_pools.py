"""Which workers a build gets, and what is said where it cannot get them. Real clusters: test_ray_e2e."""

from __future__ import annotations

import socket
import subprocess
import sys
from concurrent.futures import BrokenExecutor, CancelledError
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from flows.cli import app as cli
from flows.steps.config import BuildConfig, ConfigError, from_dict
from flows.steps.pools import gpu_steps, open_pool
from flows.steps.ray_pool import DEATHS, RayPool, task_options
from flows.steps.runner import WorkerPool


def config(**settings: object) -> BuildConfig:
    return from_dict(BuildConfig, {"source": "list:x.csv", **settings})


def test_without_a_word_it_is_this_machine() -> None:
    given = config(workers=3)
    used, pool = open_pool(given)
    with pool:
        assert isinstance(pool, WorkerPool)
        assert (used, pool.workers, pool.window) == (given, 3, 6)


def test_another_runner_is_named() -> None:
    with pytest.raises(ConfigError, match="unknown runner 'spark': choose from local, ray"):
        config(runner="spark")


def test_a_build_here_does_not_import_ray() -> None:
    code = "import sys, flows.steps.pools, flows.steps.ray_pool, flows.cli.corpus; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_only_steps_that_work_on_gpus_ask_for_one() -> None:
    assert gpu_steps(config()) == {}
    assert gpu_steps(config(provider="CUDAExecutionProvider")) == {"detect": 1.0, "embed": 1.0}
    assert gpu_steps(config(clip="ViT-B-32:x", clip_device="cuda", ray_gpus=0.25)) == {"clip": 0.25}
    assert gpu_steps(config(clip_device="cuda")) == {}, "nothing is measured"
    assert gpu_steps(config(provider="CUDAExecutionProvider", ray_gpus=0)) == {}


def test_a_shard_takes_a_cpu_and_is_tried_again_after_a_death_alone() -> None:
    assert task_options() == {"num_cpus": 1, "max_retries": DEATHS, "retry_exceptions": False}
    assert task_options(0.5) == {**task_options(), "num_gpus": 0.5, "max_calls": 1}


def test_ray_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"Ray is not installed: pip install 'gptface\[ray\]'.*--runner local"):
        RayPool("auto", tmp_path)


# With Ray, without a cluster.


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs Ray (extra `ray`)")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "none"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.mark.usefixtures("no_cluster")
def test_a_cluster_that_does_not_answer_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        words = ["build", "list:x.csv", "--root", str(tmp_path / "root"), "--runner", "ray", "--ray-address", address]
        error = CliRunner().invoke(cli.app, words).exception
    assert isinstance(error, ConfigError)  # flows.cli.main makes it a line and exit code 2
    assert "no Ray cluster can be reached at" in str(error)
    assert "--ray-address HOST:PORT" in str(error)
    assert "\n" not in str(error)
    assert not (tmp_path / "root").exists()


@pytest.mark.usefixtures("no_cluster")
@pytest.mark.parametrize("address", ["ray://head:10001", "head", "head:6379/x", "head:"])
def test_an_address_that_is_none_is_named(address: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ray_address='.*': give HOST:PORT of the cluster's head, or auto"):
        RayPool(address, tmp_path)


@pytest.mark.usefixtures("no_cluster")
@pytest.mark.parametrize("told_by", ["environment", "ray start"])
def test_auto_finds_the_address_that_was_told(told_by: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if told_by == "environment":
        monkeypatch.setenv("RAY_ADDRESS", "nowhere.invalid:6379")
    else:
        (tmp_path / "none" / "ray").mkdir(parents=True)
        (tmp_path / "none" / "ray" / "ray_current_cluster").write_text("nowhere.invalid:6379\n")
    with pytest.raises(ConfigError, match=r"reached at nowhere\.invalid:6379"):
        RayPool("auto", tmp_path)


@pytest.mark.usefixtures("no_cluster")
def test_what_ray_raises_is_what_a_worker_here_would_have_raised() -> None:
    from ray import exceptions

    from flows.steps.ray_pool import _as_here

    raised = exceptions.RayTaskError("f", "Traceback", ValueError("no"), "f", 1, "127.0.0.1").as_instanceof_cause()
    assert type(_as_here(raised)) is ValueError
    assert str(_as_here(raised)) == "no"
    assert isinstance(_as_here(exceptions.TaskCancelledError()), CancelledError)
    for lost in (exceptions.WorkerCrashedError(), exceptions.NodeDiedError("gone"), exceptions.OutOfMemoryError("oom")):
        assert type(_as_here(lost)) is BrokenExecutor


def test_the_cluster_file_passes_rays_own_validation_and_its_commands_are_rays() -> None:
    pytest.importorskip("ray", reason="needs Ray (extra `ray`)")
    from ray.autoscaler._private.util import prepare_config, validate_config
    from ray.scripts.scripts import start

    written = yaml.safe_load((Path(__file__).parents[2] / "deploy/ray-cluster.yaml").read_text())
    whole = prepare_config(written)
    validate_config(whole)  # a key that it does not know is an error
    [node_type] = whole["available_node_types"].values()
    assert node_type["min_workers"] == len(written["provider"]["worker_ips"])
    commands = [line for key in ("head_start_ray_commands", "worker_start_ray_commands") for line in whole[key]]
    assert commands == written["head_start_ray_commands"] + written["worker_start_ray_commands"]
    known = {option for parameter in start.params for option in parameter.opts}
    used = {word.split("=")[0] for line in commands for word in line.split() if word.startswith("--")}
    assert {"--head", "--address"} <= used <= known
