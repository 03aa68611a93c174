"""What can be told about a face without another model: where it looks, how sharp and how bright it is."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gptface_core.faces.align import points_array
from gptface_core.faces.detector import Face

MEASURE_PX = 128  # faces of this side and more are measured without enlarging them

# A mean face in units of half the distance of the eyes, from between the eyes: x to the right of the picture, y down, z
# towards the camera. x and y are means of SCRFD's points over some 500 frontal portraits; z is anthropometric (nose tip
# about 0.75 before the eyes, mouth corners 0.1). Good for an estimate, not for metrology.
_MEAN_FACE = np.array(
    [[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.16, 0.75], [-0.96, 1.94, 0.1], [0.96, 1.94, 0.1]], dtype=np.float64
)

_CAMERA = np.linalg.pinv(_MEAN_FACE - _MEAN_FACE.mean(axis=0))  # least squares: (3, 5)
_PARALLEL = 1e-3  # of two rows: share of their sizes below which the space that they span hardly has an area


@dataclass(frozen=True)
class Pose:
    """Degrees. Positive roll: clockwise in the picture; yaw: towards the picture's right; pitch: up."""

    roll_deg: float
    yaw_deg: float
    pitch_deg: float


@dataclass(frozen=True)
class Quality:
    """Pose, and per face: `sharpness` (variance of the Laplacian), `brightness` (mean luma, 0..255)."""

    pose: Pose
    sharpness: float
    brightness: float


def estimate_pose(points: ArrayLike) -> Pose:
    """Pose of the head from five points (5, 2), by a scaled orthographic camera.

    The affine camera that takes the mean face to the points is linear least squares (where they lie does not matter, as
    its columns sum to 0); its two rows, made orthonormal, are the rotation (POS, the first step of POSIT: DeMenthon and
    Davis 1995). Read as roll * pitch * yaw.
    """
    marks = points_array(points)
    row_x, row_y = _orthonormal(*(_CAMERA @ marks).T.tolist())
    # Columns of the rotation are the images of the face's own axes; the nose's axis is z.
    nose_x, nose_y, nose_z = row_x[2], row_y[2], row_x[0] * row_y[1] - row_x[1] * row_y[0]
    roll = math.degrees(math.atan2(marks[1, 1] - marks[0, 1], marks[1, 0] - marks[0, 0]))
    cosine, sine = math.cos(math.radians(-roll)), math.sin(math.radians(-roll))
    across, down = nose_x * cosine - nose_y * sine, nose_x * sine + nose_y * cosine
    return Pose(roll, math.degrees(math.atan2(across, nose_z)), math.degrees(-math.asin(min(max(down, -1.0), 1.0))))


def _orthonormal(x: list[float], y: list[float]) -> tuple[list[float], list[float]]:
    """The pair of orthonormal rows nearest to two rows, by the polar decomposition.

    That is (A A^T)^(-1/2) A, and the root of a 2 x 2 matrix M with determinant s^2 is (M + s) / sqrt(trace M + 2 s)
    (Levinger, The Square Root of a 2 x 2 Matrix, 1980). Rows that are nearly parallel have none: they go by their
    singular values.
    """
    xx, xy, yy = (sum(map(operator.mul, *pair)) for pair in ((x, x), (x, y), (y, y)))
    s = math.sqrt(max(xx * yy - xy * xy, 0.0))
    if s <= _PARALLEL * (xx + yy):
        u, _, vt = np.linalg.svd(np.array([x, y]), full_matrices=False)
        first, second = (u @ vt).tolist()
        return first, second
    size = s * math.sqrt(xx + yy + 2 * s)
    first = [((yy + s) * p - xy * q) / size for p, q in zip(x, y, strict=True)]
    second = [((xx + s) * q - xy * p) / size for p, q in zip(x, y, strict=True)]
    return first, second


def measure_face(rgb: NDArray[np.uint8], face: Face) -> Quality:
    """Quality of a face in its picture, uint8 (H, W, 3).

    Sharpness is the variance of the Laplacian (Pech-Pacheco et al. 2000) of the box at 128 x 128 px, so faces of
    all sizes compare; a small face enlarged is unsharp, as it should be.
    """
    import cv2

    height, width = rgb.shape[:2]
    x0, y0 = min(int(face.box[0]), width - 1), min(int(face.box[1]), height - 1)
    x1, y1 = max(math.ceil(face.box[2]), x0 + 1), max(math.ceil(face.box[3]), y0 + 1)
    part = rgb[max(y0, 0) : y1, max(x0, 0) : x1]
    shrinking = min(part.shape[:2]) >= MEASURE_PX
    luma = cv2.resize(
        cv2.cvtColor(part, cv2.COLOR_RGB2GRAY),
        (MEASURE_PX, MEASURE_PX),
        interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR,
    )
    (_, (deviation,)) = cv2.meanStdDev(cv2.Laplacian(luma, cv2.CV_16S))
    return Quality(estimate_pose(face.points), float(deviation[0]) ** 2, cv2.mean(luma)[0])
