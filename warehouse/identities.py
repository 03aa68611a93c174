"""Who is the same person among pictures, while face embeddings are at hand: for the cap per person and the splits.

Embeddings lie beside the crawls (`raw/*/g*/faces/*.embeddings.parquet`, schema EMBEDDINGS), are made only when asked
for, and expire. Those of largest faces that have not expired are read when a release is decided, and grouped by
`linkage`: one vector per duplicate cluster, of pictures that pass the rules or have been in the corpus. Vectors of
different models are never compared. Who belongs to whom is a biometric inference and is stored nowhere: the lake gets
what it decides, a split and perhaps the reason `identity_cap`. Both stand when the embeddings have expired.

The *leader* of a person is the picture that came into the corpus first, else the earliest; its home (see `splits`) is
the key of the split for all who have none yet.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import numpy as np
from numpy.typing import NDArray

from warehouse.dedup import cluster_id_sql
from warehouse.errors import InputError
from warehouse.linkage import average_linkage
from warehouse.parameters import RuleParameters
from warehouse.schema import Reason

if TYPE_CHECKING:
    import pyarrow as pa

_LOG = logging.getLogger(__name__)
_FILES = "faces/*.embeddings.parquet"
_COLUMNS = ["image_id", "face_index", "embedding", "model", "expires_at"]


@dataclass(frozen=True, eq=False)
class FaceVectors:
    """Embeddings of largest faces by model: image ids, and unit vectors float32 (N, D) of the model's own width."""

    by_model: Mapping[str, tuple[list[str], NDArray[np.float32]]] = field(default_factory=dict)


NO_VECTORS = FaceVectors()


def read_vectors(root: Path, folders: Iterable[Path] = (), now: dt.datetime | None = None) -> FaceVectors:
    """The unexpired embeddings of the largest faces in all crawls of a root, and in `folders` (crawls) elsewhere.

    Raises InputError where a file cannot be read or holds vectors of several widths by one model.
    """
    import pyarrow.compute as pc

    found = {path.resolve() for path in root.glob(f"raw/*/g[0-9][0-9][0-9]/{_FILES}")}
    found |= {path.resolve() for folder in folders for path in folder.glob(_FILES)}
    now = now or dt.datetime.now(dt.UTC)
    ids: dict[str, list[str]] = {}
    vectors: dict[str, list[NDArray[np.float32]]] = {}
    for path in sorted(found):
        table = _fresh(path, now)
        for model in sorted(set(table["model"].to_pylist())):
            some = table.filter(pc.equal(table["model"], model))
            ids.setdefault(model, []).extend(some["image_id"].to_pylist())
            vectors.setdefault(model, []).append(_matrix(some["embedding"].combine_chunks(), path))
    for model, parts in vectors.items():
        if len({part.shape[1] for part in parts}) > 1:
            raise InputError(f"embeddings by {model} have several widths: delete {_FILES} below {root}, build again")
    if len(vectors) > 1:
        _LOG.warning("embeddings by %s: people are only told within one model, embed all again", ", ".join(vectors))
    return FaceVectors({model: (ids[model], np.concatenate(parts)) for model, parts in sorted(vectors.items())})


def _fresh(path: Path, now: dt.datetime) -> pa.Table:
    """Rows of the largest faces whose time is not over."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=_COLUMNS)
    except (pa.ArrowInvalid, KeyError, OSError) as error:
        raise InputError(f"{path} cannot be read ({error}): delete it, and build with embeddings again") from error
    largest = pc.equal(table["face_index"], 0)
    return table.filter(pc.and_(largest, pc.greater(table["expires_at"], pa.scalar(now, table["expires_at"].type))))


def _matrix(column: pa.ListArray, path: Path) -> NDArray[np.float32]:
    flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    if len(set(column.value_lengths().to_pylist())) != 1 or not np.isfinite(flat).all():
        raise InputError(f"{path} holds vectors of several widths or no numbers: delete it, and build again")
    return flat.reshape(len(column), -1)


def told_before(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether a release of the lake was decided with embeddings at hand."""
    return any(json.loads(counts).get("people") for (counts,) in con.execute("SELECT counts FROM releases").fetchall())


