"""Decoding of what the web serves: upright pixels or a reason, never an exception."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gptface_core.faces.decode import Picture, Undecodable, decode_upright
from gptface_core.faces.jpeg import is_complete


def encode(image: Image.Image, name: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format=name, **options)
    return out.getvalue()


def gradient(width: int = 48, height: int = 32) -> Image.Image:
    """Dark at the left, bright at the right, red at the top: every orientation looks different."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[:, :, 1] = np.linspace(0, 255, width)[None]
    pixels[: height // 2, :, 0] = 255
    return Image.fromarray(pixels)


def decoded(data: bytes) -> Picture:
    picture = decode_upright(data)
    assert isinstance(picture, Picture), picture
    return picture


def reason(data: bytes, **options: int) -> str:
    failure = decode_upright(data, **options)
    assert isinstance(failure, Undecodable)
    return failure.reason


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_gives_the_same_upright_picture(orientation: int) -> None:
    inverse = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # PIL's transpositions that undo each orientation
    stored = gradient()
    if orientation in inverse:
        stored = stored.transpose(Image.Transpose(inverse[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = decoded(encode(stored, "PNG", exif=exif))
    assert (picture.width_px, picture.height_px) == (48, 32)
    np.testing.assert_array_equal(picture.rgb, np.asarray(gradient()))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_every_mode_becomes_8_bit_rgb_of_the_same_brightness(mode: str) -> None:
    grey = np.asarray(gradient().convert("L"))
    if mode == "I;16":
        data = encode(Image.fromarray(grey.astype(np.uint16) * 257), "PNG")
    else:
        data = encode(gradient().convert(mode), "TIFF" if mode == "CMYK" else "PNG")
    rgb = decoded(data).rgb
    assert rgb.dtype == np.uint8 and rgb.shape == (32, 48, 3)
    luma = np.asarray(Image.fromarray(rgb).convert("L"), dtype=float)
    assert abs(luma.mean() - grey.mean()) < 6


def test_transparent_pixels_become_white() -> None:
    image = gradient().convert("RGBA")
    image.putalpha(0)
    assert decoded(encode(image, "PNG")).rgb.min() == 255


def test_only_the_first_frame_counts() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    picture = decoded(encode(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert picture.format == "gif"
    assert picture.rgb[0, 0].tolist() == [255, 0, 0]


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it is large and holds nothing: decoding it would need 3 bytes per pixel."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8000, 12_000, 60_000])
def test_too_many_pixels_are_refused_by_the_header(side: int) -> None:
    assert reason(png_header(side, side)) == "too_many_pixels"


def test_the_pixel_cap_is_a_parameter() -> None:
    data = encode(gradient(), "PNG")
    assert reason(data, max_pixels=48 * 32 - 1) == "too_many_pixels"
    assert isinstance(decode_upright(data, max_pixels=48 * 32), Picture)


@pytest.mark.parametrize("data", [b"", b"<html><body>Not found</body></html>", b"\0" * 4096, b"<svg/>", b"%!PS-Adobe"])
def test_what_is_no_picture(data: bytes) -> None:
    assert reason(data) == "not_an_image"


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "BMP"])
def test_pictures_cut_short(name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), name)
    assert isinstance(decode_upright(data), Picture)
    assert reason(data[: len(data) * 2 // 3]) in {"truncated_image", "not_an_image"}


def test_formats_that_run_programs_or_open_nested_files_are_not_tried() -> None:
    assert reason(encode(gradient(), "EPS")) == "not_an_image"
    assert reason(encode(gradient(), "ICO")) == "not_an_image"


# What each file is stands in its name; see the list of the test data.
ODD_REASONS = {
    "pillow__bmp_b_reallybig.bmp": "too_many_pixels",
    "pillow__bmp_b_badwidth.bmp": "too_many_pixels",
    "pillow__bmp_b_shortfile.bmp": "truncated_image",
    "pillow__broken.png": "not_an_image",
    "pillow__broken_data_stream.png": "truncated_image",
    "pillow__decompression_bomb.gif": "too_many_pixels",
    "pillow__png_decompression_dos.png": "not_an_image",
    "pillow__truncated_image.png": "truncated_image",
    "pillow__truncated_jpeg.jpg": "truncated_image",
    "pillow__ultrahdr.jpg": "truncated_image",
    "pillow__zero_width.gif": "not_an_image",
    "pillow__unknown_compression_method.png": "not_an_image",
    "sharp__check.svg": "not_an_image",
    "web-html-as-image__robots.jpg": "not_an_image",
    "web-html-as-image__movies.sports.jpg": "not_an_image",
    "web-html-as-image__texts.americana.jpg": "not_an_image",
    "pillow__decompression_bomb.ico": "not_an_image",
    "pillow__python.ico": "not_an_image",
}


@pytest.mark.realdata
def test_odd_images_give_a_picture_or_the_right_reason(test_data: Path) -> None:
    found = {path.name: decode_upright(path.read_bytes()) for path in sorted((test_data / "odd-images").iterdir())}
    assert len(found) > 80
    reasons = {name: result.reason for name, result in found.items() if isinstance(result, Undecodable)}
    assert reasons == ODD_REASONS
    for result in found.values():
        if isinstance(result, Picture):
            assert result.rgb.dtype == np.uint8 and result.rgb.ndim == 3 and result.rgb.flags.c_contiguous


@pytest.mark.realdata
def test_rotated_portraits_are_all_upright(test_data: Path) -> None:
    folder = test_data / "odd-images"
    pictures = [decoded((folder / f"exif__Portrait_{n}.jpg").read_bytes()).rgb for n in range(9)]
    assert {picture.shape for picture in pictures} == {(1800, 1200, 3)}
    for picture in pictures[1:]:
        assert np.abs(picture.astype(int) - pictures[0].astype(int)).mean() < 4


def smooth(width: int, height: int) -> Image.Image:
    """Soft shapes without symmetry: a reduced picture has the same at the same place."""
    rng = np.random.default_rng(1)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def with_orientation(image: Image.Image, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(image, "JPEG", quality=95, exif=exif)


@pytest.mark.parametrize("reduction", [2, 4, 8])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_picture_shows_the_same_at_the_same_place(orientation: int, reduction: int) -> None:
    """Sides that no reduction divides: the incomplete last block lies in front where the picture is turned."""
    data = with_orientation(smooth(523, 389), orientation)
    whole, small = decoded(data), decode_upright(data, reduction=reduction)
    assert isinstance(small, Picture) and small.reduction == reduction
    assert (small.width_px, small.height_px) == (whole.width_px, whole.height_px)
    rows, columns = np.mgrid[4 : small.rgb.shape[0] - 4 : 5, 4 : small.rgb.shape[1] - 4 : 5]
    places = small.to_full(np.stack([columns, rows], axis=-1) + 0.5)  # centres of pixels
    np.testing.assert_allclose(small.from_full(places), np.stack([columns, rows], axis=-1) + 0.5, atol=1e-4)
    x, y = np.floor(places).astype(int).transpose(2, 0, 1)
    difference = np.abs(whole.rgb[y, x].astype(int) - small.rgb[rows, columns].astype(int)).mean()
    shifted = np.abs(whole.rgb[y, x + reduction].astype(int) - small.rgb[rows, columns].astype(int)).mean()
    assert difference < 5 and difference < shifted


def test_only_as_many_pixels_are_left_out_as_are_not_needed() -> None:
    data = encode(smooth(1000, 700), "JPEG")
    reductions = []
    for enough in (1001, 501, 500, 251, 250, 125, 10):
        picture = decode_upright(data, enough_px=enough)
        assert isinstance(picture, Picture) and max(picture.rgb.shape) >= min(enough, 1000)
        reductions.append(picture.reduction)
    assert reductions == [1, 1, 2, 2, 4, 8, 8]
    assert decoded(encode(smooth(1000, 700), "PNG")).reduction == 1


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_fast_way_gives_pillows_pixels(mode: str, options: dict[str, int]) -> None:
    image = smooth(333, 217).convert(mode)
    data = encode(image, "JPEG", **options)
    np.testing.assert_array_equal(decoded(data).rgb, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_picture() -> None:
    thumbnail = encode(smooth(32, 32), "JPEG")
    exif = b"Exif\0\0" + thumbnail
    data = encode(smooth(200, 150), "JPEG")
    whole = data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]
    assert is_complete(whole) and not is_complete(whole[: len(whole) // 2 + len(exif) // 2])
    assert reason(whole[:-200]) == "truncated_image"
    assert not is_complete(b"") and not is_complete(data[:100])
