"""A build on a Ray cluster of two nodes: as on one machine, also where a node or the driver is killed in mid-build."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.steps.config import ConfigError
from flows.steps.pipeline import build
from flows.steps.progress import read_json
from flows.steps.ray_pool import DEATHS, RayPool
from flows.steps.runner import LocalRunner, WorkerDiedError, WorkerPool
from sample_web.server import SampleWeb
from tests.flows import ray_nodes
from tests.flows.conftest import build_command, command
from tests.flows.small_crawl import config, content, list_of, serving_faces
from tests.flows.test_build import leftovers, outcome
from tests.flows.test_recrawl_e2e import Site

pytest.importorskip("ray", reason="needs Ray (extra `ray`)")
pytestmark = [pytest.mark.slow, pytest.mark.e2e]
PART_URLS = 4  # 24 faces: six parts


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_nodes.running() as cluster:
        yield cluster


def on(cluster: Any, words: list[str]) -> list[str]:
    return [*words, "--runner", "ray", "--ray-address", cluster.address]


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], timeout_s: float = 120) -> None:
    """Until the condition holds. The driver must not end before."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, f"the build ended early: {process.communicate()}"
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.05)


def shards_by_node(root: Path, nodes: dict[str, Any]) -> dict[str, int]:
    """How many shards the living workers of each node have done, by the files that `gptface top` reads."""
    pids = {process.pid: name for name, node in nodes.items() for process in ray_nodes.workers(node)}
    done = dict.fromkeys(nodes, 0)
    for file in root.glob("progress/work-*.json"):
        pid = int(file.name.split("-")[-2])
        if pid in pids and (found := read_json(file)):
            done[pids[pid]] += sum(work["shards"] for work in found[1].values())
    return done


# The same build.


def test_the_same_build_on_two_nodes(cluster: Any, built_root: Path, small_web: SampleWeb, tmp_path: Path) -> None:
    worked: dict[str, int] = {}
    with ray_nodes.added(cluster) as second:
        nodes = {"head": cluster.head_node, "second": second}
        words = on(cluster, build_command(small_web.url, tmp_path))
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while process.poll() is None:
            for name, shards in shards_by_node(tmp_path, nodes).items():
                worked[name] = max(worked.get(name, 0), shards)
            time.sleep(0.2)
        assert process.returncode == 0, process.communicate()
    assert min(worked.values()) > 0, worked
    assert outcome(tmp_path) == outcome(built_root)
    assert leftovers(tmp_path) == []


# Killed in mid-build.


def build_here(source: str, root: Path) -> None:
    with WorkerPool(2) as pool:
        build(replace(config(source, root), part_urls=PART_URLS), LocalRunner(pool))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, str, Path]]:
    """A site, the list of its pictures, and what local processes made of them."""
    with serving_faces() as site:
        source, root = list_of(site, tmp_path_factory.mktemp("list")), tmp_path_factory.mktemp("local")
        build_here(source, root)
        yield site, source, root


class Gate:
    """Lets the pictures of a site through until one part of a root is downloaded, and the others when it is opened."""

    def __init__(self, site: Site, root: Path, patch: pytest.MonkeyPatch) -> None:
        self._opened, self._root, self._answer = threading.Event(), root, site.answer
        self.held = 0
        patch.setattr(site, "answer", self.answer)

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        if path.endswith(".jpg") and self.parts_done() and not self._opened.is_set():
            self.held += 1
            self._opened.wait(60)
        return self._answer(path)

    def parts_done(self) -> int:
        return len(list(self._root.glob("raw/*/g000/images/*_stats.json")))

    def open(self) -> None:
        self._opened.set()


def small_build(source: str, root: Path) -> list[str]:
    options = ["--root", root, "--detector", "cascade", "--allow-private", "--samples-per-shard", 6]
    return command("build", source, *options, "--part-urls", PART_URLS)


@contextlib.contextmanager
def started(words: list[str], gate: Gate) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        gate.open()
        process.kill()
        process.wait()


