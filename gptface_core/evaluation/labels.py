"""What is known about the faces of a corpus of our own: a Parquet table of attributes and opposed captions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gptface_core.errors import InputError

PROBED = ("eyeglasses", "beard", "hair_colour")  # the mean of these is the headline; smiling is reported beside
ATTRIBUTES = (*PROBED, "smiling")
CAPTIONS = ("true_caption", "contradicting_caption")
Labels = dict[str, dict[str, Any]]


def read_labels(path: Path) -> Labels:
    """Label rows by row_id. Raises InputError where the file or a column is missing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    needed = {"row_id", *CAPTIONS, *ATTRIBUTES}
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"labels {path} cannot be read as Parquet: {error}") from error
    if missing := sorted(needed - set(table.column_names)):
        raise InputError(f"labels {path} lack the columns {', '.join(missing)}")
    return {row["row_id"]: row for row in table.select(sorted(needed)).to_pylist()}
