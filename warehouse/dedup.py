"""Duplicate clusters: pictures that are copies of one photograph, transitively.

Two pictures belong together where the 64-bit hashes of the whole pictures lie within a few bits of each other, or where
those of their aligned faces do and the thumbnails of the faces agree (see `likeness`): a whole picture's hash misses
copies with a margin cut off, a face's hash alone would take some portraits of one person for one.

Near hashes are found by blocks (Manku, Jain, Das Sarma: Detecting Near-Duplicates for Web Crawling, WWW 2007,
section 3): cut into d + r blocks, hashes that differ in at most d bits agree in at least r of them whole (pigeonhole),
so each choice of r blocks is one equality join, whose pairs are then checked. Small sets take few short keys, large
ones many long keys. All of it is SQL on distinct hashes; Python compares the thumbnails of the few candidates.

The identity of a cluster is its earliest member (by the release that first saw it, then by image_id), so new data
leaves clusters that were there before as they are; only where a new picture joins two of them does the younger one
take the elder's identity. Rows do not move between splits even then: see `splits`. The clusters do not depend on the
other rules: all pictures with a face take part, kept or not.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
from duckdb.func import PythonUDFType
from numpy.typing import NDArray

_HASH_BITS = 64
_MAX_KEY_BLOCKS = 4
_ROW_COST = 1.5  # time of one row in an equality join, in that of one pair that it finds and checks (measured)
# Of more pictures with one and the same hash each is compared with the first few only: a crowd costs no square.
_CROWD = 8
_THUMB_BYTES = 256
# Whole pictures that are so many bits too far apart still count as copies if their faces agree so well.
_CONFIRMED_BITS = 1
_CONFIRMING_LIKENESS = 0.93


@dataclass(frozen=True)
class Nearness:
    """What counts as a copy: `whole_bits` of distance between whole pictures, or `face_bits` between faces and at least
    `min_face_likeness` (correlation) between their thumbnails."""

    whole_bits: int = 3
    face_bits: int = 6
    min_face_likeness: float = 0.975


def find_clusters(con: duckdb.DuckDBPyConnection, near: Nearness) -> None:
    """Temporary table `clusters(image_id, elder_id)` of `hashed_pictures`.

    That is a table with the columns image_id, phash, face_phash (16 hex digits each or null), face_thumb (BLOB of 256
    grey values or null) and first_release. A picture without hashes is its own cluster.
    """
    con.execute("""
        CREATE OR REPLACE TEMP TABLE prints AS
        SELECT rowid AS n, try_cast('0x' || phash AS UBIGINT) AS whole, try_cast('0x' || face_phash AS UBIGINT) AS face
        FROM hashed_pictures""")
    con.execute("CREATE OR REPLACE TEMP TABLE edges (a BIGINT, b BIGINT)")
    con.create_function("likeness", _likeness, ["BLOB", "BLOB"], "DOUBLE", type=PythonUDFType.ARROW)
    try:
        _find_near_hashes(con, "whole", near.whole_bits + (_CONFIRMED_BITS if near.whole_bits else 0))
        _add_edges(con, "whole", near.whole_bits, _CONFIRMING_LIKENESS)
        _find_near_hashes(con, "face", near.face_bits)
        _add_edges(con, "face", -1, near.min_face_likeness)
    finally:
        con.remove_function("likeness")
    _label_components(con)
    con.execute("""
        CREATE OR REPLACE TEMP TABLE clusters AS
        WITH named AS (
            SELECT l.n, first_value(p.image_id) OVER (PARTITION BY label ORDER BY first_release, image_id) AS elder
            FROM labels l JOIN hashed_pictures p ON p.rowid = l.n)
        SELECT p.image_id, coalesce(elder, p.image_id) AS elder_id
        FROM hashed_pictures p LEFT JOIN named ON named.n = p.rowid""")


def cluster_id_sql(image_id: str) -> str:
    """SQL for the id of a cluster (32 hex digits) from that of its earliest member.

    A one-way hash: copies keep it when their original is taken down, and must not tell which that was.
    """
    return f"left(sha256('cluster:' || {image_id}), 32)"


def likeness(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Correlation (-1..1) of grey thumbnails, both (N, pixels), row by row; 0 where one of them is flat.

    Correlation takes no notice of brightness and contrast.
    """
    one, other = (rows - rows.mean(axis=1, keepdims=True, dtype=np.float32) for rows in (a, b))
    scale = np.sqrt((one * one).sum(axis=1) * (other * other).sum(axis=1))
    return np.asarray((one * other).sum(axis=1) / np.where(scale > 0, scale, np.inf), dtype=np.float32)


def _likeness(a: pa.Array, b: pa.Array) -> pa.Array:
    rows = [np.frombuffer(b"".join(side.to_pylist()), dtype=np.uint8).reshape(-1, _THUMB_BYTES) for side in (a, b)]
    return pa.array(likeness(*rows).astype(np.float64))


