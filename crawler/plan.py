"""Candidates -> parts of a plan: pairs and captions, deduplicated, in an order that depends on content alone.

Sorting by url_id, a hash, interleaves hosts, so that no part hammers one of them. DuckDB sorts on disk, so memory
stays bounded whatever the size of the source.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from crawler.address import authority_of
from crawler.errors import InputError
from crawler.files import write_json, write_table
from warehouse.schema import CAPTIONS, PAIRS, row_id, url_id

if TYPE_CHECKING:
    import duckdb

    from crawler.sources.base import Candidate

logger = logging.getLogger(__name__)

_BATCH_ROWS = 20_000

_SPOOLED_PAIRS = pa.schema([pa.field("seq", pa.int64()), *PAIRS])
_SPOOLED_CAPTIONS = pa.schema(
    [
        ("seq", pa.int64()),
        ("row_id", pa.string()),
        ("position", pa.int32()),
        ("kind", pa.string()),
        ("text", pa.string()),
    ]
)

# One row per row_id (the first seen), directives of all sightings together; parts of $part_urls distinct addresses.
_PLAN_PAIRS = """
create table planned as
with seen as (
    select row_id, min_by(columns(* exclude (row_id, seq, page_directives)), seq),
           coalesce(string_agg(distinct page_directives, chr(10) order by page_directives)
                    filter (where page_directives <> ''), '') as page_directives
    from read_parquet($pairs) group by row_id
)
select *, (dense_rank() over (order by url_id) - 1) // $part_urls as part
from seen anti join known using (row_id)
order by url_id, row_id
"""
# Captions in the order of first sighting, each text once per pair.
_PLAN_CAPTIONS = """
create table planned_captions as
with seen as (
    select row_id, text, min({'seq': seq, 'position': position, 'kind': kind}) as best
    from read_parquet($captions) group by row_id, text
)
select part, row_id, (row_number() over (partition by row_id order by seen.best) - 1)::int as rank,
       seen.best.kind as kind, text
from seen join planned using (row_id)
order by part, row_id, rank
"""


@dataclass(frozen=True)
class PlanSummary:
    """A finished plan. `pairs` and `captions` as planned, `urls` distinct addresses, `known` pairs left out."""

    source: str
    parts: int
    part_urls: int
    pairs: int
    urls: int
    captions: int
    known: int


def part_path(plan_dir: Path, part: int, table: str) -> Path:
    """Path of a part's "pairs" or "captions"."""
    return plan_dir / f"{part:05d}.{table}.parquet"


def read_plan(plan_dir: Path) -> PlanSummary | None:
    """The summary of a finished plan, or None where it is missing or was cut short."""
    done = plan_dir / "done.json"
    if not done.is_file():
        return None
    return PlanSummary(**json.loads(done.read_text(encoding="utf-8")))


def write_plan(
    candidates: Iterable[Candidate],
    plan_dir: Path,
    part_urls: int,
    source: str,
    known: Collection[str] | pa.Array | pa.ChunkedArray | None = None,
) -> PlanSummary:
    """Plan `candidates` into parts of `part_urls` distinct picture addresses each, never splitting one.

    A finished plan is returned as it is, without touching `candidates`; one that was cut short starts anew. `known`
    holds row_ids to leave out. Raises InputError where there is no candidate at all.
    """
    if part_urls < 1:
        raise InputError(f"part_urls must be at least 1, not {part_urls}")
    finished = read_plan(plan_dir)
    if finished is not None:
        return finished
    shutil.rmtree(plan_dir, ignore_errors=True)
    work = plan_dir / ".work"
    work.mkdir(parents=True)
    try:
        if _spool(candidates, source, work) == 0:
            raise InputError(f"source {source} gave no picture: nothing to build from")
        summary = _cut(work, plan_dir, part_urls, source, known)
        shutil.rmtree(work)
    except BaseException:  # a source that cannot be read leaves nothing behind
        shutil.rmtree(plan_dir, ignore_errors=True)
        raise
    write_json(plan_dir / "done.json", asdict(summary))
    logger.info("plan: %d pairs, %d addresses in %d parts", summary.pairs, summary.urls, summary.parts)
    return summary


