"""train, val and test by a hash of the duplicate cluster: nothing leaks, and new data never moves a row.

A picture belongs to the split of its home: the identity that its cluster had when the picture first entered the corpus.
The corpus holds one picture of a cluster at a time (the others are near-duplicates), so no photograph lies on two
sides of a release. A cluster's identity is that of its earliest member, which new data cannot change, but for one case:
a new picture may join two clusters that were apart. The younger one then takes the elder's identity; its pictures that
have been in the corpus keep their home and with it their split, and of both clusters together one picture stays.
"""

from __future__ import annotations

from warehouse.schema import Split


def split_sql(cluster_id: str, val: float, test: float) -> str:
    """SQL for the split of a cluster: a uniform number from the MD5 of its id, cut at `test` and `test + val`.

    Nothing but the id decides, so other rows never move it; raising a share moves rows only out of train.
    """
    uniform = f"(('0x' || left(md5('split:' || {cluster_id}), 12))::UBIGINT / {16**12}.0)"
    return (
        f"CASE WHEN {cluster_id} IS NULL THEN NULL WHEN {uniform} < {test!r} THEN '{Split.TEST.value}' "
        f"WHEN {uniform} < {test + val!r} THEN '{Split.VAL.value}' ELSE '{Split.TRAIN.value}' END"
    )
