"""Staged parts into the lake's tables, unit by unit: what is new, what is changed, what is gone. All of it SQL.

Reads the temporary tables of `parts.stage`, writes in the open transaction. A row is never overwritten where it says
something else now: its version is closed (`release_to`) and a new one begins. Only what is no news (`Unit.unhashed`:
when and how often it was asked) is brought up to date in place.
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from warehouse import tables
from warehouse.tables import PAGE_WAS_READ, Unit, latest_first

# The children of the parts that the rows of `incoming` come from.
_INCOMING = """part_{child} c SEMI JOIN incoming i
    ON c.{key} = i.{key} AND c.crawl = i.crawl AND c.part = i.part"""


@dataclass(frozen=True)
class Merged:
    """Rows that say something new, and rows whose times and counters alone were brought up to date."""

    news: int
    touched: int


def merge(con: duckdb.DuckDBPyConnection, unit: Unit, release: int) -> Merged:
    """Write the units of the staged parts that stand against what the lake holds; how many."""
    parent, key = unit.parent, unit.key
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE incoming AS
        SELECT * FROM part_{parent}
        QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {unit.rank()}, part, {unit.content()}) = 1""")
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE standing AS
        {_child_texts(unit, _INCOMING.format(child=unit.child, key=unit.key))},
        digested AS (
            SELECT i.*, {_digest(unit)} AS digest
            FROM incoming i LEFT JOIN child_texts t USING ({key})),
        ranked AS (SELECT *, {unit.rank()} AS new_rank, {_told(unit)} AS new_told FROM digested)
        SELECT r.* EXCLUDE (new_rank, new_told), old_digest IS DISTINCT FROM digest AS is_news,
               old_told IS DISTINCT FROM new_told AS is_later
        FROM ranked r LEFT JOIN (
            SELECT {key}, digest AS old_digest, {unit.rank()} AS old_rank, {_told(unit)} AS old_told
            FROM history.{parent} WHERE release_to IS NULL) o USING ({key})
        WHERE old_digest IS NULL OR new_rank <= old_rank""")
    con.execute("CREATE OR REPLACE TEMP TABLE news AS SELECT * FROM standing WHERE is_news")
    news = count(con, "SELECT count(*) FROM news")
    if news:
        _replace_units(con, unit, release)
    return Merged(news, _touch(con, unit))


def digest_again(con: duckdb.DuckDBPyConnection, unit: Unit, keys: str) -> None:
    """Bring the digests of current rows, whose keys are in the table `keys`, to what the rows say now.

    Where a takedown has changed rows and parts alike, the parts are then no news.
    """
    current = f"WHERE release_to IS NULL AND ({unit.key}) IN (SELECT {unit.key} FROM {keys})"
    if not count(con, f"SELECT count(*) FROM history.{unit.parent} {current}"):
        return
    same = " AND ".join(f"h.{name} = d.{name}" for name in unit.keys)
    con.execute(f"""
        UPDATE history.{unit.parent} h SET digest = d.digest FROM (
            {_child_texts(unit, f"(SELECT * FROM history.{unit.child} {current}) c")}
            SELECT {unit.key}, {_digest(unit)} AS digest
            FROM (SELECT * FROM history.{unit.parent} {current}) LEFT JOIN child_texts t USING ({unit.key})) d
        WHERE h.release_to IS NULL AND {same}""")


def _replace_units(con: duckdb.DuckDBPyConnection, unit: Unit, release: int) -> None:
    close(con, unit.parent, unit.key, release)
    names = ", ".join(tables.columns(unit.parent))
    con.execute(f"""
        INSERT INTO history.{unit.parent} BY NAME
        SELECT {names}, crawl, digest, {release} AS release_from FROM news ORDER BY {unit.key}""")
    if unit.child is None:
        return
    close(con, unit.child, unit.key, release)
    names = ", ".join(f"c.{name}" for name in tables.columns(unit.child))
    order = ", ".join(f"c.{name}" for name in (unit.key, *unit.child_order))
    con.execute(f"""
        INSERT INTO history.{unit.child} BY NAME
        SELECT {names}, {release} AS release_from FROM part_{unit.child} c
        SEMI JOIN news n ON c.{unit.key} = n.{unit.key} AND c.crawl = n.crawl AND c.part = n.part ORDER BY {order}""")


def _touch(con: duckdb.DuckDBPyConnection, unit: Unit) -> int:
    """Bring times and counters of rows that were told again up to date, without a new version of them."""
    if not unit.told_again:
        return 0
    con.execute("CREATE OR REPLACE TEMP TABLE touched AS SELECT * FROM standing WHERE NOT is_news AND is_later")
    touched = count(con, "SELECT count(*) FROM touched")
    if touched:
        values = ", ".join(f"{name} = t.{name}" for name in (*unit.told_again, "crawl"))
        same = " AND ".join(f"h.{name} = t.{name}" for name in unit.keys)
        con.execute(f"UPDATE history.{unit.parent} h SET {values} FROM touched t WHERE h.release_to IS NULL AND {same}")
    return touched


def close(con: duckdb.DuckDBPyConnection, table: str, key: str, release: int) -> None:
    """End the current versions of the rows whose keys are in `news`.

    A version that begins in `release` itself was never shown by any other: it is not kept.
    """
    found = f"release_to IS NULL AND ({key}) IN (SELECT {key} FROM news)"
    begun_now = f"release_from = {release}"
    row = con.execute(f"""
        SELECT count(*) FILTER ({begun_now}), count(*) FILTER (NOT {begun_now})
        FROM history.{table} WHERE {found}""").fetchone()
    unseen, seen = row or (0, 0)
    if unseen:
        con.execute(f"DELETE FROM history.{table} WHERE {begun_now} AND {found}")
    if seen:
        con.execute(f"UPDATE history.{table} SET release_to = {release} WHERE {found}")


def keep_places(con: duckdb.DuckDBPyConnection) -> None:
    """The same bytes under the same address, fetched again: the copy that the lake knows stays the one that counts."""
    con.execute("""
        UPDATE part_images AS p SET raw_shard = o.raw_shard, raw_offset = o.raw_offset, raw_bytes = o.raw_bytes
        FROM (SELECT url_id, image_id, raw_shard, raw_offset, raw_bytes FROM history.images WHERE release_to IS NULL) o
        WHERE o.url_id = p.url_id AND o.image_id = p.image_id AND o.raw_shard <> p.raw_shard""")


def close_gone_pairs(con: duckdb.DuckDBPyConnection, release: int) -> int:
    """End the pairs that stand on their page no more, with their captions and consent; how many the lake held.

    The newest reading of a page by a source decides which of that source's pairs are on it. A page that was not read
    (unchanged, not reached) keeps its pairs, and so does what other sources found on it.
    """
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE visits AS
        SELECT page_url, source, crawl, staged FROM (
            SELECT page_url, source, crawl, visited_at, true AS staged FROM part_pages WHERE {PAGE_WAS_READ}
            UNION ALL
            SELECT page_url, source, crawl, visited_at, false FROM history.pages
            WHERE release_to IS NULL AND {PAGE_WAS_READ} AND (page_url, source) IN (
                SELECT page_url, source FROM part_pages UNION SELECT page_url, source FROM part_pairs))
        QUALIFY row_number() OVER (
            PARTITION BY page_url, source ORDER BY {latest_first("visited_at")}, staged DESC, crawl DESC) = 1""")
    _drop_outdated(con)
    con.execute("""
        CREATE OR REPLACE TEMP TABLE news AS
        SELECT p.row_id FROM (SELECT row_id, page_url, source FROM history.pairs WHERE release_to IS NULL) p
        JOIN visits v ON v.staged AND v.page_url = p.page_url AND v.source = p.source
        ANTI JOIN part_seen s ON s.row_id = p.row_id AND s.crawl = v.crawl""")
    gone = count(con, "SELECT count(*) FROM news")
    if gone:
        for table in ("pairs", "captions", "consent"):
            close(con, table, "row_id", release)
    return gone