def _find_near_hashes(con: duckdb.DuckDBPyConnection, column: str, max_distance: int) -> None:
    """Temporary table `near_hashes(a, b)`, a < b: the pairs of distinct hashes within `max_distance` bits."""
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE hashes AS SELECT DISTINCT {column} AS h FROM prints WHERE {column} IS NOT NULL"
    )
    con.execute("CREATE OR REPLACE TEMP TABLE found_pairs (a UBIGINT, b UBIGINT)")
    row = con.execute("SELECT count(*) FROM hashes").fetchone()
    found = int(row[0]) if row else 0
    for mask in key_masks(found, max_distance) if found > 1 else []:
        con.execute(f"""
            INSERT INTO found_pairs
            SELECT a.h, b.h FROM hashes a JOIN hashes b ON a.h & {mask}::UBIGINT = b.h & {mask}::UBIGINT AND a.h < b.h
            WHERE bit_count(xor(a.h, b.h)) <= {max_distance}""")
    con.execute("CREATE OR REPLACE TEMP TABLE near_hashes AS SELECT DISTINCT a, b FROM found_pairs")


def key_masks(hashes: int, max_distance: int) -> list[int]:
    """Masks of 64 bits: any two hashes within `max_distance` bits agree under at least one of them.

    How many blocks make a key is what costs least among `hashes` uniformly spread hashes.
    """
    if max_distance == 0:
        return []  # distinct hashes differ

    def cost(blocks: int) -> float:
        pairs = hashes**2 / 2 / 2 ** (_HASH_BITS * blocks / (max_distance + blocks))
        return math.comb(max_distance + blocks, blocks) * (_ROW_COST * hashes + pairs)

    chosen = min(range(1, _MAX_KEY_BLOCKS + 1), key=cost)
    count = max_distance + chosen
    edges = [_HASH_BITS * i // count for i in range(count + 1)]
    blocks = [((1 << (high - low)) - 1) << low for low, high in itertools.pairwise(edges)]
    return [sum(key) for key in itertools.combinations(blocks, chosen)]


def _add_edges(con: duckdb.DuckDBPyConnection, column: str, sure_bits: int, min_likeness: float) -> None:
    """Add to `edges` the pictures with hashes that are equal or in `near_hashes`: those within `sure_bits` as they are,
    others where the thumbnails agree."""
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE candidates AS
        WITH crowds AS (
            SELECT {column} AS h FROM prints WHERE {column} IS NOT NULL GROUP BY ALL HAVING count(*) > 1
            UNION SELECT a FROM near_hashes UNION SELECT b FROM near_hashes),
        members AS (
            SELECT h, n, row_number() OVER (PARTITION BY h ORDER BY first_release, image_id) AS nth
            FROM prints JOIN crowds ON h = {column} JOIN hashed_pictures p ON p.rowid = n),
        first_few AS (SELECT * FROM members WHERE nth <= {_CROWD})
        SELECT f.n AS a, m.n AS b, 0 AS bits FROM members m JOIN first_few f ON f.h = m.h AND f.nth < m.nth
        UNION ALL
        SELECT f.n, g.n, bit_count(xor(e.a, e.b))
        FROM near_hashes e JOIN first_few f ON f.h = e.a JOIN first_few g ON g.h = e.b""")
    con.execute(f"INSERT INTO edges SELECT a, b FROM candidates WHERE bits <= {sure_bits}")
    con.execute(f"""
        INSERT INTO edges SELECT a, b FROM (
            SELECT a, b, p.face_thumb AS one, q.face_thumb AS other FROM candidates
            JOIN hashed_pictures p ON p.rowid = a JOIN hashed_pictures q ON q.rowid = b
            WHERE bits > {sure_bits} AND octet_length(p.face_thumb) = {_THUMB_BYTES}
              AND octet_length(q.face_thumb) = {_THUMB_BYTES})
        WHERE likeness(one, other) >= {min_likeness!r}""")


def _label_components(con: duckdb.DuckDBPyConnection) -> None:
    """Temporary table `labels(n, label)`: of every picture in `edges` the smallest number in its connected component.

    Each round takes the smallest label among the neighbours and then that label's own label (pointer jumping), so the
    rounds grow with the logarithm of the longest chain, not with its length, in the usual case.
    """
    con.execute("CREATE OR REPLACE TEMP TABLE both_ways AS SELECT a, b FROM edges UNION ALL SELECT b, a FROM edges")
    con.execute("CREATE OR REPLACE TEMP TABLE labels AS SELECT DISTINCT a AS n, a AS label FROM both_ways")
    while True:
        con.execute("""
            CREATE OR REPLACE TEMP TABLE next_labels AS
            WITH spread AS (
                SELECT l.n, least(l.label, min(m.label)) AS label
                FROM labels l JOIN both_ways e ON e.a = l.n JOIN labels m ON m.n = e.b GROUP BY l.n, l.label)
            SELECT s.n, least(s.label, j.label) AS label FROM spread s JOIN spread j ON j.n = s.label""")
        row = con.execute(
            "SELECT count(*) FROM labels JOIN next_labels l USING (n) WHERE labels.label <> l.label"
        ).fetchone()
        con.execute("CREATE OR REPLACE TEMP TABLE labels AS FROM next_labels")
        if row is None or row[0] == 0:
            return
