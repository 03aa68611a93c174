"""The set work of planning, in DuckDB: one range of url_id at a time, what does not fit in memory on disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from crawler.rows import EXTRACTED, MAX_CAPTIONS
from crawler.stored import STORED
from crawler.unitfiles import unit_path
from warehouse.schema import PAGES

SEEN = pa.schema([pa.field("row_id", pa.string(), nullable=False)])
_MEMORY_LIMIT = "640MB"  # of DuckDB; the process needs some 300 MB beside it
_BATCH_ROWS = 50_000
_COLUMNS = ", ".join(EXTRACTED.names)
_ONCE = "row_id, url_id, page_url, image_url, page_host, image_host, source"  # a function of row_id (and the crawl)

# What a range holds is read from the files where it is needed: their row groups are pruned by url_id, and a copy would
# cost more than a second reading.
_SIGHTED = f"""
create or replace temp view sighted as
select {_COLUMNS} from read_parquet(getvariable('files'))
where url_id >= getvariable('low') and url_id < getvariable('high')
"""
_AGAIN = """
create or replace temp table again as select row_id from sighted group by row_id having count(*) > 1
"""
# One row per row_id, whatever the order of sightings: directives are the lines of all in order of text; texts come
# each once, by the best rank that any sighting gave them, then by kind and text.
_MERGED = f"""
create or replace temp table merged as
with several as materialized (select * from sighted semi join again using (row_id)),
line as (
    select distinct row_id, unnest(string_split(page_directives, chr(10))) as line from several
),
directives as (
    select row_id, coalesce(string_agg(line, chr(10) order by line) filter (where line <> ''), '') as page_directives
    from line group by row_id
),
text as (
    select row_id, unnest(captions) as caption, unnest(range(len(captions))) as rank from several
),
best as (
    select row_id, caption.text as text, min({{'rank': rank, 'kind': caption.kind}}) as place from text
    group by row_id, caption.text
),
bounded as (
    select * from best
    qualify row_number() over (partition by row_id order by place.rank, place.kind, text) <= {MAX_CAPTIONS}
),
texts as (
    select row_id, list({{'kind': place.kind, 'text': text}} order by place.rank, place.kind, text) as captions
    from bounded group by row_id
)
select {_COLUMNS.replace("captions", "coalesce(captions, []) as captions")}
from (select distinct {_ONCE} from several) join directives using (row_id) left join texts using (row_id)
"""
_UNITED = f"""
create or replace temp view united as
select * replace (
    case when contains(page_directives, chr(10))
         then array_to_string(list_sort(list_distinct(string_split(page_directives, chr(10)))), chr(10))
         else page_directives end as page_directives
) from sighted anti join again using (row_id)
union all
select {_COLUMNS} from merged
"""
_UNCHANGED = """
create or replace temp table unchanged as
select row_id from united
join (select row_id, page_directives, captions from read_parquet($pairs) where url_id >= $low and url_id < $high) as k
  using (row_id)
join (select url_id from read_parquet($images) where url_id >= $low and url_id < $high and settled and not recheck)
  using (url_id)
