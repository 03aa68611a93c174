"""What a takedown removes: from addresses, hosts, hashes or likeness to the rows and pictures that go, by SQL.

Looked through are the lake with all its history and the crawls' own files, published or not. A picture that is taken
down goes with every address that ever gave its bytes and every pair that shows one of these.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq

from warehouse.dedup import Nearness, likeness
from warehouse.lake import quoted
from warehouse.removal import HOST, Removal
from warehouse.schema import content_id, host_names

_CRAWL = "raw/*/g[0-9][0-9][0-9]"
_PLACES = frozenset({"raw_offset", "raw_bytes"})


@dataclass(frozen=True)
class Look:
    """What a picture looks like: hashes as in PICTURES and FACES; those of its largest face may be missing."""

    phash: str
    face_phash: str | None = None
    face_thumb: bytes | None = None


@dataclass(frozen=True)
class Request:
    """What is to go. `looks` are pictures, near to within `near`; `image_ids` more pictures (of a person)."""

    urls: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    sha256s: tuple[str, ...] = ()
    looks: tuple[Look, ...] = ()
    near: Nearness = field(default_factory=Nearness)
    image_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Selection:
    """What a request means for a root: the removal, and in clear (for the tombstones, never stored) its addresses."""

    removal: Removal
    phashes: frozenset[str] = frozenset()  # of the pictures that were found by their looks
    face_phashes: frozenset[str] = frozenset()  # of the largest faces of these
    picture_ids: frozenset[str] = (
        frozenset()
    )  # asked for, by themselves or by an address; `removal` may take more along
    addresses: frozenset[str] = frozenset()
    near_duplicates: int = 0  # pictures that look like these and stay
    raw_copies: tuple[tuple[str, int, int], ...] = ()  # file below the root, offset, bytes
    hosts: Mapping[str, int] = field(default_factory=dict)  # pairs that go, by the host of their picture


def select(con: duckdb.DuckDBPyConnection, root: Path, request: Request, has_lake: bool) -> Selection:
    """Find what `request` takes down. `con` shows the lake of `root` where it has one; it gets temporary tables."""
    _load(con, root, has_lake)
    _seed(con, request)
    con.execute("""
        CREATE OR REPLACE TEMP TABLE gone_urls AS
        SELECT url_id FROM hit_urls UNION SELECT url_id FROM seen_images WHERE image_id IN (FROM hit_images);
        CREATE OR REPLACE TEMP TABLE gone_rows AS
        SELECT DISTINCT row_id FROM seen_pairs WHERE url_id IN (FROM gone_urls);
        CREATE OR REPLACE TEMP TABLE gone_images AS
        SELECT image_id FROM hit_images UNION
        SELECT image_id FROM seen_images WHERE image_id IS NOT NULL GROUP BY image_id
        HAVING bool_and(url_id IN (FROM gone_urls))""")
    image_urls = _texts(
        con,
        """SELECT image_url FROM seen_images WHERE url_id IN (FROM gone_urls)
           UNION SELECT final_url FROM seen_images WHERE url_id IN (FROM gone_urls) AND final_url IS NOT NULL
           UNION SELECT image_url FROM seen_pairs WHERE url_id IN (FROM gone_urls)""",
    )
    addresses = image_urls | frozenset(request.urls)
    removal = Removal(
        row_ids=_texts(con, "FROM gone_rows"),
        url_ids=_texts(con, "FROM gone_urls"),
        image_ids=_texts(con, "FROM gone_images"),
        address_ids=frozenset(content_id(url) for url in addresses),
        host_ids=frozenset(content_id(host) for host in {*request.hosts, *_texts(con, "FROM hosts_asked")}),
        folder_ids=frozenset(content_id(name) for name in _folders(root, request)),
    )
    removal = replace(removal, row_ids=removal.row_ids | (_captioned(con, removal) if has_lake else frozenset()))
    return Selection(
        removal=removal,
        phashes=frozenset(look.phash for look in request.looks)
        | _texts(con, "SELECT phash FROM seen_pictures WHERE image_id IN (FROM like_images)"),
        face_phashes=frozenset(look.face_phash for look in request.looks if look.face_phash)
        | _texts(con, "SELECT face_phash FROM seen_faces WHERE face_index = 0 AND image_id IN (FROM like_images)"),
        picture_ids=_texts(con, "FROM hit_images") | frozenset(request.sha256s),
        addresses=addresses,
        near_duplicates=_near(con, request.near.whole_bits),
        raw_copies=_copies(con),
        hosts=dict(
            con.execute("""
            SELECT image_host, count(DISTINCT row_id) FROM seen_pairs WHERE row_id IN (FROM gone_rows)
            GROUP BY image_host ORDER BY 2 DESC, 1""").fetchall()
        ),
    )


def _load(con: duckdb.DuckDBPyConnection, root: Path, has_lake: bool) -> None:
    """Temporary tables of all pairs, addresses and pictures that were ever seen, here or there."""
    pairs = ("row_id", "url_id", "page_url", "image_url", "page_host", "image_host")
    images = ("url_id", "image_url", "final_url", "image_id", "raw_shard", "raw_offset", "raw_bytes")
    pictures, faces = ("image_id", "phash"), ("image_id", "face_index", "face_phash", "face_thumb")
    sources: tuple[tuple[str, tuple[str, ...], str, list[str]], ...] = (
        ("seen_pairs", pairs, "pairs", [f"{_CRAWL}/plan/*.pairs.parquet", f"{_CRAWL}/extract/*.pairs.parquet"]),
        ("seen_images", images, "images", [f"{_CRAWL}/images/*.parquet", f"{_CRAWL}/known/images.parquet"]),
        ("seen_pictures", pictures, "pictures", [f"{_CRAWL}/faces/*.pictures.parquet"]),
        ("seen_faces", faces, "faces", [f"{_CRAWL}/faces/*.faces.parquet"]),
    )
    for name, columns, table, patterns in sources:
        parts = [f"SELECT {', '.join(columns)} FROM history.{table}"] if has_lake else []
        parts += _from_files(root, patterns, columns, {})
        if name == "seen_images":  # bytes that a source holds itself
            stored = {"image_id": "sha256", "raw_offset": "offset", "raw_bytes": "bytes"}
            parts += _from_files(root, [f"{_CRAWL}/extract/*.stored.parquet"], columns, stored, is_stored=True)
        empty = f"SELECT {', '.join(f'NULL::{_type(c)} AS {c}' for c in columns)} WHERE false"
        con.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {' UNION '.join([empty, *parts])}")


def _type(column: str) -> str:
    return {"face_thumb": "BLOB", "face_index": "INTEGER"}.get(column, "BIGINT" if column in _PLACES else "VARCHAR")


def _from_files(
    root: Path, patterns: list[str], columns: tuple[str, ...], renamed: Mapping[str, str], is_stored: bool = False
) -> list[str]:
    """One SELECT per file; a column that a file does not have is null."""
    selects = []
    for path in sorted(path for pattern in patterns for path in root.glob(pattern)):
        there = set(pq.read_schema(path).names)
        shown = []
        for column in columns:
            name = renamed.get(column, column)
            value = f'"{name}"' if name in there else "NULL"
            if is_stored and column == "raw_shard":  # the file of bytes, below the root as those of raw shards are
                value = f"{quoted(path.parent.relative_to(root).as_posix() + '/')} || file"
            shown.append(f"{value}::{_type(column)} AS {column}")
        literal = "".join(f"[{c}]" if c in "*?[" else c for c in str(path))
        selects.append(f"SELECT {', '.join(shown)} FROM read_parquet({quoted(literal)})")
    return selects


def _seed(con: duckdb.DuckDBPyConnection, request: Request) -> None:
    """Temporary tables `hit_urls(url_id)` and `hit_images(image_id)`: what was asked for by itself."""
    con.execute("CREATE OR REPLACE TEMP TABLE hosts_asked (host VARCHAR)")
    if request.hosts:
        found = _texts(
            con,
            f"""SELECT DISTINCT unnest([page_host, image_host]) FROM seen_pairs
                UNION SELECT DISTINCT lower(regexp_extract(unnest([image_url, final_url]), '{HOST}'))
                FROM seen_images""",
        )
        wanted = set(request.hosts)
        _insert(con, "hosts_asked", [host for host in found if not wanted.isdisjoint(host_names(host))])
    con.execute("CREATE OR REPLACE TEMP TABLE urls_asked (url VARCHAR)")
    _insert(con, "urls_asked", request.urls)
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE hit_urls AS
        SELECT url_id FROM seen_pairs
        WHERE image_url IN (FROM urls_asked) OR page_url IN (FROM urls_asked)
           OR image_host IN (FROM hosts_asked) OR page_host IN (FROM hosts_asked)
        UNION SELECT url_id FROM seen_images
        WHERE image_url IN (FROM urls_asked) OR final_url IN (FROM urls_asked)
           OR lower(regexp_extract(image_url, '{HOST}')) IN (FROM hosts_asked)
           OR lower(regexp_extract(final_url, '{HOST}')) IN (FROM hosts_asked)""")
    con.execute("CREATE OR REPLACE TEMP TABLE like_images (image_id VARCHAR)")
    _insert(con, "like_images", (image_id for look in request.looks for image_id in _like(con, look, request.near)))
    con.execute("CREATE OR REPLACE TEMP TABLE images_asked (image_id VARCHAR)")
    _insert(con, "images_asked", {*request.sha256s, *request.image_ids})
    con.execute("""
        CREATE OR REPLACE TEMP TABLE hit_images AS
        SELECT image_id FROM seen_images WHERE image_id IS NOT NULL AND (
            url_id IN (FROM hit_urls) OR image_id IN (FROM images_asked))
        UNION SELECT image_id FROM seen_pictures WHERE image_id IN (FROM images_asked)
        UNION SELECT image_id FROM like_images""")


