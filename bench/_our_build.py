"""Our build as the command line runs it, timed by phase: `python -m bench._our_build SOURCE ROOT OPTIONS` (JSON).

The last line of its output is JSON.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from flows.steps import crawl
from flows.steps.config import BuildConfig
from flows.steps.runner import LocalRunner, WorkerPool

A = TypeVar("A")
T = TypeVar("T")
_PHASES = {
    "download": "download",
    "detect": "detect",
    "faces taken down": "detect",
    "embed": "detect",
    "publish": "curate",
}
# The one place that knows whether a build has a parameter for embeddings.
_EMBED: dict[str, Any] = {"embed": True} if "embed" in {f.name for f in dataclasses.fields(BuildConfig)} else {}
_BEFORE = ("sources", "extract", "plan", "hosts", "consent", "taken down")  # all others write


class PhaseSink:
    """Seconds per phase."""

    def __init__(self) -> None:
        self.phases: defaultdict[str, float] = defaultdict(float)
        self._started: dict[str, float] = {}

    def start(self, name: str, total: float | None) -> None:
        self._started[name] = time.perf_counter()

    def update(self, name: str, done: float, total: float | None, note: str = "") -> None:
        pass

    def finish(self, name: str) -> None:
        phase = _PHASES.get(name, "plan" if name in _BEFORE else "write")
        self.phases[phase] += time.perf_counter() - self._started[name]


def detect_and_embed(job: crawl.PartJob) -> int:
    from flows.steps.detect import detect_part

    return detect_part(job.part, Path(job.crawl), job.detector, pack=job.pack, embed=True).faces


class EmbeddingRunner(LocalRunner):
    """Switches embedding on for builds that have no parameter for it."""

    def map(self, name: str, fn: Callable[[A], T], items: Sequence[A]) -> list[T]:
        if fn is crawl.detect and not _EMBED:
            fn = detect_and_embed  # type: ignore[assignment]
        return super().map(name, fn, items)


def _ready(_: int) -> int:
    """A worker has started, with what it imports at the beginning."""
    return os.getpid()


def main() -> None:
    source, root, words = sys.argv[1:]
    options: dict[str, Any] = json.loads(words)
    os.environ["GPTFACE_INSIGHTFACE_ROOT"] = options["models"]
    from flows.steps.pipeline import build

    config = BuildConfig(
        source=source,
        root=root,
        detector="insightface",
        pack=options["pack"],
        part_urls=options["shard_rows"],
        workers=options["processes"],
        download_threads=options["threads"],
        allow_private=True,
        **_EMBED,
    )
    sink = PhaseSink()
    with WorkerPool(config.workers) as pool:
        started = time.perf_counter()
        for future in [pool.submit(_ready, index) for index in range(config.workers)]:
            future.result()
        loading_s = time.perf_counter() - started
        summary = build(config, EmbeddingRunner(pool, sink))
    phases = {name: sink.phases[name] for name in ("plan", "download", "detect", "curate", "write")}
    phases["other"] = summary.seconds - sum(phases.values())
    print(json.dumps({"phases": phases, "loading_s": loading_s, "kept": summary.kept}))


if __name__ == "__main__":
    main()
