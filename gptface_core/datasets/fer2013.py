"""FER2013 (Goodfellow et al. 2013): 48 x 48 px grey faces, 7 expressions, with the official split.

Training is train, PublicTest is for selection (val), PrivateTest is for the report (test). The split and the class are
the first two parts of a file's name: `Training/angry/Training_10118481.jpg`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gptface_core.datasets.faceset import EXPRESSION, FaceItem, FaceSet
from gptface_core.datasets.files import check_counts, require
from gptface_core.datasets.stores import ZipStore
from gptface_core.errors import InputError

SITE = "the site of the ICML 2013 challenge (kaggle.com, Challenges in Representation Learning)"
COUNTS = {"train": 28_709, "val": 3_589, "test": 3_589}
CLASSES = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
ARCHIVES = ("fer2013_training.zip", "fer2013_public_private_test.zip")
# Eyes, nose, mouth corners as shares of the picture's side: medians of what SCRFD finds in 492 Training pictures. All
# pictures are framed alike, and detection in 48 px is slow and noisy.
FRAME_POINTS = np.array([[0.30, 0.39], [0.70, 0.38], [0.49, 0.58], [0.35, 0.77], [0.66, 0.77]])
_SPLITS = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}


def load_fer2013(folder: Path, *, whole: bool = True) -> FaceSet:
    """Labels: EXPRESSION, one of CLASSES. `whole`: check the official counts.

    Raises InputError where an archive is missing, not whole, or holds a file of no known split or class.
    """
    store = ZipStore([require(folder / name, "FER2013", SITE) for name in ARCHIVES])
    items = tuple(_item(name, folder) for name in store.names() if name.endswith(".jpg"))
    faces = FaceSet("fer2013", items, store, framed=True, classes=CLASSES)
    if whole:
        check_counts(faces.counts(), COUNTS, "FER2013", folder)
    return faces


def _item(file: str, folder: Path) -> FaceItem:
    split, _, rest = file.partition("/")
    expression = rest.partition("/")[0]
    if split not in _SPLITS or expression not in CLASSES:
        raise InputError(f"{folder} holds {file}, which is of no split or class of FER2013: unpack the data set anew")
    return FaceItem(file.removesuffix(".jpg"), file, _SPLITS[split], {EXPRESSION: expression})
