"""Metrics of the run on a root for Prometheus, made from ROOT/progress/ when they are asked for.

Nothing is counted here: a scrape reads what the run has written down (flows.steps.progress), so whoever serves the
metrics may be the run itself or another process, and between runs the last one stays to be seen.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flows.steps.config import ConfigError
from flows.steps.gpu import read_gpus
from flows.steps.progress import Progress, Step, read_progress

if TYPE_CHECKING:
    from prometheus_client import Metric

_LOCAL = "127.0.0.1"


@dataclass(frozen=True)
class Kind:
    """A metric by its name: what it tells, its labels, and whether it only grows during a run."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    is_counter: bool = False


# A counter's samples end in _total; so do the names by which a dashboard asks for them.
KINDS = (
    Kind("gptface_run", "The present or last run: 1 while it is under way, else 0", ("kind", "subject", "host")),
    Kind("gptface_run_failed", "1 where the last run failed or its process died"),
    Kind("gptface_run_started_timestamp_seconds", "When the run began"),
    Kind("gptface_step_seconds", "Wall time of a step so far", ("step",)),
    Kind("gptface_step_work_seconds", "Time that all workers spent in a step together", ("step",), is_counter=True),
    Kind("gptface_step_seconds_left", "Time until a step ends, at its speed so far", ("step",)),
    Kind("gptface_shards_done", "Shards (or units) of a step that are done", ("step",)),
    Kind("gptface_shards_queued", "Shards of a step that are not done", ("step",)),
    Kind("gptface_shards_failed", "Tries of a shard that failed", ("step",), is_counter=True),
    Kind("gptface_rows", "Rows that a step has dealt with; its rate is rows per second", ("step",), is_counter=True),
    Kind("gptface_rows_lost", "Rows that a step lost, by reason", ("step", "reason"), is_counter=True),
    Kind("gptface_decisions", "Rows of the release by reason, kept ones included", ("reason",)),
    Kind("gptface_gpu_use_ratio", "Share of time in which the GPU ran a kernel", ("gpu",)),
    Kind("gptface_gpu_memory_bytes", "Memory in use on the GPU", ("gpu",)),
    Kind("gptface_gpu_memory_total_bytes", "Memory of the GPU", ("gpu",)),
)


def sample_names() -> frozenset[str]:
    """The names under which samples are found."""
    return frozenset(f"{kind.name}_total" if kind.is_counter else kind.name for kind in KINDS)


class RunCollector:
    """A collector of prometheus_client: one scrape, one reading of the root's progress."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        found = {kind.name: list[tuple[tuple[str, ...], float]]() for kind in KINDS}
        for name, labels, value in _samples(self._root):
            found[name].append((labels, value))
        for kind in KINDS:
            family = (CounterMetricFamily if kind.is_counter else GaugeMetricFamily)(
                kind.name, kind.help, labels=kind.labels
            )
            for labels, value in found[kind.name]:
                family.add_metric(labels, value)
            yield family


Sample = tuple[str, tuple[str, ...], float]


def _samples(root: Path) -> Iterator[Sample]:
    """(metric, values of its labels, value) of everything that is known now."""
    for gpu in read_gpus():
        figures = {"use_ratio": gpu.use, "memory_bytes": gpu.memory_bytes, "memory_total_bytes": gpu.memory_total_bytes}
        known = {name: value for name, value in figures.items() if value is not None}
        yield from ((f"gptface_gpu_{name}", (gpu.index,), value) for name, value in known.items())
    progress = read_progress(root)
    if progress is None:
        return
    run, now, is_alive = progress.run, time.time(), progress.is_alive()
    yield "gptface_run", (run.kind, run.subject, run.host), float(is_alive)
    yield "gptface_run_failed", (), float(not is_alive and run.status != "completed")
    yield "gptface_run_started_timestamp_seconds", (), run.started_at
    for step in run.steps:
        yield from _of_step(progress, step, now)
    for reason, rows in run.decisions.items():
        yield "gptface_decisions", (reason,), rows


def _of_step(progress: Progress, step: Step, now: float) -> Iterator[Sample]:
    name, work, done = (step.name,), progress.of(step), progress.shards_done(step)
    yield "gptface_step_seconds", name, progress.seconds(step, now)
    yield "gptface_step_work_seconds", name, work.seconds
    left = progress.seconds_left(step, now)
    if left is not None:
        yield "gptface_step_seconds_left", name, left
    if step.total is not None:
        yield "gptface_shards_done", name, done
        yield "gptface_shards_queued", name, step.total - done
    yield "gptface_shards_failed", name, work.failed
    yield "gptface_rows", name, work.rows
    for reason, rows in work.reasons.items():
        yield "gptface_rows_lost", (step.name, reason), rows


@contextlib.contextmanager
def served_metrics(root: Path, listen: str) -> Iterator[str]:
    """Serve the metrics of a root at `[HOST:]PORT` while the block runs; their address. Port 0 is any free one.

    Without a host only this machine can ask; where `listen` is empty, nothing is served.

    Raises ConfigError for what is no port, or a port that is taken.
    """
    if not listen:
        yield ""
        return
    from prometheus_client import CollectorRegistry, start_http_server

    host, port = _address(listen)
    registry = CollectorRegistry()
    registry.register(RunCollector(root))
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise ConfigError(f"metrics cannot be served at {listen} ({error.strerror}): choose another port") from error
    try:
        yield f"http://{host}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise ConfigError(f"{listen!r} is no [HOST:]PORT: name a port below 65536, such as 9464")
    return host.strip("[]") or _LOCAL, int(port)
