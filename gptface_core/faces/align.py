"""From a face anywhere in a picture to the same framing: eyes, mouth and hair always at about the same place.

The frame is that of FFHQ (Karras, Laine, Aila: A Style-Based Generator Architecture for GANs, CVPR 2019; function
`recreate_aligned_images` of ffhq-dataset/download_ffhq.py): a square turned with the face, its side the larger of
4 times the distance of the eyes and 3.6 times the distance from eyes to mouth, so head and hair lie inside.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

CROP_PX = 256
ARCFACE_PX = 112
_EYE_SPAN, _MOUTH_SPAN, _CENTRE_SHIFT = 2.0, 1.8, 0.1  # FFHQ's constants; spans give half the side

# Where InsightFace's recognisers want the five points in a crop of 112 px (insightface.utils.face_align.arcface_dst).
ARCFACE_POINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]],
    dtype=np.float64,
)


def points_array(points: ArrayLike) -> NDArray[np.float64]:
    """Five points as float64 (5, 2), from (5, 2) or from the flat list of a `points_px` column."""
    array = np.asarray(points, dtype=np.float64).reshape(-1)
    if array.size != 10 or not np.isfinite(array).all():
        raise ValueError(f"five points (x, y) are ten finite numbers, got {array.size}")
    return array.reshape(5, 2)


def ffhq_frame(points: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Centre and half axes (right, down) of the FFHQ square, each (x, y) in pixels of the picture."""
    marks = points_array(points)
    eyes, mouth = (marks[0] + marks[1]) / 2, (marks[3] + marks[4]) / 2
    eye_to_eye, eye_to_mouth = marks[1] - marks[0], mouth - eyes
    # "Right" is the mean of the eye line and the normal of the line from eyes to mouth: steadier than either alone.
    right = eye_to_eye + np.array([eye_to_mouth[1], -eye_to_mouth[0]])
    length = float(np.hypot(*right))
    if length < 1e-6:  # all points in one place: an upright frame of one pixel
        right, length = np.array([1.0, 0.0]), 1.0
    half = max(float(np.hypot(*eye_to_eye)) * _EYE_SPAN, float(np.hypot(*eye_to_mouth)) * _MOUTH_SPAN, 1.0)
    right = right / length * half
    down = np.array([-right[1], right[0]])
    return eyes + eye_to_mouth * _CENTRE_SHIFT, right, down


def frame_to_crop(points: ArrayLike, size_px: int = CROP_PX) -> NDArray[np.float64]:
    """(2, 3) similarity from pixel indices (centres) of the picture to pixel indices of the crop, as OpenCV wants it.

    Points are continuous coordinates: pixel i covers [i, i + 1), so its index i stands for i + 0.5.
    """
    centre, right, down = ffhq_frame(points)
    scale = size_px / (2 * float(np.hypot(*right)))
    rotation = np.stack([right / np.hypot(*right), down / np.hypot(*down)])
    shift = size_px / 2 - 0.5 - scale * rotation @ (centre - 0.5)
    return np.hstack([scale * rotation, shift[:, None]])


def padded_share(points: ArrayLike, width_px: int, height_px: int) -> float:
    """Share of the FFHQ square that lies outside of the picture, 0..1, to 1/64 of the side."""
    centre, right, down = ffhq_frame(points)
    reach = np.abs(right) + np.abs(down)
    if (centre >= reach).all() and (centre + reach <= (width_px, height_px)).all():
        return 0.0
    steps = (np.arange(64) + 0.5) / 32 - 1
    xs = centre[0] + steps[None, :] * right[0] + steps[:, None] * down[0]
    ys = centre[1] + steps[None, :] * right[1] + steps[:, None] * down[1]
    outside = (xs < 0) | (ys < 0) | (xs >= width_px) | (ys >= height_px)
    return float(outside.mean())


def align_crop(rgb: NDArray[np.uint8], points: ArrayLike, size_px: int = CROP_PX) -> NDArray[np.uint8]:
    """FFHQ-like crop, uint8 (size_px, size_px, 3); what lies outside of the picture repeats its edge, no mirror images.

    Shrinking is done by areas before the picture is turned, so fine detail does not alias.
    """
    return warp(rgb, frame_to_crop(points, size_px), size_px)


