"""OpenCV's bundled Haar cascade: a first run without any download. InsightFace is the real detector.

It finds frontal faces only, at least 16 % of the picture's shorter side, and knows no key points: these are put where
they lie on a mean face in such a box. Framing then follows position and size, not roll.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gptface_core.errors import InputError
from gptface_core.faces.detector import Face, make_faces

MODEL = "haarcascade_frontalface_alt2"
DESCRIPTION = f"cascade:{MODEL}"
_WORK_PX = 128  # the shorter side is brought down to this: faster than 320 by far, and finds more (less noise)
_WORK_LONG_PX = 512
_MIN_FACE_PX = 20  # the cascade's own window
_MIN_NEIGHBOURS = 3
# First look, then a finer and slower one only where the first finds nothing: (scale step, neighbours).
_LOOKS = ((1.15, _MIN_NEIGHBOURS), (1.05, _MIN_NEIGHBOURS + 1))
# Equalising light in tiles is what lets dark skin at low contrast be found as often as fair skin.
_CLAHE_CLIP, _CLAHE_TILES = 4.0, (4, 4)
# A find with few agreeing windows beside one with many is a collar or a medal, not a face.
_WEAK, _WEAK_SHARE = 8, 0.2

# Where SCRFD's five points lie in this cascade's box (shares of its side), means over some 500 frontal portraits.
_POINTS = np.array(
    [[0.31, 0.39], [0.69, 0.39], [0.5, 0.61], [0.32, 0.757], [0.68, 0.757]],
    dtype=np.float32,
)


class CascadeDetector:
    """`cv2.CascadeClassifier` (Viola and Jones 2001; Lienhart's frontal cascade) with tuned preparation.

    The score is n / (n + 3) of the n windows that agreed on the face: at least 0.5, and of no meaning beside
    InsightFace's.
    """

    def __init__(self) -> None:
        import cv2

        folder = getattr(getattr(cv2, "data", None), "haarcascades", "")
        path = Path(folder) / f"{MODEL}.xml"
        if not folder or not path.is_file():
            raise InputError(
                f"OpenCV {cv2.__version__} comes without {MODEL}.xml: install opencv-python-headless 4.x, "
                "or use --detector insightface"
            )
        self._classifier = cv2.CascadeClassifier(str(path))
        self._clahe = cv2.createCLAHE(_CLAHE_CLIP, _CLAHE_TILES)

    def describe(self) -> str:
        return DESCRIPTION

    def detect(self, rgb: NDArray[np.uint8]) -> list[Face]:
        """Faces of a uint8 (H, W, 3) RGB picture, the largest first."""
        grey, scale = self._prepare(rgb)
        for step, neighbours in _LOOKS:
            boxes, counts = self._look(grey, step, neighbours)
            if len(boxes):
                return _faces(boxes / scale, counts, rgb.shape)
        return []

    def _prepare(self, rgb: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
        """Evenly lit grey picture at working size, and its scale."""
        import cv2

        height, width = rgb.shape[:2]
        scale = min(1.0, _WORK_PX / min(height, width), _WORK_LONG_PX / max(height, width))
        grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        if scale < 1:
            size = max(1, round(width * scale)), max(1, round(height * scale))
            grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        return self._clahe.apply(grey), scale

    def _look(
        self, grey: NDArray[np.uint8], step: float, neighbours: int
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Boxes (N, 4) as x, y, width, height in working pixels, and how many windows agreed on each."""
        found, agreed = self._classifier.detectMultiScale2(
            grey, scaleFactor=step, minNeighbors=neighbours, minSize=(_MIN_FACE_PX, _MIN_FACE_PX)
        )
        counts = np.asarray(agreed, dtype=np.int64).reshape(-1)
        boxes = np.asarray(found, dtype=np.float64).reshape(-1, 4)
        if len(counts) < 2:
            return boxes, counts
        strong = (counts >= _WEAK) | (counts >= _WEAK_SHARE * counts.max())
        return boxes[strong], counts[strong]


def _faces(boxes: NDArray[np.float64], counts: NDArray[np.int64], shape: tuple[int, ...]) -> list[Face]:
    origins, sides = boxes[:, None, :2], boxes[:, None, 2:]
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).astype(np.float32)
    points = (origins + _POINTS[None] * sides).astype(np.float32)
    scores = (counts / (counts + _MIN_NEIGHBOURS)).astype(np.float32)
    return make_faces(corners, points, scores, shape)
