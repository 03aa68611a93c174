"""LFWA (Liu et al. 2015): 40 attributes of 13,143 LFW pictures, annotated for CelebA's paper; 6,263 train, 6,880 test.

Layout: `lfw_att_40.mat` and `indices_train_test.mat` (MATLAB 7.3, read by h5py, or an older MATLAB format), pictures as
LFW has them in `lfw/` or `lfw-deepfunneled/`. It has no validation part: a tenth of the people of train, by hash, is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gptface_core.datasets.faceset import FaceItem, FaceSet
from gptface_core.datasets.files import check_counts, require
from gptface_core.datasets.lfw import split_of
from gptface_core.datasets.stores import FolderStore
from gptface_core.errors import InputError

SITE = "CelebA's site (The Chinese University of Hong Kong, mmlab.ie.cuhk.edu.hk/projects/CelebA.html, LFWA)"
COUNTS = {"all": 13_143, "test": 6_880}
TABLE, INDICES = "lfw_att_40.mat", "indices_train_test.mat"
_FOLDERS = ("lfw", "lfw-deepfunneled")


def load_lfwa(folder: Path, *, whole: bool = True) -> FaceSet:
    """The 40 attributes; groups gender (Male) and age (Young); person from the file's name.

    Raises InputError where a file is missing or cannot be read.
    """
    table = _mat(require(folder / TABLE, "LFWA", SITE), ("AttrName", "label", "name"))
    indices = _mat(require(folder / INDICES, "LFWA", SITE), ("indices_img_test",))
    pictures = next((folder / name for name in _FOLDERS if (folder / name).is_dir()), folder / _FOLDERS[0])
    require(pictures, "LFWA (the pictures of LFW)", SITE)
    files = [name.replace("\\", "/") for name in _texts(table["name"])]
    names, labels = _texts(table["AttrName"]), np.asarray(table["label"]).astype(bool)
    if labels.shape != (len(files), len(names)):
        raise InputError(
            f"{folder / TABLE} has labels {labels.shape} for {len(files)} files and {len(names)} attributes"
        )
    test = {int(place) - 1 for place in np.asarray(indices["indices_img_test"]).reshape(-1)}  # MATLAB counts from 1
    items = []
    for place, (file, row) in enumerate(zip(files, labels.tolist(), strict=True)):
        values = dict(zip(names, row, strict=True))
        person = file.split("/")[0].replace("_", " ")
        train = "val" if split_of(person) == "val" else "train"
        items.append(FaceItem(file, file, "test" if place in test else train, values, person, _groups(values)))
    faces = FaceSet("lfwa", tuple(items), FolderStore(pictures), framed=False, attributes=tuple(names))
    if whole:
        check_counts({"all": len(faces), "test": faces.counts()["test"]}, COUNTS, "LFWA", folder)
    return faces


def _groups(values: Mapping[str, bool]) -> dict[str, str]:
    gender = {"gender": "male" if values["Male"] else "female"} if "Male" in values else {}
    return {**gender, **({"age": "youth" if values["Young"] else "senior"} if "Young" in values else {})}


def _mat(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """Variables of a MATLAB file of either format; texts as lists of str, arrays in MATLAB's orientation."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        found = loadmat(path, variable_names=names)
    except NotImplementedError:  # 7.3, which is HDF5
        found = _hdf5(path, names)
    except (OSError, ValueError, MatReadError) as error:
        raise InputError(f"{path} cannot be read ({error}): get it from {SITE}") from error
    if missing := [name for name in names if name not in found]:
        raise InputError(f"{path} lacks {', '.join(missing)}: get it from {SITE}")
    return dict(found)


def _hdf5(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    try:
        import h5py
    except ImportError as error:
        raise InputError(f"{path} is a MATLAB 7.3 file: pip install h5py to read it") from error
    found: dict[str, Any] = {}
    with h5py.File(path) as file:
        for name in (name for name in names if name in file):
            values = np.asarray(file[name])
            if values.dtype == object:  # cells: references to texts as character codes
                found[name] = ["".join(map(chr, np.asarray(file[cell]).reshape(-1))) for cell in values.reshape(-1)]
            else:
                found[name] = values.T
    return found


def _texts(values: Any) -> list[str]:
    """A cell array of texts, as either reader gives it."""
    if isinstance(values, list):
        return values
    return [str(np.asarray(cell).reshape(-1)[0]) for cell in np.asarray(values).reshape(-1)]