def similarity(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2, 3) matrix of the similarity transform that takes `source` (N, 2) nearest to `target` (N, 2).

    Least squares over rotation, one scale and shift (Umeyama 1991, without reflections).
    """
    mean_s, mean_t = source.mean(axis=0), target.mean(axis=0)
    centred_s, centred_t = source - mean_s, target - mean_t
    power = float((centred_s**2).sum())
    # In the plane the best rotation and scale are one complex number.
    a = float((centred_s * centred_t).sum()) / max(power, 1e-12)
    b = float((centred_s[:, 0] * centred_t[:, 1] - centred_s[:, 1] * centred_t[:, 0]).sum()) / max(power, 1e-12)
    linear = np.array([[a, -b], [b, a]])
    return np.hstack([linear, (mean_t - linear @ mean_s)[:, None]])


def arcface_crop(rgb: NDArray[np.uint8], points: ArrayLike) -> NDArray[np.uint8]:
    """The tight 112 px crop that face recognisers are trained on, uint8 (112, 112, 3); black outside of the picture.

    As InsightFace's `norm_crop` (one linear warp), but large faces are shrunk by areas first, so nothing aliases.
    """
    import cv2

    matrix = similarity(points_array(points), ARCFACE_POINTS)
    part, origin = _region(rgb, matrix, ARCFACE_PX)
    matrix[:, 2] += matrix[:, :2] @ origin
    factor = math.floor(1 / max(math.hypot(matrix[0, 0], matrix[1, 0]), 1e-6))
    if factor >= 2:
        part, matrix = _shrink(part, matrix, factor)
    return np.asarray(cv2.warpAffine(part, matrix, (ARCFACE_PX, ARCFACE_PX), flags=cv2.INTER_LINEAR), dtype=np.uint8)


def warp(rgb: NDArray[np.uint8], matrix: NDArray[np.float64], size_px: int) -> NDArray[np.uint8]:
    """`rgb` under a similarity `matrix` (2, 3) as uint8 (size_px, size_px, 3): no aliasing, edges repeated."""
    import cv2

    scale = math.hypot(matrix[0, 0], matrix[1, 0])
    part, origin = _region(rgb, matrix, size_px)
    matrix = matrix.copy()
    matrix[:, 2] += matrix[:, :2] @ origin
    factor = math.floor(1 / scale) if scale > 0 else 1
    if factor >= 2:
        part, matrix = _shrink(part, matrix, factor)
        scale *= factor
    # Between 1 and 2 pixels of the picture per pixel of the crop: warp to double size, then average 2 x 2.
    double = scale < 1
    if double:
        matrix = np.vstack([matrix[0], matrix[1]]) * 2
        matrix[:, 2] += 0.5
    side = size_px * (2 if double else 1)
    out: Any = cv2.warpAffine(part, matrix, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    if double:
        out = cv2.resize(out, (size_px, size_px), interpolation=cv2.INTER_AREA)
    return np.asarray(out, dtype=np.uint8)


def _region(
    rgb: NDArray[np.uint8], matrix: NDArray[np.float64], size_px: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The part of the picture that the crop can see, with a margin, and its origin (x, y): large pictures cost no more.

    The part reaches to the picture's edge wherever the crop does, so repeated edges stay the same.
    """
    inverse = np.linalg.inv(matrix[:, :2])
    corners = np.array([[0, 0], [size_px, 0], [size_px, size_px], [0, size_px]], dtype=np.float64)
    seen = (corners - matrix[:, 2]) @ inverse.T
    margin = 4 * max(1.0, float(np.abs(inverse).max()))
    height, width = rgb.shape[:2]
    x0, y0 = (
        int(np.clip(np.floor(v - margin), 0, n - 1)) for v, n in zip(seen.min(axis=0), (width, height), strict=True)
    )
    x1, y1 = (int(np.clip(np.ceil(v + margin), 1, n)) for v, n in zip(seen.max(axis=0), (width, height), strict=True))
    x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
    return rgb[y0:y1, x0:x1], np.array([x0, y0], dtype=np.float64)


def _shrink(
    part: NDArray[np.uint8], matrix: NDArray[np.float64], factor: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Means over factor x factor pixels, and the matrix from the smaller picture."""
    import cv2

    height, width = part.shape[:2]
    size = -(-width // factor) * factor, -(-height // factor) * factor
    padded = cv2.copyMakeBorder(part, 0, size[1] - height, 0, size[0] - width, cv2.BORDER_REPLICATE)
    small = cv2.resize(padded, (size[0] // factor, size[1] // factor), interpolation=cv2.INTER_AREA)
    linear = matrix[:, :2] * factor
    shift = matrix[:, 2] + matrix[:, :2] @ np.full(2, (factor - 1) / 2)
    return small, np.hstack([linear, shift[:, None]])
