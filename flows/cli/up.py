"""`gptface up`: Prefect server, work pools, deployments, automations and workers on this machine, until Ctrl-C.

Everything Prefect writes lies below ROOT/prefect; nothing of the user's own Prefect profile is read or changed.
This module does not import prefect: it starts its commands and asks its server over HTTP.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from flows.automations import EVALUATION, HEARTBEAT_S, TRAINING, AutoTrain, automations
from flows.cli.prefect_api import PrefectApi
from flows.steps.children import Child, start_child, stop_children
from warehouse.errors import InputError

POOL = "gptface-cpu"
GPU_POOL = "gptface-gpu"
WORKER = "gptface-up"
HOST = "127.0.0.1"
START_LIMIT_S = 180.0
POLL_S = 0.5
OUR_LOGGERS = "flows,crawler,warehouse,gptface_core,sample_web"
# Settings of the user's shell that would send our commands to another server, or as somebody else.
_FOREIGN = ("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH")
_DATABASE = ("PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_DATABASE_CONNECTION_URL")  # and its older name


class StartError(RuntimeError):
    """A child did not start or ended on its own. One line; the end of its log has been said before."""

    def __init__(self, message: str, child: Child) -> None:
        super().__init__(f"{message}: see {child.log}")
        self.tail = child.tail()


@dataclass(frozen=True)
class Address:
    """Where the page, the interface and the reports are served."""

    port: int
    report_port: int

    @property
    def page(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def api(self) -> str:
        return f"{self.page}/api"

    @property
    def report(self) -> str:
        return f"http://{HOST}:{self.report_port}/"


def up(root: Path, port: int = 4200, train: AutoTrain | None = None, say: Callable[[str], None] | None = None) -> None:
    """Start everything, say where it is, wait for Ctrl-C or SIGTERM, stop everything.

    root: the dataset root that runs use by default. port: of the Prefect page; 0 takes a free one.
    train: whether releases start trainings (by default not), until the next `up` says otherwise.
    say: called with each line for the user (standard output by default).
    Raises InputError (port taken, root not writable, no clone) and StartError (a child failed); both after stopping
    what had been started.
    """
    say, train = say or _print, train or AutoTrain()
    root = root.resolve()
    clone = find_clone()
    with _one_per_root(root), _stop_signal() as stop:
        address = _free_address(port)
        env = child_environment(root, address)
        children: list[Child] = []
        try:
            _start(children, root, clone, env, address, train, stop, say)
            if not stop.is_set():
                say(welcome(address, root, train))
            _watch(children, stop)
        except StartError as error:
            say(error.tail)
            raise
        finally:
            say("stopping ...")
            stop_children(children[::-1])
    say("stopped")


def find_clone() -> Path:
    """The folder with prefect.yaml: this package's own clone. Raises InputError where only a wheel is installed."""
    clone = Path(__file__).resolve().parents[2]
    if not (clone / "prefect.yaml").is_file():
        raise InputError(f"no prefect.yaml in {clone}: `gptface up` needs a clone installed with `pip install -e .`")
    return clone


def child_environment(root: Path, address: Address) -> dict[str, str]:
    """Environment of server, worker and runs: this interpreter first, Prefect's state below the root, no analytics."""
    env = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    scripts = str(Path(sys.executable).parent)
    env |= {
        "PATH": os.pathsep.join([scripts, env.get("PATH", os.defpath)]),
        "PREFECT_HOME": str(root / "prefect"),
        "PREFECT_API_URL": address.api,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "DO_NOT_TRACK": "1",
        "NO_ALBUMENTATIONS_UPDATE": "1",
        "PREFECT_LOGGING_EXTRA_LOGGERS": OUR_LOGGERS,
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S),
        "PREFECT_WORKER_QUERY_SECONDS": env.get("PREFECT_WORKER_QUERY_SECONDS", "3"),
        "GPTFACE_ROOT": str(root),
        "GPTFACE_REPORT_URL": address.report,
    }
    return env


def welcome(address: Address, root: Path, train: AutoTrain) -> str:
    """What to look at and what to try next."""
    by_event = "starts a training" if train.on else "starts no training (--auto-train)"
    prefect = Path(sys.executable).parent / "prefect"
    command = os.path.relpath(prefect) if prefect.is_relative_to(Path.cwd()) else str(prefect)
    return (
        f"\nPrefect page   {address.page}\n"
        f"Reports        {address.report}\n"
        f"Root           {root}\n"
        f"Logs           {root / 'prefect' / 'logs'}\n"
        "\nTry in another terminal:\n"
        f"  export PREFECT_API_URL={address.api}\n"
        f"  {command} deployment run build-dataset/local --watch\n"
        f"  {command} deployment run train-gptface/local --watch\n"
        f"  {command} deployment run evaluate-gptface/local --watch\n"
        f"\nnightly-retrain/nightly runs at 03:00 UTC while this is up; a new release {by_event}. "
        "Ctrl-C stops all of it."
    )


