"""train, val and test by a hash of the duplicate cluster: nothing leaks, and new data never moves a row.

A picture belongs to the split of its home: the identity that its cluster had when the picture first entered the corpus.
The corpus holds one picture of a cluster at a time (the others are near-duplicates), so no photograph lies on two
sides of a release. A cluster's identity is that of its earliest member, which new data cannot change, but for one case:
a new picture may join two clusters that were apart. The younger one then takes the elder's identity; its pictures that
have been in the corpus keep their home and with it their split, and of both clusters together one picture stays.

While face embeddings are at hand, a home that is new takes the split of its person's first home (see `identities`), so
that nobody lies on two sides. That is written down nowhere but in the split itself; so a home keeps the split that it
has while `val_share` and `test_share` stay as they are. With other shares everything is cut anew: by person where
embeddings are at hand, else by each home alone. Where new pictures show that two persons of earlier releases are one,
rows that were there stay on their sides, and what is new goes to the side of who came first.
"""

from __future__ import annotations

import json

import duckdb

from warehouse.schema import Reason, Split

_CAPS = ", ".join(f"'{reason.value}'" for reason in (Reason.HOST_CAP, Reason.IDENTITY_CAP, Reason.CAPTION_CAP))


def split_sql(cluster_id: str, val: float, test: float) -> str:
    """SQL for the split of a cluster: a uniform number from the MD5 of its id, cut at `test` and `test + val`.

    Nothing but the id decides, so other rows never move it; raising a share moves rows only out of train.
    """
    uniform = f"(('0x' || left(md5('split:' || {cluster_id}), 12))::UBIGINT / {16**12}.0)"
    return (
        f"CASE WHEN {cluster_id} IS NULL THEN NULL WHEN {uniform} < {test!r} THEN '{Split.TEST.value}' "
        f"WHEN {uniform} < {test + val!r} THEN '{Split.VAL.value}' ELSE '{Split.TRAIN.value}' END"
    )


def keep_sides(con: duckdb.DuckDBPyConnection, val: float, test: float, by_person: bool) -> None:
    """Temporary tables `homes` (image_id, home_id, entered, shown, split) and `sides` (home_id, split).

    `homes`: pictures that have been in the corpus, with the releases that first and last showed them. `sides`: the
    split that a home has, where it was decided under these shares; of pictures that only a cap left out as well. Where
    no split is or was chosen `by_person`, each home gives its own: `sides` is empty, and the rest of `homes` null.
    """
    told = """min(release_from) AS entered, max(coalesce(release_to - 1, last)) AS shown,
              arg_max(split, release_from) AS split"""
    untold = "NULL::BIGINT AS entered, NULL::BIGINT AS shown, NULL::VARCHAR AS split"
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE homes AS
        SELECT image_id, arg_min(cluster_id, release_from) AS home_id, {told if by_person else untold}
        FROM history.corpus, (SELECT max(release) AS last FROM releases) GROUP BY image_id""")
    cut_alike = []
    for release, text in con.execute("SELECT release, rules FROM releases").fetchall():
        rules = json.loads(text)
        if by_person and (rules.get("val_share"), rules.get("test_share")) == (val, test):
            cut_alike.append(release)
    con.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE sides AS
        WITH known AS (
            SELECT home_id, split, shown FROM homes WHERE shown IS NOT NULL
            UNION ALL
            SELECT cluster_id, split, (SELECT max(release) FROM releases) FROM decisions
            WHERE $1 AND reason IN ({_CAPS}) AND cluster_id IS NOT NULL)
        SELECT home_id, arg_max(split, shown) AS split FROM known
        WHERE list_contains($2::BIGINT[], shown) GROUP BY home_id""",
        [by_person, cut_alike],
    )
