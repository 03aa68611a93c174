"""What each held-out face adds to a figure: the mean over a metric's rows is its value.

Beside `evaluation.json` as `rows.npz`: per metric the row ids and the values. Two models measured on the same shards
with the same seed met the same faces, captions and masks, so their values can be compared pair by pair.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gptface_core.errors import InputError
from gptface_core.files import replacing

FILE = "rows.npz"
RowValues = dict[str, dict[str, float]]  # metric -> row id -> value
_IDS, _VALUES = ".ids", ".values"


def save_rows(folder: Path, rows: RowValues) -> None:
    """Write `rows` into `folder`, whole or not at all."""
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for metric, values in rows.items():
        arrays[metric + _IDS] = np.array(list(values), np.str_)
        arrays[metric + _VALUES] = np.array(list(values.values()), np.float64)
    with replacing(folder / FILE) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def load_rows(folder: Path) -> RowValues:
    """Raises InputError where `folder` holds none, or they cannot be read."""
    path = folder / FILE
    try:
        with np.load(path, allow_pickle=False) as file:
            metrics = [name.removesuffix(_IDS) for name in file.files if name.endswith(_IDS)]
            return {m: dict(zip(file[m + _IDS].tolist(), file[m + _VALUES].tolist(), strict=True)) for m in metrics}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read ({error}): evaluate the model again") from error


def mean_rows(parts: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Values whose mean is the mean of the parts' means, over the rows of all parts; a row adds to those it is in."""
    ids = sorted({row_id for part in parts.values() for row_id in part})
    scale = {name: len(ids) / (len(part) * len(parts)) for name, part in parts.items()}
    return {i: sum(part[i] * scale[name] for name, part in parts.items() if i in part) for i in ids}