def test_a_node_killed_in_mid_build(
    cluster: Any, reference: tuple[Site, str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, source, local = reference
    gate = Gate(site, tmp_path, monkeypatch)
    with ray_nodes.added(cluster) as second, started(on(cluster, small_build(source, tmp_path)), gate) as process:
        nodes = {"head": cluster.head_node, "second": second}
        # A part is done, and each node is downloading another one.
        wait_for(lambda: all(ray_nodes.workers(node, "_work") for node in nodes.values()) and gate.held > 1, process)
        assert min(shards_by_node(tmp_path, nodes).values()) > 0, "a node had done nothing before"
        assert 1 <= gate.parts_done() < 6
        lost = ray_nodes.workers(second)
        ray_nodes.lose(second)
        _, alive = psutil.wait_procs(lost, timeout=30)
        assert not alive, "workers outlive their node"
        gate.open()
        output = process.communicate(timeout=120)
        assert process.returncode == 0, output
    assert content(tmp_path) == content(local)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_driver_ended_in_mid_build(
    cluster: Any,
    reference: tuple[Site, str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sent: signal.Signals,
    code: int,
) -> None:
    site, source, local = reference
    gate = Gate(site, tmp_path, monkeypatch)
    with started(on(cluster, small_build(source, tmp_path)), gate) as process:
        wait_for(lambda: bool(ray_nodes.workers(cluster.head_node, "_work")) and gate.held > 0, process)
        lost = ray_nodes.workers(cluster.head_node)
        process.send_signal(sent)
        assert process.wait(timeout=60) == code
        _, alive = psutil.wait_procs(lost, timeout=30)
        assert not alive, "workers outlive the driver"
        gate.open()
    assert gate.parts_done() < 6, "a part was finished for nobody"
    build_here(source, tmp_path)  # takes up what the cluster had finished
    assert content(tmp_path) == content(local)
    assert leftovers(tmp_path) == []


# As a flow.

FLOW = f"""
import sys
from flows.build_dataset import build_dataset
from flows.parameters import BuildSettings
if __name__ == "__main__":
    cluster = {{"runner": "ray", "ray_address": sys.argv[3]}}
    settings = BuildSettings(allow_private=True, part_urls={PART_URLS}, samples_per_shard=6, **cluster)
    build_dataset(sys.argv[1], root=sys.argv[2], detector="cascade", settings=settings)
"""


def test_the_flow_on_the_cluster(cluster: Any, reference: tuple[Site, str, Path], tmp_path: Path) -> None:
    _, source, local = reference
    script, root = tmp_path / "flow.py", tmp_path / "root"
    script.write_text(FLOW)
    ours = {"PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true", "PREFECT_HOME": str(tmp_path / "prefect")}
    slowly = {"PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300"}
    done = subprocess.run(
        [sys.executable, str(script), source, str(root), cluster.address],
        env={**{name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}, **ours, **slowly},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "download-00005" in done.stderr, "a part is no task of its own"
    assert content(root) == content(local)


# What a worker says and raises.


def _refuse(number: int) -> int:
    logging.getLogger("gptface.test").warning("about to refuse %d", number)
    raise FileNotFoundError(2, "refused", f"no {number}")


def _die(file: str) -> None:
    with Path(file).open("a") as stream:
        stream.write("x")
    os.kill(os.getpid(), signal.SIGKILL)


def _environment(name: str) -> str:
    return os.environ.get(name, "")


def test_what_workers_say_and_raise_reaches_the_driver(
    cluster: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with RayPool(cluster.address, tmp_path) as pool:
        runner = LocalRunner(pool)
        assert (pool.workers, pool.window, pool.hosts) == (1, 1, 1)
        assert runner.map("threads", _environment, ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"]) == ["1", "1"]
        with pytest.raises(FileNotFoundError) as caught:
            runner.map("refuse", _refuse, [1])
        assert type(caught.value) is FileNotFoundError, "not a kind of Ray's own"
        assert caught.value.filename == "no 1"
        assert "_refuse" in str(caught.value.__cause__), "the traceback of the worker is lost"
        with pytest.raises(WorkerDiedError, match=r"died during die .*start the same command again"):
            runner.map("die", _die, [str(tmp_path / "tries")])
        assert len((tmp_path / "tries").read_text()) == 1 + DEATHS
        assert runner.map("after", _environment, ["OMP_NUM_THREADS"]) == ["1"], "the cluster is of no use any more"
    assert "about to refuse 1" in capfd.readouterr().err


def test_a_step_that_asks_for_a_gpu_goes_where_one_is(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no node of the Ray cluster has the 1 GPU that a part of detect asks for"):
        RayPool(cluster.address, tmp_path, gpus={"detect": 1.0})
    with (
        ray_nodes.added(cluster, num_gpus=1),  # on paper: Ray only counts it
        RayPool(cluster.address, tmp_path, gpus={"detect": 0.5}) as pool,
    ):
        assert pool.submit(_environment, "CUDA_VISIBLE_DEVICES", "detect").result(60) == "0"
        assert pool.submit(_environment, "CUDA_VISIBLE_DEVICES", "download").result(60) == ""


def test_a_root_that_a_node_does_not_see_is_named(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib.metadata import version

    ours = version("gptface")
    for told, says in (
        ((False, ours), "does not see the root .*must be a folder that all nodes share"),
        ((True, "0.0"), f"has gptface 0.0, not {ours}"),
    ):
        monkeypatch.setattr("flows.steps.ray_pool._seen", lambda _mark, told=told: told)
        with pytest.raises(ConfigError, match=says):
            RayPool(cluster.address, tmp_path)
    assert list(tmp_path.iterdir()) == []
