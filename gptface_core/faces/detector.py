"""What a face detector is, and how one is chosen by name."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gptface_core.errors import InputError
from gptface_core.faces.packs import DEFAULT_PACK, LICENCE, find_pack, pack_folder

_LOG = logging.getLogger(__name__)

DETECTORS = ("insightface", "cascade", "auto")
DEFAULT_MIN_SCORE = 0.5

ConcreteDetector = Literal["insightface", "cascade"]


@dataclass(frozen=True, eq=False)
class Face:
    """One face, in pixels of the picture it was found in.

    `box` is float32 (4,): x0, y0, x1, y1, clipped to the picture. `points` is float32 (5, 2): left eye, right eye,
    nose, left and right mouth corner, left and right as seen in the picture. `score` lies in [0, 1]; scores of
    different detectors do not compare.
    """

    box: NDArray[np.float32]
    points: NDArray[np.float32]
    score: float

    @property
    def face_px(self) -> float:
        """Shorter side of the box in pixels."""
        return float(min(self.box[2] - self.box[0], self.box[3] - self.box[1]))


class Detector(Protocol):
    """Finds faces in one picture. Not shared between threads; deterministic for the same bytes."""

    def describe(self) -> str:
        """Name, model and parameters: whatever changes the outcome. Recorded in every row."""
        ...

    def detect(self, rgb: NDArray[np.uint8]) -> list[Face]:
        """Faces of a uint8 (H, W, 3) RGB picture, the largest first."""
        ...


@runtime_checkable
class BatchDetector(Detector, Protocol):
    """A detector that can look at several pictures at once."""

    def detect_many(self, pictures: Sequence[NDArray[np.uint8]]) -> list[list[Face]]:
        """Faces of each picture, the same as `detect` finds."""
        ...


def detect_many(detector: Detector, pictures: Sequence[NDArray[np.uint8]]) -> list[list[Face]]:
    """Faces of each picture: together where the detector can, else one by one."""
    if isinstance(detector, BatchDetector):
        return detector.detect_many(pictures)
    return [detector.detect(rgb) for rgb in pictures]


def make_faces(
    boxes: NDArray[np.float32],
    points: NDArray[np.float32],
    scores: Sequence[float] | NDArray[np.float32],
    shape: tuple[int, ...],
) -> list[Face]:
    """Faces with boxes clipped to a picture of `shape` (H, W, ...), largest area first, ties by position."""
    height, width = shape[:2]
    limit = np.array([width, height, width, height], dtype=np.float32)
    faces = [
        Face(np.clip(box, 0, limit).astype(np.float32), np.asarray(marks, dtype=np.float32), float(score))
        for box, marks, score in zip(boxes, points, scores, strict=True)
    ]
    faces = [face for face in faces if face.face_px > 0]
    return sorted(faces, key=lambda face: (-_area(face), float(face.box[0]), float(face.box[1])))


def _area(face: Face) -> float:
    return float((face.box[2] - face.box[0]) * (face.box[3] - face.box[1]))


def resolve_detector(name: str, pack: str = DEFAULT_PACK, root: Path | None = None) -> ConcreteDetector:
    """The detector that `name` stands for here: a run asks once, so that all of its parts use the same one.

    `auto` is InsightFace where its pack is present, else the cascade; which one, and its terms, is logged. A pack that
    is present but damaged is an error, never a silent change of detector.
    """
    chosen = _choose(name, pack, root)
    if chosen == "insightface":
        _LOG.info("detector insightface, pack '%s': %s", pack, LICENCE)
    elif name == "auto":
        _LOG.info(
            "detector auto: no InsightFace pack '%s', taking OpenCV's cascade (finds fewer faces, points are guessed); "
            "`gptface doctor` says how to get the pack",
            pack,
        )
    return chosen


def _choose(name: str, pack: str, root: Path | None) -> ConcreteDetector:
    if name not in DETECTORS:
        raise InputError(f"no detector '{name}': choose {', '.join(DETECTORS[:-1])} or {DETECTORS[-1]}")
    if name == "cascade" or (name == "auto" and not pack_folder(pack, root).is_dir()):
        return "cascade"
    find_pack(pack, root)
    return "insightface"


def describe_detector(
    name: str,
    pack: str = DEFAULT_PACK,
    root: Path | None = None,
    det_size: int | None = None,
    min_score: float = DEFAULT_MIN_SCORE,
) -> str:
    """What `load_detector(...).describe()` says, without loading it (insightface takes seconds to import)."""
    if _choose(name, pack, root) == "cascade":
        from gptface_core.faces.cascade import DESCRIPTION

        return DESCRIPTION
    from gptface_core.faces.scrfd import describe

    return describe(find_pack(pack, root), det_size, min_score)


def load_detector(
    name: str,
    pack: str = DEFAULT_PACK,
    root: Path | None = None,
    det_size: int | None = None,
    min_score: float = DEFAULT_MIN_SCORE,
    provider: str = "CPUExecutionProvider",
    batch: int = 1,
) -> Detector:
    """A detector ready to use, on one thread of the CPU or on a GPU.

    Args:
        name: insightface, cascade or auto.
        pack: InsightFace model pack, a folder `<root>/models/<pack>`.
        root: default GPTFACE_INSIGHTFACE_ROOT, else `~/.insightface`.
        det_size: side of InsightFace's input in pixels, a multiple of 32; None chooses by the size of the picture.
        min_score: InsightFace's score from which on a find is a face (the cascade has its own rule).
        provider: onnxruntime's, e.g. CUDAExecutionProvider; InsightFace only. Another one never takes its place.
        batch: pictures that InsightFace's network takes at once; more than 1 pays on a GPU alone.

    Raises:
        InputError: unknown name, missing or damaged pack, impossible parameter.
    """
    chosen = resolve_detector(name, pack, root) if name == "auto" else _choose(name, pack, root)
    if chosen == "cascade":
        from gptface_core.faces.cascade import CascadeDetector

        return CascadeDetector()
    from gptface_core.faces.scrfd import ScrfdDetector

    return ScrfdDetector(find_pack(pack, root), det_size, min_score, provider, batch)
