"""A Ray cluster in the place of this machine's worker processes: one Ray task per shard, on any node with a free CPU.

Every node needs the same version of gptface, the same face models, and the root under the same path. The driver (the
process that builds) keeps the lock of the root, and plans and publishes alone.

    a worker or a node dies     its tasks are run again elsewhere by Ray, `DEATHS` times at most
    a task raises               the build ends with that error, as it does on one machine
    the driver ends or is lost  Ray ends all workers of its job
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, CancelledError, Future
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from flows.steps.config import ConfigError
from flows.steps.runner import WORKER_ENVIRONMENT, Pool

A = TypeVar("A")
T = TypeVar("T")
logger = logging.getLogger(__name__)

AUTO = "auto"
DEATHS = 3
_PROBE_S = 5.0  # for an address to answer; Ray itself waits for many minutes
_NODES_S = 120.0  # for every node to start a worker and look at the root
_END_S = 15.0  # for cancelled tasks to end
_LOOPBACK = ("localhost", "127.0.0.1")


class RayPool(Pool):
    """Workers of a Ray cluster. `hosts`: how many machines it has.

    `window` is `workers`: no more than these are ever at work, which the courtesy to hosts counts on.
    """

    def __init__(self, address: str, root: Path, workers: int = 0, gpus: Mapping[str, float] | None = None) -> None:
        """Connect to the cluster at `address` (HOST:PORT or auto) and look whether its nodes can work on `root`.

        `gpus`: share of a GPU that a shard of a step (by its name) takes beside its CPU. Raises ConfigError where the
        cluster cannot be reached, or a node does not fit.
        """
        self._ray = ray = _connect(address)
        self._gpus = dict(gpus or {})
        self._lock = threading.Lock()
        self._running: dict[Any, Future[Any]] = {}
        self._task = functools.cache(lambda share: ray.remote(**task_options(share))(_work))
        try:
            nodes = self._fit_nodes(root)
        except BaseException:
            self._ray.shutdown()
            raise
        self.hosts = len({node["NodeManagerAddress"] for node in nodes})
        self.workers = workers or int(sum(node["Resources"]["CPU"] for node in nodes))
        self.window = self.workers

    def submit(self, fn: Callable[[A], T], item: A, step: str = "") -> Future[T]:
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            reference = self._task(self._gpus.get(step, 0.0)).remote(fn, item, str(Path.cwd()))
            self._running[reference] = future
        reference.future().add_done_callback(lambda done: self._settle(reference, done))
        return future

    def close(self, *, kill: bool = False) -> None:
        with self._lock:
            left, self._running = self._running, {}
        if not self._ray.is_initialized():
            return
        if left:
            if kill:
                for reference in left:
                    self._ray.cancel(reference, force=True)
            self._ray.wait(list(left), num_returns=len(left), timeout=_END_S if kill else None)
        self._ray.shutdown()
        for future in left.values():
            if not future.done():
                future.set_exception(CancelledError())

    def _settle(self, reference: Any, done: Future[Any]) -> None:
        """Pass on how a task ended. Runs in a thread of Ray's."""
        with self._lock:
            future = self._running.pop(reference, None)
        if future is None:  # closed meanwhile
            return
        error = done.exception()
        if error is None:
            future.set_result(done.result())
        else:
            future.set_exception(_as_here(error))

    def _fit_nodes(self, root: Path) -> list[dict[str, Any]]:
        """The nodes that have a CPU, all of which can work on `root`."""
        nodes = [node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        with _mark(root) as mark:
            nodes = self._looked(nodes, mark)
        if not nodes:
            raise ConfigError("the Ray cluster has no CPU to work with: add a node (ray start --address HOST:PORT)")
        for step, share in self._gpus.items():
            if share > max(node["Resources"].get("GPU", 0) for node in nodes):
                raise ConfigError(
                    f"no node of the Ray cluster has the {share:g} GPU that a part of {step} asks for: add one, set "
                    "--ray-gpus, or choose a --provider (--clip-device) for CPUs"
                )
        return nodes

    def _looked(self, nodes: list[dict[str, Any]], mark: Path) -> list[dict[str, Any]]:
        """Let every node look for `mark`, whose name nobody can know, and say which gptface it has; those still there.

        Ray may list a node for a while after it is gone.
        """
        from ray.exceptions import NodeDiedError, RayError, TaskUnschedulableError
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        asked, found = [], []
        for node in nodes:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked.append(self._ray.remote(num_cpus=0, scheduling_strategy=there)(_seen).remote(str(mark)))
        for node, reference in zip(nodes, asked, strict=True):
            host = f"node {node['NodeManagerAddress']} of the Ray cluster"
            try:
                sees, theirs = self._ray.get(reference, timeout=_NODES_S)
            except (NodeDiedError, TaskUnschedulableError) as error:
                logger.warning("%s is gone: %s", host, _last_line(error))
                continue
            except (RayError, ImportError) as error:
                raise ConfigError(f"{host} cannot run gptface: {_last_line(error)}") from error
            if theirs != version("gptface"):
                raise ConfigError(f"{host} has gptface {theirs}, not {version('gptface')}")
            if not sees:
                raise ConfigError(
                    f"{host} does not see the root {mark.parent}: it must be a folder that all nodes share, under the "
                    "same path"
                )
            found.append(node)
        return found


def task_options(gpus: float = 0.0) -> dict[str, Any]:
    """Of a Ray task for one shard. What a task raises itself is not tried again.

    A worker that had a GPU ends after its shard, as is Ray's rule: it would go on with that GPU although the next shard
    is given another.
    """
    options: dict[str, Any] = {"num_cpus": 1, "max_retries": DEATHS, "retry_exceptions": False}
    return {**options, "num_gpus": gpus, "max_calls": 1} if gpus else options


def _connect(address: str) -> Any:
    """The module `ray`, connected."""
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "runner ray: Ray is not installed: pip install 'gptface[ray]' (docs/development.md), or --runner local"
        ) from error
    found = _found(address)
    if found != AUTO:
        _knock(found, ray.util.get_node_ip_address())
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=found,
            log_to_driver=True,  # what workers write to stderr, as on one machine
            logging_level=logging.WARNING,
            runtime_env={"env_vars": WORKER_ENVIRONMENT},
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _unreachable(address, _last_line(error)) from error
    if callable(before) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # Ray sets its own, and Prefect cancels by this
    return ray