def _start(
    children: list[Child],
    root: Path,
    clone: Path,
    env: dict[str, str],
    address: Address,
    train: AutoTrain,
    stop: threading.Event,
    say: Callable[[str], None],
) -> None:
    """Server, workers (they make the pools), report pages, deployments, automations: each child is appended at once."""
    api = PrefectApi(address.api)
    logs = root / "prefect" / "logs"
    deadline = time.monotonic() + START_LIMIT_S

    def start(name: str, *command: str) -> Child:
        child = start_child(name, [sys.executable, "-m", *command], logs / f"{name}.log", env, clone)
        children.append(child)
        return child

    def until(ready: Callable[[], bool]) -> None:
        while not stop.is_set() and not ready():
            _check(children)
            if time.monotonic() > deadline:
                raise StartError(f"the {children[-1].name} was not ready after {START_LIMIT_S:.0f} s", children[-1])
            stop.wait(POLL_S)

    say(f"starting the Prefect server on {address.page} ...")
    start("server", "prefect", "server", "start", "--host", HOST, "--port", str(address.port))
    until(api.healthy)
    if not any(map(env.get, _DATABASE)):  # the database below the root is ours alone
        _end_orphaned_runs(api)
    say("starting the workers, deploying the flows ...")
    serve = ("prefect", "worker", "start", "--type", "process", "--name", WORKER, "--pool")
    start("worker", *serve, POOL)
    start("gpu-worker", *serve, GPU_POOL, "--limit", "1")  # trainings wait for each other
    until(lambda: api.has_pool(POOL) and api.has_pool(GPU_POOL))
    (root / "reports").mkdir(exist_ok=True)
    reports = ("--bind", HOST, "--directory", str(root / "reports"), str(address.report_port))
    start("reports", "http.server", *reports)
    if not stop.is_set():
        _deploy(children, start("deploy", "prefect", "--no-prompt", "deploy", "--all"), stop)
    until(lambda: _automate(api, train))
    until(lambda: api.has_worker(POOL, WORKER) and api.has_worker(GPU_POOL, WORKER))


def _deploy(children: list[Child], deploy: Child, stop: threading.Event) -> None:
    """Wait for `prefect deploy --all`, the one child that is meant to end."""
    while not stop.is_set() and deploy.alive():
        _check(children[:-1])
        stop.wait(POLL_S)
    if not deploy.alive():
        children.remove(deploy)
        if deploy.process.returncode != 0:
            raise StartError("`prefect deploy --all` failed", deploy)


def _automate(api: PrefectApi, train: AutoTrain) -> bool:
    """Install the automations, or change those of an earlier `up`; whether the server has taken all of them."""
    deployments = {name: api.deployment(name) or "" for name in (TRAINING, EVALUATION)}
    return all(deployments.values()) and all(map(api.put_automation, automations(deployments, train)))


def _end_orphaned_runs(api: PrefectApi) -> None:
    """Runs that an earlier `gptface up` left behind when it was killed: their processes died with it.

    Prefect would show them as running for ever, and a concurrency limit would count them.
    """
    for run_id in api.runs_in_state("RUNNING", "CANCELLING", "PENDING"):
        api.mark_crashed(run_id, "`gptface up` was killed while this ran: run it again, finished parts are kept")


def _check(children: list[Child]) -> None:
    for child in children:
        if not child.alive():
            raise StartError(f"the {child.name} ended with code {child.process.returncode}", child)


def _watch(children: list[Child], stop: threading.Event) -> None:
    while not stop.wait(POLL_S):
        _check(children)


@contextlib.contextmanager
def _one_per_root(root: Path) -> Iterator[None]:
    """A lock that ends with this process: two servers on one database would spoil it."""
    home = root / "prefect"
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = (home / "up.lock").open("w")
    except OSError as error:
        raise InputError(f"root {root} is not writable ({error.strerror}): choose another with --root") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"`gptface up` already runs on {root}: stop that one or choose another --root") from error
        yield


@contextlib.contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set; the handlers before are put back at the end."""
    stop = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _free_address(port: int) -> Address:
    """The port asked for (0: any) and a free one for the reports. Raises InputError where it is taken."""
    with socket.socket() as page, socket.socket() as report:
        page.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            page.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise InputError(f"port {port} cannot be used ({error}): choose another with --port, 0 for any") from error
        chosen = page.getsockname()[1]
        try:
            report.bind((HOST, chosen + 1))
        except (OSError, OverflowError):
            report.bind((HOST, 0))
        return Address(chosen, report.getsockname()[1])


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
