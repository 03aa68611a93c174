"""Any split of our own WebDataset shards as a labelled set: captions as facts, labels from a table beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gptface_core.datasets.faceset import FaceItem, FaceSet, Label
from gptface_core.datasets.stores import TarStore
from gptface_core.errors import InputError
from gptface_core.shards import SPLITS, open_index, read_shard


def load_shards(folder: Path | str, labels: Path | str | None = None, attributes: Sequence[str] = ()) -> FaceSet:
    """Items by row_id with `facts["caption"]`; every shard is checked against the index.

    `labels` is a Parquet table with `row_id` and the boolean columns `attributes`; a row that it lacks is unknown.
    Raises InputError for a damaged folder, an unreadable table or a column that it lacks.
    """
    index = open_index(folder)
    table = _labels(Path(labels), attributes) if labels is not None else {}
    items, home = [], {}
    for split in SPLITS:
        for shard in index.splits.get(split, ()):
            for sample in read_shard(shard):
                file = f"{sample.row_id}.jpg"
                home[file] = shard.path
                known = table.get(sample.row_id, {})
                items.append(FaceItem(sample.row_id, file, split, known, facts={"caption": sample.caption}))
    return FaceSet("shards", tuple(items), TarStore(home), framed=True, attributes=tuple(attributes))


def _labels(path: Path, attributes: Sequence[str]) -> Mapping[str, Mapping[str, Label]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[dict[str, Any]] = pq.read_table(path, columns=["row_id", *attributes]).to_pylist()
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise InputError(
            f"labels {path} cannot be read ({error}): name a Parquet table with row_id and labels"
        ) from error
    if rows and (lost := sorted({"row_id", *attributes} - rows[0].keys())):
        raise InputError(f"labels {path} lack the columns {', '.join(lost)}")
    return {row["row_id"]: {name: row[name] for name in attributes} for row in rows}
