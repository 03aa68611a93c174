"""The frame in which a face is shown to a model: the same in a corpus and in its evaluation.

Sets of loose pictures (LFW, portraits) are aligned to the 256 px FFHQ-like crop by a detector's five points; sets of
tight faces (FER2013) are taken as they are. Points are kept beside the data, so one detection serves every later run.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gptface_core.datasets.faceset import FaceItem, FaceSet
from gptface_core.datasets.notes import note_each
from gptface_core.datasets.stores import CropStore
from gptface_core.errors import InputError
from gptface_core.faces.decode import Undecodable, decode_upright
from gptface_core.faces.detector import Detector, Face
from gptface_core.files import replacing
from gptface_core.shards import Pictures

logger = logging.getLogger(__name__)


def align(faces: FaceSet, detector: Detector | None, folder: Path | None = None) -> FaceSet:
    """The set with aligned crops; items without a face are left out, and the log says how many. A framed set as it is.

    Args:
        detector: not needed where the items bring their points.
        folder: keeps the points (`note_each`).

    Raises:
        InputError: points are missing and there is no detector.
    """
    if faces.framed:
        return faces
    points = find_points(faces, detector, folder)
    kept = tuple(item for item in faces.items if points[item.file] is not None)
    if len(kept) < len(faces):
        logger.info("%s: %d pictures left out, no face found in them", faces.name, len(faces) - len(kept))
    return replace(faces, items=kept, framed=True, store=CropStore(faces.store, points))


def find_points(faces: FaceSet, detector: Detector | None, folder: Path | None = None) -> Mapping[str, Any]:
    """Five points (ten numbers, pixels of the picture) of the main face of every file, None where there is none."""
    own = {item.file: list(item.points) for item in faces.items if item.points is not None}
    if len(own) == len(faces):
        return own
    if detector is None:
        raise InputError(f"{faces.name} has to be aligned and brings no points: name a detector")

    def points_of(item: FaceItem) -> list[float] | None:
        picture = decode_upright(faces.read(item))
        if isinstance(picture, Undecodable):
            return None
        face = main_face(detector.detect(picture.rgb), picture.rgb.shape)
        return None if face is None else [round(float(x), 2) for x in face.points.reshape(-1)]

    return {**note_each(faces, "points", detector.describe(), points_of, folder), **own}


def main_face(found: list[Face], shape: tuple[int, ...]) -> Face | None:
    """The face that a portrait is of: the largest that holds the picture's centre, else the one nearest to it."""
    if not found:
        return None
    centre = np.array([shape[1], shape[0]]) / 2
    central = [face for face in found if (face.box[:2] <= centre).all() and (centre <= face.box[2:]).all()]
    if central:
        return central[0]  # detectors give the largest first
    return min(found, key=lambda face: float(np.linalg.norm((face.box[:2] + face.box[2:]) / 2 - centre)))


def load_pictures(faces: FaceSet, size_px: int, folder: Path | None = None) -> Pictures:
    """uint8 (R, size_px, size_px, 3) of a framed set, in its order; with a folder kept there for the same files."""
    if folder is None:
        return _stack(faces, size_px)
    listing = "\n".join(item.file for item in faces.items)
    digest = hashlib.blake2b(listing.encode(), digest_size=8).hexdigest()
    path = folder / f"{faces.name}-{digest}-{size_px}px.npy"
    if not path.is_file():
        with replacing(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, _stack(faces, size_px))
    return np.asarray(np.load(path, mmap_mode="r"))


def _stack(faces: FaceSet, size_px: int) -> Pictures:
    pictures = np.zeros((len(faces), size_px, size_px, 3), np.uint8)
    for place, item in enumerate(faces.items):
        pictures[place] = faces.picture(item, size_px)
        if (place + 1) % 5000 == 0:
            logger.info("pictures of %s: %d of %d", faces.name, place + 1, len(faces))
    return pictures
