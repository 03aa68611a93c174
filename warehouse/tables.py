"""The lake's tables and views as DDL, made from the Arrow schemas.

What changes from release to release lies in the schema `history`: its rows carry `release_from` and `release_to` (null
while current). The views of the schema `main` show the current release, so any DuckDB connection that attaches the
catalogue finds `corpus`, `pairs` and the rest as they are now. Tables that only grow lie in `main` themselves.

A *unit* is what one crawl says about one key and what is replaced as a whole: a pair with its captions, an image
address, a picture with its faces. The parent row of a unit also carries `crawl`, the folder that said so (path below
the root), and `digest`, a hash of the unit's content without times, so that only what says something new is written
again. Pages and hosts are *notes*: they are kept in the same way, but what changes there alone makes no release.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

LAKE = "lake"  # the name under which every connection of ours attaches the catalogue
FORMAT_VERSION = 4
_PARENT_EXTRA = "crawl VARCHAR NOT NULL, digest UBIGINT NOT NULL"
_GENERATION = "coalesce(try_cast(regexp_extract(crawl, 'g([0-9]+)$', 1) AS INTEGER), 0)"
_RELEASE_EXTRA = "release_from BIGINT NOT NULL, release_to BIGINT"


def _passes() -> str:
    """SQL predicate: the reason is one of those that pass by themselves."""
    from warehouse.schema import PASSING

    return "coalesce(reason, '') IN ({})".format(", ".join(f"'{reason.value}'" for reason in sorted(PASSING)))


@dataclass(frozen=True)
class Unit:
    """What is replaced together: a parent table with its key, and the child table that hangs on the same key."""

    parent: str
    key: str  # columns, comma-separated
    folder: str
    suffix: str  # of the part files: <folder>/00000<suffix>.parquet
    child: str | None = None
    child_suffix: str = ""
    child_order: tuple[str, ...] = ()
    # Columns that may differ without being news: when and how often it was asked. Brought up to date in place.
    unhashed: frozenset[str] = field(default_factory=frozenset)
    # Which of two statements about one key stands (ascending, lowest stands), before generation and crawl.
    precedence: tuple[str, ...] = ()
    # What is no news about the thing itself never undoes what was found before, however new it is: what passes by
    # itself (no answer, a server's own error). A lasting failure (404: link rot) and a refusal do.
    passing: bool = False  # rows have a `reason` that may be one of schema.PASSING
    # Columns that are no news either where the reason passes: 502 today, 503 tomorrow.
    loose: frozenset[str] = field(default_factory=frozenset)
    # Made beside the crawls when asked for, and filled in later: read from the files that `publish` is given.
    optional: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self.key.split(", "))

    @property
    def told_again(self) -> tuple[str, ...]:
        """Columns that are brought up to date in place."""
        return tuple(sorted(self.unhashed | self.loose))

    def content(self) -> str:
        """SQL of the parent's content as text: what makes it say something else than before."""
        names = [name for name in columns(self.parent) if name not in (*self.keys, *self.unhashed)]
        firm = [f"CASE WHEN {_passes()} THEN NULL ELSE {n} END" if n in self.loose else n for n in names]
        return f"ROW({', '.join(firm)})::VARCHAR"

    def rank(self) -> str:
        """SQL row value by which the statement that stands comes first; the same in a crawl and in the lake."""
        from warehouse.schema import Reason

        first = [f"({_passes()})::INT"] if self.passing else []
        if self.parent == "images":
            # A page that refuses takes out its own pairs, by their consent; other pages may show the same picture.
            first = [f"({_passes()} OR reason IS NOT DISTINCT FROM '{Reason.PAGE_OPTED_OUT.value}')::INT"]
        return f"ROW({', '.join([*first, *self.precedence, f'-{_GENERATION}', 'crawl'])})"


