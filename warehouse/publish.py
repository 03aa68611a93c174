"""Publish: crawled parts into the lake, one decision per pair, the corpus materialised; one transaction, one release.

The lake gathers: a crawl adds to what earlier crawls said and replaces it where it is newer, unit by unit (see
`tables.Unit`). Publishing the same again is a no-op that returns the release which is there; a crash before the commit
leaves the lake as it was. Callers hold `lake.root_lock`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from warehouse import lake, parts, tables
from warehouse.errors import InputError
from warehouse.rules import RuleParameters, decide
from warehouse.tables import UNITS, Unit

_GENERATION = "coalesce(try_cast(regexp_extract({crawl}, 'g([0-9]+)$', 1) AS INTEGER), 0)"


@dataclass(frozen=True)
class Release:
    """A release of the corpus. `created` is False where the same inputs and rules were published before."""

    number: int
    created: bool
    pairs: int
    downloaded: int
    with_face: int
    kept: int
    reasons: dict[str, int] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)


def publish(
    root: Path | str,
    crawls: Sequence[Path],
    rules: RuleParameters | None = None,
    provenance: Mapping[str, object] | None = None,
    patience_s: float = 30,
) -> Release:
    """Bring `crawls` (crawl folders) into the lake of `root` and decide about everything in it by `rules`.

    `provenance` may hold run_id, code_version, author, message, config (any JSON); it goes to `releases` and to
    DuckLake's commit message. Raises InputError for incomplete or unreadable crawls and a lake that another process is
    keeps writing for longer than `patience_s`, OSError for a root or disk that cannot be written; the lake is then as
    before.
    """
    root, rules, told = Path(root), rules or RuleParameters(), dict(provenance or {})
    read = [parts.read_crawl(root, Path(folder)) for folder in sorted({Path(c) for c in crawls})]
    return lake.patiently(lambda: _publish(root, read, rules, told), patience_s)


def _publish(root: Path, read: list[parts.Crawl], rules: RuleParameters, provenance: Mapping[str, object]) -> Release:
    with lake.lake_errors(root), contextlib.closing(lake.open_for_writing(root)) as con:
        con.execute("BEGIN")
        number = (last_release(con) or 0) + 1
        parts.stage(con, read)
        changed = sum(_merge(con, unit, number) for unit in (*UNITS, tables.HOSTS_UNIT))
        if not _count(con, "SELECT count(*) FROM pairs"):
            raise InputError("nothing to publish: the crawls hold no picture, and the lake none from before")
        decide(con, rules, number)
        changed += _replace(con, "decisions", "SELECT * FROM new_decisions", number)
        changed += _replace(con, "corpus", _CORPUS, number)
        if not changed and _last_rules(con) == rules.to_json():
            con.execute("ROLLBACK")
            return read_release(con)
        _record(con, number, read, rules, provenance)
        con.execute("COMMIT")
        return read_release(con, created=True)


def last_release(con: duckdb.DuckDBPyConnection) -> int | None:
    """Number of the newest release, None before the first."""
    row = con.execute("SELECT max(release) FROM releases").fetchone()
    return int(row[0]) if row and row[0] is not None else None


def read_release(con: duckdb.DuckDBPyConnection, number: int | None = None, created: bool = False) -> Release:
    """The release `number` (default: the newest) as recorded. Raises InputError where there is none."""
    row = con.execute(
        "SELECT release, counts FROM releases WHERE release = coalesce(?, (SELECT max(release) FROM releases))",
        [number],
    ).fetchone()
    if row is None:
        raise InputError(f"no release {number or ''} in this lake: run `gptface build ...` first")
    return Release(number=int(row[0]), created=created, **json.loads(row[1]))


def _count(con: duckdb.DuckDBPyConnection, query: str) -> int:
    row = con.execute(query).fetchone()
    return int(row[0]) if row else 0


def _last_rules(con: duckdb.DuckDBPyConnection) -> str | None:
    row = con.execute("SELECT rules FROM releases ORDER BY release DESC LIMIT 1").fetchone()
    return str(row[0]) if row else None


def _content(unit: Unit) -> str:
    """SQL of the parent's content as text: all columns but the key and what is not news."""
    names = [name for name in tables.columns(unit.parent) if name not in (unit.key, *unit.unhashed)]
    return f"ROW({', '.join(names)})::VARCHAR"


