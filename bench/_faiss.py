"""Run by the interpreter that has faiss: pairs of hashes within a distance, by the exact and the hashed binary index.

Arguments: an .npz with hashes (uint64), originals and distinct (see `bench.dedup.planted`), bits, threads.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def main() -> None:
    import faiss  # type: ignore[import-not-found]
    import numpy as np

    data = np.load(sys.argv[1])
    distance, threads = int(sys.argv[2]), int(sys.argv[3])
    faiss.omp_set_num_threads(threads)
    codes = np.ascontiguousarray(data["hashes"]).view(np.uint8).reshape(-1, 8)
    distinct = int(data["distinct"])

    def run(index: Any) -> dict[str, float]:
        started = time.perf_counter()
        index.add(codes)
        limits, _, labels = index.range_search(codes, distance + 1)  # faiss: distance < radius
        seconds = time.perf_counter() - started
        found = sum(
            original in labels[limits[distinct + i] : limits[distinct + i + 1]]
            for i, original in enumerate(data["originals"])
        )
        return {"seconds": round(seconds, 3), "recall": found / len(data["originals"])}

    # By pigeonhole, distance + 1 hashes of an equal share of the bits find all.
    hashed = faiss.IndexBinaryMultiHash(64, distance + 1, 64 // (distance + 1))
    print(json.dumps({"flat": run(faiss.IndexBinaryFlat(64)), "multi_hash": run(hashed)}))


if __name__ == "__main__":
    main()