def latest_first(column: str) -> str:
    """SQL number by which the latest of several times comes first.

    A time that has not come yet was written while a clock was wrong: it comes last, or what its row says (say, that
    nobody refuses) would stand until that time has come. One hour is left to machines whose clocks differ.
    """
    return f"-epoch_us(CASE WHEN {column} > now() + INTERVAL 1 HOUR THEN TIMESTAMPTZ 'epoch' ELSE {column} END)"


# That a page is unchanged (304), or was not to be had, says nothing about what stands on it.
PAGE_WAS_READ = "(http_status // 100 = 2 OR http_status IN (404, 410))"

UNITS = (
    Unit("pairs", "row_id", "plan", ".pairs", "captions", ".captions", ("rank", "kind", "text")),
    Unit(
        "consent",
        "row_id",
        "consent",
        "",
        unhashed=frozenset({"checked_at"}),
        precedence=(latest_first("checked_at"),),
        passing=True,
    ),
    Unit(
        "images",
        "url_id",
        "images",
        "",
        unhashed=frozenset({"fetched_at", "attempts", "error", "final_url", "etag", "last_modified"}),
        precedence=(latest_first("fetched_at"),),
        passing=True,
        loose=frozenset({"http_status"}),
    ),
    Unit("pictures", "image_id", "faces", ".pictures", "faces", ".faces", ("face_index",)),
    Unit("similarities", "image_id, caption_id, model", "similarity", "", optional=True),
)
# Of a whole crawl, not of a part: `suffix` is then a pattern of files in `folder`.
NOTES = (
    Unit(
        "hosts",
        "host",
        "consent/hosts",
        "[0-9]*.parquet",
        unhashed=frozenset({"checked_at"}),
        precedence=(latest_first("checked_at"),),
    ),
    Unit(
        "pages",
        "page_url, source",
        "plan",
        "pages.parquet",
        unhashed=frozenset({"visited_at"}),
        precedence=(f"(NOT {PAGE_WAS_READ})::INT", latest_first("visited_at")),
    ),
)

PARENTS = tuple(unit.parent for unit in (*UNITS, *NOTES))
CHILDREN = tuple(u.child for u in UNITS if u.child)
CURATED = ("decisions", "corpus")
HISTORY = (*PARENTS, *CHILDREN, *CURATED)
# Tables that only grow, and the columns by which a row that is registered twice is known to be the same.
GROWING = {
    "sources": ("crawl", "unit"),
    "releases": ("release",),
    "shards": ("release", "file"),
    "models": ("model",),
    "evaluations": ("model", "release", "metric"),
    "promotions": ("number",),
    "runs": ("run_id",),
    "takedowns": ("takedown_id",),
    "tombstones": ("kind", "hash"),
}

_IMAGES_OF_2 = ("final_url", "etag", "last_modified")
_FACES_OF_2 = ("occlusion FLOAT", "padded_share FLOAT", "face_phash VARCHAR", "face_thumb BLOB")

_STAGES = (
    ("consent", "robots_txt", "taken_down"),
    ("transfer", "bad_address", "internal_error"),
    ("picture", "not_an_image", "image_type"),
    ("content", "blocked", "minor"),
    ("face", "no_face", "face_blurred"),
    ("caption", "no_caption", "clip_similarity"),
    ("duplicate", "duplicate_image", "near_duplicate_image"),
    ("cap", "host_cap", "caption_cap"),
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
        "binary": "BLOB",
        "timestamp[us, tz=UTC]": "TIMESTAMPTZ",
    }
    text = str(arrow_type)
    if text.startswith("list<"):
        return duckdb_type(arrow_type.value_type) + "[]"
    return names[text]


def column_ddl(table: str) -> str:
    """`name TYPE [NOT NULL], ...` of a table's contract."""
    return ", ".join(f'"{f.name}" {duckdb_type(f.type)}{"" if f.nullable else " NOT NULL"}' for f in schemas()[table])


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


