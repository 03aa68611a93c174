"""Drawn faces: deterministic, legible at 64 px, found by detectors whatever the skin tone."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from gptface_core.faces.detector import Detector, load_detector
from sample_web.backgrounds import paint_no_face
from sample_web.errors import InputError
from sample_web.render import AGES, HAIR_COLOURS, SKIN_TONES, Attributes, render_face, sample_attributes

PLAIN = Attributes(
    smiling=False,
    eyeglasses=False,
    beard=False,
    hair_colour="black",
    skin_tone=2,
    face_mask=False,
    age="young",
    yaw_deg=0.0,
    roll_deg=0.0,
)
SIZES = (224, 256, 288, 320, 384, 448)


def as_served(attributes: Attributes, seed: int, size_px: int) -> NDArray[np.uint8]:
    bgr = cv2.cvtColor(render_face(attributes, seed, size_px), cv2.COLOR_RGB2BGR)
    jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return np.asarray(cv2.cvtColor(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), dtype=np.uint8)


def frontal_faces(count: int, seed: int) -> list[tuple[int, Attributes]]:
    faces = ((i, sample_attributes(i, seed)) for i in itertools.count())
    return list(itertools.islice((f for f in faces if f[1].frontal and not f[1].face_mask), count))


def rates(detector: Detector, count: int, seed: int) -> tuple[float, dict[int, float]]:
    """Share of frontal unmasked faces with exactly one find: over all, and per skin tone."""
    found: dict[int, list[bool]] = {}
    for index, attributes in frontal_faces(count, seed):
        rgb = as_served(attributes, index, SIZES[index % len(SIZES)])
        found.setdefault(attributes.skin_tone, []).append(len(detector.detect(rgb)) == 1)
    every = [hit for hits in found.values() for hit in hits]
    return sum(every) / len(every), {tone: sum(hits) / len(hits) for tone, hits in found.items()}


def test_same_inputs_give_the_same_picture_and_others_another() -> None:
    first = render_face(PLAIN, 7, 256)
    assert first.shape == (256, 256, 3) and first.dtype == np.uint8
    assert np.array_equal(first, render_face(PLAIN, 7, 256))
    assert not np.array_equal(first, render_face(PLAIN, 8, 256))
    assert not np.array_equal(first, render_face(replace(PLAIN, smiling=True), 7, 256))


@pytest.mark.parametrize("size_px", [32, 161, 512])
def test_any_size_is_drawn(size_px: int) -> None:
    assert render_face(PLAIN, 0, size_px).shape == (size_px, size_px, 3)


def test_the_same_face_is_drawn_at_any_size() -> None:
    large = cv2.resize(render_face(PLAIN, 3, 512), (128, 128), interpolation=cv2.INTER_AREA).astype(int)
    small = cv2.resize(render_face(PLAIN, 3, 256), (128, 128), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(large - small).mean() < 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hair_colour": "green"}, "no hair colour 'green'"),
        ({"age": "ancient"}, "no age 'ancient'"),
        ({"skin_tone": 6}, "no skin tone 6"),
    ],
)
def test_unknown_attributes_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(PLAIN, **change)  # type: ignore[arg-type]


def test_impossible_size_is_refused() -> None:
    with pytest.raises(InputError, match="size 8 px: choose 32 to 2048"):
        render_face(PLAIN, 0, 8)


def test_attributes_are_balanced_and_independent() -> None:
    faces = [sample_attributes(i, 0) for i in range(6000)]
    values = {
        "smiling": [f.smiling for f in faces],
        "eyeglasses": [f.eyeglasses for f in faces],
        "beard": [f.beard for f in faces],
        "hair_colour": [HAIR_COLOURS.index(f.hair_colour) for f in faces],
        "skin_tone": [f.skin_tone for f in faces],
        "age": [AGES.index(f.age) for f in faces],
        "turned": [f.yaw_deg > 0 for f in faces],
    }
    sizes = {"hair_colour": len(HAIR_COLOURS), "skin_tone": SKIN_TONES, "age": len(AGES)}
    for name, column in values.items():
        expected = len(faces) / sizes.get(name, 2)
        assert len(Counter(column)) == sizes.get(name, 2)
        assert all(abs(n - expected) < 5 * expected**0.5 for n in Counter(column).values()), name
    for a, b in itertools.combinations(values, 2):
        correlation = np.corrcoef(np.array(values[a], float), np.array(values[b], float))[0, 1]
        assert abs(correlation) < 0.06, (a, b)  # 4.6 standard errors of 6000 independent pairs


def test_faces_are_reproducible_by_index_and_seed() -> None:
    assert sample_attributes(5, 1) == sample_attributes(5, 1)
    assert [sample_attributes(i, 1) for i in range(20)] != [sample_attributes(i, 2) for i in range(20)]


@pytest.mark.parametrize("name", ["smiling", "eyeglasses", "beard", "face_mask"])
def test_attribute_is_visible_at_64_px(name: str) -> None:
    """Framed a little closer, present and absent differ clearly on at least 1 % of 64 x 64 pixels, in every picture."""
    for index in range(24):
        base = replace(sample_attributes(index, 3), face_mask=False)
        pair = [render_face(replace(base, **{name: value}), index, 256) for value in (False, True)]
        small = [cv2.resize(p[36:220, 36:220], (64, 64), interpolation=cv2.INTER_AREA).astype(int) for p in pair]
        assert (np.abs(small[1] - small[0]).max(axis=2) > 40).mean() > 0.01, index


def test_hair_colours_differ_at_64_px() -> None:
    for index in range(6):
        base = sample_attributes(index, 4)
        shown = [render_face(replace(base, hair_colour=c), index, 256) for c in HAIR_COLOURS]
        small = [cv2.resize(p, (64, 64), interpolation=cv2.INTER_AREA).astype(int) for p in shown]
        for a, b in itertools.combinations(small, 2):
            assert (np.abs(a - b).max(axis=2) > 30).mean() > 0.03, index


def test_cascade_finds_the_frontal_faces() -> None:
    overall, tones = rates(load_detector("cascade"), count=90, seed=11)
    assert overall >= 0.95
    assert set(tones) == set(range(SKIN_TONES))


@pytest.mark.slow
def test_cascade_finds_all_skin_tones_alike() -> None:
    overall, tones = rates(load_detector("cascade"), count=900, seed=12)
    assert overall >= 0.95
    assert max(tones.values()) - min(tones.values()) <= 0.03


@pytest.mark.realdata
def test_insightface_finds_all_skin_tones_alike(test_models: Path) -> None:
    detector = load_detector("insightface", pack="buffalo_sc", root=test_models / "insightface", det_size=320)
    overall, tones = rates(detector, count=180, seed=13)
    assert overall >= 0.99
    assert max(tones.values()) - min(tones.values()) <= 0.03


def test_pictures_without_a_face_have_none() -> None:
    detector = load_detector("cascade")
    found = [len(detector.detect(paint_no_face(np.random.default_rng(i), 256, 256))) for i in range(40)]
    assert sum(n > 0 for n in found) <= 1
