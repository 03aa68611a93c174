"""Flat colour in a face: cartoons have much of it, photographs next to none, drawn faces of the small web as little."""

from __future__ import annotations

import io
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from gptface_core.faces import load_detector
from gptface_core.faces.align import ARCFACE_POINTS, ARCFACE_PX, arcface_crop
from gptface_core.faces.decode import Picture, decode_upright
from gptface_core.faces.flatness import flatness
from sample_web.render import render_face, sample_attributes
from warehouse.parameters import RuleParameters

FROM = RuleParameters().drawing_flatness
# Of clip art like this; the least over what was measured, see docs/rules.md.
FLAT_FOUND = {"PNG": 0.95, "GIF": 0.95, "JPEG": 0.8}
SKINS = ((255, 224, 189), (141, 85, 36), (255, 255, 255), (255, 217, 15), (92, 58, 30))


def cartoon(seed: int, side: int) -> tuple[Image.Image, NDArray[np.float64]]:
    """A face in flat colours with outlines, as clip art has them, and its five points."""
    r, size = random.Random(seed), 3 * side  # drawn larger, so that edges are smooth
    skin, hair, ink = r.choice(SKINS), tuple(r.randrange(256) for _ in range(3)), (20, 20, 20)
    picture = Image.new("RGB", (size, size), tuple(r.randrange(256) for _ in range(3)))
    pen = ImageDraw.Draw(picture)
    x, y, h = size * r.uniform(0.42, 0.58), size * r.uniform(0.45, 0.55), size * r.uniform(0.28, 0.42)
    w = h * r.uniform(0.7, 0.95)

    def shape(kind: str, cx: float, cy: float, rx: float, ry: float, fill: Any, *angles: float, **line: Any) -> None:
        getattr(pen, kind)([cx - rx, cy - ry, cx + rx, cy + ry], *angles, fill=fill, **line)

    shape("ellipse", x, y, w * 1.15, h * 1.2, hair)
    shape("ellipse", x, y, w, h, skin, outline=ink, width=max(1, int(h * r.uniform(0, 0.03))))
    if r.random() < 0.4:
        shape("chord", x, y, w, h, tuple(int(c * 0.85) for c in skin), 20, 160)
    shape("chord", x, y - h * 0.36, w * 1.02, h * 0.66, hair, 190, 350)
    across, level, eye = w * r.uniform(0.38, 0.48), y - h * r.uniform(0.02, 0.12), w * r.uniform(0.12, 0.2)
    for centre in (x - across, x + across):
        shape("ellipse", centre, level, eye * 1.3, eye, (255, 255, 255), outline=ink, width=max(1, int(eye * 0.15)))
        shape("ellipse", centre, level, eye * 0.55, eye * 0.55, (60, 90, 160))
    mouth, nose = (w * r.uniform(0.28, 0.42), y + h * r.uniform(0.48, 0.58)), y + h * 0.25
    shape("chord", x, mouth[1], mouth[0], h * 0.13, (190, 40, 50), 0, 180)
    points = np.array([[x - across, level], [x + across, level], [x, nose], [x - mouth[0], mouth[1]]])
    return picture.resize((side, side), Image.Resampling.LANCZOS), np.vstack([points, [x + mouth[0], mouth[1]]]) / 3


def encoded(picture: Image.Image, kind: str, **options: Any) -> NDArray[np.uint8]:
    """The picture as it comes out of a file of this kind."""
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return np.asarray(Image.open(out).convert("RGB"))


@pytest.mark.parametrize("kind", ["PNG", "GIF", "JPEG"])
def test_cartoons_are_flat_in_every_format_and_size(kind: str) -> None:
    options = {"quality": 90} if kind == "JPEG" else {}
    found = []
    for seed in range(24):
        picture, points = cartoon(seed, (200, 320, 600)[seed % 3])
        found.append(flatness(arcface_crop(encoded(picture, kind, **options), points)))
    drawn = [share is not None and share >= FROM for share in found]
    assert np.mean(drawn) >= FLAT_FOUND[kind]


def test_what_lies_outside_of_the_picture_does_not_count() -> None:
    noise = np.random.default_rng(0).integers(60, 200, (ARCFACE_PX, ARCFACE_PX, 3), dtype=np.uint8)
    assert flatness(noise) == 0
    half = noise.copy()
    half[:, : ARCFACE_PX // 2] = 0  # black, as the crop is there
    assert flatness(half) == 0
    half[:, : ARCFACE_PX // 2] = 90
    assert flatness(half) == pytest.approx(0.5, abs=0.02)
    assert flatness(np.zeros_like(noise)) is None
    whole = arcface_crop(np.full((300, 300, 3), 90, np.uint8), ARCFACE_POINTS + 90)
    assert flatness(whole) == 1


def test_drawn_faces_of_the_small_web_count_as_photographs() -> None:
    detector, shares = load_detector("cascade"), []
    for index in range(12):
        rgb = encoded(Image.fromarray(render_face(sample_attributes(index, 0), index)), "JPEG", quality=92)
        shares += [flatness(arcface_crop(rgb, face.points)) for face in detector.detect(rgb)[:1]]
    assert len(shares) >= 8
    # They are drawn with shading and noise; the flattest of them are over the limit all the same.
    assert np.mean([share is not None and share < FROM for share in shares]) >= 0.9


@pytest.mark.realdata
def test_photographs_are_not_taken_for_drawings(test_data: Path, test_models: Path) -> None:
    detector = load_detector("insightface", "buffalo_sc", test_models / "insightface")
    with zipfile.ZipFile(test_data / "lfw/lfw-deepfunneled.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        photos = [archive.read(name) for name in names[:: len(names) // 150]]
    photos += [path.read_bytes() for path in sorted((test_data / "congress/images").iterdir())[::5]]
    shares = []
    for photo in photos:
        picture = decode_upright(photo)
        assert isinstance(picture, Picture)
        shares += [flatness(arcface_crop(picture.rgb, face.points)) for face in detector.detect(picture.rgb)[:1]]
    assert len(shares) > 240
    assert sum(share is not None and share >= FROM for share in shares) <= len(shares) * 0.005
