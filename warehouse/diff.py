"""What changed between two releases: link rot, changed bytes, withdrawn consent, new and gone pairs, and the rest.

Each kind is one query over `old_<table>` and `new_<table>`: the versions of rows that the older release alone shows,
and those that the newer one alone shows. What did not change is in neither, so a diff reads what changed, whatever the
size of the lake. `at_a_<table>` and `at_b_<table>` show the releases whole, for what a change is to be told with.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import duckdb

from warehouse import lake
from warehouse.errors import InputError
from warehouse.merge import count
from warehouse.query import FORMATS, write_result
from warehouse.tables import HISTORY, LAKE


@dataclass(frozen=True)
class Kind:
    """One kind of change. `sql` gives one row per change; a column `reason` says why, where there is a reason."""

    name: str
    title: str
    unit: str  # what a row of it is
    sql: str


_ADDRESSES_OK = """
    SELECT n.*, o.image_id AS old_image_id, o.reason AS old_reason, o.status AS old_status
    FROM new_images n JOIN old_images o USING (url_id)"""
# Pairs in both releases, with consent and picture of each; only those whose consent or picture changed.
_ASKED = """
    WITH touched AS (
        SELECT row_id FROM new_consent
        UNION SELECT row_id FROM at_b_pairs WHERE url_id IN (SELECT url_id FROM new_images)),
    asked AS (
        SELECT p.row_id, p.page_url, p.image_url,
               ac.allowed AS was_allowed, ac.reason AS was_why, ai.status AS was_status, ai.reason AS was_reason,
               bc.allowed AS is_allowed, bc.reason AS is_why, bi.status AS is_status, bi.reason AS is_reason,
               CASE WHEN bc.allowed THEN bi.error ELSE bc.evidence END AS evidence
        FROM at_b_pairs p SEMI JOIN touched USING (row_id) JOIN at_a_pairs a USING (row_id)
        JOIN at_a_consent ac ON ac.row_id = p.row_id JOIN at_b_consent bc ON bc.row_id = p.row_id
        JOIN at_a_images ai ON ai.url_id = p.url_id JOIN at_b_images bi ON bi.url_id = p.url_id)"""
_DECIDED = """
    SELECT p.page_url, p.image_url, n.reason, o.reason AS old_reason, o.caption AS old_caption, n.caption, n.kept,
           o.kept AS old_kept, n.row_id
    FROM new_decisions n JOIN old_decisions o USING (row_id) JOIN at_b_pairs p USING (row_id)"""

KINDS = (
    Kind(
        "new_pairs",
        "New pairs",
        "pairs",
        """SELECT p.row_id, p.page_url, p.image_url, d.reason, d.caption
           FROM new_pairs p ANTI JOIN at_a_pairs a USING (row_id) JOIN at_b_decisions d USING (row_id)
           ORDER BY page_url, image_url""",
    ),
    Kind(
        "gone_pairs",
        "Gone pairs (no longer on their page)",
        "pairs",
        """SELECT p.row_id, p.page_url, p.image_url, d.reason, d.caption
           FROM old_pairs p ANTI JOIN at_b_pairs b USING (row_id) JOIN at_a_decisions d USING (row_id)
           ORDER BY page_url, image_url""",
    ),
    Kind(
        "link_rot",
        "Link rot (had, now failing)",
        "addresses",
        f"""SELECT url_id, image_url, reason, http_status, old_image_id FROM ({_ADDRESSES_OK})
            WHERE old_status = 'ok' AND status = 'failed' ORDER BY image_url""",
    ),
    Kind(
        "changed_bytes",
        "Changed pictures (other bytes)",
        "addresses",
        f"""SELECT url_id, image_url, old_image_id, image_id FROM ({_ADDRESSES_OK})
            WHERE image_id <> old_image_id ORDER BY image_url""",
    ),
    Kind(
        "withdrawn_consent",
        "Withdrawn consent (had, now refused)",
        "pairs",
        f"""{_ASKED} SELECT row_id, page_url, image_url, coalesce(is_why, is_reason) AS reason, evidence FROM asked
            WHERE was_allowed AND was_status = 'ok' AND (NOT is_allowed OR is_status = 'refused')
            ORDER BY page_url, image_url""",
    ),
    Kind(
        "regained",
        "Regained (failing or refused, now had)",
        "pairs",
        f"""{_ASKED} SELECT row_id, page_url, image_url, coalesce(was_why, was_reason) AS reason FROM asked
            WHERE is_allowed AND is_status = 'ok' AND NOT (was_allowed AND was_status = 'ok')
            ORDER BY page_url, image_url""",
    ),
    Kind(
        "changed_captions",
        "Changed captions",
        "pairs",
        """WITH texts AS (
               SELECT row_id, list({'kind': kind, 'text': text} ORDER BY rank) FILTER (NOT is_new) AS old_captions,
                      list({'kind': kind, 'text': text} ORDER BY rank) FILTER (is_new) AS captions
               FROM (SELECT *, false AS is_new FROM old_captions UNION ALL SELECT *, true FROM new_captions)
               GROUP BY row_id)
           SELECT row_id, p.page_url, p.image_url, coalesce(t.old_captions, []) AS old_captions,
                  coalesce(t.captions, []) AS captions
           FROM new_pairs p SEMI JOIN at_a_pairs a USING (row_id) JOIN texts t USING (row_id)
           WHERE t.old_captions IS DISTINCT FROM t.captions ORDER BY page_url, image_url""",
    ),
    Kind(
        "dropped",
        "Kept before, dropped now",
        "pairs",
        f"""SELECT row_id, page_url, image_url, reason, old_caption FROM ({_DECIDED})
            WHERE old_kept AND NOT kept ORDER BY page_url, image_url""",
    ),
    Kind(
        "taken_in",
        "Dropped before, kept now",
        "pairs",
        f"""SELECT row_id, page_url, image_url, old_reason AS reason, caption FROM ({_DECIDED})
            WHERE kept AND NOT old_kept ORDER BY page_url, image_url""",
    ),
)
_KIND_BY_NAME = {kind.name: kind for kind in KINDS}


@dataclass(frozen=True)
class Diff:
    """Changes from release `a` to release `b`: `counts` per kind, `reasons` per kind and reason where it has any."""

    a: int
    b: int
    kept_a: int
    kept_b: int
    counts: dict[str, int]
    reasons: dict[str, dict[str, int]]

    @property
    def is_empty(self) -> bool:
        return not any(self.counts.values())

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)


def diff(root: Path | str, a: int, b: int) -> Diff:
    """What changed from release `a` to the later release `b`. Raises InputError where there is no such release."""
    with contextlib.closing(_open(root, a, b)) as con:
        return read_diff(con, a, b)


def read_diff(con: duckdb.DuckDBPyConnection, a: int, b: int) -> Diff:
    """As `diff`, on a connection of `lake.connect`; leaves temporary views there."""
    _make_views(con, a, b)
    counts: dict[str, int] = {}
    reasons: dict[str, dict[str, int]] = {}
    for kind in KINDS:
        described = [row[0] for row in con.execute(f"DESCRIBE {kind.sql}").fetchall()]
        if "reason" not in described:
            counts[kind.name] = count(con, f"SELECT count(*) FROM ({kind.sql})")
            continue
        rows = con.execute(
            f"SELECT coalesce(reason, ''), count(*) AS n FROM ({kind.sql}) GROUP BY 1 ORDER BY n DESC, 1"
        ).fetchall()
        counts[kind.name] = sum(int(n) for _, n in rows)
        if rows:
            reasons[kind.name] = {str(reason): int(n) for reason, n in rows}
    kept = [count(con, f"SELECT count(*) FROM at_{side}_corpus") for side in "ab"]
    return Diff(a, b, kept[0], kept[1], counts, reasons)


def write_diff(
    root: Path | str, a: int, b: int, kind: str, format: str = "table", out: Path | TextIO | None = None
) -> int:
    """Write the rows of one kind of change like `query.run_query`; how many.

    Raises InputError for an unknown kind, format or release.
    """
    if kind not in _KIND_BY_NAME:
        raise InputError(f"no kind of change {kind!r}: choose {', '.join(_KIND_BY_NAME)}")
    if format not in FORMATS:
        raise InputError(f"no output format {format!r}: choose {', '.join(FORMATS)}")
    if format == "parquet" and not isinstance(out, Path):
        raise InputError("parquet is written to a file: give one with --out")
    with contextlib.closing(_open(root, a, b)) as con:
        _make_views(con, a, b)
        return write_result(con.execute(_KIND_BY_NAME[kind].sql), format, sys.stdout if out is None else out)


def write_counts(found: Diff, format: str = "table", out: Path | TextIO | None = None) -> int:
    """Write the counts like `query.run_query`: kind, reason (empty: all of the kind), changes; how many rows."""
    if format not in FORMATS:
        raise InputError(f"no output format {format!r}: choose {', '.join(FORMATS)}")
    rows = []
    for kind, number in found.counts.items():
        rows.append(f"('{kind}', '', {number}::BIGINT)")
        rows += [f"('{kind}', {lake.quoted(reason)}, {n})" for reason, n in found.reasons.get(kind, {}).items()]
    with duckdb.connect() as con:
        cursor = con.execute(f"FROM (VALUES {', '.join(rows)}) AS t(kind, reason, changes)")
        return write_result(cursor, format, sys.stdout if out is None else out)


def _open(root: Path | str, a: int, b: int) -> duckdb.DuckDBPyConnection:
    if a >= b:
        raise InputError(f"releases {a} and {b}: give the older one first, then a newer one")
    con = lake.connect(root)
    try:
        last = count(con, "SELECT coalesce(max(release), 0) FROM releases")
        for release in (a, b):
            if not 1 <= release <= last:
                has = f"it has 1 to {last}" if last else "it has none yet"
                raise InputError(f"no release {release} under {root}: {has}")
    except (duckdb.Error, InputError):
        con.close()
        raise
    return con


def _make_views(con: duckdb.DuckDBPyConnection, a: int, b: int) -> None:
    """Temporary views of both releases, and of what each shows alone."""
    shown = {"a": _shown(a), "b": _shown(b)}
    where = {
        "at_a": shown["a"],
        "at_b": shown["b"],
        "old": f"{shown['a']} AND release_to <= {b}",
        "new": f"{shown['b']} AND release_from > {a}",
    }
    for table in HISTORY:
        for prefix, predicate in where.items():
            select = f"SELECT * FROM {LAKE}.history.{table} WHERE {predicate}"
            con.execute(f"CREATE OR REPLACE TEMP VIEW {prefix}_{table} AS {select}")


def _shown(release: int) -> str:
    return f"release_from <= {release} AND (release_to IS NULL OR release_to > {release})"