def find_people(con: duckdb.DuckDBPyConnection, vectors: FaceVectors, parameters: RuleParameters) -> int:
    """Temporary tables `people` (image_id, person, leader_home) and `still_capped` (row_id); how many people.

    Both are empty where no embeddings are at hand and nobody was capped. `still_capped`: pairs that the release before
    left out by the cap, and of whose picture nothing is known any more. Reads `clusters`, `hashed_pictures`, `judged`,
    `homes` (see `splits`) and the view `decisions`.
    """
    import pyarrow as pa

    elders: list[str] = []
    people: list[NDArray[np.int64]] = []
    for image_ids, matrix in vectors.by_model.values():
        clusters, rows = _representatives(con, image_ids)
        people.append(average_linkage(matrix[rows], parameters.same_person) + len(elders))
        elders += clusters
    numbers = np.concatenate(people) if people else np.zeros(0, np.int64)
    con.register("grouped", pa.table({"elder_id": pa.array(elders, pa.string()), "person": numbers}))
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE people AS
        WITH persons AS (SELECT elder_id, min(person) AS person FROM grouped GROUP BY elder_id),
        members AS (
            SELECT p.image_id, person, first_release, entered,
                   coalesce(home_id, {cluster_id_sql("elder_id")}) AS home_id
            FROM hashed_pictures p JOIN clusters USING (image_id) JOIN persons USING (elder_id)
            LEFT JOIN homes USING (image_id))
        SELECT image_id, person, first_value(home_id) OVER (
            PARTITION BY person ORDER BY entered NULLS LAST, first_release, image_id) AS leader_home
        FROM members""")
    con.unregister("grouped")
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE still_capped AS
        SELECT d.row_id FROM decisions d JOIN judged j USING (row_id) ANTI JOIN people p ON p.image_id = j.image_id
        WHERE d.reason = '{Reason.IDENTITY_CAP.value}' AND {parameters.max_per_identity} > 0""")
    found = len(np.unique(numbers))
    if elders:
        _LOG.info("%d photographs with embeddings show %d people", len(elders), found)
    elif parameters.max_per_identity:
        _LOG.warning(
            "max_per_identity=%d needs face embeddings, and none are at hand: only what it left out before stays out "
            "(build with --embed)",
            parameters.max_per_identity,
        )
    return found


def _representatives(con: duckdb.DuckDBPyConnection, image_ids: list[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Duplicate clusters (by their eldest picture) in order of age, and which of `image_ids` stands for each.

    That is the cluster's eldest picture with an embedding that passes the rules or has been in the corpus.
    """
    import pyarrow as pa

    con.register("embedded", pa.table({"image_id": pa.array(image_ids, pa.string()), "n": np.arange(len(image_ids))}))
    found = con.execute("""
        WITH first_ones AS (SELECT image_id, min(n) AS n FROM embedded GROUP BY image_id),
        eligible AS (SELECT image_id FROM judged WHERE reason = 'kept' UNION SELECT image_id FROM homes)
        SELECT elder_id, n FROM first_ones JOIN hashed_pictures p USING (image_id) JOIN clusters USING (image_id)
        JOIN (SELECT image_id, first_release FROM hashed_pictures) e ON e.image_id = elder_id
        SEMI JOIN eligible USING (image_id)
        QUALIFY row_number() OVER (PARTITION BY elder_id ORDER BY p.first_release, p.image_id) = 1
        ORDER BY e.first_release, elder_id""").fetchall()
    con.unregister("embedded")
    return [str(elder) for elder, _ in found], np.array([n for _, n in found], dtype=np.int64)
