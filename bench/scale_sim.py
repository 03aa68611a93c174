"""100,000 shards through the real planner and catalogue, the work of each shard stubbed: `python -m bench.scale_sim`.

What is real: `gptface build` on a list, from the listing of its files to the manifest: extraction, plan, the batches of
hosts, one task per shard and step in two worker processes, what was taken down, publish with its rules into a new
DuckLake, the plan of the training shards, index, register and manifest. What is STUBBED, in the same worker processes:
asking hosts, consent, download, detection, and the making of crops and tars. Stubs write the files that these steps
leave behind, with `--rows` made-up rows (bench._stub_shards); no picture is asked for, decoded or written. So this
measures what a shard costs beside its work, not a build.

First a tenth of the shards, then all, each in a process of its own whose memory is summed up with its workers'. One
line of JSON last:

    shards, rows           raw shards, and addresses in each
    files                  of the list, each a unit of extraction
    tars                   training shards that were planned, indexed and listed in the manifest
    seconds, shards_per_s  wall time of the large build without start-up; shards over it
    ms_per_shard           wall milliseconds of one shard, all steps together
    cpu_ms_per_shard       processor time of all its processes, start-up included
    peak_gib               the largest sum of resident memory (shared pages count in each process)
    growth                 wall time of all shards over ten times that of a tenth: 1 is linear
    cpu_growth             the same of processor time, which other work on the machine disturbs less
    read_growth            what a worker waits for the rows of one tar in the large lake over the same in the small
    steps_s, steps_growth  wall seconds per step (large), and each step's growth
    ok                     both growths at most 1.3 and the whole run within 10 minutes
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from bench._clock import StepClock
from bench._stub_shards import STUBS, WITH_FACES_EVERY
from flows.steps.runner import LocalRunner, WorkerPool
from flows.steps.watched import Counted

A = TypeVar("A")
T = TypeVar("T")
TARGET_S, MAX_GROWTH = 600, 1.3
_SHARDS_PER_FILE = 100
_READS = 20  # tars whose rows are read as a worker does


class StubbedRunner(LocalRunner):
    """A `LocalRunner` that sends stubs to the workers where the work of a shard would go."""

    def map(self, name: str, fn: Callable[[A], T], items: Sequence[A]) -> list[T]:
        if name in STUBS:
            assert isinstance(fn, Counted), "the pipeline watches its runs"
            fn = replace(fn, fn=STUBS[name])
        return super().map(name, fn, items)


def write_lists(folder: Path, rows: int, files: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    for file in range(files):
        mine = range(file, rows, files)
        urls = [f"https://img.site-{i % 9973}.example/{i}.jpg" for i in mine]
        texts = [f"A smiling woman with brown hair, number {i}" for i in mine]
        pq.write_table(pa.table({"url": urls, "caption": texts}), folder / f"{file:05d}.parquet")


def run_child(shards: int, rows: int, tar_rows: int, folder: Path) -> None:
    """One build in this process and two workers; prints one line of JSON."""
    from flows.steps.config import BuildConfig
    from flows.steps.pipeline import build

    root, files = folder / "root", max(1, shards // _SHARDS_PER_FILE)
    write_lists(folder / "lists", shards * rows, files)
    config = BuildConfig(
        source=f"list:{folder}/lists/*.parquet",
        root=str(root),
        detector="cascade",
        part_urls=rows,
        workers=2,
        samples_per_shard=tar_rows,
    )
    clock = StepClock()
    with WorkerPool(2) as pool:
        [future.result() for future in [pool.submit(abs, i) for i in range(2)]]
        summary = build(config, StubbedRunner(pool, clock))
    kept = -(-shards // WITH_FACES_EVERY) * rows
    if (summary.pairs, summary.kept) != (shards * rows, kept):
        raise RuntimeError(f"{summary.kept} of {summary.pairs} rows were kept, not {kept} of {shards * rows}")
    steps = dict(clock.seconds) | {"between steps": summary.seconds - sum(clock.seconds.values())}
    tars = {"files": files, "tars": summary.shards, "read_s": read_s(root, summary.release, tar_rows)}
    print(json.dumps({"seconds": summary.seconds, "steps": steps, **tars}))


def read_s(root: Path, release: int, tar_rows: int) -> float:
    """Mean seconds in which a worker has the rows of one tar: open the lake, ask, close."""
    import warehouse
    from flows.steps.shard import crop_config
    from warehouse.shards import plan_rows, plan_shards

    with warehouse.connect(root, at=release) as con:
        plans = plan_shards(con, tar_rows, {**crop_config(), "samples_per_shard": tar_rows})
    started = time.perf_counter()
    for plan in plans[:: max(1, len(plans) // _READS)][:_READS]:
        with warehouse.connect(root, at=release) as con:
            plan_rows(con, plan)
    return (time.perf_counter() - started) / min(_READS, len(plans))


def measure(shards: int, rows: int, tar_rows: int) -> dict[str, Any]:
    """A build in a child process: what it tells, processor time and peak memory of it and its workers."""
    with tempfile.TemporaryDirectory(prefix="bench-scale-") as folder:
        words = ["--child", folder, "--shards", str(shards), "--rows", str(rows), "--tar-rows", str(tar_rows)]
        before = os.times()
        child = subprocess.Popen([sys.executable, "-m", "bench.scale_sim", *words], stdout=subprocess.PIPE, text=True)
        peak = [0]
        watcher = threading.Thread(target=_watch, args=(child, peak), daemon=True)
        watcher.start()
        output, _ = child.communicate()
        watcher.join()
        after = os.times()
        if child.returncode:
            raise RuntimeError(f"the build of {shards} shards ended with code {child.returncode}")
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    print(f"{shards:,} shards: {found['seconds']:.1f} s, {cpu_s:.1f} s of processor time, {peak[0] / 2**30:.2f} GiB")
    print(f"  {', '.join(f'{name} {seconds:.1f}' for name, seconds in found['steps'].items())}", flush=True)
    return {**found, "cpu_s": cpu_s, "peak_gib": peak[0] / 2**30}


def _watch(child: subprocess.Popen[str], peak: list[int]) -> None:
    import psutil

    while child.poll() is None:
        total = 0
        try:
            root = psutil.Process(child.pid)
            for process in (root, *root.children(recursive=True)):
                total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
        peak[0] = max(peak[0], total)
        time.sleep(1.0)


def summarise(small: dict[str, Any], large: dict[str, Any], shards: int, rows: int, whole_s: float) -> dict[str, Any]:
    seconds, cpu_s = large["seconds"], large["cpu_s"]
    growth, cpu_growth = seconds / small["seconds"] / 10, cpu_s / small["cpu_s"] / 10
    steps = {name: round(took, 1) for name, took in large["steps"].items()}
    by_step = {name: round(took / max(small["steps"][name], 1e-3) / 10, 2) for name, took in large["steps"].items()}
    return {
        "shards": shards,
        "rows": rows,
        "files": large["files"],
        "tars": large["tars"],
        "seconds": round(seconds, 1),
        "shards_per_s": round(shards / seconds, 1),
        "ms_per_shard": round(1000 * seconds / shards, 3),
        "cpu_ms_per_shard": round(1000 * cpu_s / shards, 3),
        "peak_gib": round(large["peak_gib"], 3),
        "growth": round(growth, 3),
        "cpu_growth": round(cpu_growth, 3),
        "read_growth": round(large["read_s"] / small["read_s"], 3),
        "steps_s": steps,
        "steps_growth": by_step,
        "whole_s": round(whole_s, 1),
        "load_average": round(os.getloadavg()[0], 1),
        "ok": max(growth, cpu_growth) <= MAX_GROWTH and whole_s <= TARGET_S,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=100_000, help="of the large build; the small has a tenth")
    parser.add_argument("--rows", type=int, default=2, help="addresses per shard")
    parser.add_argument("--tar-rows", type=int, default=10, help="samples per training shard")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_child(options.shards, options.rows, options.tar_rows, options.child)
        return
    started = time.perf_counter()
    small = measure(options.shards // 10, options.rows, options.tar_rows)
    large = measure(options.shards, options.rows, options.tar_rows)
    whole_s = time.perf_counter() - started
    print(json.dumps(summarise(small, large, options.shards, options.rows, whole_s)))


if __name__ == "__main__":
    main()
