"""What the lake knows, laid beside a crawl before it begins: so that a crawl takes only what is new, changed or due.

    known/pairs.parquet    row_id, url_id, page_directives, captions (kind and text, in rank order)
    known/images.parquet   warehouse.schema.IMAGES, `settled` (nothing is asked again), `recheck` (asked conditionally)
    known/pages.parquet    warehouse.schema.PAGES: the pages that this source has read
    known/done.json        KnownStats, last
    extract/retry.pairs.parquet, retry.captions.parquet   pairs of this source that are due although it may not show
                           them this time; warehouse.schema.PAIRS and CAPTIONS

When a pair is due again:
- its picture failed for a passing reason (schema.PASSING), and was asked for fewer than `max_attempts` times;
- its picture is older than `recheck_days`, where that is over 0;
- its host refused it in robots.txt or tdmrep.json, and that was decided over a week ago. Then those two files alone are
  asked for; the picture only if they allow it now. Not every night: a list may hold a million rows that a hundred
  thousand hosts refuse. A source that reads the page itself again shows the pair, and it is decided again at once;
- robots.txt of its host was not to be had: every time for 30 days (RFC 9309 2.3.1.4 names that bound), weekly then;
- its page names a date after which it may not be used (unavailable_after).
A picture's own refusal, a 404, a file that is no picture and the like are final. So is a page's refusal, until the page
itself says something else.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from crawler.files import replacing, write_json
from flows.steps.layout import Layout
from warehouse.schema import PASSING, Reason

if TYPE_CHECKING:
    import duckdb

logger = logging.getLogger(__name__)

REDECIDE_DAYS = 7.0  # after which a host that refused is asked for its rules again
GIVE_UP_DAYS = 30.0  # of a host without robots.txt
_MEMORY_LIMIT = "1GB"  # of DuckDB; it goes to disk beyond
_RANGE_PAIRS = 500_000
_ROW_GROUP = 20_000
_BATCH_ROWS = 20_000


@dataclass(frozen=True)
class KnownStats:
    """Rows that were laid beside a crawl. `due` pairs are planned again whether or not the source shows them."""

    pairs: int = 0
    images: int = 0
    pages: int = 0
    due: int = 0


def _listed(reasons: frozenset[Reason] | tuple[Reason, ...]) -> str:
    return ", ".join(f"'{reason.value}'" for reason in sorted(reasons))


_HOST_RULES = _listed((Reason.ROBOTS_TXT, Reason.TDM_RESERVED))
_BEFORE_ASKING = _listed(
    (Reason.ROBOTS_TXT, Reason.TDM_RESERVED, Reason.PAGE_OPTED_OUT, Reason.ROBOTS_UNREACHABLE),
)
# A refusal by the rules of page or host counts as one of the picture itself where some pair was allowed to ask for it:
# then they were those of the host that a redirect led to.
_IMAGES = f"""
WITH asked AS (SELECT DISTINCT url_id FROM consent WHERE allowed),
dated AS (SELECT *, status = 'ok' AND $recheck_days > 0 AND fetched_at < $recheck_before AS recheck FROM images)
SELECT d.*, CASE
    WHEN status = 'ok' THEN NOT recheck
    WHEN reason IN ({_BEFORE_ASKING}) AND asked.url_id IS NULL THEN false
    WHEN reason IN ({_listed(PASSING)}) THEN attempts >= $max_attempts
    ELSE true END AS settled
FROM dated d LEFT JOIN asked USING (url_id) ORDER BY url_id
"""
_DUE = f"""
CREATE OR REPLACE TEMP TABLE due AS
SELECT p.row_id FROM (FROM pairs WHERE source = $source) p
JOIN (SELECT url_id, settled, recheck FROM read_parquet($images)) i USING (url_id)
JOIN consent c ON c.row_id = p.row_id
LEFT JOIN (SELECT row_id, created_at AS decided_at FROM history.consent h JOIN releases ON release = h.release_from
           WHERE h.release_to IS NULL) s ON s.row_id = p.row_id
WHERE CASE WHEN c.allowed THEN i.recheck OR NOT i.settled OR contains(p.page_directives, 'unavailable_after')
           WHEN c.reason = '{Reason.ROBOTS_UNREACHABLE.value}'
             THEN coalesce(s.decided_at > $give_up_before, true) OR c.checked_at < $redecide_before
           ELSE c.reason IN ({_HOST_RULES}) AND c.checked_at < $redecide_before END
"""
_PAGES = "FROM pages WHERE source = $source AND http_status // 100 = 2 ORDER BY page_url"
_RANGE = """
CREATE OR REPLACE TEMP TABLE of_range AS
SELECT row_id, url_id, page_directives FROM pairs ANTI JOIN due USING (row_id) WHERE url_id >= $low AND url_id < $high
"""
_PAIRS = """
WITH texts AS (
    SELECT row_id, list({'kind': kind, 'text': text} ORDER BY rank) AS captions
    FROM captions SEMI JOIN of_range USING (row_id) GROUP BY row_id)
