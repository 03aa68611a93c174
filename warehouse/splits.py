"""train, val and test by a hash of the duplicate cluster: what looks alike never lies on two sides."""

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
