"""What orchestration costs: `python -m bench.orchestration` (a build), `... --mode prefect` (Prefect alone).

**build**: `gptface build` of a list of 20 shards of 1,000 addresses on the sample web, in a process of its own with two
workers, everything real. Inside the workers the time of the four kinds of work is taken:

    fetch   img2dataset's downloader while it downloads (its import and start-up are outside)
    decode, detect   a shard's pictures decoded and looked at (loading models is outside)
    write   a training shard written: its rows' pictures read, faces cut out, encoded, put into a tar;
        the tar read again, each crop hashed and averaged for the manifest

`overhead` is the share of wall time, from the start of the process to its end, in which no worker did any of these:
interpreter, imports, the plan, robots.txt, consent, the rules, the lake, index, closing the manifest.
`worker_overhead` is the share of the workers' time (two of them, all the while), so it also counts one that waits while
the other works. `outside_s` tells where the time of `overhead` went, by step.

**prefect**: N tasks that do nothing, through the runner of our flows (`flows.prefect_runner`), N = 1,000 and 10,000,
each with a Prefect server and database of its own. `growth` is time per task at the large N over that at the small one;
`flow_mib` and `server_mib` are peaks of resident memory, `flow_growth` and `server_growth` their ratios.

One line of JSON last. Needs GPTFACE_TEST_MODELS for InsightFace (`--detector cascade` does without).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench._faces import data_folder
from bench._prefect_tasks import run_tasks
from bench._warm_web import warm_web
from bench.e2e import write_list

TARGET_OVERHEAD, MAX_GROWTH, MAX_MEMORY_GROWTH = 0.10, 1.3, 1.3
Span = tuple[float, float]


def covered(spans: Sequence[Span]) -> list[Span]:
    """Their union as spans in order, none touching another."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def length(spans: Sequence[Span]) -> float:
    return sum(end - start for start, end in spans)


def within(spans: Sequence[Span], bounds: Span) -> list[Span]:
    """What lies between two points in time."""
    cut = [(max(start, bounds[0]), min(end, bounds[1])) for start, end in spans]
    return [(start, end) for start, end in cut if end > start]


def measure_build(shards: int, rows: int, options: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="bench-orchestration-") as scratch:
        folder = Path(scratch)
        with warm_web(shards * rows, 0) as url:
            write_list(shards * rows, 0, url, folder / "pairs.parquet")
            words = json.dumps({**options, "shard_rows": rows, "spans": str(folder / "spans")})
            command = [sys.executable, "-m", "bench._orchestrated_build", f"list:{folder}/pairs.parquet"]
            started = time.time()
            output = subprocess.run(
                [*command, str(folder / "root"), words], check=True, stdout=subprocess.PIPE, text=True
            ).stdout
            whole = (started, time.time())
        told = json.loads(output.splitlines()[-1])
        lines = [line for file in (folder / "spans").iterdir() for line in file.read_text().splitlines()]
    return report(whole, told, [json.loads(line) for line in lines], options, shards, rows)


def report(
    whole: Span, told: dict[str, Any], spans: list[dict[str, Any]], options: dict[str, Any], shards: int, rows: int
) -> dict[str, Any]:
    """`told["steps"]`: (name, start, end) in this order; `spans`: kind, start and end of work in the workers."""
    work: defaultdict[str, list[Span]] = defaultdict(list)
    for span in spans:
        work[span["kind"]].append((span["start"], span["end"]))
    everything = [span for some in work.values() for span in some]
    busy, wall_s = covered(everything), length([whole])
    overhead = 1 - length(busy) / wall_s
    outside: defaultdict[str, float] = defaultdict(float)
    for name, start, end in told["steps"]:
        outside[name] += end - start - length(within(busy, (start, end)))
    steps_s = length(covered([(start, end) for _, start, end in told["steps"]]))
    outside["before, between and after steps"] = wall_s - steps_s
    return {
        "overhead": round(overhead, 4),
        "worker_overhead": round(1 - length(everything) / wall_s / options["processes"], 4),
        "wall_s": round(wall_s, 1),
        "work_s": {kind: round(length(some), 1) for kind, some in sorted(work.items())},
        "outside_s": {name: round(seconds, 2) for name, seconds in outside.items() if seconds >= 0.005},
        "shards": shards,
        "rows": rows,
        "kept": told["kept"],
        "tars": told["tars"],
        "detector": told["detector"],
        "processes": options["processes"],
        "load_average": round(os.getloadavg()[0], 1),
        "target": TARGET_OVERHEAD,
        "ok": overhead <= TARGET_OVERHEAD,
    }


def measure_prefect(tasks: int) -> dict[str, Any]:
    small, large = run_tasks(tasks // 10), run_tasks(tasks)
    growth = large["ms_per_task"] / small["ms_per_task"]
    memory = {f"{who}_growth": round(large[f"{who}_mib"] / small[f"{who}_mib"], 3) for who in ("flow", "server")}
    return {
        "tasks": [tasks // 10, tasks],
        "growth": round(growth, 3),
        **memory,
        **{name: [small[name], large[name]] for name in small},
        "load_average": round(os.getloadavg()[0], 1),
        "ok": growth <= MAX_GROWTH and memory["flow_growth"] <= MAX_MEMORY_GROWTH,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=("build", "prefect"), default="build")
    parser.add_argument("--shards", type=int, default=20)
    parser.add_argument("--rows", type=int, default=1_000, help="addresses per shard")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=32, help="per process, for downloads")
    parser.add_argument("--detector", choices=("insightface", "cascade"), default="insightface")
    parser.add_argument("--pack", default="test_sc")
    parser.add_argument("--tasks", type=int, default=10_000, help="of Prefect; the small run has a tenth")
    words = parser.parse_args()
    if words.mode == "prefect":
        print(json.dumps(measure_prefect(words.tasks)))
        return
    options = {name: getattr(words, name) for name in ("processes", "threads", "detector", "pack")}
    if words.detector == "insightface":
        options["models"] = str(data_folder("GPTFACE_TEST_MODELS", "models") / "insightface")
    print(json.dumps(measure_build(words.shards, words.rows, options)))


if __name__ == "__main__":
    main()