where united.page_directives = k.page_directives and united.captions = coalesce(k.captions, [])
"""
_RETRIES = f"""
create or replace temp table due as
with texts as (
    select row_id, list({{'kind': kind, 'text': text}} order by rank) as captions
    from read_parquet($captions) group by row_id
),
retried as (
    select {_COLUMNS.replace(", captions", "")} from read_parquet($pairs) where url_id >= $low and url_id < $high
)
select {_COLUMNS.replace("captions", "coalesce(captions, []) as captions")}
from retried left join texts using (row_id)
where row_id not in (select row_id from sighted)
"""
_PLANNED = f"""
create or replace temp view planned as
select {_COLUMNS} from united anti join unchanged using (row_id) union all select {_COLUMNS} from due
"""
_STORED = """
select s.* from read_parquet($files) as s semi join planned using (url_id) where url_id >= $low and url_id < $high
qualify row_number() over (partition by url_id order by fetched_at desc, sha256, file, "offset") = 1
order by url_id
"""
_PAGES = """
select * from read_parquet($files)
qualify row_number() over (
    partition by page_url order by visited_at desc, http_status, body_sha256, etag, last_modified
) = 1
order by page_url
"""


@dataclass(frozen=True)
class RangeCounts:
    """Of one range: pairs that were seen and left out, and pairs planned that were not seen."""

    known: int
    retried: int


class PlanQuery:
    """The tables of one crawl. `load` takes a range of url_id, what follows tells about that range."""

    def __init__(self, crawl_dir: Path, units: int, work: Path, threads: int) -> None:
        import duckdb

        extract, known = crawl_dir / "extract", crawl_dir / "known"
        self._pairs = [str(unit_path(crawl_dir, i, "pairs.parquet")) for i in range(units)]
        self._pages = _present(unit_path(crawl_dir, i, "pages.parquet") for i in range(units))
        self._stored = _present(unit_path(crawl_dir, i, "stored.parquet") for i in range(units))
        self._known = [str(known / "pairs.parquet"), str(known / "images.parquet")]
        self._retries = [str(extract / "retry.pairs.parquet"), str(extract / "retry.captions.parquet")]
        self.has_known = _rows(self._known[0]) > 0
        self.has_retries = _rows(self._retries[0]) > 0
        settings: dict[str, str | bool | int | float | list[str]] = {
            "threads": threads,
            "memory_limit": _MEMORY_LIMIT,
            "temp_directory": str(work),
            "preserve_insertion_order": False,
        }
        self._con = duckdb.connect(config=settings)
        self._con.execute("set enable_progress_bar = false; set timezone = 'UTC'")
        self._range = {"low": "", "high": "g"}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._con.close()

    def load(self, low: str, high: str) -> None:
        """Unite the sightings of url_ids in [low, high) and tell what is unchanged and what is due again."""
        self._range = {"low": low, "high": high}
        for name, value in {**self._range, "files": self._pairs}.items():
            self._con.execute(f"set variable {name} = $value", {"value": value})
        if self._pairs:
            self._con.execute(_SIGHTED)
        else:
            self._empty("sighted", "view")
        again = self._con.execute(_AGAIN).fetchone()
        if again is not None and again[0]:
            self._con.execute(_MERGED)
        else:
            self._empty("merged", "table")
        self._con.execute(_UNITED)
        if self.has_known:
            pairs, images = self._known
            self._con.execute(_UNCHANGED, {"pairs": pairs, "images": images, **self._range})
        else:
            self._con.execute("create or replace temp table unchanged (row_id varchar)")
        if self.has_retries:
            pairs, captions = self._retries
            self._con.execute(_RETRIES, {"pairs": pairs, "captions": captions, **self._range})
        else:
            self._empty("due", "table")
        self._con.execute(_PLANNED)

    def _empty(self, name: str, kind: str) -> None:
        self._con.register("no_rows", EXTRACTED.empty_table())
        self._con.execute(f"create or replace temp {kind} {name} as from no_rows")

    def planned(self) -> Iterator[pa.RecordBatch]:
        """Rows of EXTRACTED in the order of url_id and row_id."""
        return self._stream(f"select {_COLUMNS} from planned order by url_id, row_id", EXTRACTED)

    def seen(self) -> Iterator[pa.RecordBatch]:
        """row_ids of all pairs that the source showed."""
        return self._stream("select row_id from united order by url_id, row_id", SEEN)

    def stored(self) -> Iterator[pa.RecordBatch]:
        """The index rows of planned pictures that are stored, the latest of each."""
        if not self._stored:
            return iter(())
        return self._stream(_STORED, STORED, {"files": self._stored, **self._range})

    def counts(self) -> RangeCounts:
        row = self._con.execute("select (select count(*) from unchanged), (select count(*) from due)").fetchone()
        assert row is not None, "a select without from has one row"
        return RangeCounts(*row)

    def pages(self) -> Iterator[pa.RecordBatch]:
        """The last visit of each page, from all units, as rows of PAGES."""
        return self._stream(_PAGES, PAGES, {"files": self._pages}) if self._pages else iter(())

    def _stream(
        self, sql: str, schema: pa.Schema, parameters: dict[str, object] | None = None
    ) -> Iterator[pa.RecordBatch]:
        for batch in self._con.execute(sql, parameters or {}).to_arrow_reader(_BATCH_ROWS):
            yield batch.cast(schema)


def _present(paths: Iterator[Path]) -> list[str]:
    return [str(path) for path in paths if path.is_file()]


def _rows(path: str) -> int:
    return int(pq.read_metadata(path).num_rows) if Path(path).is_file() else 0
