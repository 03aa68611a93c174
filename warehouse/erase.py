"""Erasing rows from a lake: from all releases at once, and then from its files and its catalogue.

`erase_rows` is one transaction; afterwards no query of any release shows the rows. `purge` is what makes them gone from
disk: files with deletions are rewritten, DuckLake's own snapshots end, files that none of them needs are deleted, and
the catalogue is written anew without free pages. Both may be repeated. Callers hold `lake.root_lock`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warehouse import catalog, lake, publish, tables, tombstones
from warehouse.errors import InputError
from warehouse.merge import count, digest_again
from warehouse.removal import GONE, TEXTS, Removal
from warehouse.schema import content_id

if TYPE_CHECKING:
    import duckdb

# DuckLake never narrows the least and greatest value of a table's column: texts of deleted rows would stay there. An
# unknown bound is null; so is that of a column of which some file tells none.
_STATISTICS = """
WITH live AS (
    SELECT f.* FROM ducklake_file_column_stats f JOIN ducklake_data_file d USING (data_file_id)
    WHERE d.end_snapshot IS NULL)
UPDATE ducklake_table_column_stats AS t SET
    min_value = (SELECT CASE WHEN count(*) = count(min_value) THEN min(min_value{c}) END FROM live
                 WHERE live.table_id = t.table_id AND live.column_id = t.column_id AND value_count > null_count),
    max_value = (SELECT CASE WHEN count(*) = count(max_value) THEN max(max_value{c}) END FROM live
                 WHERE live.table_id = t.table_id AND live.column_id = t.column_id AND value_count > null_count)
