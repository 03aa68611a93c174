"""Addresses to curated shards, beside a plain script: `python -m bench.e2e`.

6,000 addresses of the sample web (faces of 224 to 448 px, and all that is wrong with a web: broken pictures, copies,
refusals, collages) with captions, as a list. Ours: `gptface build list:...` with embeddings on. Theirs
(`bench/_plain_script.py`): img2dataset's command line with original bytes, a `FaceAnalysis(det_size=640)` loop with
embeddings over its tars, a pandas filter with the same rules, a webdataset writer of aligned faces. Both have the same
processes, threads and rows per shard; the web has all its pictures rendered before. Each side keeps its own defaults
otherwise: ours asks for robots.txt, at most 8 pictures of a host at a time, looks for near-duplicates.

One line of JSON last: `ratio` is of wall time without loading on either side (processes, imports, theirs also its
models), `ratio_whole` with it, `cpu_ratio` of processor time of all processes. `same_kept`: see `bench/_kept.py`.

Needs GPTFACE_TEST_MODELS (insightface/models/<pack> with a recogniser).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bench._faces import data_folder
from bench._kept import compare, our_verdicts, plain_verdicts
from bench._warm_web import warm_web
from sample_web.truth import truth_table

TARGET_RATIO, TARGET_SAME = 2.5, 0.98


def write_list(images: int, seed: int, url: str, file: Path) -> None:
    truth = truth_table(images, seed, url)
    pq.write_table(pa.table({"url": truth["image_url"], "caption": truth["caption"]}), file)


def run(module: str, *words: str) -> dict[str, Any]:
    """A side in a process of its own: what it tells, wall and processor seconds (it and all that it started)."""
    environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1"}
    before, started = _children_cpu_s(), time.perf_counter()
    output = subprocess.run(
        [sys.executable, "-m", module, *words], check=True, stdout=subprocess.PIPE, text=True, env=environment
    ).stdout
    wall_s = time.perf_counter() - started
    told: dict[str, Any] = json.loads(output.splitlines()[-1])
    phases = {name: round(seconds, 1) for name, seconds in told["phases"].items()}
    work_s = sum(told["phases"].values())
    print(f"{module}: {work_s:.1f} s of work, {wall_s:.1f} s in all, {phases}", flush=True)
    return {
        "phases_s": phases,
        "work_s": round(work_s, 1),
        "loading_s": round(wall_s - work_s, 1),
        "whole_s": round(wall_s, 1),
        "cpu_s": round(_children_cpu_s() - before, 1),
    }


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(images: int, seed: int, folder: Path, ours_first: bool, options: dict[str, Any]) -> dict[str, Any]:
    pairs, root, plain = folder / "pairs.parquet", folder / "root", folder / "plain"
    words = json.dumps(options)
    jobs = {
        "ours": ("bench._our_build", f"list:{pairs}", str(root), words),
        "theirs": ("bench._plain_script", str(pairs), str(plain), words),
    }
    with warm_web(images, seed) as url:
        write_list(images, seed, url, pairs)
        sides = {name: run(*jobs[name]) for name in sorted(jobs, reverse=not ours_first)}
    found = compare(our_verdicts(root), plain_verdicts(plain / "reasons.parquet"))
    ours, theirs = sides["ours"], sides["theirs"]
    ratio = theirs["work_s"] / ours["work_s"]
    embeddings = sum(pq.read_metadata(path).num_rows for path in (root / "raw").glob("*/*/faces/*.embeddings.parquet"))
    return {
        "ratio": round(ratio, 2),
        "ratio_whole": round(theirs["whole_s"] / ours["whole_s"], 2),
        "cpu_ratio": round(theirs["cpu_s"] / ours["cpu_s"], 2),
        "images": images,
        **found,
        "ours": ours,
        "theirs": theirs,
        "embeddings": embeddings,
        **{name: options[name] for name in ("processes", "threads", "shard_rows")},
        "load_average": round(os.getloadavg()[0], 1),
        "ok": ratio >= TARGET_RATIO and found["same_kept"] >= TARGET_SAME and embeddings >= found["kept"]["ours"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=32, help="per process, for downloads")
    parser.add_argument("--shard-rows", type=int, default=1000, help="addresses per part or raw shard")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ours-first", action="store_true")
    parser.add_argument("--pack", default="test_sc", help="a pack with a recogniser")
    options = parser.parse_args()
    side = {name: getattr(options, name) for name in ("processes", "threads", "shard_rows", "pack")}
    side["models"] = str(data_folder("GPTFACE_TEST_MODELS", "models") / "insightface")
    with tempfile.TemporaryDirectory(prefix="gptface-e2e-") as folder:
        found = measure(options.images, options.seed, Path(folder), options.ours_first, side)
    print(f"ratio {found['ratio']} (target {TARGET_RATIO}), kept alike {found['same_kept']} (target {TARGET_SAME})")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