SELECT row_id, url_id, page_directives, coalesce(captions, []) AS captions
FROM of_range LEFT JOIN texts USING (row_id) ORDER BY url_id, row_id
"""


def write_known(
    layout: Layout,
    crawl: Path,
    source: str,
    max_attempts: int = 6,
    recheck_days: float = 0.0,
    now: datetime | None = None,
) -> KnownStats:
    """Write what the lake knows for a crawl of `source` into `crawl`; what is there whole is left as it is.

    Nothing is written where there is no lake yet. Memory is bounded whatever the size of the lake.
    """
    import warehouse
    from warehouse.lake import has_lake

    done = crawl / "known" / "done.json"
    if done.is_file():
        return KnownStats(**json.loads(done.read_text("utf-8")))
    if not has_lake(layout.root):
        return KnownStats()
    with contextlib.closing(warehouse.connect(layout.root)) as con:
        con.execute(f"SET memory_limit = '{_MEMORY_LIMIT}'; SET preserve_insertion_order = false; SET threads = 2")
        stats = _write(con, crawl, source, max_attempts, recheck_days, now or datetime.now(UTC))
    write_json(done, asdict(stats))
    logger.info("known: %d pairs, %d addresses; %d pairs are due again", stats.pairs, stats.images, stats.due)
    return stats


def done_units(layout: Layout, source: str) -> set[tuple[str, str]]:
    """(name, fingerprint) of the source's units that a release has read; empty where there is no lake."""
    import warehouse
    from warehouse.lake import has_lake

    if not has_lake(layout.root):
        return set()
    with contextlib.closing(warehouse.connect(layout.root)) as con:
        query = "SELECT DISTINCT unit, fingerprint FROM sources WHERE source = ? AND fingerprint <> ''"
        return {(str(unit), str(fingerprint)) for unit, fingerprint in con.execute(query, [source]).fetchall()}


def _write(
    con: duckdb.DuckDBPyConnection, crawl: Path, source: str, max_attempts: int, recheck_days: float, now: datetime
) -> KnownStats:
    known = crawl / "known"
    aged = {
        "recheck_days": recheck_days,
        "recheck_before": now - timedelta(days=recheck_days),
        "max_attempts": max_attempts,
    }
    images = _copy(con, _IMAGES, known / "images.parquet", aged)
    con.execute(
        _DUE,
        {
            "source": source,
            "images": str(known / "images.parquet"),
            "give_up_before": now - timedelta(days=GIVE_UP_DAYS),
            "redecide_before": now - timedelta(days=REDECIDE_DAYS),
        },
    )
    pairs = _write_pairs(con, known / "pairs.parquet")
    pages = _copy(con, _PAGES, known / "pages.parquet", {"source": source})
    return KnownStats(pairs, images, pages, _write_due(con, crawl / "extract"))


def _write_due(con: duckdb.DuckDBPyConnection, extract: Path) -> int:
    """The pairs that are due and their captions; no file where there are none."""
    of_due = "WHERE row_id IN (SELECT row_id FROM due)"
    row = con.execute("SELECT count(*) FROM due").fetchone()
    if row is None or not row[0]:
        return 0
    _copy(con, f"FROM captions {of_due} ORDER BY row_id, rank", extract / "retry.captions.parquet")
    return _copy(con, f"FROM pairs {of_due} ORDER BY url_id, row_id", extract / "retry.pairs.parquet")


def _copy(
    con: duckdb.DuckDBPyConnection, select: str, target: Path, parameters: dict[str, object] | None = None
) -> int:
    """Write what `select` gives as Parquet, whole or not at all; how many rows."""
    from warehouse.lake import quoted

    with replacing(target) as temporary:
        options = f"FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {_ROW_GROUP}"
        row = con.execute(f"COPY ({select}) TO {quoted(str(temporary))} ({options})", parameters or {}).fetchone()
    return int(row[0]) if row else 0


def _write_pairs(con: duckdb.DuckDBPyConnection, target: Path) -> int:
    """One range of url_id after another: lists of captions are held in memory while they are made."""
    import pyarrow.parquet as pq

    row = con.execute("SELECT count(*) FROM pairs").fetchone()
    written, writer = 0, None
    with replacing(target) as temporary, contextlib.ExitStack() as stack:
        for low, high in _ranges(1 + (int(row[0]) if row else 0) // _RANGE_PAIRS):
            con.execute(_RANGE, {"low": low, "high": high})
            reader = con.execute(_PAIRS).to_arrow_reader(_BATCH_ROWS)
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(temporary, reader.schema, compression="zstd"))
            for batch in reader:
                writer.write_batch(batch)
                written += batch.num_rows
    return written


def _ranges(count: int) -> Iterator[tuple[str, str]]:
    """`count` equal ranges [low, high) over all url_ids; "g" comes after every hex digit."""
    edges = ["", *(f"{(1 << 32) * i // count:08x}" for i in range(1, count)), "g"]
    return pairwise(edges)
