"""Pose, sharpness and brightness."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from gptface_core.faces.detector import Face
from gptface_core.faces.quality import _orthonormal, estimate_pose, measure_face
from sample_web.render import render_face, sample_attributes

# The mean head that poses are measured against, in three dimensions.
HEAD = np.array([[-1.0, 0, 0], [1.0, 0, 0], [0, 1.16, 0.75], [-0.96, 1.94, 0.1], [0.96, 1.94, 0.1]])


def turned(roll: float, yaw: float, pitch: float) -> NDArray[np.float64]:
    """The head seen from the front after pitch, then yaw, then roll (degrees)."""
    p, y, r = np.radians([pitch, yaw, roll])
    nod = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    turn = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    tilt = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return (HEAD @ (tilt @ turn @ nod).T)[:, :2] * 40 + 100


@pytest.mark.parametrize(
    ("roll", "yaw", "pitch"), [(0, 0, 0), (20, 0, 0), (0, 30, 0), (0, -30, 0), (0, 0, 20), (0, 0, -20)]
)
def test_pose_of_a_known_head(roll: float, yaw: float, pitch: float) -> None:
    pose = estimate_pose(turned(roll, yaw, pitch))
    assert pose.roll_deg == pytest.approx(roll, abs=1)
    assert pose.yaw_deg == pytest.approx(yaw, abs=3)
    assert pose.pitch_deg == pytest.approx(pitch, abs=3)


def test_roll_leaves_yaw_and_pitch_alone() -> None:
    straight, tilted = estimate_pose(turned(0, 25, 10)), estimate_pose(turned(35, 25, 10))
    assert tilted.yaw_deg == pytest.approx(straight.yaw_deg, abs=3)
    assert tilted.pitch_deg == pytest.approx(straight.pitch_deg, abs=3)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e4])
def test_the_nearest_pair_of_orthonormal_rows_is_that_of_the_singular_values(scale: float) -> None:
    for rows in np.random.default_rng(1).normal(size=(50, 2, 3)) * scale:
        u, _, vt = np.linalg.svd(rows, full_matrices=False)
        np.testing.assert_allclose(_orthonormal(*rows.tolist()), u @ vt, atol=1e-9)


def test_points_on_a_line_or_on_one_spot_have_some_pose() -> None:
    for points in (np.full((5, 2), 7.0), np.arange(10.0).reshape(5, 2)):
        pose = estimate_pose(points)
        assert np.isfinite([pose.roll_deg, pose.yaw_deg, pose.pitch_deg]).all()


def face_at(rgb: NDArray[np.uint8]) -> Face:
    side = rgb.shape[0]
    box = np.array([0.25, 0.25, 0.75, 0.85], dtype=np.float32) * side
    return Face(box, (turned(0, 0, 0) / 256 * side).astype(np.float32), 0.9)


def test_blur_lowers_sharpness_and_light_raises_brightness() -> None:
    rgb = render_face(sample_attributes(3, 0), 3)
    plain = measure_face(rgb, face_at(rgb))
    blurred = np.asarray(cv2.GaussianBlur(rgb, (0, 0), 3), dtype=np.uint8)
    assert measure_face(blurred, face_at(rgb)).sharpness < plain.sharpness / 4
    darker = measure_face((rgb // 2).astype(np.uint8), face_at(rgb)).brightness
    assert darker == pytest.approx(plain.brightness / 2, abs=1)
    assert 0 <= plain.brightness <= 255


def test_sharpness_hardly_depends_on_size() -> None:
    rgb = np.asarray(cv2.GaussianBlur(render_face(sample_attributes(3, 0), 3, 512), (0, 0), 4), dtype=np.uint8)
    small = np.asarray(cv2.resize(rgb, (256, 256), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    ratio = measure_face(small, face_at(small)).sharpness / measure_face(rgb, face_at(rgb)).sharpness
    assert 0.7 < ratio < 1.4


def test_boxes_at_the_edge_are_measured() -> None:
    rgb = render_face(sample_attributes(3, 0), 3)
    face = Face(np.array([256, 256, 256, 256], dtype=np.float32), turned(0, 0, 0).astype(np.float32), 0.9)
    assert np.isfinite(measure_face(rgb, face).sharpness)