def _like(con: duckdb.DuckDBPyConnection, look: Look, near: Nearness) -> set[str]:
    """Pictures that count as copies of one that looks so, by the measures of duplicates (warehouse.dedup)."""
    distance = "bit_count(xor(('0x' || {})::UBIGINT, ('0x' || ?)::UBIGINT))"
    found = con.execute(
        f"SELECT image_id FROM seen_pictures WHERE phash IS NOT NULL AND {distance.format('phash')} <= ?",
        [look.phash, near.whole_bits],
    ).fetchall()
    if look.face_phash is None or look.face_thumb is None:
        return {row[0] for row in found}
    faces = con.execute(
        f"""SELECT image_id, face_thumb FROM seen_faces
            WHERE face_index = 0 AND face_phash IS NOT NULL AND octet_length(face_thumb) = ?
              AND {distance.format("face_phash")} <= ?""",
        [len(look.face_thumb), look.face_phash, near.face_bits],
    ).fetchall()
    if faces:
        thumbs = np.stack([np.frombuffer(thumb, np.uint8) for _, thumb in faces])
        wanted = np.broadcast_to(np.frombuffer(look.face_thumb, np.uint8), thumbs.shape)
        close = likeness(wanted, thumbs) >= near.min_face_likeness
        found += [face[:1] for face, is_close in zip(faces, close, strict=True) if is_close]
    return {row[0] for row in found}