def _spool(candidates: Iterable[Candidate], source: str, work: Path) -> int:
    """Write candidates as they come to two Parquet files; returns how many there were."""
    iterator = iter(candidates)
    seq = 0
    with (
        pq.ParquetWriter(work / "pairs.parquet", _SPOOLED_PAIRS) as pairs,
        pq.ParquetWriter(work / "captions.parquet", _SPOOLED_CAPTIONS) as captions,
    ):
        while batch := list(islice(iterator, _BATCH_ROWS)):
            pair_rows = []
            caption_rows = []
            for candidate in batch:
                row = _pair(candidate, source)
                pair_rows.append({"seq": seq, **row})
                caption_rows += [
                    {"seq": seq, "row_id": row["row_id"], "position": i, "kind": c.kind, "text": c.text}
                    for i, c in enumerate(candidate.captions)
                ]
                seq += 1
            pairs.write_table(pa.Table.from_pylist(pair_rows, schema=_SPOOLED_PAIRS))
            captions.write_table(pa.Table.from_pylist(caption_rows, schema=_SPOOLED_CAPTIONS))
    return seq


def _pair(candidate: Candidate, source: str) -> dict[str, str]:
    return {
        "row_id": row_id(candidate.page_url, candidate.image_url),
        "url_id": url_id(candidate.image_url),
        "page_url": candidate.page_url,
        "image_url": candidate.image_url,
        "page_host": authority_of(candidate.page_url),
        "image_host": authority_of(candidate.image_url),
        "source": source,
        "page_directives": candidate.page_directives,
    }


def _cut(
    work: Path,
    plan_dir: Path,
    part_urls: int,
    source: str,
    known: Collection[str] | pa.Array | pa.ChunkedArray | None,
) -> PlanSummary:
    """Deduplicate, sort and cut the spooled candidates; writes every part."""
    import duckdb

    left_out = known if isinstance(known, (pa.Array, pa.ChunkedArray)) else pa.array(sorted(known or ()), pa.string())
    with duckdb.connect(str(work / "plan.duckdb"), config={"threads": 2}) as connection:
        connection.execute("set enable_progress_bar = false")
        connection.register("known_rows", pa.table({"row_id": left_out.cast(pa.string())}))
        connection.execute("create table known as select distinct row_id from known_rows")
        connection.execute(_PLAN_PAIRS, {"pairs": str(work / "pairs.parquet"), "part_urls": part_urls})
        connection.execute(_PLAN_CAPTIONS, {"captions": str(work / "captions.parquet")})
        parts, pairs, urls = _one(
            connection, "select coalesce(max(part) + 1, 0), count(*), count(distinct url_id) from planned"
        )
        (captions,) = _one(connection, "select count(*) from planned_captions")
        (distinct,) = _one(
            connection, "select count(distinct row_id) from read_parquet($f)", {"f": str(work / "pairs.parquet")}
        )
        for part in range(parts):
            for table, schema, name in _tables():
                write_table(part_path(plan_dir, part, name), _rows(connection, table, part), schema)
    return PlanSummary(source, parts, part_urls, pairs, urls, captions, distinct - pairs)


def _one(connection: duckdb.DuckDBPyConnection, sql: str, parameters: dict[str, str] | None = None) -> tuple[int, ...]:
    row: tuple[int, ...] | None = connection.execute(sql, parameters or {}).fetchone()
    assert row is not None, "an aggregate without GROUP BY has one row"
    return row


def _tables() -> Iterator[tuple[str, pa.Schema, str]]:
    yield "planned", PAIRS, "pairs"
    yield "planned_captions", CAPTIONS, "captions"


def _rows(connection: duckdb.DuckDBPyConnection, table: str, part: int) -> pa.Table:
    """A part's rows in file order; the tables are stored sorted, so only the part's own blocks are read."""
    order = "url_id, row_id" if table == "planned" else "row_id, rank"
    schema = PAIRS if table == "planned" else CAPTIONS
    sql = f"select {', '.join(schema.names)} from {table} where part = $part order by {order}"
    found: pa.Table = connection.execute(sql, {"part": part}).to_arrow_table()
    return found
