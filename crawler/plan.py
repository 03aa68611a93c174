"""Extracted units -> parts of a plan: pairs and captions, deduplicated, in an order that depends on content alone.

Sorting by url_id, a hash, interleaves hosts, so that no part hammers one of them. The work is done range by range of
url_id: time grows with the number of rows, memory does not.

    plan/00000.pairs.parquet, 00000.captions.parquet   one part, `part_urls` distinct addresses
    plan/seen.parquet      row_id of every pair that the source showed, planned or not
    plan/pages.parquet     schema.PAGES, the last visit of each page
    plan/sources.parquet   schema.SOURCES without crawl and release: the units that were read
    plan/stored.parquet    stored.STORED of planned addresses that need no download
    plan/done.json         PlanSummary, last
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from crawler.errors import InputError
from crawler.extraction import forget_units, read_unit_stats, read_units, write_unit, write_units
from crawler.files import write_json, write_table
from crawler.partwriter import PartWriter
from crawler.sources.base import Unit
from crawler.stored import STORED, stored_index_path
from crawler.unitfiles import UnitStats
from warehouse.schema import PAGES, SOURCES

if TYPE_CHECKING:
    from crawler.planquery import PlanQuery
    from crawler.sources.base import Found

logger = logging.getLogger(__name__)

_RANGE_ROWS = 300_000  # about so many rows at a time
_MAX_RANGES = 256  # more would read each file too often; what does not fit in memory then, DuckDB sorts on disk
PLAN_SOURCES = pa.schema([field for field in SOURCES if field.name not in {"crawl", "release"}])


@dataclass(frozen=True)
class PlanSummary:
    """A finished plan. `pairs` and `captions` as planned, `urls` distinct addresses.

    `known` pairs were seen and left out, since the lake has them unchanged; `retried` ones are planned though the
    source did not show them this time.
    """

    source: str
    parts: int
    part_urls: int
    pairs: int
    urls: int
    captions: int
    known: int
    retried: int = 0


def part_path(plan_dir: Path, part: int, table: str) -> Path:
    """Path of a part's "pairs" or "captions"."""
    return plan_dir / f"{part:05d}.{table}.parquet"


def read_plan(plan_dir: Path) -> PlanSummary | None:
    """The summary of a finished plan, or None where it is missing or was cut short."""
    done = plan_dir / "done.json"
    if not done.is_file():
        return None
    return PlanSummary(**json.loads(done.read_text(encoding="utf-8")))


def plan_crawl(crawl_dir: Path, part_urls: int, source: str, threads: int = 2) -> PlanSummary:
    """Plan what was extracted into parts of `part_urls` distinct picture addresses each, never splitting one.

    A pair that known/pairs.parquet has with equal texts and directives is left out where known/images.parquet has its
    address settled. A finished plan is returned as it is; one that was cut short starts anew. No part at all is a
    plan too, where everything is known. Raises InputError where there is no pair and nothing is known.
    """
    if part_urls < 1:
        raise InputError(f"part_urls must be at least 1, not {part_urls}")
    plan_dir = crawl_dir / "plan"
    finished = read_plan(plan_dir)
    if finished is not None:
        return finished
    stats = _extracted(crawl_dir)
    shutil.rmtree(plan_dir, ignore_errors=True)
    work = plan_dir / ".work"
    work.mkdir(parents=True)
    try:
        summary = _plan(crawl_dir, part_urls, source, stats, threads)
        shutil.rmtree(work)
    except BaseException:  # what cannot be planned leaves nothing behind
        shutil.rmtree(plan_dir, ignore_errors=True)
        raise
    write_json(plan_dir / "done.json", asdict(summary))
    logger.info("plan: %d pairs, %d addresses in %d parts", summary.pairs, summary.urls, summary.parts)
    return summary


def write_plan(found: Iterable[Found], plan_dir: Path, part_urls: int, source: str) -> PlanSummary:
    """Extract and plan what is at hand as one unit; `plan_dir` is the folder "plan" of a crawl.

    For small sources and tests. A finished plan is returned without touching `found`.
    """
    finished = read_plan(plan_dir)
    if finished is not None:
        return finished
    crawl_dir = plan_dir.parent
    [unit] = write_units(crawl_dir, [Unit(source)])
    write_unit(crawl_dir, 0, unit, source, found)
    return plan_crawl(crawl_dir, part_urls, source)


def _extracted(crawl_dir: Path) -> list[UnitStats]:
    """The statistics of all units; raises InputError where one is not extracted."""
    units = read_units(crawl_dir)
    if units is None:
        raise InputError(f"{crawl_dir} has no list of units: extract its source first")
    found = [read_unit_stats(crawl_dir, index) for index in range(len(units))]
    missing = [unit.name for unit, stats in zip(units, found, strict=True) if stats is None]
    if missing:
        raise InputError(f"{len(missing)} units of {crawl_dir} are not extracted, the first is {missing[0]}: go on")
    return [stats for stats in found if stats is not None]


def _plan(crawl_dir: Path, part_urls: int, source: str, stats: list[UnitStats], threads: int) -> PlanSummary:
    from crawler.planquery import PlanQuery

    plan_dir = crawl_dir / "plan"
    with PlanQuery(crawl_dir, len(stats), plan_dir / ".work", threads) as query:
        if not any(unit.pairs for unit in stats) and not query.has_retries:
            why = next((f" ({unit.warning})" for unit in stats if unit.warning), "")
            if not query.has_known:
                forget_units(crawl_dir)  # a mended source is read again
                raise InputError(f"source {source} gave no picture{why}: nothing to build from")
            logger.info("source %s gave no picture this time%s", source, why)
        rows = [{"source": source, **_source_row(unit)} for unit in stats]
        write_table(plan_dir / "sources.parquet", rows, PLAN_SOURCES)
        with _writer(plan_dir / "pages.parquet", PAGES) as pages:
            for batch in query.pages():
                pages.write_batch(batch)
        return _cut(query, plan_dir, part_urls, source, sum(unit.pairs for unit in stats))


def _source_row(stats: UnitStats) -> dict[str, object]:
    return {
        "unit": stats.unit,
        "fingerprint": stats.fingerprint,
        "pairs": stats.pairs,
        "warning": stats.warning,
    }


def _cut(query: PlanQuery, plan_dir: Path, part_urls: int, source: str, rows: int) -> PlanSummary:
    """Deduplicate, sort and cut, one range of url_id after another."""
    from crawler.planquery import SEEN

    ranges = min(_MAX_RANGES, 1 + rows // _RANGE_ROWS)
    known = retried = 0
    with (
        PartWriter(plan_dir, part_urls, part_path) as parts,
        _writer(plan_dir / "seen.parquet", SEEN) as seen,
        _writer(stored_index_path(plan_dir), STORED) as stored,
    ):
        for low, high in _bounds(ranges):
            query.load(low, high)
            for batch in query.planned():
                parts.add(batch)
            for batch in query.seen():
                seen.write_batch(batch)
            for batch in query.stored():
                stored.write_batch(batch)
            counts = query.counts()
            known, retried = known + counts.known, retried + counts.retried
        parts.finish()
    return PlanSummary(source, parts.parts, part_urls, parts.pairs, parts.urls, parts.captions, known, retried)


def _bounds(count: int) -> list[tuple[str, str]]:
    """`count` equal ranges [low, high) over all url_ids; "g" comes after every hex digit."""
    edges = [f"{(1 << 32) * i // count:08x}" for i in range(count)]
    return list(zip(["", *edges[1:]], [*edges[1:], "g"], strict=True))


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False)
