"""A Ray cluster of several nodes (raylets) on this machine, for tests; nothing of it outlives the test."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

_SMALL = {"num_cpus": 1, "object_store_memory": 80 << 20}


@contextlib.contextmanager
def running() -> Iterator[Any]:
    """The head, with one CPU; its `add_node` adds others. Needs some 20 s of two quiet cores."""
    from ray.cluster_utils import Cluster

    before = set(_children())
    # A short path: the sockets in it may have 107 letters.
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.delenv("RAY_ADDRESS", raising=False)
        try:
            cluster = Cluster(
                initialize_head=True, head_node_args={**_SMALL, "include_dashboard": False, "temp_dir": folder}
            )
            yield cluster
            cluster.shutdown()
        finally:
            left = [process for process in _children() if process not in before]
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, timeout=10)


@contextlib.contextmanager
def added(cluster: Any, **resources: Any) -> Iterator[Any]:
    """One more node while the block runs."""
    node = cluster.add_node(**{**_SMALL, **resources})
    try:
        yield node
    finally:
        cluster.remove_node(node, allow_graceful=False)


def lose(node: Any) -> None:
    """SIGKILL to the process that is the node, and no trace of it: its workers look whether it is there."""
    raylet = node.all_processes["raylet"][0].process
    raylet.kill()
    raylet.wait()


def workers(node: Any, doing: str = "") -> list[psutil.Process]:
    """Worker processes of a node; with `doing`, those that run this function now."""
    found = []
    for process in _children(node.all_processes["raylet"][0].process.pid):
        with contextlib.suppress(psutil.NoSuchProcess, IndexError):
            title = process.cmdline()[0]
            if title.startswith("ray::") and not title.endswith("Agent") and doing in title:
                found.append(process)
    return found


def _children(pid: int | None = None) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
