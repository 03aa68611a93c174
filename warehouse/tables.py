"""The lake's tables and views as DDL, made from the Arrow schemas.

What changes from release to release lies in the schema `history`: its rows carry `release_from` and `release_to` (null
while current). The views of the schema `main` show the current release, so any DuckDB connection that attaches the
catalogue finds `corpus`, `pairs` and the rest as they are now. Tables that only grow lie in `main` themselves.

A *unit* is what one crawl says about one key and what is replaced as a whole: a pair with its captions, an image
address, a picture with its faces. The parent row of a unit also carries `crawl`, the folder that said so (path below
the root), and `digest`, a hash of the unit's content without times, so that only what says something new is written
again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

LAKE = "lake"  # the name under which every connection of ours attaches the catalogue
FORMAT_VERSION = 1
_PARENT_EXTRA = "crawl VARCHAR NOT NULL, digest UBIGINT NOT NULL"
_RELEASE_EXTRA = "release_from BIGINT NOT NULL, release_to BIGINT"


@dataclass(frozen=True)
class Unit:
    """What is replaced together: a parent table with its key, and the child table that hangs on the same key."""

    parent: str
    key: str
    folder: str
    suffix: str  # of the part files: <folder>/00000<suffix>.parquet
    child: str | None = None
    child_suffix: str = ""
    child_order: tuple[str, ...] = ()
    # Columns that may differ without being news: when and how often it was asked.
    unhashed: frozenset[str] = field(default_factory=frozenset)
    # Which of two statements about one key stands (ascending, lowest stands), before generation and crawl.
    precedence: tuple[str, ...] = ()


UNITS = (
    Unit("pairs", "row_id", "plan", ".pairs", "captions", ".captions", ("rank", "kind", "text")),
    Unit(
        "consent",
        "row_id",
        "consent",
        "",
        unhashed=frozenset({"checked_at"}),
        precedence=("-epoch_us(checked_at)",),
    ),
    # A transfer that failed for a moment does not undo one that succeeded; a refusal or newer bytes do.
    Unit(
        "images",
        "url_id",
        "images",
        "",
        unhashed=frozenset({"fetched_at", "attempts", "error"}),
        precedence=("(status = 'failed')::INT", "-epoch_us(fetched_at)"),
    ),
    Unit("pictures", "image_id", "faces", ".pictures", "faces", ".faces", ("face_index",)),
)
HOSTS_UNIT = Unit(
    "hosts",
    "host",
    "consent",
    "hosts",
    unhashed=frozenset({"checked_at"}),
    precedence=("-epoch_us(checked_at)",),
)

PARENTS = (*(u.parent for u in UNITS), HOSTS_UNIT.parent)
CHILDREN = tuple(u.child for u in UNITS if u.child)
CURATED = ("decisions", "corpus")
HISTORY = (*PARENTS, *CHILDREN, *CURATED)
# Tables that only grow, and the columns by which a row that is registered twice is known to be the same.
GROWING = {
    "sources": ("crawl",),
    "releases": ("release",),
    "shards": ("release", "file"),
    "models": ("model",),
    "evaluations": ("model", "release", "metric"),
    "runs": ("run_id",),
}

_STAGES = (
    ("consent", "robots_txt", "host_opted_out"),
    ("transfer", "bad_address", "internal_error"),
    ("picture", "not_an_image", "too_small"),
    ("face", "no_face", "face_px"),
    ("caption", "no_caption", "caption_too_short"),
    ("duplicate", "duplicate_image", "near_duplicate_image"),
)


@lru_cache(maxsize=1)
def schemas() -> dict[str, pa.Schema]:
    """Arrow schema per table name (imports pyarrow, which reading connections do not need)."""
    from warehouse import schema

    return {name: getattr(schema, name.upper()) for name in (*HISTORY, *GROWING)}


def columns(table: str) -> tuple[str, ...]:
    """Column names of a table's contract, without the bookkeeping of the lake."""
    return tuple(schemas()[table].names)


