"""The table `runs`: what ran, when, where and how it ended; the only place for time, host and versions."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import platform
import time
import uuid
from collections.abc import Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from flows.steps.layout import Layout

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclasses.dataclass
class Run:
    """One run while it runs; whoever runs it sets `result` (plain data) at the end."""

    run_id: str
    result: dict[str, Any] | None = None


@contextlib.contextmanager
def recorded(layout: Layout, kind: str, config: DataclassInstance) -> Iterator[Run]:
    """Record a run when it ends well, or why it did not (where the lake exists by then)."""
    from warehouse.lake import has_lake
    from warehouse.register import register

    run = Run(uuid.uuid4().hex)
    started, clock = dt.datetime.now(dt.UTC), time.monotonic()
    status = "failed"
    try:
        yield run
        status = "completed"
    except BaseException as error:
        run.result = {"error": " ".join(str(error).split()) or type(error).__name__}
        raise
    finally:
        row = {
            "run_id": run.run_id,
            "kind": kind,
            "status": status,
            "started_at": started,
            "duration_s": time.monotonic() - clock,
            "host": platform.node(),
            "code_version": version("gptface"),
            "config": json.dumps(dataclasses.asdict(config), sort_keys=True, default=str),
            "result": json.dumps(run.result, sort_keys=True, default=str),
        }
        if has_lake(layout.root):
            with _not_hiding(status):
                register(layout.root, "runs", row)


def is_first_build(layout: Layout, release: int) -> bool:
    """Whether one build alone has ended with this release, shards and all: later ones found nothing new."""
    import warehouse

    with warehouse.connect(layout.root) as con:
        ended = con.execute("SELECT result ->> '$.release' FROM runs WHERE (kind, status) = ('build', 'completed')")
        return ended.fetchall().count((str(release),)) == 1


@contextlib.contextmanager
def _not_hiding(status: str) -> Iterator[None]:
    """A failed run's own error is the one to show, not that its record could not be written."""
    from warehouse.errors import InputError

    try:
        yield
    except (InputError, OSError):
        if status == "completed":
            raise
