"""AffectNet (Mollahosseini et al. 2017), manually annotated, 7 classes: 283,901 train, 3,500 in the validation set.

The official test set is not public: results are reported on the validation set, which is `test` here, and a fiftieth of
train, by hash of the name, is for selection. Layouts: `train_set/` and `val_set/`, each with `images/N.jpg` and
`annotations/N_exp.npy`; or the older `training.csv`, `validation.csv` and `Manually_Annotated_Images/`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gptface_core.datasets.faceset import EXPRESSION, FaceItem, FaceSet
from gptface_core.datasets.files import check_counts, read_csv, require
from gptface_core.datasets.stores import FolderStore
from gptface_core.errors import InputError

SITE = "AffectNet's site (University of Denver, mohammadmahoor.com/affectnet; on request)"
COUNTS = {"train and val": 283_901, "test": 3_500}
CLASSES = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry")  # 0 to 6; 7 and more are left out
VAL_SHARE = 0.02
_SETS = {"train_set": "train", "val_set": "test"}
_TABLES = {"training.csv": "train", "validation.csv": "test"}
_TABLE_FOLDERS = ("", "Manually_Annotated_file_lists")
_PICTURES = "Manually_Annotated_Images"


def load_affectnet(folder: Path, *, whole: bool = True) -> FaceSet:
    """Labels: EXPRESSION. Raises InputError where files are missing, not whole or unreadable."""
    tables = [base for base in (folder / name for name in _TABLE_FOLDERS) if (base / "training.csv").is_file()]
    rows = list(_from_tables(tables[0]) if tables else _from_folders(folder))
    framed = not tables  # the newer layout holds cut faces, the older one whole pictures
    store = FolderStore(folder / _PICTURES if tables else folder)
    items = tuple(
        FaceItem(file, file, "val" if split == "train" and _held_out(file) else split, {EXPRESSION: CLASSES[number]})
        for file, split, number in rows
        if 0 <= number < len(CLASSES)
    )
    faces = FaceSet("affectnet", items, store, framed, classes=CLASSES)
    if whole:
        found = faces.counts()
        found = {"train and val": found["train"] + found["val"], "test": found["test"]}
        check_counts(found, COUNTS, "AffectNet", folder)
    return faces


def _from_folders(folder: Path) -> Iterator[tuple[str, str, int]]:
    for name, split in _SETS.items():
        annotations = require(folder / name / "annotations", "AffectNet", SITE)
        paths = sorted(annotations.glob("*_exp.npy"), key=lambda path: (len(path.name), path.name))
        for path in paths:
            try:
                number = int(np.load(path, allow_pickle=False).item())
            except (OSError, ValueError) as error:
                raise InputError(f"{path} holds no expression ({error}): unpack AffectNet anew") from error
            yield f"{name}/images/{path.name.removesuffix('_exp.npy')}.jpg", split, number


def _from_tables(folder: Path) -> Iterator[tuple[str, str, int]]:
    for name, split in _TABLES.items():
        for row in read_csv(require(folder / name, "AffectNet", SITE)):
            yield row["subDirectory_filePath"], split, int(row["expression"])


def _held_out(file: str) -> bool:
    return int.from_bytes(hashlib.blake2b(file.encode(), digest_size=8).digest(), "big") / 2**64 < VAL_SHARE
