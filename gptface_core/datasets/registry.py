"""Data sets by name, below one folder: `ROOT/lfw`, `ROOT/fer2013`, `ROOT/congress`, ..."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from gptface_core.datasets.affectnet import load_affectnet
from gptface_core.datasets.celeba import load_celeba
from gptface_core.datasets.congress import TABLE, load_congress, people_in
from gptface_core.datasets.faceset import FaceSet
from gptface_core.datasets.fer2013 import load_fer2013
from gptface_core.datasets.lfw import load_lfw
from gptface_core.datasets.lfwa import load_lfwa
from gptface_core.datasets.rafdb import load_rafdb
from gptface_core.errors import InputError


def _lfw(folder: Path) -> FaceSet:
    """LFW; where the congress portraits lie beside it, the people of both are on the training side."""
    portraits = folder.parent / "congress"
    return load_lfw(folder, people_in(portraits) if (portraits / TABLE).is_file() else ())


LOADERS: Mapping[str, Callable[[Path], FaceSet]] = {
    "lfw": _lfw,
    "fer2013": load_fer2013,
    "congress": load_congress,
    "celeba": load_celeba,
    "lfwa": load_lfwa,
    "rafdb": load_rafdb,
    "affectnet": load_affectnet,
}


def load_faces(name: str, root: Path | str) -> FaceSet:
    """The set in `ROOT/NAME`. Raises InputError for an unknown name, and as the set's loader does."""
    if name not in LOADERS:
        raise InputError(f"no data set {name!r}: choose from {', '.join(LOADERS)}")
    return LOADERS[name](Path(root) / name)