def _drop_outdated(con: duckdb.DuckDBPyConnection) -> None:
    """Take staged pairs out that a newer reading of their page did not find: an older crawl brings nothing back."""
    con.execute("""
        CREATE OR REPLACE TEMP TABLE outdated AS
        SELECT p.row_id, p.crawl FROM part_pairs p JOIN visits v USING (page_url, source)
        LEFT JOIN part_seen s ON s.row_id = p.row_id AND s.crawl = v.crawl
        LEFT JOIN history.pairs h ON h.row_id = p.row_id AND h.release_to IS NULL
        WHERE CASE WHEN v.staged THEN s.row_id IS NULL ELSE h.row_id IS NULL END""")
    for table in ("pairs", "consent"):
        con.execute(f"DELETE FROM part_{table} WHERE (row_id, crawl) IN (SELECT row_id, crawl FROM outdated)")


def replace_curated(con: duckdb.DuckDBPyConnection, table: str, select: str, release: int) -> int:
    """Bring a curated table to what `select` gives: rows that differ get a new version; how many were touched."""
    names = tables.columns(table)
    content = "ROW({})".format(", ".join(f"{{side}}.{name}" for name in names))
    con.execute(f"CREATE OR REPLACE TEMP TABLE wanted AS SELECT {', '.join(names)} FROM ({select})")
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE news AS
        SELECT coalesce(w.row_id, o.row_id) AS row_id, w.row_id IS NOT NULL AS stays
        FROM wanted w FULL JOIN (SELECT * FROM history.{table} WHERE release_to IS NULL) o ON o.row_id = w.row_id
        WHERE w.row_id IS NULL OR o.row_id IS NULL
           OR {content.format(side="w")} IS DISTINCT FROM {content.format(side="o")}""")
    found = count(con, "SELECT count(*) FROM news")
    if found:
        close(con, table, "row_id", release)
        con.execute(f"""
            INSERT INTO history.{table} BY NAME SELECT w.*, {release} AS release_from FROM wanted w
            SEMI JOIN news n ON n.row_id = w.row_id ORDER BY w.row_id""")
    return found


def count(con: duckdb.DuckDBPyConnection, query: str) -> int:
    """The one number that `query` gives."""
    row = con.execute(query).fetchone()
    return int(row[0]) if row else 0


def _told(unit: Unit) -> str:
    """SQL row value of what is brought up to date in place."""
    return f"ROW({', '.join(unit.told_again) or 'NULL'})"


def _digest(unit: Unit) -> str:
    """SQL of the digest of a parent's row, joined to `child_texts` as `t`."""
    return f"md5_number_lower({unit.content()} || coalesce(t.content, ''))"


def _child_texts(unit: Unit, children: str) -> str:
    """SQL `WITH child_texts(key, content)`: of each unit its `children` (`... c`), in order, as one text."""
    if unit.child is None:
        names = ", ".join(f"NULL::VARCHAR AS {name}" for name in (*unit.keys, "content"))
        return f"WITH child_texts AS (SELECT {names} WHERE false)"
    names = ", ".join(name for name in tables.columns(unit.child) if name != unit.key)
    order = ", ".join(unit.child_order)
    return f"""WITH child_texts AS (
        SELECT c.{unit.key}, list(ROW({names}) ORDER BY {order})::VARCHAR AS content
        FROM {children} GROUP BY c.{unit.key})"""
