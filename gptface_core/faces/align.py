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
    # In the plane points are complex numbers, and so is the best rotation and scale.
    s, t = (np.ascontiguousarray(points, dtype=np.float64).view(np.complex128)[:, 0] for points in (source, target))
    mean_s, mean_t = s.sum() / len(s), t.sum() / len(t)
    centred = s - mean_s
    turn = np.vdot(centred, t - mean_t) / max(np.vdot(centred, centred).real, 1e-12)
    shift = mean_t - turn * mean_s
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def arcface_crop(rgb: NDArray[np.uint8], points: ArrayLike) -> NDArray[np.uint8]:
    """The tight 112 px crop that face recognisers are trained on, uint8 (112, 112, 3); black outside of the picture.

    As InsightFace's `norm_crop` (one linear warp), but large faces are shrunk by areas first, so nothing aliases.
    """
    import cv2

    part, matrix, _ = _near(rgb, similarity(points_array(points), ARCFACE_POINTS), ARCFACE_PX)
    return np.asarray(cv2.warpAffine(part, matrix, (ARCFACE_PX, ARCFACE_PX), flags=cv2.INTER_LINEAR), dtype=np.uint8)


def warp(rgb: NDArray[np.uint8], matrix: NDArray[np.float64], size_px: int) -> NDArray[np.uint8]:
    """`rgb` under a similarity `matrix` (2, 3) as uint8 (size_px, size_px, 3): no aliasing, edges repeated."""
    import cv2

    return _warped(*_near(rgb, matrix, size_px), size_px, cv2.INTER_CUBIC)


def grey_warp(rgb: NDArray[np.uint8], matrix: NDArray[np.float64], size_px: int) -> NDArray[np.uint8]:
    """The same in grey, uint8 (size_px, size_px), interpolated linearly: for what is measured and not looked at, as it
    takes a tenth of the time."""
    import cv2

    part, matrix, scale = _near(rgb, matrix, size_px)
    return _warped(np.asarray(cv2.cvtColor(part, cv2.COLOR_RGB2GRAY)), matrix, scale, size_px, cv2.INTER_LINEAR)


def _warped(
    part: NDArray[Any], matrix: NDArray[np.float64], scale: float, size_px: int, interpolation: int
) -> NDArray[np.uint8]:
    """What `_near` gives, warped."""
    import cv2

    # Between 1 and 2 pixels of the picture per pixel of the crop: warp to double size, then average 2 x 2.
    double = scale < 1
    if double:
        matrix = np.vstack([matrix[0], matrix[1]]) * 2
        matrix[:, 2] += 0.5
    side = size_px * (2 if double else 1)
    out: Any = cv2.warpAffine(part, matrix, (side, side), flags=interpolation, borderMode=cv2.BORDER_REPLICATE)
    if double:
        out = cv2.resize(out, (size_px, size_px), interpolation=cv2.INTER_AREA)
    return np.asarray(out, dtype=np.uint8)


def _near(
    rgb: NDArray[np.uint8], matrix: NDArray[np.float64], size_px: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64], float]:
    """What the crop can see, with a margin, at less than twice its size: large pictures cost no more.

    Also the matrix from there to the crop, a similarity as `matrix` is, and its scale. The part reaches to the edge of
    the picture wherever the crop does, so repeated edges stay the same. Raises ValueError for points on one spot.
    """
    (cosine, _, x), (sine, _, y) = matrix.tolist()
    scale = math.hypot(cosine, sine)
    if not scale:
        raise ValueError("points on one spot have no crop")
    factor = max(math.floor(1 / max(scale, 1e-6)), 1)
    # The crop's middle, and half of its extent along either axis, in pixels of the picture.
    back_x, back_y, half = cosine / scale**2, sine / scale**2, size_px / 2
    middle = back_x * (half - x) + back_y * (half - y), back_x * (half - y) - back_y * (half - x)
    reach = half * (abs(back_x) + abs(back_y)) + 4 * max(1.0, abs(back_x), abs(back_y))
    (x0, x1), (y0, y1) = (
        _span(math.floor(at - reach), math.ceil(at + reach), end, factor)
        for at, end in zip(middle, rgb.shape[1::-1], strict=True)
    )
    matrix = matrix.copy()
    matrix[:, 2] += matrix[:, :2] @ np.array([x0, y0], dtype=np.float64)
    if factor == 1:
        return rgb[y0:y1, x0:x1], matrix, scale
    return *_shrink(rgb[y0:y1, x0:x1], matrix, factor), scale * factor


def _span(low: int, high: int, end: int, factor: int) -> tuple[int, int]:
    """First and last pixel of 0..`end` from `low` to `high`, at least one, and whole blocks of `factor` where there are
    so many (the spare ones lie beyond the margin: they only save a copy)."""
    first = min(max(low, 0), end - 1)
    count = max(min(high, end) - first, 1)
    return first, min(first + -(-count // factor) * factor, end)


def _shrink(
    part: NDArray[np.uint8], matrix: NDArray[np.float64], factor: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Means over factor x factor pixels, and the matrix from the smaller picture."""
    import cv2

    height, width = part.shape[:2]
    size = -(-width // factor) * factor, -(-height // factor) * factor
    if size != (width, height):
        part = cv2.copyMakeBorder(part, 0, size[1] - height, 0, size[0] - width, cv2.BORDER_REPLICATE)
    small = cv2.resize(part, (size[0] // factor, size[1] // factor), interpolation=cv2.INTER_AREA)
    linear = matrix[:, :2] * factor
    shift = matrix[:, 2] + matrix[:, :2] @ np.full(2, (factor - 1) / 2)
    return small, np.hstack([linear, shift[:, None]])
