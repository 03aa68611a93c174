"""The bytes of the small web's pictures."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from PIL import Image, ImageOps

from gptface_core.faces.phash import hamming, perceptual_hash
from sample_web.pictures import paint, serve_picture
from sample_web.pool import POOL, pool_picture
from sample_web.site import PictureSpec, Site

SITE = Site(600)
SPECS = [SITE.picture(i) for i in range(600)]


def opened(spec: PictureSpec) -> Image.Image:
    return Image.open(io.BytesIO(serve_picture(SITE.seed, spec.index).body))


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_turned_pictures_come_out_upright(orientation: int) -> None:
    spec = next(s for s in SPECS if s.orientation == orientation)
    picture = opened(spec)
    assert picture.getexif()[0x0112] == orientation
    upright = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"), dtype=int)
    drawn = paint(spec, SITE.seed).astype(int)
    assert np.abs(upright - drawn).mean() < 6
    assert np.abs(np.asarray(picture.convert("RGB"), dtype=int) - drawn).mean() > 15


def test_formats_are_what_their_names_say() -> None:
    formats = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
    for extension, name in formats.items():
        spec = next(s for s in SPECS if s.extension == extension and s.kind == "face")
        picture = opened(spec)
        assert picture.format == name
        assert picture.size == (spec.served_px, spec.served_px)


def test_duplicates_show_the_face_of_their_original() -> None:
    for spec in (s for s in SPECS if s.kind == "duplicate"):
        original = SITE.picture(spec.subject)
        assert original.kind == "face" and original.index != spec.index
        assert original.attributes == spec.attributes
        here, there = serve_picture(SITE.seed, spec.index), serve_picture(SITE.seed, original.index)
        if spec.variant == "same":
            assert here.body == there.body
        else:
            assert here.body != there.body
            hashes = [perceptual_hash(np.asarray(opened(s).convert("RGB"))) for s in (spec, original)]
            assert hamming(*hashes) <= 3


def test_broken_pictures_are_broken_each_in_its_way() -> None:
    broken = {s.variant: serve_picture(SITE.seed, s.index) for s in SPECS if s.kind == "broken"}
    assert set(broken) == {"404", "500", "truncated", "html", "empty"}
    assert broken["404"].status == 404 and broken["500"].status == 500
    assert broken["empty"].status == 200 and broken["empty"].body == b""
    assert broken["html"].content_type == "image/jpeg" and broken["html"].body.startswith(b"<!doctype html>")
    truncated = Image.open(io.BytesIO(broken["truncated"].body))
    with pytest.raises(OSError, match="truncated"):
        truncated.load()


def test_tiny_and_several() -> None:
    tiny = next(s for s in SPECS if s.kind == "tiny")
    assert opened(tiny).size == (48, 48)
    several = next(s for s in SPECS if s.kind == "several")
    width, height = opened(several).size
    assert width == several.faces * height and several.faces >= 2


@pytest.mark.e2e
def test_different_faces_are_no_near_duplicates() -> None:
    faces = [s for s in SPECS if s.kind == "face"][:250]
    hashes = [int(perceptual_hash(paint(s, SITE.seed)), 16) for s in faces]
    close = sum((a ^ b).bit_count() <= 4 for a, b in itertools.combinations(hashes, 2))
    assert close <= 1  # of 31,125 pairs


def test_pool_pictures_are_distinct_files_of_the_same_length() -> None:
    picture = pool_picture(0, 5)
    first, second = picture.numbered(5), picture.numbered(5 + POOL)
    assert first != second and len(first) == len(second) == picture.size
    pixels = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in (first, second)]
    assert pixels[0].shape == (256, 256, 3) and np.array_equal(pixels[0], pixels[1])
