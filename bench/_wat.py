"""The WAT half of `python -m bench.extract`: image links per second on one core, against cc2dataset's own function.

Both sides read the same file (the test data's WAT, twenty times over), each in a process of its own on the same core,
by turns. cc2dataset runs its unchanged `extract_documents_from_wat` on a file held in memory, for all image links
("image_only": its default leaves out those without alt). Our side reads the file from disk and gives what the pipeline
takes: columns of rows.FOUND with directives, alt and title texts, addresses made absolute, placeholders left out, one
row per page and picture. Time is the process's own CPU time.
"""

from __future__ import annotations

import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench._env import baseline_python, clean_environment, test_data

REPEATS = 20
# Without its dependencies: the function needs none of Spark, and the reader is to be the same as ours.
_BASELINE = ("--no-deps", "cc2dataset==1.5.0", "fastwarc==2.0.1", "pysimdjson==7.0.2", "fsspec", "loguru")
_BASELINE_WORKER = """
import importlib, importlib.util, io, json, sys, time, types
for name in ("pyspark", "pyspark.sql", "pyspark.sql.functions"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["pyspark"].SparkContext = sys.modules["pyspark.sql"].SparkSession = None
sys.modules["pyspark.sql.functions"].rand = None
package = types.ModuleType("cc2dataset")
package.__path__ = list(importlib.util.find_spec("cc2dataset").submodule_search_locations)
sys.modules["cc2dataset"] = package  # its own __init__ starts the command line
extract = importlib.import_module("cc2dataset.main").extract_documents_from_wat
data = open(sys.argv[1], "rb").read()
for line in sys.stdin:
    begin = time.process_time()
    rows = extract(io.BytesIO(data), "image_only")
    print(json.dumps({"s": time.process_time() - begin, "rows": len(rows)}), flush=True)
    del rows
"""


def measure(runs: int = 5) -> dict[str, object]:
    """`ratio` of links per second (median of `runs` pairs), the speeds, `floor_s`: what reading the records costs."""
    python = baseline_python("cc2dataset", _BASELINE)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "links.warc.wat.gz"
        data = test_data("warc", "derived", "articles-keep.warc.wat.gz").read_bytes()
        file.write_bytes(data * REPEATS)
        links = gzip.decompress(data).count(b'"path":"IMG@/src"') * REPEATS
        with (
            _Worker([str(python), "-c", _BASELINE_WORKER, str(file)]) as theirs,
            _Worker([sys.executable, "-m", "bench._wat", str(file)]) as ours,
        ):
            pairs = [(theirs.turn("extract"), ours.turn("batches")) for _ in range(runs + 1)][1:]  # the first warms up
            objects = [ours.turn("read")["s"] for _ in range(3)]
            floor = min(ours.turn("floor")["s"] for _ in range(3))
    ratios = [their["s"] / our["s"] for their, our in pairs]
    their_s, our_s = (statistics.median(pair[side]["s"] for pair in pairs) for side in (0, 1))
    return {
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "ratio_objects": round(their_s / statistics.median(objects), 3),
        "links": links,
        "links_per_s_ours": round(links / our_s),
        "links_per_s_theirs": round(links / their_s),
        "rows_ours": pairs[0][1]["rows"],
        "rows_theirs": pairs[0][0]["rows"],
        "floor_s": round(floor, 3),
    }


class _Worker:
    """A process that does one pass over the file for each line that it is sent."""

    def __init__(self, command: list[str]) -> None:
        environment = clean_environment() | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(self._process.pid, {max(os.sched_getaffinity(0))})

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.communicate()

    def turn(self, what: str) -> dict[str, Any]:
        """{"s": CPU seconds, "rows": how many came out}."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a benchmark process ended with code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _serve(file: str) -> None:
    for line in sys.stdin:
        begin = time.process_time()
        rows = _pass(file, line.strip())
        print(json.dumps({"s": time.process_time() - begin, "rows": rows}), flush=True)


def _pass(file: str, what: str) -> int:
    from crawler.sources.base import Candidate, Unit
    from crawler.sources.wat import WatSource

    if what == "batches":
        return sum(getattr(item, "num_rows", 0) for item in WatSource(file).batches(Unit(file)))
    if what == "read":
        return sum(isinstance(item, Candidate) for item in WatSource(file).read(Unit(file)))
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    with Path(file).open("rb") as stream:
        records = ArchiveIterator(stream, WarcRecordType.metadata, parse_http=False)
        return sum(len(record.reader.read()) for record in records)


if __name__ == "__main__":
    _serve(sys.argv[1])
