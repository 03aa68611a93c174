"""Near-duplicate search over many hashes: recall, time and memory of `warehouse.dedup.find_clusters` itself.

    python -m bench.dedup [--sizes 1000000,10000000]

Random 64-bit hashes, 1 % of them planted copies of another with 3 bits flipped (the rule's default distance). Each size
runs in a process of its own on 2 threads with a memory limit. The sample is searched by faiss's binary indexes as well
(faiss-cpu in an environment of its own). The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bench._env import baseline_python, clean_environment
from warehouse.dedup import Nearness, find_clusters

DISTANCE = 3
PLANTED_SHARE = 0.01
SAMPLE = 200_000
THREADS = 2
_FAISS = ("faiss-cpu", "numpy")


def planted(count: int, seed: int = 4) -> tuple[NDArray[np.uint64], NDArray[np.int64], int]:
    """Hashes, the places of the originals of the copies, and how many hashes (the first ones) are no copies."""
    rng = np.random.default_rng(seed)
    copies = round(count * PLANTED_SHARE)
    hashes = rng.integers(0, 2**64, count - copies, dtype=np.uint64)
    originals = rng.choice(count - copies, copies, replace=False)
    bits = rng.permuted(np.tile(np.arange(64, dtype=np.uint64), (copies, 1)), axis=1)[:, :DISTANCE]
    flips = np.bitwise_or.reduce(np.uint64(1) << bits, axis=1)
    return np.concatenate([hashes, hashes[originals] ^ flips]), originals, count - copies


def measure(count: int) -> dict[str, float]:
    """One run of `find_clusters` over `count` pictures; call it in a process of its own, for the peak of memory."""
    hashes, originals, distinct = planted(count)
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as con:
        con.execute(f"SET threads = {THREADS}")
        con.execute("SET memory_limit = '6GB'")
        con.execute(f"SET temp_directory = '{folder}'")
        source = pa.table({"n": np.arange(count), "h": hashes})
        con.register("source", source)
        con.execute("""
            CREATE TEMP TABLE hashed_pictures AS
            SELECT sha256(n::VARCHAR) AS image_id, printf('%016x', h) AS phash, NULL::VARCHAR AS face_phash,
                   NULL::BLOB AS face_thumb, n AS first_release FROM source""")
        con.unregister("source")
        del source, hashes
        wall, cpu = time.perf_counter(), time.process_time()
        find_clusters(con, Nearness(whole_bits=DISTANCE))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        merged = con.execute("""
            SELECT p.first_release, e.first_release FROM clusters c JOIN hashed_pictures p USING (image_id)
            JOIN hashed_pictures e ON e.image_id = c.elder_id WHERE c.image_id <> c.elder_id""").fetchall()
    found = {int(copy): int(elder) for copy, elder in merged}
    right = sum(found.get(distinct + i) == int(elder) for i, elder in enumerate(originals))
    return {
        "hashes": count,
        "seconds": round(wall, 2),
        "cpu_seconds": round(cpu, 2),
        "recall": right / len(originals),
        "extra": len(found) - right,
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def measure_apart(count: int) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.dedup", "--one", str(count)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    print(json.dumps(result), flush=True)
    return result


def measure_faiss() -> dict[str, dict[str, float]]:
    """Seconds and recall of faiss's exact and hashed binary index on the sample."""
    hashes, originals, distinct = planted(SAMPLE)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hashes.npz"
        np.savez(path, hashes=hashes, originals=originals, distinct=distinct)
        command = [str(baseline_python("faiss", _FAISS)), str(Path(__file__).with_name("_faiss.py"))]
        command += [str(path), str(DISTANCE), str(THREADS)]
        answer = subprocess.run(command, capture_output=True, text=True, env=clean_environment(), check=True)
    result: dict[str, dict[str, float]] = json.loads(answer.stdout.splitlines()[-1])
    print(json.dumps(result), flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1000000,10000000", help="numbers of hashes, ascending")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(measure(chosen.one)))
        return
    sizes = [int(size) for size in chosen.sizes.split(",")]
    sample, theirs = measure_apart(SAMPLE), measure_faiss()
    runs = [measure_apart(size) for size in sizes]
    fastest = min(run["seconds"] for run in theirs.values() if run["recall"] >= 0.99)
    print(
        json.dumps(
            {
                "bench": "dedup",
                "distance": DISTANCE,
                "recall": min(run["recall"] for run in runs),
                "extra": runs[-1]["extra"],
                "peak_gib": max(run["peak_gib"] for run in runs),
                f"seconds_{sizes[-1] // 10**6}m": runs[-1]["seconds"],
                f"cpu_seconds_{sizes[-1] // 10**6}m": runs[-1]["cpu_seconds"],
                "growth": round(runs[-1]["seconds"] / runs[0]["seconds"], 2),
                "growth_cpu": round(runs[-1]["cpu_seconds"] / runs[0]["cpu_seconds"], 2),
                "growth_of_size": sizes[-1] / sizes[0],
                "ratio": round(fastest / sample["seconds"], 2),
                "sample_seconds": sample["seconds"],
                "faiss": theirs,
            }
        )
    )


if __name__ == "__main__":
    main()