def _rank(unit: Unit) -> str:
    """SQL row value by which the statement that stands comes first. The same in the part and in the lake."""
    generation = _GENERATION.format(crawl="crawl")
    return f"ROW({', '.join([*unit.precedence, f'-{generation}', 'crawl'])})"


def _merge(con: duckdb.DuckDBPyConnection, unit: Unit, release: int) -> int:
    """Write the units of the staged parts that are new or say something new; how many."""
    parent, key = unit.parent, unit.key
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE incoming AS
        SELECT * FROM part_{parent}
        QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {_rank(unit)}, part, {_content(unit)}) = 1""")
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE digested AS
        {_child_texts(unit)}
        SELECT i.*, md5_number_lower({_content(unit)} || coalesce(t.content, '')) AS digest
        FROM incoming i LEFT JOIN child_texts t USING ({key})""")
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE news AS
        SELECT d.* EXCLUDE (new_rank) FROM (SELECT *, {_rank(unit)} AS new_rank FROM digested) d LEFT JOIN (
            SELECT {key}, digest AS old_digest, {_rank(unit)} AS old_rank
            FROM history.{parent} WHERE release_to IS NULL) o USING ({key})
        WHERE o.old_digest IS NULL OR (o.old_digest <> d.digest AND d.new_rank <= o.old_rank)""")
    count = _count(con, "SELECT count(*) FROM news")
    if count:
        _close(con, parent, key, release)
        names = ", ".join(tables.columns(parent))
        con.execute(f"""
            INSERT INTO history.{parent} SELECT {names}, crawl, digest, {release}, NULL FROM news ORDER BY {key}""")
        if unit.child:
            _replace_children(con, unit, release)
    return count


def _child_texts(unit: Unit) -> str:
    """SQL `WITH child_texts(key, content)`: the children of each incoming unit, in order, as one text."""
    if unit.child is None:
        return f"WITH child_texts AS (SELECT {unit.key}, NULL::VARCHAR AS content FROM incoming WHERE false)"
    names = ", ".join(name for name in tables.columns(unit.child) if name != unit.key)
    order = ", ".join(unit.child_order)
    return f"""WITH child_texts AS (
        SELECT c.{unit.key}, list(ROW({names}) ORDER BY {order})::VARCHAR AS content
        FROM part_{unit.child} c SEMI JOIN incoming i
          ON c.{unit.key} = i.{unit.key} AND c.crawl = i.crawl AND c.part = i.part
        GROUP BY c.{unit.key})"""


def _close(con: duckdb.DuckDBPyConnection, table: str, key: str, release: int) -> None:
    if _count(
        con, f"SELECT count(*) FROM history.{table} WHERE release_to IS NULL AND {key} IN (SELECT {key} FROM news)"
    ):
        con.execute(f"""
            UPDATE history.{table} SET release_to = {release}
            WHERE release_to IS NULL AND {key} IN (SELECT {key} FROM news)""")


def _replace_children(con: duckdb.DuckDBPyConnection, unit: Unit, release: int) -> None:
    assert unit.child is not None
    _close(con, unit.child, unit.key, release)
    names = ", ".join(f"c.{name}" for name in tables.columns(unit.child))
    order = ", ".join(f"c.{name}" for name in (unit.key, *unit.child_order))
    con.execute(f"""
        INSERT INTO history.{unit.child} SELECT {names}, {release}, NULL FROM part_{unit.child} c
        SEMI JOIN news n ON c.{unit.key} = n.{unit.key} AND c.crawl = n.crawl AND c.part = n.part ORDER BY {order}""")


def _replace(con: duckdb.DuckDBPyConnection, table: str, select: str, release: int) -> int:
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
    count = _count(con, "SELECT count(*) FROM news")
    if count:
        _close(con, table, "row_id", release)
        con.execute(f"""
            INSERT INTO history.{table} SELECT w.*, {release}, NULL FROM wanted w
            SEMI JOIN news n ON n.row_id = w.row_id ORDER BY w.row_id""")
    return count


_CORPUS = """
    SELECT d.row_id, i.image_id, p.page_url, p.image_url, p.page_host, p.image_host, d.caption, d.caption_kind, d.split,
           d.cluster_id, t.width_px, t.height_px, t.format, f.x0_px, f.y0_px, f.x1_px, f.y1_px, f.points_px, f.score,
           f.face_px, f.roll_deg, f.yaw_deg, f.pitch_deg, f.sharpness, f.brightness, t.phash, t.detector, p.source,
           i.raw_shard, i.raw_offset, i.raw_bytes
    FROM new_decisions d JOIN pairs p ON p.row_id = d.row_id JOIN images i ON i.url_id = p.url_id
    JOIN pictures t ON t.image_id = i.image_id JOIN faces f ON f.image_id = i.image_id AND f.face_index = 0
    WHERE d.kept"""


def _counts(con: duckdb.DuckDBPyConnection) -> dict[str, object]:
    return {
        "pairs": _count(con, "SELECT count(*) FROM pairs"),
        "downloaded": _count(con, "SELECT count(*) FROM pairs JOIN images USING (url_id) WHERE status = 'ok'"),
        "with_face": _count(
            con,
            "SELECT count(*) FROM pairs JOIN images i USING (url_id) JOIN pictures t ON t.image_id = i.image_id "
            "WHERE t.face_count >= 1",
        ),
        "kept": _count(con, "SELECT count(*) FROM corpus"),
        "reasons": dict(con.execute("SELECT reason, pairs FROM funnel ORDER BY stage_order").fetchall()),
        "splits": dict(con.execute("SELECT split, count(*) FROM corpus GROUP BY split ORDER BY split").fetchall()),
    }


def _record(
    con: duckdb.DuckDBPyConnection,
    release: int,
    crawls: list[parts.Crawl],
    rules: RuleParameters,
    provenance: Mapping[str, object],
) -> None:
    """Rows of `releases` and `sources`, and the commit message, in the open transaction."""
    for crawl in crawls:
        con.execute(
            """INSERT INTO sources SELECT ?, coalesce(min(source), ''), ?, count(*), ? FROM part_pairs WHERE crawl = ?
               AND NOT EXISTS (SELECT 1 FROM sources s WHERE s.crawl = ?)""",
            [crawl.name, crawl.parts, release, crawl.name, crawl.name],
        )
    config = json.dumps(provenance.get("config", {}), sort_keys=True, default=str)
    inputs = json.dumps({crawl.name: crawl.parts for crawl in crawls}, sort_keys=True)
    run_id, version = str(provenance.get("run_id", "")), str(provenance.get("code_version", ""))
    now = dt.datetime.now(dt.UTC)
    counts = json.dumps(_counts(con))
    con.execute(
        "INSERT INTO releases VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [release, now, run_id, version, config, rules.to_json(), inputs, counts],
    )
    extra = {"release": release, "run_id": run_id, "code_version": version, "config": json.loads(config)}
    extra |= {"rules": json.loads(rules.to_json()), "inputs": json.loads(inputs)}
    author, message = str(provenance.get("author", "gptface")), str(provenance.get("message", f"release {release}"))
    con.execute(
        f"CALL {tables.LAKE}.set_commit_message({lake.quoted(author)}, {lake.quoted(message)}, "
        f"extra_info => {lake.quoted(json.dumps(extra, sort_keys=True, default=str))})"
    )
