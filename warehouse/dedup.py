"""Duplicate clusters: pictures whose 64-bit perceptual hashes lie within a few bits of each other, transitively.

Banded search: two hashes that differ in at most d bits agree in at least one of d + 1 bands (pigeonhole), so candidates
are found by equality of bands and then checked. The work is done on distinct hashes, in SQL.

The identity of a cluster is its earliest member (by the release that first saw it, then by image_id). New data
therefore leaves clusters that were there before as they are, and with them their splits; only where a new picture joins
two old clusters does the younger one take the elder's identity, since both must lie in one split. The clusters do not
depend on the rules' thresholds: all pictures with a face take part, kept or not.
"""

from __future__ import annotations

import itertools

import duckdb

_HASH_BITS = 64


def _bands(max_distance: int) -> str:
    """SQL list of `(band number, band value)` structs of the UBIGINT `h`."""
    count = max_distance + 1
    edges = [_HASH_BITS * i // count for i in range(count + 1)]
    bands = []
    for number, (low, high) in enumerate(itertools.pairwise(edges)):
        mask = (1 << (high - low)) - 1
        bands.append(f"{{'band': {number}, 'bits': (h >> {low}) & {mask}::UBIGINT}}")
    return f"[{', '.join(bands)}]"


def find_clusters(con: duckdb.DuckDBPyConnection, max_distance: int) -> None:
    """Temporary table `clusters(image_id, cluster_id)` from `hashed_pictures(image_id, phash, first_release)`.

    `phash` is 16 hex digits or null (such a picture is its own cluster); `max_distance` in bits, 0 for equality only.
    """
    con.execute("""
        CREATE OR REPLACE TEMP TABLE hashes AS
        SELECT DISTINCT ('0x' || phash)::UBIGINT AS h FROM hashed_pictures WHERE phash IS NOT NULL""")
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE hash_edges AS
        WITH banded AS (SELECT h, unnest({_bands(max_distance)}, recursive := true) FROM hashes),
        near AS (
            SELECT DISTINCT a.h AS a, b.h AS b
            FROM banded a JOIN banded b ON a.band = b.band AND a.bits = b.bits AND a.h < b.h
            WHERE bit_count(xor(a.h, b.h)) <= {max_distance})
        SELECT a, b FROM near UNION ALL SELECT b, a FROM near""")
    _label_components(con)
    con.execute("""
        CREATE OR REPLACE TEMP TABLE clusters AS
        WITH grouped AS (
            SELECT image_id, first_release, coalesce(label::VARCHAR, image_id) AS component
            FROM hashed_pictures LEFT JOIN labels ON labels.h = try_cast('0x' || phash AS UBIGINT))
        SELECT image_id,
               first_value(image_id) OVER (PARTITION BY component ORDER BY first_release, image_id) AS cluster_id
        FROM grouped""")


def _label_components(con: duckdb.DuckDBPyConnection) -> None:
    """Temporary table `labels(h, label)`: per hash the smallest hash of its connected component.

    Each round takes the smallest label among the neighbours and then that label's own label (pointer jumping), so the
    rounds grow with the logarithm of the longest chain, not with its length, in the usual case.
    """
    con.execute("CREATE OR REPLACE TEMP TABLE labels AS SELECT h, h AS label FROM hashes")
    while True:
        con.execute("""
            CREATE OR REPLACE TEMP TABLE next_labels AS
            WITH spread AS (
                SELECT l.h, least(l.label, coalesce(min(n.label), l.label)) AS label
                FROM labels l LEFT JOIN hash_edges e ON e.a = l.h LEFT JOIN labels n ON n.h = e.b
                GROUP BY l.h, l.label)
            SELECT s.h, least(s.label, j.label) AS label FROM spread s JOIN spread j ON j.h = s.label""")
        row = con.execute(
            "SELECT count(*) FROM labels JOIN next_labels n USING (h) WHERE labels.label <> n.label"
        ).fetchone()
        con.execute("CREATE OR REPLACE TEMP TABLE labels AS FROM next_labels")
        if row is None or row[0] == 0:
            return
