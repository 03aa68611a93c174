"""The releases of a lake: when, by which run, code and rules, what each kept, and what changed to the one before."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import dataclass, fields
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import TextIO

import duckdb

from warehouse import lake
from warehouse.errors import InputError
from warehouse.query import FORMATS, write_result

_TYPES = {"created_at": "TIMESTAMPTZ", "run_id": "VARCHAR", "code_version": "VARCHAR", "rules": "VARCHAR"}


@dataclass(frozen=True)
class Snapshot:
    """One release. `new` and `gone` count kept pairs against the release before; `rules` is a digest of the rules."""

    release: int
    created_at: datetime
    run_id: str
    code_version: str
    rules: str
    pairs: int
    kept: int
    new: int
    gone: int
    shards: int


# One pass over the versions of rows, not one per release: a pair is in the corpus of every release from `release_from`
# to before `release_to`. Another version of a row that stays is neither new nor gone.
_CHANGES = """
    WITH events AS (
        SELECT row_id, release_from AS release, true AS begins FROM history.corpus
        UNION ALL SELECT row_id, release_to, false FROM history.corpus WHERE release_to IS NOT NULL),
    netted AS (
        SELECT row_id, release, bool_or(begins) AS begins, bool_or(NOT begins) AS ends FROM events GROUP BY ALL)
    SELECT release, count(*) FILTER (begins AND NOT ends), count(*) FILTER (ends AND NOT begins)
    FROM netted GROUP BY release"""


def snapshots(root: Path | str) -> list[Snapshot]:
    """All releases of the lake of `root`, the newest first. Raises InputError where there is no lake."""
    with contextlib.closing(lake.connect(root)) as con:
        return read_snapshots(con)


def read_snapshots(con: duckdb.DuckDBPyConnection) -> list[Snapshot]:
    """As `snapshots`, on a connection of `lake.connect`."""
    changes = {release: (new, gone) for release, new, gone in con.execute(_CHANGES).fetchall()}
    shards = dict(con.execute("SELECT release, count(*) FROM shards GROUP BY release").fetchall())
    told_of = "SELECT release, created_at, run_id, code_version, rules, counts FROM releases ORDER BY release DESC"
    found = []
    for release, created_at, run_id, code_version, rules, counts in con.execute(told_of).fetchall():
        told = json.loads(counts)
        new, gone = changes.get(release, (0, 0))
        found.append(
            Snapshot(
                release=release,
                created_at=created_at,
                run_id=run_id,
                code_version=code_version,
                rules=rules_digest(rules),
                pairs=int(told.get("pairs", 0)),
                kept=int(told.get("kept", 0)),
                new=new,
                gone=gone,
                shards=shards.get(release, 0),
            )
        )
    return found


def write_snapshots(root: Path | str, format: str = "json", out: Path | TextIO | None = None) -> int:
    """Write the releases like `query.run_query`; how many. Raises InputError for an unknown format."""
    if format not in FORMATS:
        raise InputError(f"no output format {format!r}: choose {', '.join(FORMATS)}")
    if format == "parquet" and not isinstance(out, Path):
        raise InputError("parquet is written to a file: give one with --out")
    names = [field.name for field in fields(Snapshot)]
    rows = [[getattr(each, name) for name in names] for each in snapshots(root)]
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        columns = ", ".join(f"{name} {_TYPES.get(name, 'BIGINT')}" for name in names)
        con.execute(f"CREATE TABLE snapshots ({columns})")
        if rows:
            con.executemany(f"INSERT INTO snapshots VALUES ({', '.join('?' for _ in names)})", rows)
        cursor = con.execute("FROM snapshots ORDER BY release DESC")
        return write_result(cursor, format, sys.stdout if out is None else out)


def rules_digest(rules: str) -> str:
    """8 hex digits that tell one set of rules (JSON, as in `releases`) from another."""
    return blake2b(rules.encode(), digest_size=4).hexdigest()