def migration(version: int) -> list[str]:
    """Statements that bring the tables of an older format to this one, before `table_ddl` adds what is missing.

    Rows keep their values. New columns of a table come last there, so nothing may be inserted by position.
    """
    if version == 3:
        return [
            f"ALTER TABLE {LAKE}.history.faces ADD COLUMN flatness FLOAT",
            f"ALTER TABLE {LAKE}.history.decisions ADD COLUMN clip_similarity FLOAT",
            f"ALTER TABLE {LAKE}.history.corpus ADD COLUMN clip_similarity FLOAT",
            f"ALTER TABLE {LAKE}.main.models ADD COLUMN parent VARCHAR",
        ]
    if version == 2:
        return [
            f"ALTER TABLE {LAKE}.history.decisions ADD COLUMN image_host VARCHAR",
            f"""UPDATE {LAKE}.history.decisions d SET image_host = p.image_host
                FROM (SELECT row_id, any_value(image_host) AS image_host FROM {LAKE}.history.pairs GROUP BY row_id) p
                WHERE p.row_id = d.row_id""",
        ]
    if version != 1:
        return []
    old = f"{LAKE}.main.sources"
    return [
        *(f"ALTER TABLE {LAKE}.history.images ADD COLUMN {name} VARCHAR" for name in _IMAGES_OF_2),
        f"ALTER TABLE {LAKE}.history.hosts ADD COLUMN tdmrep_status INTEGER DEFAULT 0",  # as where no answer came
        f"ALTER TABLE {LAKE}.history.hosts ADD COLUMN tdmrep_json VARCHAR DEFAULT ''",
        *(f"ALTER TABLE {LAKE}.history.faces ADD COLUMN {column}" for column in _FACES_OF_2),
        # One row per crawl becomes one per unit; what the units were is not known any more.
        f"CREATE OR REPLACE TEMP TABLE old_sources AS SELECT crawl, source, pairs, release FROM {old}",
        f"DROP TABLE {old}",
        f"CREATE TABLE {old} ({column_ddl('sources')})",
        f"INSERT INTO {old} SELECT crawl, source, source, '', pairs, NULL, release FROM old_sources",
        "DROP TABLE old_sources",
    ]


def view_selects(current: str, catalog: str = "") -> dict[str, str]:
    """SELECT per view; `current` is the predicate that picks a release, `catalog` a prefix like `lake.`.

    `funnel` sums to the number of pairs; `remaining` are the pairs left after this reason. `lineage` says for every
    kept pair which crawl, raw shard and detector it comes from and which release first held it in this form.
    `caption_candidates` are all texts of all pairs, with the reason why one is not used.
    """
    from warehouse.captions import candidates_select

    h, m = f"{catalog}history", f"{catalog}main"
    views = {}
    for table in HISTORY:
        hidden = "crawl, digest, release_from, release_to" if table in PARENTS else "release_from, release_to"
        views[table] = f"SELECT * EXCLUDE ({hidden}) FROM {h}.{table} WHERE {current}"
    views["funnel"] = f"""
        WITH counted AS (SELECT reason, count(*) AS pairs FROM {h}.decisions WHERE {current} GROUP BY reason)
        SELECT stage_order, stage, reason, pairs,
               (sum(pairs) OVER ()
                - coalesce(sum(pairs) FILTER (reason <> 'kept') OVER (ORDER BY stage_order), 0))::BIGINT AS remaining
        FROM counted JOIN {m}.reasons USING (reason) ORDER BY stage_order"""
    views["lineage"] = f"""
        SELECT c.row_id, c.image_id, c.source, c.page_url, c.image_url, p.crawl, c.raw_shard, c.detector, c.split,
               c.release_from AS release, r.created_at, r.run_id, r.code_version
        FROM (SELECT * FROM {h}.corpus WHERE {current}) c
        JOIN (SELECT row_id, crawl FROM {h}.pairs WHERE {current}) p USING (row_id)
        LEFT JOIN {m}.releases r ON r.release = c.release_from"""
    views["caption_candidates"] = candidates_select(f"(SELECT * FROM {h}.captions WHERE {current})", f"{m}.releases")
    return views
