"""A build whose workers note what they do: `python -m bench._orchestrated_build SOURCE ROOT OPTIONS` (JSON).

Spans go to OPTIONS["spans"]/<pid>, a line of JSON each; the last line of output tells the steps and what came of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar
from unittest import mock

from flows.steps.config import BuildConfig
from flows.steps.runner import LocalRunner, ProgressSink, WorkerPool

A = TypeVar("A")
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Spanned(Generic[A, T]):
    """The work of a shard, with clocks around what counts as work."""

    step: str
    fn: Callable[[A], T]
    folder: str

    def __call__(self, item: A) -> T:
        spans: list[tuple[str, float, float]] = []
        with _clocks(self.step, spans):
            result = self.fn(item)
        with (Path(self.folder) / str(os.getpid())).open("a") as file:
            for kind, start, end in spans:
                file.write(json.dumps({"kind": kind, "start": start, "end": end}) + "\n")
        return result


@contextlib.contextmanager
def _clocks(step: str, spans: list[tuple[str, float, float]]) -> Iterator[None]:
    """Put clocks around the functions that do the work of `step`, for as long as the block runs."""
    with contextlib.ExitStack() as stack:
        for owner, name, kind, clock in _worker_functions(step):
            stack.enter_context(mock.patch.object(owner, name, clock(getattr(owner, name), kind, spans)))
        yield


def _worker_functions(step: str) -> list[tuple[Any, str, str, Callable[..., Any]]]:
    """Where the work of a step is done: who holds the function, its name, the kind of work, and the clock for it."""
    if step == "download":
        import crawler.engine

        return [(crawler.engine, "load_downloader", "fetch", _timed_downloader)]
    if step == "detect":
        import flows.steps.detect

        return [(flows.steps.detect, "_examine", "decode, detect", _timed_iterator)]
    if step == "shard":
        import flows.steps.manifest
        import warehouse.shards

        return [
            (warehouse.shards, "write_shard", "write", _timed),
            (flows.steps.manifest, "sample_rows", "write", _timed),
        ]
    return []


def _timed(fn: Callable[..., T], kind: str, spans: list[tuple[str, float, float]]) -> Callable[..., T]:
    def timed(*args: Any, **kwargs: Any) -> T:
        start = time.time()
        try:
            return fn(*args, **kwargs)
        finally:
            spans.append((kind, start, time.time()))

    return timed


def _timed_downloader(load: Callable[[], Any], kind: str, spans: list[tuple[str, float, float]]) -> Callable[[], Any]:
    """As `_timed`, for what img2dataset's module does once it is loaded."""

    def timed() -> Any:
        module = load()  # a copy of its own for every shard
        module.Downloader.download_shard = _timed(module.Downloader.download_shard, kind, spans)
        return module

    return timed


def _timed_iterator(
    fn: Callable[..., Iterator[T]], kind: str, spans: list[tuple[str, float, float]]
) -> Callable[..., Iterator[T]]:
    """As `_timed`, for a generator: from its first item asked for to its end."""

    def timed(*args: Any, **kwargs: Any) -> Iterator[T]:
        start = time.time()
        yield from fn(*args, **kwargs)
        spans.append((kind, start, time.time()))

    return timed


class SpanRunner(LocalRunner):
    """A `LocalRunner` whose workers note what they do, and which notes its steps."""

    def __init__(self, pool: WorkerPool, folder: Path, sink: ProgressSink | None = None) -> None:
        super().__init__(pool, sink)
        self._folder = folder
        self.steps: list[tuple[str, float, float]] = []

    def step(self, name: str, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        start = time.time()
        result = super().step(name, fn, *args, **kwargs)
        self.steps.append((name, start, time.time()))
        return result

    def map(self, name: str, fn: Callable[[A], T], items: Sequence[A]) -> list[T]:
        start = time.time()
        results = super().map(name, Spanned(name, fn, str(self._folder)), items)
        self.steps.append((name, start, time.time()))
        return results


def main() -> None:
    source, root, words = sys.argv[1:]
    options: dict[str, Any] = json.loads(words)
    if "models" in options:
        os.environ["GPTFACE_INSIGHTFACE_ROOT"] = options["models"]
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    from flows.steps.pipeline import build

    folder = Path(options["spans"])
    folder.mkdir()
    config = BuildConfig(
        source=source,
        root=root,
        detector=options["detector"],
        pack=options["pack"],
        part_urls=options["shard_rows"],
        workers=options["processes"],
        download_threads=options["threads"],
        allow_private=True,
    )
    with WorkerPool(config.workers) as pool:
        runner = SpanRunner(pool, folder)
        summary = build(config, runner)
    told = {"steps": runner.steps, "kept": summary.kept, "tars": summary.shards, "detector": summary.detector}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
