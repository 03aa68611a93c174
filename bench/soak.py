"""Small builds one after the other in one process, as a service does: `python -m bench.soak` (`--minutes 30` for all).

One process with one `WorkerPool` for all its life builds a sample web that grows by a few pictures each time: crawled
anew (`refresh`), consent, download, detection, publish and shards, through the functions and the runner of `gptface
build`. In between, every so many builds: a query, the report, `prune`, and one picture is taken down.

After each build it looks at itself (bench/_soak_state.py): memory of its own (USS) and of its workers, open files,
sockets and threads; whether another process can take the catalogue's write lock within a second; what lies about in the
root and in TMPDIR under temporary names. What grows is told by the slope per build after the first third (at least
ten builds), where imports, caches and the allocators of DuckDB and pyarrow have filled up: they come to a plateau, a
leak does not. Amiss (`ok` false) is growth beyond BOUNDS, a single held lock or leftover file. Garbage is collected
before each look.

One line of JSON last: `rss_*` is this process, `children_*` the sum of its workers; `files` and `lake_files` are told,
not judged (a corpus that grows has more). Linux alone. `--states FILE` keeps what was seen after each build.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import io
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from bench._clock import StepClock
from bench._soak_state import LEAST, State, judge, observe
from flows.steps.runner import LocalRunner, WorkerPool

FIRST, MORE = 60, 2  # pictures of the web, and by how many it grows
EVERY = {"query": 3, "report": 4, "prune": 5, "takedown": 7}  # builds
_PART = 5  # addresses of a raw shard, samples of a training shard: many small calls for each worker
# No retries: a build is to be work, not waiting for the pictures of that web that are broken.
_SETTINGS: dict[str, Any] = {
    "detector": "cascade",
    "allow_private": True,
    "page_delay_s": 0.0,
    "retries": 0,
    "refresh": True,
    "part_urls": _PART,
    "samples_per_shard": _PART,
}
_TELL_EVERY = 10


@dataclasses.dataclass
class Service:
    """What lives as long as the process: the root, the workers, and where its web is."""

    root: Path
    pool: WorkerPool
    builds: int = 0
    port: int = 0

    def build(self) -> None:
        """One build of a web that has grown, and what is due after it."""
        from flows.steps.config import BuildConfig
        from flows.steps.pipeline import build
        from sample_web.server import SampleWeb

        runner = LocalRunner(self.pool, StepClock())
        with SampleWeb(FIRST + MORE * self.builds, port=self.port) as web:
            self.port = int(web.url.rpartition(":")[2])
            config = BuildConfig(f"site:{web.url}", str(self.root), workers=self.pool.workers, **_SETTINGS)
            summary = build(config, runner)
        self.builds += 1
        assert summary.is_new, "the web has grown, so a release must follow"
        for chore, every in EVERY.items():
            if self.builds % every == 0:
                getattr(self, chore)(runner)

    def query(self, _: LocalRunner) -> None:
        from warehouse.query import run_query

        run_query(self.root, "SELECT split, count(*), avg(face_px) FROM corpus GROUP BY split", "csv", io.StringIO())

    def report(self, _: LocalRunner) -> None:
        from flows.steps.report import write_report

        write_report(self.root)

    def prune(self, runner: LocalRunner) -> None:
        from flows.steps.config import RetentionConfig
        from flows.steps.layout import Layout
        from flows.steps.retention import prune

        prune(Layout(self.root), RetentionConfig(keep_releases=2, lake_days=0), runner)

    def takedown(self, runner: LocalRunner) -> None:
        """The first picture of the corpus goes."""
        import warehouse
        from flows.steps.takedown import TakedownConfig, take_down

        with contextlib.closing(warehouse.connect(self.root)) as con:
            row = con.execute("SELECT image_url FROM corpus ORDER BY row_id LIMIT 1").fetchone()
        assert row is not None, "a corpus of faces"
        [done] = take_down(TakedownConfig(str(self.root), urls=(row[0],)), runner)
        assert done.pairs, "the picture was still there"


def soak(folder: Path, minutes: float, workers: int, log: Path | None = None) -> list[State]:
    """Build until the time is over; what was seen after each build. Temporary files go below `folder`."""
    temporary = folder / "tmp"
    temporary.mkdir()
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)  # of the workers, and of this process
    states: list[State] = []
    deadline = time.monotonic() + 60 * minutes
    with WorkerPool(workers) as pool:
        service = Service(folder / "root", pool)
        while time.monotonic() < deadline:
            started = time.monotonic()
            service.build()
            gc.collect()
            states.append(observe(service.root, temporary, time.monotonic() - started))
            if log:
                with log.open("a") as file:
                    file.write(json.dumps(dataclasses.asdict(states[-1])) + "\n")
            if len(states) % _TELL_EVERY == 0:
                print(f"{len(states)} builds: {states[-1]}", flush=True)
    return states


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--states", type=Path, help="file to add the state after each build to")
    words = parser.parse_args()
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-soak-") as folder:
        states = soak(Path(folder), words.minutes, words.workers, words.states)
    if len(states) < LEAST:
        raise SystemExit(f"only {len(states)} builds in {words.minutes:g} minutes, {LEAST} are needed: give --minutes")
    minutes = round((time.monotonic() - started) / 60, 1)
    load = round(os.getloadavg()[0], 1)
    print(json.dumps({"builds": len(states), "minutes": minutes, **judge(states), "load_average": load}))


if __name__ == "__main__":
    main()
