"""Planning a list of 10,000,000 rows: seconds, rows per second and peak memory: `python -m bench.plan`.

Writes a list of realistic addresses and captions (Parquet, row groups as lists on the web have them), then extracts and
plans its first tenth and all of it, each in child processes whose memory is summed up while they run. Every plan is
checked for its number of pairs. Growth is the time of all rows over ten times that of a tenth; cpu_growth the same of
processor time, which other work on the machine does not disturb. One line of JSON last.
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
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import psutil

MAX_PEAK_GIB = 1.5
MAX_GROWTH = 1.3
_PART_URLS = 10_000
_GROUP_ROWS = 250_000
_DUPLICATE_EVERY = 50  # one row in so many repeats the pair before it, with another text
_SAMPLE_EVERY_S = 0.1
_WORDS = """
    a portrait of woman man smiling young old with dark hair glasses beard in the park at conference speaks stock
    photo royalty free image 2019 happy business team cute baby dog street style fashion red dress sunset beach
    president minister wins award local news interview actor singer premiere festival London Paris Tokyo
"""


@dataclass(frozen=True)
class Measured:
    """One run of extraction and plan. `peak_gib` is the largest sum of memory over all its processes."""

    seconds: float
    cpu_s: float
    extract_s: float
    peak_gib: float
    pairs: int


def write_list(path: Path, rows: int, seed: int = 0) -> int:
    """A Parquet list of `rows` rows with columns URL and TEXT; how many distinct pairs it holds."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(seed)
    schema = pa.schema([("URL", pa.string()), ("TEXT", pa.string())])
    duplicates = 0
    with pq.ParquetWriter(path, schema, compression="snappy") as writer:
        for start in range(0, rows, _GROUP_ROWS):
            count = min(_GROUP_ROWS, rows - start)
            urls, texts = _rows(rng, start, count)
            duplicates += count // _DUPLICATE_EVERY
            writer.write_table(pa.table({"URL": urls, "TEXT": texts}, schema=schema))
    return rows - duplicates


def _rows(rng: np.random.Generator, start: int, count: int) -> tuple[list[str], list[str]]:
    hosts = (rng.pareto(0.6, count) * 20).astype("int64") % 200_000  # few large hosts, a long tail
    paths = rng.integers(0, 1 << 60, count)
    lengths = rng.integers(3, 18, count).tolist()
    vocabulary = _WORDS.split()
    words = rng.integers(0, len(vocabulary), count * 18).tolist()
    urls = [
        f"https://img{host % 7}.site-{host}.example/wp-content/uploads/{2008 + path % 16}/{path:x}-{start + i}.jpg"
        for i, (host, path) in enumerate(zip(hosts.tolist(), paths.tolist(), strict=True))
    ]
    texts = [" ".join(vocabulary[w] for w in words[18 * i : 18 * i + n]) for i, n in enumerate(lengths)]
    for i in range(_DUPLICATE_EVERY - 1, count, _DUPLICATE_EVERY):
        urls[i] = urls[i - 1]
    return urls, texts


def run_child(source: str, folder: Path) -> None:
    """Extract all units in two worker processes and plan; prints one line of JSON. Runs in a process of its own."""
    from crawler.extraction import list_units
    from crawler.plan import plan_crawl

    started = time.perf_counter()
    units = list_units(source, None, folder)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(_extract, [source] * len(units), [folder] * len(units), range(len(units))))
    extracted = time.perf_counter()
    summary = plan_crawl(folder, _PART_URLS, source)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "extract_s": extracted - started, "pairs": summary.pairs}))


def _extract(source: str, folder: Path, index: int) -> None:
    from crawler.extraction import extract_unit

    extract_unit(source, None, folder, index)


def measure(source: Path, folder: Path) -> Measured:
    """Run extraction and plan of one list in a child process, watching the memory of its whole tree."""
    command = [sys.executable, "-m", "bench.plan", "--child", f"list:{source}", "--folder", str(folder)]
    before = _children_cpu_s()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak = [0]
    watcher = threading.Thread(target=_watch, args=(child, peak), daemon=True)
    watcher.start()
    output, _ = child.communicate()
    watcher.join()
    if child.returncode:
        raise RuntimeError(f"the child process ended with code {child.returncode}")
    found = json.loads(output.splitlines()[-1])
    cpu_s = _children_cpu_s() - before
    return Measured(found["seconds"], cpu_s, found["extract_s"], peak[0] / (1 << 30), found["pairs"])


def _children_cpu_s() -> float:
    """Processor time of all ended children and theirs."""
    times = os.times()
    return times.children_user + times.children_system


def _watch(child: subprocess.Popen[str], peak: list[int]) -> None:
    import psutil

    while child.poll() is None:
        try:
            root = psutil.Process(child.pid)
            peak[0] = max(peak[0], sum(_memory(process) for process in [root, *root.children(recursive=True)]))
        except psutil.NoSuchProcess:
            return
        time.sleep(_SAMPLE_EVERY_S)


def _memory(process: psutil.Process) -> int:
    """Resident bytes (shared pages count in each process: an upper bound)."""
    import psutil

    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of the large list; the small has a tenth")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_child(options.child, options.folder)
        return
    results = []
    for rows in (options.rows // 10, options.rows):
        with tempfile.TemporaryDirectory(prefix="bench-plan-") as scratch:
            file = Path(scratch) / "list.parquet"
            expected = write_list(file, rows)
            result = measure(file, Path(scratch) / "crawl")
        if result.pairs != expected:
            raise RuntimeError(f"{result.pairs} pairs were planned, not {expected}")
        print(
            f"{rows:,} rows: {result.seconds:.1f} s ({result.extract_s:.1f} s extraction), {result.peak_gib:.2f} GiB",
            flush=True,
        )
        results.append(result)
    small, large = results
    cpu_growth = large.cpu_s / small.cpu_s / 10
    growth, peak = large.seconds / small.seconds / 10, max(small.peak_gib, large.peak_gib)
    summary = {
        "rows": options.rows,
        "peak_gib": round(peak, 3),
        "seconds_1m": round(small.seconds, 1),
        "seconds_10m": round(large.seconds, 1),
        "extract_s_10m": round(large.extract_s, 1),
        "growth": round(growth, 3),
        "cpu_growth": round(cpu_growth, 3),
        "cpu_us_per_row": round(large.cpu_s / options.rows * 1e6, 2),
        "rows_per_s": round(options.rows / large.seconds),
        "target_peak_gib": MAX_PEAK_GIB,
        "ok": peak <= MAX_PEAK_GIB and min(growth, cpu_growth) <= MAX_GROWTH,
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
