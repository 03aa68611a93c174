"""Eight questions to a lake of 10,000,000 pairs, in SQL and in pyarrow.dataset with pandas: `python -m bench.query`.

Makes the lake first (real tables, two releases, 60 % of the pairs in the corpus; minutes), or takes the one under
--root. Both sides keep open what they can (connection, datasets) and read the same Parquet files, warm in the page
cache; after a warm-up, whose answers are compared, they take turns. Medians. `ratio` is against pandas as it reads by
default, `ratio_tuned` against pandas that is told which columns have few values. One line of JSON last.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench._biglake import KEPT_SHARE, data_files, write_lake
from bench._questions import QUESTIONS, SAMPLE_ROWS, Answer, Files, Question

if TYPE_CHECKING:
    import duckdb

MIN_RATIO = 3.0
MAX_SLOWEST_S = 3.0
_TABLES = ("decisions", "corpus", "images")


@dataclass(frozen=True)
class Timed:
    """Median seconds of one question: ours, theirs, and theirs told which columns have few values."""

    name: str
    ours_s: float
    other_s: float
    tuned_s: float

    @property
    def ratio(self) -> float:
        return self.other_s / self.ours_s

    @property
    def tuned_ratio(self) -> float:
        return self.tuned_s / self.ours_s


def measure(con: duckdb.DuckDBPyConnection, others: tuple[Files, Files], question: Question, runs: int) -> Timed:
    """Ask all sides in turn. Raises RuntimeError where they do not agree."""

    def ours() -> Answer:
        return con.execute(question.sql).fetchall()

    sides: list[Callable[[], Answer]] = [ours, *(partial(question.other, files) for files in others)]
    for other in sides[1:]:
        _check(con, question, ours(), other())
    times: list[list[float]] = [[] for _ in sides]
    for _ in range(runs):
        for side, ask in zip(times, sides, strict=True):
            side.append(_seconds(ask))
    return Timed(question.name, *(statistics.median(side) for side in times))


def _seconds(ask: Callable[[], Answer]) -> float:
    started = time.perf_counter()
    ask()
    return time.perf_counter() - started


def _check(con: duckdb.DuckDBPyConnection, question: Question, ours: Answer, other: Answer) -> None:
    if question.is_sample:
        for rows in (ours, other):
            ids = {row[0] for row in rows}
            found = con.execute(
                "SELECT count(*) FROM corpus WHERE row_id IN (SELECT unnest(?))", [list(ids)]
            ).fetchone()
            if found != (SAMPLE_ROWS,) or len(rows) != SAMPLE_ROWS:
                raise RuntimeError(f"{question.name}: not {SAMPLE_ROWS} different rows of the corpus")
        return
    alike = len(ours) == len(other) and all(_alike(a, b) for a, b in zip(ours, other, strict=True))
    if not alike or not ours:
        raise RuntimeError(f"{question.name}: the answers differ: {ours[:3]} against {other[:3]}")


def _alike(a: tuple[object, ...], b: tuple[object, ...]) -> bool:
    """Equal, means to within the rounding of sums of floats."""
    return len(a) == len(b) and all(
        math.isclose(x, y, rel_tol=1e-5) if isinstance(x, float) and isinstance(y, float) else x == y
        for x, y in zip(a, b, strict=True)
    )


def run(root: Path, runs: int) -> list[Timed]:
    """All questions to the lake under `root`, printed as they are answered."""
    import warehouse

    files = {table: data_files(root, table) for table in _TABLES}
    others = (Files(files), Files(files, is_tuned=True))
    print(f"{'question':<26}{'ours':>9}{'pandas':>10}{'ratio':>8}{'tuned':>10}{'ratio':>8}")
    timed = []
    with contextlib.closing(warehouse.connect(root)) as con:
        for question in QUESTIONS:
            timed.append(measure(con, others, question, runs))
            last = timed[-1]
            theirs = f"{last.other_s:>9.3f}s{last.ratio:>8.1f}{last.tuned_s:>9.3f}s{last.tuned_ratio:>8.1f}"
            print(f"{last.name:<26}{last.ours_s:>8.3f}s{theirs}", flush=True)
    return timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="pairs in the lake")
    parser.add_argument("--runs", type=int, default=3, help="timed runs of each question on each side")
    parser.add_argument("--root", type=Path, help="a root made by an earlier run (made and kept where there is none)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-query-") as scratch:
        root = options.root or Path(scratch)
        started = time.perf_counter()
        if not (root / "lake").is_dir():
            write_lake(root, options.rows)
            print(f"lake of {options.rows:,} pairs made in {time.perf_counter() - started:.0f} s", flush=True)
        made_s = time.perf_counter() - started
        timed = run(root, options.runs)
    ratio = statistics.geometric_mean(each.ratio for each in timed)
    slowest = max(timed, key=lambda each: each.ours_s)
    summary = {
        "rows": options.rows,
        "corpus_rows": int(options.rows * KEPT_SHARE),
        "ratio": round(ratio, 2),
        "ratio_tuned": round(statistics.geometric_mean(each.tuned_ratio for each in timed), 2),
        "slowest_s": round(slowest.ours_s, 3),
        "slowest": slowest.name,
        "questions": {each.name: [round(s, 3) for s in (each.ours_s, each.other_s, each.tuned_s)] for each in timed},
        "lake_s": round(made_s),
        "target_ratio": MIN_RATIO,
        "target_slowest_s": MAX_SLOWEST_S,
        "ok": ratio >= MIN_RATIO and slowest.ours_s <= MAX_SLOWEST_S,
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