WHERE (table_id, column_id) IN (SELECT table_id, column_id FROM ducklake_column WHERE column_type = 'varchar')
"""
_VACUUM = """
import sqlite3, sys
con = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
con.execute("PRAGMA secure_delete = ON")
con.execute(sys.argv[2])
con.execute("VACUUM")
con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
con.close()
"""
_VACUUM_S = 3600


def erase_rows(root: Path, removal: Removal, audit: Mapping[str, Any], stones: Iterable[tombstones.Tombstone]) -> None:
    """Delete what `removal` names from every release, and write the audit row and the tombstones, in one transaction.

    `audit` is a row of `takedowns` without `rows`, which are counted here; where it is there already it stays. Raises
    LakeBusyError where another process keeps writing.
    """
    listed = list(stones)
    lake.patiently(lambda: _erase_rows(root, removal, audit, listed), 60)


def checked_key(root: Path) -> bytes:
    """The key of the tombstones, made at the first takedown.

    Raises InputError where there are tombstones and their key is gone: a new one could not tell what they say.
    """
    if not tombstones.key_path(root).is_file() and lake.has_lake(root):
        with lake.connect(root) as con:
            if count(con, "SELECT count(*) FROM tombstones"):
                raise InputError(f"{tombstones.key_path(root)} is missing, but takedowns were made with it: restore it")
    return tombstones.ensure_key(root)


def _erase_rows(root: Path, removal: Removal, audit: Mapping[str, Any], stones: list[tombstones.Tombstone]) -> None:
    with lake.writing(root) as con:
        con.execute("BEGIN")
        _load_ids(con, removal)
        removed = {table: _delete(con, table) for table in tables.HISTORY}
        for table in (*tables.HISTORY, *tables.GROWING):
            _scrub_texts(con, table, removal)
        _forget_folders(con, root, removal)
        if any(removed.values()):
            _recount(con)
        _record(con, {**audit, "rows": json.dumps({name: n for name, n in removed.items() if n})}, stones)
        message = lake.quoted(f"takedown {audit['takedown_id']}")
        con.execute(f"CALL {tables.LAKE}.set_commit_message('gptface', {message})")
        lake.commit(con, root)
        tombstones.export(con, root)


def _load_ids(con: duckdb.DuckDBPyConnection, removal: Removal) -> None:
    """Temporary tables of what goes, by the column that names it."""
    for name, values in (("row_id", removal.row_ids), ("url_id", removal.url_ids), ("image_id", removal.image_ids)):
        _table(con, f"gone_{name}", values)
    for name, has in (("page_url", removal.has_address), ("host", removal.has_host)):
        table = "pages" if name == "page_url" else "hosts"
        wanted = removal.address_ids or removal.host_ids if name == "page_url" else removal.host_ids
        found = con.execute(f"SELECT DISTINCT {name} FROM history.{table}").fetchall() if wanted else []
        _table(con, f"gone_{name}", (row[0] for row in found if has(row[0])))


def _table(con: duckdb.DuckDBPyConnection, name: str, values: Iterable[str]) -> None:
    import pyarrow as pa

    con.register("ids", pa.table({"id": pa.array(sorted(values), pa.string())}))
    con.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT id FROM ids")
    con.unregister("ids")


def _delete(con: duckdb.DuckDBPyConnection, table: str) -> int:
    """Delete from a table with history every version of the rows that go; how many versions."""
    names = set(tables.columns(table)) & {"row_id", "url_id", "image_id", "page_url", "host"}
    if "row_id" in names:  # a pair is named by itself: its page may stand for others that stay
        names -= {"page_url"}
    where = " OR ".join(f"{name} IN (SELECT id FROM gone_{name})" for name in sorted(names))
    found = count(con, f"SELECT count(*) FROM history.{table} WHERE {where}")
    if found:
        con.execute(f"DELETE FROM history.{table} WHERE {where}")
    return found


def _scrub_texts(con: duckdb.DuckDBPyConnection, table: str, removal: Removal) -> None:
    """Take addresses that go out of what other rows tell."""
    place = f"history.{table}" if table in tables.HISTORY else f"main.{table}"
    unit = next((unit for unit in (*tables.UNITS, *tables.NOTES) if table in (unit.parent, unit.child)), None)
    if unit:
        con.execute(f"CREATE OR REPLACE TEMP TABLE scrubbed AS SELECT {unit.key} FROM {place} WHERE false")
    for name in TEXTS.intersection(tables.columns(table)):
        found = con.execute(f"SELECT DISTINCT {name} FROM {place} WHERE contains({name}, '://')").fetchall()
        changed = [(old, new) for (old,) in found if (new := removal.scrubbed(old, name)) != old]
        for old, new in changed:
            if unit:
                con.execute(f"INSERT INTO scrubbed SELECT {unit.key} FROM {place} WHERE {name} = ?", [old])
            con.execute(f"UPDATE {place} SET {name} = ? WHERE {name} = ?", [new, old])
    if unit:
        digest_again(con, unit, "scrubbed")


def _forget_folders(con: duckdb.DuckDBPyConnection, root: Path, removal: Removal) -> None:
    """Folder names of crawls that go out of the ledger and the releases."""
    folders = [path.name for path in root.glob("raw/*") if content_id(path.name) in removal.folder_ids]
    for name in folders:
        con.execute("DELETE FROM sources WHERE starts_with(crawl, ?)", [f"raw/{name}/"])
        con.execute("UPDATE releases SET inputs = replace(inputs, ?, ?) WHERE contains(inputs, ?)", [name, GONE, name])


def _recount(con: duckdb.DuckDBPyConnection) -> None:
    """Bring the counts of all releases to what they show now."""
    for release, before in con.execute("SELECT release, counts FROM releases ORDER BY release").fetchall():
        current = f"release_from <= {release} AND (release_to IS NULL OR release_to > {release})"
        views = tables.view_selects(current, f"{tables.LAKE}.")
        for name, select in views.items():
            con.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {select}")
        counts = json.dumps(json.loads(before) | publish.read_counts(con))
        for name in views:
            con.execute(f"DROP VIEW temp.{name}")
        con.execute("UPDATE releases SET counts = ? WHERE release = ?", [counts, release])


def _record(con: duckdb.DuckDBPyConnection, audit: Mapping[str, Any], stones: list[tombstones.Tombstone]) -> None:
    if not count(con, f"SELECT count(*) FROM takedowns WHERE takedown_id = {lake.quoted(audit['takedown_id'])}"):
        values = ", ".join(f'? AS "{name}"' for name in tables.columns("takedowns"))
        con.execute(f"INSERT INTO takedowns BY NAME SELECT {values}", [audit[n] for n in tables.columns("takedowns")])
    add_stones(con, str(audit["takedown_id"]), stones)


def add_stones(con: duckdb.DuckDBPyConnection, takedown_id: str, stones: list[tombstones.Tombstone]) -> None:
    """Insert the tombstones that are not there yet."""
    there = set(con.execute("SELECT kind, hash FROM tombstones").fetchall())
    fresh = [[takedown_id, kind, value, bits] for kind, value, bits in stones if (kind, value) not in there]
    if fresh:
        con.execute(f"CREATE OR REPLACE TEMP TABLE fresh_stones ({tables.column_ddl('tombstones')})")
        con.executemany("INSERT INTO fresh_stones (takedown_id, kind, hash, bits) VALUES (?, ?, ?, ?)", fresh)
        con.execute("INSERT INTO tombstones BY NAME SELECT * FROM fresh_stones ORDER BY ALL")


def bury(root: Path, stones: list[tombstones.Tombstone]) -> None:
    """Add tombstones of what a crawl has recognised (at another address, say)."""
    lake.patiently(lambda: _bury(root, stones), 60)


def _bury(root: Path, stones: list[tombstones.Tombstone]) -> None:
    with lake.writing(root) as con:
        con.execute("BEGIN")
        add_stones(con, "", stones)
        lake.commit(con, root)
        tombstones.export(con, root)


def replace_shards(root: Path, rows: Iterable[tuple[str, Mapping[str, Any] | None]]) -> None:
    """Bring `shards` to what lies on disk: the columns by `file`, None where a tar is gone."""
    listed = list(rows)
    lake.patiently(lambda: _replace_shards(root, listed), 60)


def _replace_shards(root: Path, rows: list[tuple[str, Mapping[str, Any] | None]]) -> None:
    with lake.writing(root) as con:
        con.execute("BEGIN")
        for file, values in rows:
            if values is None:
                con.execute("DELETE FROM shards WHERE file = ?", [file])
            else:
                places = ", ".join(f"{name} = ?" for name in values)
                con.execute(f"UPDATE shards SET {places} WHERE file = ?", [*values.values(), file])
        lake.commit(con, root)


def purge(root: Path) -> None:
    """Make the lake's files and its catalogue forget what was deleted. DuckLake's own snapshots but the newest end.

    Raises LakeBusyError where another process keeps the catalogue open.
    """
    lake.patiently(lambda: _rewrite(root), 60)
    shutil.rmtree(root / "lake" / "tmp", ignore_errors=True)
    vacuum_catalogue(root)


def _rewrite(root: Path) -> None:
    name = lake.quoted(tables.LAKE)
    with lake.writing(root) as con:
        con.execute(f"CALL ducklake_flush_inlined_data({name})")
        con.execute("BEGIN")
        con.execute(f"CALL ducklake_rewrite_data_files({name}, delete_threshold => 0)")
        lake.commit(con, root)
        con.execute(f"CALL ducklake_expire_snapshots({name}, older_than => now() + INTERVAL 1 DAY)")
        con.execute(f"CALL ducklake_cleanup_old_files({name}, cleanup_all => true)")
        con.execute(f"CALL ducklake_delete_orphaned_files({name}, cleanup_all => true)")


def vacuum_catalogue(root: Path) -> None:
    """Write the catalogue anew, without free pages (SQLite) or dead rows (PostgreSQL).

    SQLite in a process of its own: a second SQLite library in this one would drop the locks of DuckDB's. Raises
    InputError where it cannot be done.
    """
    address = catalog.catalog_address(root)
    if address is not None:
        with lake.lake_errors(root):
            catalog.vacuum_postgres(address, _STATISTICS.format(c=' COLLATE "C"'))
        return
    path = lake.catalog_path(root)
    command = [sys.executable, "-c", _VACUUM, str(path), _STATISTICS.format(c="")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_VACUUM_S, check=False)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise InputError(f"{path} cannot be written anew ({why}): close what reads it and run gptface takedown again")
