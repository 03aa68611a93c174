"""What came of every sample of a manifest when its picture was asked for again, by SQL."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

import duckdb
import pyarrow as pa

from warehouse.lake import quoted


class Verdict(StrEnum):
    """What became of a sample's picture. Closed."""

    SAME = "same"
    CHANGED = "changed"  # other bytes at the same address
    GONE = "gone"  # link rot: the reason says how
    REFUSED = "refused"  # consent was withdrawn
    TAKEN_DOWN = "taken_down"  # counted, but listed nowhere


def match(manifest: Path, crawl: Path, barred: Iterable[str], out: Path) -> None:
    """Write `out`: per sample that was not taken down its verdict, reason and the place of its bytes.

    Args:
        manifest: a table of schema warehouse.manifest.MANIFEST.
        crawl: folder of the crawl that asked for its addresses, with consent/ and images/ of all parts.
        barred: row_ids that were taken down.
    """
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        con.register("barred", pa.table({"row_id": pa.array(sorted(barred), pa.string())}))
        parts = "[0-9][0-9][0-9][0-9][0-9]"
        con.execute(f"""
            COPY (
                WITH pairs AS (SELECT row_id, url_id FROM {_files(crawl / "plan", parts + ".pairs.parquet")}),
                consent AS (SELECT row_id, allowed, reason FROM {_files(crawl / "consent", parts + ".parquet")}),
                images AS (FROM {_files(crawl / "images", parts + ".parquet")})
                SELECT m.row_id, p.url_id, m.shard, m.position, m.image_id, m.image_url,
                    CASE WHEN NOT c.allowed OR i.status = 'refused' THEN '{Verdict.REFUSED}'
                         WHEN i.status <> 'ok' THEN '{Verdict.GONE}'
                         WHEN i.image_id <> m.image_id THEN '{Verdict.CHANGED}'
                         ELSE '{Verdict.SAME}' END AS verdict,
                    CASE WHEN NOT c.allowed THEN c.reason ELSE i.reason END AS reason,
                    i.http_status, i.raw_shard, i.raw_offset, i.raw_bytes
                FROM read_parquet({quoted(str(manifest))}) m
                JOIN pairs p USING (row_id) JOIN consent c USING (row_id) JOIN images i ON i.url_id = p.url_id
                ANTI JOIN barred b ON b.row_id = m.row_id
                WHERE i.reason IS DISTINCT FROM '{Verdict.TAKEN_DOWN}'
                ORDER BY m.shard, m.position
            ) TO {quoted(str(out))} (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 4096)""")


def verdict_counts(matched: Path, samples: int) -> dict[str, dict[str, int]]:
    """Samples by verdict and reason ("" where there is none); of the manifest's `samples`, the rest is barred."""
    with duckdb.connect() as con:
        rows = con.execute(f"""
            SELECT verdict, coalesce(reason, ''), count(*) FROM read_parquet({quoted(str(matched))})
            GROUP BY ALL ORDER BY ALL""").fetchall()
    counts: dict[str, dict[str, int]] = {verdict.value: {} for verdict in Verdict}
    for verdict, reason, count in rows:
        counts[verdict][reason] = count
    barred = samples - sum(count for _, _, count in rows)
    if barred:
        counts[Verdict.TAKEN_DOWN][""] = barred
    return counts


def missing_rows(matched: Path, limit: int) -> list[dict[str, str | None]]:
    """The first `limit` samples whose picture is not what it was, with shard, address and reason."""
    with duckdb.connect() as con:
        rows = con.execute(f"""
            SELECT row_id, shard, image_url, verdict, reason FROM read_parquet({quoted(str(matched))})
            WHERE verdict <> '{Verdict.SAME}' ORDER BY shard, position LIMIT {int(limit)}""").fetchall()
    names = ("row_id", "shard", "image_url", "verdict", "reason")
    return [dict(zip(names, row, strict=True)) for row in rows]


def _files(folder: Path, pattern: str) -> str:
    literal = "".join(f"[{c}]" if c in "*?[" else c for c in str(folder))
    return f"read_parquet({quoted(f'{literal}/{pattern}')})"
