"""Downloading against the img2dataset command line: `python -m bench.download`.

Both fetch the same pool pictures of the sample web and write tar shards of the original bytes with sha256, with the
same number of processes, threads per process and rows per shard; img2dataset decodes and re-encodes nothing
(`disable_all_reencoding`) and reads no EXIF. Ours has all guards on, looks every address up in the host's rules and
keeps refusals; its plan and consent are made before, as img2dataset has neither. Runs alternate.

One line of JSON last: `ratio` is the median over paired runs of rows/s from the first shard's beginning to the last
one's end, without start-up on either side, which is the harder comparison for us (img2dataset takes seconds to
import); `ratio_whole` is that of whole processes, start-up included. `polite_ratio` is `ratio` of one more run of ours
with the default bound of 8 requests at a time to one host, which img2dataset does not have.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from sample_web.server import SampleWeb

NEEDED_RATIO = 0.95
_TIMEOUT_S = 30
_RETRIES = 2


@dataclass(frozen=True)
class Load:
    """What both sides do."""

    images: int
    processes: int
    threads: int
    shard_rows: int


@dataclass(frozen=True)
class Run:
    """Rows that came, seconds from the first shard's beginning to the last one's end, and of the whole process."""

    ok: int
    work_s: float
    whole_s: float


def plan(web_url: str, load: Load, crawl: Path) -> None:
    """Plan and consent, once: they are the same for every run."""
    from crawler.consent import decide_all
    from crawler.fetch import FetchConfig
    from crawler.hosts import ConsentConfig
    from crawler.plan import write_plan
    from crawler.sources.base import Candidate

    urls = (f"{web_url}/pool/{number}.jpg" for number in range(load.images))
    write_plan((Candidate(url, url, (), "") for url in urls), crawl / "plan", load.shard_rows, "bench")
    decide_all(crawl, ConsentConfig(fetch=FetchConfig(allow_private=True)))


def download_one(job: tuple[int, str, int, int, int]) -> tuple[int, float, float]:
    """One part in a worker: pictures that came, and when it began and ended."""
    from crawler.download import DownloadConfig, download_part
    from crawler.fetch import FetchConfig

    part, crawl, threads, processes, host_concurrency = job
    config = DownloadConfig(
        fetch=FetchConfig(allow_private=True, total_s=_TIMEOUT_S),
        threads=threads,
        retries=_RETRIES,
        processes=processes,
        host_concurrency=host_concurrency,
    )
    began = time.time()
    stats = download_part(part, Path(crawl), "raw/bench/images", config)
    return stats.ok, began, time.time()


def ours(crawl: Path, load: Load, host_concurrency: int) -> None:
    """The child process of one of our runs; prints its figures."""
    parts = -(-load.images // load.shard_rows)
    jobs = [(part, str(crawl), load.threads, load.processes, host_concurrency) for part in range(parts)]
    with ProcessPoolExecutor(load.processes, mp_context=get_context("spawn")) as pool:
        results = list(pool.map(download_one, jobs))
    began, ended = min(r[1] for r in results), max(r[2] for r in results)
    print(json.dumps({"ok": sum(r[0] for r in results), "work_s": ended - began}))


def run_ours(crawl: Path, load: Load, host_concurrency: int) -> Run:
    shutil.rmtree(crawl / "images", ignore_errors=True)
    words = [str(crawl), load.images, load.processes, load.threads, load.shard_rows, host_concurrency]
    command = [sys.executable, "-m", "bench.download", "--child", *map(str, words)]
    started = time.perf_counter()
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    whole_s = time.perf_counter() - started
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return Run(result["ok"], result["work_s"], whole_s)


def run_img2dataset(url_list: Path, output: Path, load: Load) -> Run:
    shutil.rmtree(output, ignore_errors=True)
    options = {
        "url_list": url_list,
        "input_format": "txt",
        "output_folder": output,
        "output_format": "webdataset",
        "processes_count": load.processes,
        "thread_count": load.threads,
        "number_sample_per_shard": load.shard_rows,
        "resize_mode": "no",
        "disable_all_reencoding": True,
        "extract_exif": False,
        "compute_hash": "sha256",
        "timeout": _TIMEOUT_S,
        "retries": _RETRIES,
        "enable_wandb": False,
    }
    tool = Path(sys.executable).with_name("img2dataset")
    command = [str(tool), *(f"--{name}={value}" for name, value in options.items())]
    environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1"}
    started = time.perf_counter()
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    whole_s = time.perf_counter() - started
    shards = [json.loads(path.read_text()) for path in output.glob("*_stats.json")]
    work_s = max(shard["end_time"] for shard in shards) - min(shard["start_time"] for shard in shards)
    return Run(sum(shard["successes"] for shard in shards), work_s, whole_s)


def measure(load: Load, runs: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="gptface-bench-") as folder, SampleWeb(images=50) as web:
        crawl, url_list, bare_output = Path(folder) / "crawl", Path(folder) / "urls.txt", Path(folder) / "bare"
        url_list.write_text("\n".join(f"{web.url}/pool/{number}.jpg" for number in range(load.images)) + "\n")
        plan(web.url, load, crawl)
        unbounded = load.processes * load.threads
        pairs = []
        for number in range(runs):
            order = ("ours", "bare") if number % 2 else ("bare", "ours")
            pair = {}
            for side in order:
                pair[side] = (
                    run_ours(crawl, load, unbounded) if side == "ours" else run_img2dataset(url_list, bare_output, load)
                )
                if pair[side].ok != load.images:
                    raise RuntimeError(f"{side}: {pair[side].ok} of {load.images} pictures came")
            print(
                f"run {number}: ours {pair['ours'].work_s:.2f} s, img2dataset {pair['bare'].work_s:.2f} s", flush=True
            )
            pairs.append(pair)
        polite = run_ours(crawl, load, 8)
    return summary(load, pairs, polite)


def summary(load: Load, pairs: list[dict[str, Run]], polite: Run) -> dict[str, Any]:
    median = statistics.median
    ratio = median(pair["bare"].work_s / pair["ours"].work_s for pair in pairs)
    return {
        "ratio": round(ratio, 3),
        "ratio_whole": round(median(pair["bare"].whole_s / pair["ours"].whole_s for pair in pairs), 3),
        "polite_ratio": round(median(pair["bare"].work_s for pair in pairs) / polite.work_s, 3),
        "ours_rows_per_s": round(load.images / median(pair["ours"].work_s for pair in pairs), 1),
        "img2dataset_rows_per_s": round(load.images / median(pair["bare"].work_s for pair in pairs), 1),
        "images": load.images,
        "processes": load.processes,
        "threads": load.threads,
        "runs": len(pairs),
        "needed_ratio": NEEDED_RATIO,
        "ok": ratio >= NEEDED_RATIO,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=32, help="per process")
    parser.add_argument("--shard-rows", type=int, default=2_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--child", nargs=6, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        crawl, *numbers, host_concurrency = options.child
        ours(Path(crawl), Load(*map(int, numbers)), int(host_concurrency))
        return
    load = Load(options.images, options.processes, options.threads, options.shard_rows)
    result = measure(load, options.runs)
    print(f"ours {result['ours_rows_per_s']} rows/s, img2dataset {result['img2dataset_rows_per_s']} rows/s")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
