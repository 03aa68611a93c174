"""Publish: crawled parts into the lake, one decision per pair, the corpus materialised; one transaction, one release.

The lake gathers: a crawl adds to what earlier crawls said and replaces it where it is newer, unit by unit (see
`tables.Unit`). Publishing the same again is a no-op that returns the release which is there; a crash before the commit
leaves the lake as it was. Callers hold `lake.root_lock`.

A crawl that brings nothing but notes (pages, hosts, the ledger of what was read, how often a failing address was asked)
makes no release either: they are written down beside the newest one.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import duckdb

from warehouse import lake, parts, tables
from warehouse.errors import InputError
from warehouse.identities import FaceVectors, read_vectors
from warehouse.merge import close_gone_pairs, count, keep_places, merge, replace_curated
from warehouse.rules import RuleParameters, decide

_SMALL_PAIRS = 5_000


@dataclass(frozen=True)
class Release:
    """A release of the corpus. `created` is False where the same inputs and rules were published before; `people`: told
    apart by the face embeddings that were at hand."""

    number: int
    created: bool
    pairs: int
    downloaded: int
    with_face: int
    kept: int
    reasons: dict[str, int] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)
    people: int = 0


def publish(
    root: Path | str,
    crawls: Sequence[Path],
    rules: RuleParameters | None = None,
    provenance: Mapping[str, object] | None = None,
    patience_s: float = 30,
    similarities: Sequence[Path] = (),
) -> Release:
    """Bring `crawls` (crawl folders) into the lake of `root` and decide about everything in it by `rules`.

    `provenance` may hold run_id, code_version, author, message, config (any JSON); it goes to `releases` and to
    DuckLake's commit message. `similarities`: files of SIMILARITIES (raw/<source>/gNNN/similarity/) that are taken in,
    of any crawl of the root. Raises InputError for incomplete or unreadable crawls and a lake that another process is
    keeps writing for longer than `patience_s`, OSError for a root or disk that cannot be written; the lake is then as
    before.
    """
    root, rules, told = Path(root), rules or RuleParameters(), dict(provenance or {})
    read = [parts.read_crawl(root, Path(folder)) for folder in sorted({Path(c) for c in crawls})]
    measured = parts.by_crawl(root, similarities)
    vectors = read_vectors(root, [crawl.folder for crawl in read])
    return lake.patiently(lambda: _publish(root, read, measured, rules, told, vectors), patience_s)


def _publish(
    root: Path,
    read: list[parts.Crawl],
    measured: Mapping[str, list[Path]],
    rules: RuleParameters,
    provenance: Mapping[str, object],
    vectors: FaceVectors,
) -> Release:
    with lake.writing(root) as con:
        con.execute("BEGIN")
        last = last_release(con)
        number = (last or 0) + 1
        rules = _with_model(rules, _last_rules(con))
        parts.stage(con, read, measured)
        _fit_threads(con, last)
        changed = close_gone_pairs(con, number)
        keep_places(con)
        merged = [merge(con, unit, number) for unit in tables.UNITS]
        changed += sum(each.news for each in merged)
        if last is None and not count(con, "SELECT count(*) FROM pairs"):
            raise InputError("nothing to publish: the crawls hold no picture, and the lake none from before")
        people = decide(con, rules, number, vectors)
        changed += replace_curated(con, "decisions", "SELECT * FROM new_decisions", number)
        changed += replace_curated(con, "corpus", _CORPUS, number)
        quiet = not changed and _last_rules(con) == rules.to_json()
        if quiet and last is not None:
            number = last
        noted = sum(each.touched for each in merged) + _note(con, number)
        if not quiet:
            _record(con, number, read, rules, provenance, people)
        elif noted:
            _sign(con, provenance, f"notes on release {number}", {"release": number})
        if noted or not quiet:
            lake.commit(con, root)
        else:
            con.execute("ROLLBACK")
        return read_release(con, created=not quiet)


def _fit_threads(con: duckdb.DuckDBPyConnection, last: int | None) -> None:
    """One thread for a small lake: most of the time goes into planning there, and others only get in its way."""
    pairs = count(con, "SELECT count(*) FROM part_pairs") + (read_release(con, last).pairs if last else 0)
    if pairs <= _SMALL_PAIRS:
        con.execute("SET threads = 1")


def _note(con: duckdb.DuckDBPyConnection, release: int) -> int:
    """Pages, hosts and the ledger of sources; how many rows there were to write."""
    merged = [merge(con, unit, release) for unit in tables.NOTES]
    fresh = "FROM part_sources p WHERE (crawl, unit) NOT IN (SELECT crawl, unit FROM sources)"
    found = count(con, f"SELECT count(*) {fresh}")
    if found:
        con.execute(f"INSERT INTO sources BY NAME SELECT p.*, {release} AS release {fresh}")
    return found + sum(each.news + each.touched for each in merged)


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


def _last_rules(con: duckdb.DuckDBPyConnection) -> str | None:
    row = con.execute("SELECT rules FROM releases ORDER BY release DESC LIMIT 1").fetchone()
    return str(row[0]) if row else None


def _with_model(rules: RuleParameters, before: str | None) -> RuleParameters:
    """Whose similarities count stays as it was until a build says otherwise."""
    if rules.clip_model or not before:
        return rules
    return replace(rules, clip_model=json.loads(before).get("clip_model", ""))


_CORPUS = """
    SELECT d.row_id, i.image_id, p.page_url, p.image_url, p.page_host, p.image_host, d.caption, d.caption_kind, d.split,
           d.cluster_id, t.width_px, t.height_px, t.format, f.x0_px, f.y0_px, f.x1_px, f.y1_px, f.points_px, f.score,
           f.face_px, f.roll_deg, f.yaw_deg, f.pitch_deg, f.sharpness, f.brightness, t.phash, t.detector, p.source,
           i.raw_shard, i.raw_offset, i.raw_bytes, d.clip_similarity
    FROM new_decisions d JOIN pairs p ON p.row_id = d.row_id JOIN images i ON i.url_id = p.url_id
    JOIN pictures t ON t.image_id = i.image_id JOIN faces f ON f.image_id = i.image_id AND f.face_index = 0
    WHERE d.kept"""


def read_counts(con: duckdb.DuckDBPyConnection) -> dict[str, object]:
    return {
        "pairs": count(con, "SELECT count(*) FROM pairs"),
        "downloaded": count(con, "SELECT count(*) FROM pairs JOIN images USING (url_id) WHERE status = 'ok'"),
        "with_face": count(
            con,
            "SELECT count(*) FROM pairs JOIN images i USING (url_id) JOIN pictures t ON t.image_id = i.image_id "
            "WHERE t.face_count >= 1",
        ),
        "kept": count(con, "SELECT count(*) FROM corpus"),
        "reasons": dict(con.execute("SELECT reason, pairs FROM funnel ORDER BY stage_order").fetchall()),
        "splits": dict(con.execute("SELECT split, count(*) FROM corpus GROUP BY split ORDER BY split").fetchall()),
    }


def _record(
    con: duckdb.DuckDBPyConnection,
    release: int,
    crawls: list[parts.Crawl],
    rules: RuleParameters,
    provenance: Mapping[str, object],
    people: int,
) -> None:
    """The row of `releases`, and the commit message, in the open transaction."""
    config = json.dumps(provenance.get("config", {}), sort_keys=True, default=str)
    inputs = json.dumps({crawl.name: crawl.parts for crawl in crawls}, sort_keys=True)
    run_id, version = str(provenance.get("run_id", "")), str(provenance.get("code_version", ""))
    now = dt.datetime.now(dt.UTC)
    counts = json.dumps(read_counts(con) | ({"people": people} if people else {}))
    con.execute(
        "INSERT INTO releases (release, created_at, run_id, code_version, config, rules, inputs, counts) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [release, now, run_id, version, config, rules.to_json(), inputs, counts],
    )
    extra = {"release": release, "run_id": run_id, "code_version": version, "config": json.loads(config)}
    extra |= {"rules": json.loads(rules.to_json()), "inputs": json.loads(inputs)}
    _sign(con, provenance, f"release {release}", extra)


def _sign(
    con: duckdb.DuckDBPyConnection, provenance: Mapping[str, object], message: str, extra: Mapping[str, object]
) -> None:
    """DuckLake's commit message of the open transaction."""
    author, message = str(provenance.get("author", "gptface")), str(provenance.get("message", message))
    con.execute(
        f"CALL {tables.LAKE}.set_commit_message({lake.quoted(author)}, {lake.quoted(message)}, "
        f"extra_info => {lake.quoted(json.dumps(extra, sort_keys=True, default=str))})"
    )