def duckdb_type(arrow_type: pa.DataType) -> str:
    """DuckDB's name of the few Arrow types that the contract uses; KeyError for any other."""
    names = {
        "string": "VARCHAR",
        "int32": "INTEGER",
        "int64": "BIGINT",
        "float": "FLOAT",
        "double": "DOUBLE",
        "bool": "BOOLEAN",
        "timestamp[us, tz=UTC]": "TIMESTAMPTZ",
    }
    text = str(arrow_type)
    if text.startswith("list<"):
        return duckdb_type(arrow_type.value_type) + "[]"
    return names[text]


def column_ddl(table: str) -> str:
    """`name TYPE [NOT NULL], ...` of a table's contract."""
    return ", ".join(f"{f.name} {duckdb_type(f.type)}{'' if f.nullable else ' NOT NULL'}" for f in schemas()[table])


def reason_rows() -> list[tuple[str, str, int]]:
    """`(reason, stage, stage_order)` for the closed enum, in the order in which a row can fall."""
    from warehouse.schema import Reason

    order = [r.value for r in Reason if r is not Reason.KEPT]
    rows = []
    for stage, first, last in _STAGES:
        rows += [(order[i], stage, i) for i in range(order.index(first), order.index(last) + 1)]
    return [*rows, (Reason.KEPT.value, "kept", len(order))]


def table_ddl() -> list[str]:
    """Statements that make every missing table (idempotent)."""
    statements = [f"CREATE SCHEMA IF NOT EXISTS {LAKE}.history"]
    for table in HISTORY:
        extra = f"{_PARENT_EXTRA}, {_RELEASE_EXTRA}" if table in PARENTS else _RELEASE_EXTRA
        statements.append(f"CREATE TABLE IF NOT EXISTS {LAKE}.history.{table} ({column_ddl(table)}, {extra})")
    statements += [f"CREATE TABLE IF NOT EXISTS {LAKE}.main.{table} ({column_ddl(table)})" for table in GROWING]
    statements.append(
        f"CREATE TABLE IF NOT EXISTS {LAKE}.main.reasons (reason VARCHAR, stage VARCHAR, stage_order INTEGER)"
    )
    statements.append(f"CREATE TABLE IF NOT EXISTS {LAKE}.main.lake_format (version INTEGER)")
    return statements


def view_selects(current: str, catalog: str = "") -> dict[str, str]:
    """SELECT per view; `current` is the predicate that picks a release, `catalog` a prefix like `lake.`.

    `funnel` sums to the number of pairs; `remaining` are the pairs left after this reason. `lineage` says for every
    kept pair which crawl, raw shard and detector it comes from and which release first held it in this form.
    """
    h, m = f"{catalog}history", f"{catalog}main"
    views = {}
    for table in HISTORY:
        hidden = "crawl, digest, release_from, release_to" if table in PARENTS else "release_from, release_to"
        views[table] = f"SELECT * EXCLUDE ({hidden}) FROM {h}.{table} WHERE {current}"
    views["funnel"] = f"""
        WITH counted AS (SELECT reason, count(*) AS pairs FROM {h}.decisions WHERE {current} GROUP BY reason)
        SELECT stage_order, stage, reason, pairs,
               (sum(pairs) OVER () - sum(pairs) FILTER (reason <> 'kept') OVER (ORDER BY stage_order))::BIGINT
               AS remaining
        FROM counted JOIN {m}.reasons USING (reason) ORDER BY stage_order"""
    views["lineage"] = f"""
        SELECT c.row_id, c.image_id, c.source, c.page_url, c.image_url, p.crawl, c.raw_shard, c.detector, c.split,
               c.release_from AS release, r.created_at, r.run_id, r.code_version
        FROM (SELECT * FROM {h}.corpus WHERE {current}) c
        JOIN (SELECT row_id, crawl FROM {h}.pairs WHERE {current}) p USING (row_id)
        LEFT JOIN {m}.releases r ON r.release = c.release_from"""
    return views
