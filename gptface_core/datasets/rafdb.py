"""RAF-DB, basic expressions (Li, Deng, Du 2017): 12,271 train and 3,068 test pictures, 7 classes, aligned 100 px.

Layout: `basic/EmoLabel/list_patition_label.txt` (so spelt), `basic/Image/aligned/`, `basic/Annotation/manual/` where at
hand (gender and age for subgroups). It has no validation part: a tenth of train, by hash of the name, is it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from gptface_core.datasets.faceset import EXPRESSION, FaceItem, FaceSet
from gptface_core.datasets.files import check_counts, require
from gptface_core.datasets.stores import FolderStore
from gptface_core.errors import InputError

SITE = "RAF-DB's site (Beijing University of Posts and Telecommunications, whdeng.cn/RAF/model1.html; on request)"
COUNTS = {"train and val": 12_271, "test": 3_068}
CLASSES = ("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral")  # 1 to 7 in the file
VAL_SHARE = 0.1
_GENDERS = {"0": "male", "1": "female"}  # 2: unsure
_AGES = {"0": "0-3", "1": "4-19", "2": "20-39", "3": "40-69", "4": "70+"}


def load_rafdb(folder: Path, *, whole: bool = True) -> FaceSet:
    """Labels: EXPRESSION. Raises InputError where a file is missing, not whole or not of RAF-DB."""
    base = folder / "basic" if (folder / "basic").is_dir() else folder
    listing = require(base / "EmoLabel" / "list_patition_label.txt", "RAF-DB", SITE)
    require(base / "Image" / "aligned", "RAF-DB", SITE)
    items = tuple(
        _item(line, base, listing) for line in listing.read_text(encoding="utf-8").splitlines() if line.strip()
    )
    faces = FaceSet("rafdb", items, FolderStore(base / "Image" / "aligned"), framed=True, classes=CLASSES)
    if whole:
        found = faces.counts()
        check_counts({"train and val": found["train"] + found["val"], "test": found["test"]}, COUNTS, "RAF-DB", folder)
    return faces


def _item(line: str, base: Path, listing: Path) -> FaceItem:
    name, _, number = line.partition(" ")
    stem = name.removesuffix(".jpg")
    part = stem.partition("_")[0]
    if part not in ("train", "test") or number not in {str(n) for n in range(1, len(CLASSES) + 1)}:
        raise InputError(f"{listing} has the line {line!r}, which is none of RAF-DB's: unpack the data set anew")
    split = "val" if part == "train" and in_validation(stem) else part
    labels = {EXPRESSION: CLASSES[int(number) - 1]}
    return FaceItem(stem, f"{stem}_aligned.jpg", split, labels, groups=_groups(base / "Annotation" / "manual", stem))


def in_validation(name: str) -> bool:
    """Whether a training picture belongs to the tenth that is held out for selection."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") / 2**64 < VAL_SHARE


def _groups(folder: Path, stem: str) -> dict[str, str]:
    """Gender and age from lines 6 and 8 of the manual annotation, after five points."""
    path = folder / f"{stem}_manu_attri.txt"
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").split("\n")
    gender, age = (lines[place].strip() if len(lines) > place else "" for place in (5, 7))
    return {
        **({"gender": _GENDERS[gender]} if gender in _GENDERS else {}),
        **({"age": _AGES[age]} if age in _AGES else {}),
    }
