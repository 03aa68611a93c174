"""CelebA (Liu et al. 2015): 202,599 aligned pictures, 40 attributes, five points, the official split by person.

Layout: as CelebA's site gives it (`Anno/`, `Eval/`, `Img/`) or all in one folder; pictures as `img_align_celeba/` or
`img_align_celeba.zip`. The identities (`identity_CelebA.txt`) are on request there, and used where they are at hand.
"""

from __future__ import annotations

from pathlib import Path

from gptface_core.datasets.faceset import FaceItem, FaceSet
from gptface_core.datasets.files import check_counts, check_md5, require
from gptface_core.datasets.stores import FolderStore, PictureStore, ZipStore
from gptface_core.errors import InputError

SITE = "CelebA's site (The Chinese University of Hong Kong, mmlab.ie.cuhk.edu.hk/projects/CelebA.html)"
COUNTS = {"train": 162_770, "val": 19_867, "test": 19_962}
ATTRIBUTES, PARTITION = "list_attr_celeba.txt", "list_eval_partition.txt"
POINTS, IDENTITIES = "list_landmarks_align_celeba.txt", "identity_CelebA.txt"
PICTURES = "img_align_celeba"
MD5 = {
    ATTRIBUTES: "75e246fa4810816ffd6ee81facbd244c",
    PARTITION: "d32c9cbf5e040fd4025c592c306e6668",
    POINTS: "cc24ecafdb5b50baae59b03474781f8c",
    IDENTITIES: "32bd1bd63d3c78cd57e08160ec5ed1e2",
    f"{PICTURES}.zip": "00d2c5bc6d35e252742224ab0c1e8fcb",
}
_SPLITS = {"0": "train", "1": "val", "2": "test"}


def load_celeba(folder: Path, *, whole: bool = True) -> FaceSet:
    """The 40 attributes, with the set's own points; groups gender (Male) and age (Young).

    `whole` checks the official counts and the published MD5 sums. Raises InputError where a file is missing or damaged.
    """
    tables = {name: _find(folder, name) for name in (ATTRIBUTES, PARTITION, POINTS)}
    identities = next((path for path in _places(folder, IDENTITIES) if path.is_file()), None)
    store = _pictures(folder)
    if whole:
        for path in [*tables.values(), *([identities] if identities else []), *_zips(folder)]:
            check_md5(path, MD5, SITE)
    names, attributes = _table(tables[ATTRIBUTES])
    points = _table(tables[POINTS])[1]
    splits = _pairs(tables[PARTITION])
    people = _pairs(identities) if identities else {}
    items = []
    for file, values in attributes.items():
        if file not in splits or splits[file] not in _SPLITS or file not in points or len(values) != len(names):
            raise InputError(f"CelebA in {folder} is not whole: {file} lacks its split, points or attributes")
        labels = {name: value == "1" for name, value in zip(names, values, strict=True)}
        groups = {
            **({"gender": "male" if labels["Male"] else "female"} if "Male" in labels else {}),
            **({"age": "youth" if labels["Young"] else "senior"} if "Young" in labels else {}),
        }
        marks = tuple(float(value) for value in points[file])
        items.append(
            FaceItem(file, f"{PICTURES}/{file}", _SPLITS[splits[file]], labels, people.get(file), groups, points=marks)
        )
    faces = FaceSet("celeba", tuple(items), store, framed=False, attributes=tuple(names))
    if whole:
        check_counts(faces.counts(), COUNTS, "CelebA", folder)
    return faces


def _places(folder: Path, name: str) -> list[Path]:
    return [folder / name, *(folder / part / name for part in ("Anno", "Eval", "Img"))]


def _find(folder: Path, name: str) -> Path:
    found = [path for path in _places(folder, name) if path.is_file()]
    return found[0] if found else require(folder / name, "CelebA", SITE)


def _zips(folder: Path) -> list[Path]:
    return [path for path in _places(folder, f"{PICTURES}.zip") if path.is_file()]


def _pictures(folder: Path) -> PictureStore:
    for path in _places(folder, PICTURES):
        if path.is_dir():
            return FolderStore(path.parent)
    zips = _zips(folder)
    return ZipStore(zips[:1] or [require(folder / f"{PICTURES}.zip", "CelebA", SITE)])


def _table(path: Path) -> tuple[list[str], dict[str, list[str]]]:
    """A count, a line of column names, then `FILE VALUE ...`."""
    lines = path.read_text(encoding="utf-8").splitlines()
    if len(lines) < 2 or not lines[0].strip().isdigit() or int(lines[0]) != len(lines) - 2:
        raise InputError(f"{path} is cut short or no table of CelebA: get it from {SITE}")
    return lines[1].split(), {row[0]: row[1:] for row in (line.split() for line in lines[2:])}


def _pairs(path: Path) -> dict[str, str]:
    """`FILE VALUE` per line."""
    return dict(line.split()[:2] for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