def _found(address: str) -> str:
    """HOST:PORT where it is known: as given, by RAY_ADDRESS, or by what `ray start` has left on this machine."""
    if address == AUTO:
        address = os.environ.get("RAY_ADDRESS") or AUTO
        told = Path(os.environ.get("RAY_TMPDIR") or "/tmp") / "ray" / "ray_current_cluster"
        if address == AUTO and told.is_file():
            address = told.read_text().strip()
    if address != AUTO and not re.fullmatch(r"[\w.\[\]:-]+:\d{1,5}", address):
        raise ConfigError(f"ray_address={address!r}: give HOST:PORT of the cluster's head, or {AUTO}")
    return address


def _knock(address: str, here: str) -> None:
    host, _, port = address.rpartition(":")
    # Ray takes this machine's own address for these, whatever the cluster listens at.
    host = here if host in _LOOPBACK else host.strip("[]")
    try:
        socket.create_connection((host, int(port)), timeout=_PROBE_S).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(f"{host}:{port}", str(error)) from error


def _unreachable(address: str, why: str) -> ConfigError:
    return ConfigError(
        f"no Ray cluster can be reached at {address} ({why}): start one (ray start --head) and name it with "
        "--ray-address HOST:PORT, or build with --runner local"
    )


@contextlib.contextmanager
def _mark(root: Path) -> Iterator[Path]:
    """An empty file in the root, made if it is missing, under a name that is nowhere else."""
    root.mkdir(parents=True, exist_ok=True)
    mark = root / f".probe-{secrets.token_hex(6)}"
    try:
        mark.touch()
        yield mark
    finally:
        mark.unlink(missing_ok=True)


def _seen(mark: str) -> tuple[bool, str]:
    """In a worker: is the file there, and which gptface is this?"""
    return Path(mark).is_file(), version("gptface")


def _work(fn: Callable[[A], T], item: A, folder: str) -> T:
    """In a worker: one call. Relative paths (of a list to read, of weights) mean what they mean to the driver."""
    with contextlib.suppress(OSError):  # a folder of the driver's machine alone: nothing relative is needed then
        os.chdir(folder)
    return fn(item)


def _as_here(error: BaseException) -> BaseException:
    """What a worker of this machine would have raised."""
    from ray.exceptions import RayTaskError, TaskCancelledError

    if isinstance(error, RayTaskError):
        cause: BaseException = error.cause
        cause.__cause__ = error  # with the traceback of the worker, for --debug
        return cause
    if isinstance(error, TaskCancelledError):
        return CancelledError()
    broken = BrokenExecutor(_last_line(error))
    broken.__cause__ = error
    return broken


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