def _folders(root: Path, request: Request) -> list[str]:
    """Folders of crawls whose source names a host that goes: their names tell it, too."""
    hosts = Removal(host_ids=frozenset(content_id(host) for host in request.hosts))
    found = set()
    for plan in root.glob(f"{_CRAWL}/plan/done.json") if request.hosts else ():
        source = str(json.loads(plan.read_text("utf-8")).get("source", ""))
        if hosts.scrubbed(source) != source:
            found.add(plan.relative_to(root / "raw").parts[0])
    for units in root.glob(f"{_CRAWL}/extract/units.json") if request.hosts else ():
        names = units.read_text("utf-8")
        if hosts.scrubbed(names) != names:
            found.add(units.relative_to(root / "raw").parts[0])
    return sorted(found)


def _captioned(con: duckdb.DuckDBPyConnection, removal: Removal) -> frozenset[str]:
    """Kept pairs, of any release, whose chosen caption names an address that goes. Links are taken out of captions, so
    these are of releases made by versions that missed some: they go along, with their samples wherever these lie."""
    found = con.execute("SELECT DISTINCT row_id, caption FROM history.corpus WHERE contains(caption, '://')").fetchall()
    return frozenset(row_id for row_id, caption in found if removal.scrubbed(caption) != caption)


def _near(con: duckdb.DuckDBPyConnection, bits: int) -> int:
    """Pictures that stay although they look like one that goes."""
    row = con.execute(f"""
        WITH gone AS (SELECT DISTINCT ('0x' || phash)::UBIGINT AS h FROM seen_pictures
                      WHERE phash IS NOT NULL AND image_id IN (FROM hit_images)),
        stay AS (SELECT DISTINCT image_id, ('0x' || phash)::UBIGINT AS h FROM seen_pictures
                 WHERE phash IS NOT NULL AND image_id NOT IN (FROM gone_images))
        SELECT count(DISTINCT image_id) FROM stay JOIN gone ON bit_count(xor(stay.h, gone.h)) <= {int(bits)}""")
    found = row.fetchone()
    return int(found[0]) if found else 0


def _copies(con: duckdb.DuckDBPyConnection) -> tuple[tuple[str, int, int], ...]:
    """Where bytes lie that go: every member of a raw shard or stored file that belongs to a gone address or picture."""
    rows = con.execute("""
        SELECT DISTINCT raw_shard, raw_offset, raw_bytes FROM seen_images
        WHERE raw_shard IS NOT NULL AND raw_offset IS NOT NULL
          AND (url_id IN (FROM gone_urls) OR image_id IN (FROM gone_images)) ORDER BY ALL""").fetchall()
    return tuple((str(file), int(offset), int(size)) for file, offset, size in rows)


def _texts(con: duckdb.DuckDBPyConnection, query: str) -> frozenset[str]:
    return frozenset(row[0] for row in con.execute(query).fetchall() if row[0])


def _insert(con: duckdb.DuckDBPyConnection, table: str, values: Iterable[Any]) -> None:
    rows = [[value] for value in sorted(set(values))]
    if rows:
        con.executemany(f"INSERT INTO {table} VALUES (?)", rows)
