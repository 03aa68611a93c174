"""Framing: the same face gives the same crop wherever, however large and however turned it lies."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from gptface_core.errors import InputError
from gptface_core.faces.align import (
    ARCFACE_POINTS,
    align_crop,
    arcface_crop,
    ffhq_frame,
    frame_to_crop,
    padded_share,
    similarity,
)
from gptface_core.faces.crop import crop_reduction, encode_crop, encode_jpeg, encoder_version

# A face whose FFHQ square is about 370 px wide, in the middle of a picture of 600 x 600.
POINTS = np.array([[254.0, 270.0], [346.0, 270.0], [300.0, 325.0], [265.0, 362.0], [335.0, 362.0]])


def blobs(size: int = 600) -> NDArray[np.uint8]:
    """A smooth random picture: detail everywhere, nothing that aliases."""
    noise = np.random.default_rng(0).integers(0, 256, (size // 25, size // 25, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def apply(matrix: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    return points @ matrix[:, :2].T + matrix[:, 2]


def test_frame_follows_the_published_recipe() -> None:
    centre, right, down = ffhq_frame(POINTS)
    np.testing.assert_allclose(centre, [300, 270 + 0.1 * 92])
    half = max(92 * 2.0, 92 * 1.8)
    np.testing.assert_allclose(right, [half, 0], atol=1e-9)
    np.testing.assert_allclose(down, [0, half], atol=1e-9)


def test_eyes_and_mouth_land_at_fixed_places() -> None:
    placed = apply(frame_to_crop(POINTS, 256), POINTS - 0.5) + 0.5
    assert placed[:2, 0].mean() == pytest.approx(128)  # midway between the eyes
    assert placed[0, 1] == pytest.approx(placed[1, 1])
    assert 110 < placed[0, 1] < 130 and 175 < placed[3, 1] < 195


@pytest.mark.parametrize(("degrees", "scale"), [(0, 0.5), (0, 0.23), (30, 0.7), (-90, 1.0), (180, 0.6), (75, 1.6)])
def test_turned_and_scaled_pictures_give_the_same_crop(degrees: float, scale: float) -> None:
    picture = blobs()
    matrix = cv2.getRotationMatrix2D((299.5, 279.5), degrees, scale)
    side = 1000
    matrix[:, 2] += 200
    flags = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    if scale < 0.5:  # shrink by areas, as a web site would
        small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        moved, points = small, POINTS * scale
    else:
        moved = cv2.warpAffine(picture, matrix, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        points = apply(matrix, POINTS - 0.5) + 0.5  # OpenCV counts from pixel centres
    expected = align_crop(picture, POINTS).astype(int)
    got = align_crop(np.asarray(moved, dtype=np.uint8), points).astype(int)
    assert np.abs(got - expected)[8:-8, 8:-8].mean() < 5
    assert np.abs(np.roll(got, 3, axis=1) - expected)[8:-8, 8:-8].mean() > 5  # three pixels off would show


def test_shrinking_does_not_alias() -> None:
    checks = np.indices((2400, 2400)).sum(axis=0) % 2 * 255
    picture = np.repeat(checks[:, :, None], 3, axis=2).astype(np.uint8)
    crop = align_crop(picture, POINTS * 4)
    assert abs(float(crop.mean()) - 127.5) < 2
    assert float(crop.std()) < 8


def test_what_lies_outside_repeats_the_edge_and_is_counted() -> None:
    picture = np.full((400, 400, 3), 90, dtype=np.uint8)
    picture[:, :5] = 200
    points = POINTS - [300, 100]  # half of the frame lies left of the picture
    crop = align_crop(picture, points)
    assert 0.45 < padded_share(points, 400, 400) < 0.55
    assert np.all(np.abs(crop[100:150, :100].astype(int) - 200) < 3)  # the edge, repeated; no mirror image
    assert padded_share(POINTS, 600, 600) == 0
    assert padded_share(POINTS + 5000, 600, 600) == 1
    assert align_crop(picture, POINTS + 5000).shape == (256, 256, 3)


def test_same_bytes_twice_and_other_sizes() -> None:
    picture = blobs()
    assert align_crop(picture, POINTS).tobytes() == align_crop(picture, POINTS.reshape(-1).tolist()).tobytes()
    assert align_crop(picture, POINTS, 64).shape == (64, 64, 3)


def test_degenerate_points_still_give_a_crop() -> None:
    assert align_crop(blobs(100), np.full((5, 2), 50.0)).shape == (256, 256, 3)


def test_points_on_one_spot_have_no_tight_crop() -> None:
    with pytest.raises(ValueError, match="one spot"):
        arcface_crop(blobs(50), np.full((5, 2), 20.0))


@pytest.mark.parametrize("points", [[1.0, 2.0], [float("nan")] * 10])
def test_wrong_points_are_refused(points: list[float]) -> None:
    with pytest.raises(ValueError, match="five points"):
        align_crop(blobs(100), points)


def test_similarity_recovers_a_known_transform() -> None:
    angle, scale = 0.3, 1.7
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = similarity(POINTS, POINTS @ linear.T + [3.0, -8.0])
    np.testing.assert_allclose(matrix, np.hstack([linear, [[3.0], [-8.0]]]), atol=1e-9)


def test_similarity_is_nearest_by_least_squares() -> None:
    source = np.random.default_rng(3).normal(size=(5, 2)) * 40 + 300
    (x, y), (u, v) = source.T, ARCFACE_POINTS.T
    one, none = np.ones(5), np.zeros(5)
    # u = a x - b y + c and v = b x + a y + d: ten equations, four unknowns.
    rows = np.vstack([np.stack([x, -y, one, none], axis=1), np.stack([y, x, none, one], axis=1)])
    a, b, c, d = np.linalg.lstsq(rows, np.concatenate([u, v]))[0]
    np.testing.assert_allclose(similarity(source, ARCFACE_POINTS), [[a, -b, c], [b, a, d]], atol=1e-9)


@pytest.mark.parametrize(("degrees", "scale"), [(0, 0.5), (10, 1.1), (45, 1.7), (100, 1.9)])
def test_only_what_lies_near_a_crop_decides_about_it(degrees: float, scale: float) -> None:
    """A picture is cut before it is shrunk: six pixels of the crop beyond its edge, nothing matters any more."""
    turn = cv2.getRotationMatrix2D((300.0, 310.0), degrees, scale)
    turn[:, 2] += 310
    points = apply(turn, POINTS)
    noise = np.random.default_rng(5).integers(0, 256, (1200, 1210, 3), dtype=np.uint8)
    corners = np.array([(-6.0, -6.0), (70.0, -6.0), (70.0, 70.0), (-6.0, 70.0)])
    seen = apply(cv2.invertAffineTransform(frame_to_crop(points, 64)), corners)
    (x0, y0), (x1, y1) = np.clip(seen.min(axis=0), 0, None).astype(int), np.ceil(seen.max(axis=0)).astype(int)
    other = 255 - noise
    other[y0:y1, x0:x1] = noise[y0:y1, x0:x1]
    assert x1 < 1210 and y1 < 1200 and np.array_equal(align_crop(noise, points, 64), align_crop(other, points, 64))


def test_arcface_crop_is_the_identity_on_the_template() -> None:
    picture = blobs(125)[:112, :112]
    got = arcface_crop(np.ascontiguousarray(picture), ARCFACE_POINTS)
    np.testing.assert_allclose(got.astype(int), picture.astype(int), atol=2)


def test_crop_jpeg_has_no_metadata_and_full_chroma() -> None:
    exif = Image.Exif()
    exif[0x010E] = "secret description"
    out = io.BytesIO()
    Image.fromarray(blobs()).save(out, "JPEG", quality=95, exif=exif, icc_profile=b"x" * 64, xmp=b"<x:secret/>")
    data = encode_crop(out.getvalue(), POINTS)
    assert data == encode_crop(out.getvalue(), POINTS)
    assert b"secret" not in data and b"Exif" not in data and b"ICC_PROFILE" not in data
    crop = Image.open(io.BytesIO(data))
    assert crop.size == (256, 256) and set(crop.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    assert [layer[1:3] for layer in crop.layer] == [(1, 1)] * 3


def test_crop_of_a_picture_that_changed_is_an_input_error() -> None:
    with pytest.raises(InputError, match="not_an_image"):
        encode_crop(b"gone", POINTS)


def test_encoder_version_names_what_decides_the_bytes() -> None:
    assert {"pillow", "libjpeg-turbo", "opencv"} <= set(encoder_version().split())
    assert encode_jpeg(blobs(64))[:2] == b"\xff\xd8"


def test_a_far_larger_face_is_cut_from_a_smaller_decode() -> None:
    picture = cv2.resize(blobs(), (1800, 1800), interpolation=cv2.INTER_LINEAR)
    out = io.BytesIO()
    Image.fromarray(np.asarray(picture, dtype=np.uint8)).save(out, "JPEG", quality=95)
    assert [crop_reduction(POINTS * k) for k in (1, 2, 3, 8)] == [1, 1, 2, 4]
    crop = np.asarray(Image.open(io.BytesIO(encode_crop(out.getvalue(), POINTS * 3))), dtype=int)
    whole = align_crop(np.asarray(Image.open(out), dtype=np.uint8), POINTS * 3).astype(int)
    assert np.abs(crop - whole).mean() < 3
