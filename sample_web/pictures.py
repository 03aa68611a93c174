"""The bytes of a picture of the small web, rendered on demand."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from sample_web.backgrounds import paint_no_face
from sample_web.draw import Picture
from sample_web.draws import seed_of, uniforms
from sample_web.render import render_face, sample_attributes
from sample_web.site import PictureSpec, picture_spec

CONTENT_TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
_HTML = (
    b"<!doctype html><html><head><title>Not here</title></head><body><p>Please log in to see this.</p></body></html>"
)
# How to store a picture, in quarter turns anticlockwise, so that a viewer who heeds the orientation sees it upright.
_STORED_TURNS = {1: 0, 3: 2, 6: 1, 8: 3}


@dataclass(frozen=True)
class Served:
    """What the web answers to one picture's address."""

    status: int
    content_type: str
    body: bytes


@lru_cache(maxsize=64)
def serve_picture(seed: int, index: int) -> Served:
    """The answer for picture `index` (a spec from `picture_spec(seed, index)`); the last few are kept."""
    spec = picture_spec(seed, index)
    if spec.kind == "broken":
        return _broken(spec, seed)
    if spec.variant == "same":
        return serve_picture(seed, spec.subject)
    return Served(200, CONTENT_TYPES[spec.extension], encode(paint(spec, seed), spec))


def paint(spec: PictureSpec, seed: int) -> Picture:
    """The upright picture, uint8 (H, W, 3) RGB."""
    if spec.kind == "nonface":
        return paint_no_face(np.random.default_rng([spec.face_seed & 0xFFFFFFFF, 0x5CE7E]), spec.size_px, spec.size_px)
    if spec.kind == "several":
        return _several(spec, seed)
    attributes = spec.attributes or sample_attributes(spec.subject, seed)
    rgb = render_face(attributes, spec.face_seed, spec.size_px)
    if spec.served_px != spec.size_px:
        rgb = np.asarray(cv2.resize(rgb, (spec.served_px,) * 2, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return rgb


def _several(spec: PictureSpec, seed: int) -> Picture:
    """Faces side by side, as a collage."""
    tiles = []
    for k in range(spec.faces):
        face_seed = seed_of("several", seed, spec.index, k)
        tiles.append(render_face(sample_attributes(face_seed % 2**31, seed), face_seed, 224))
    return np.hstack(tiles)


def _broken(spec: PictureSpec, seed: int) -> Served:
    if spec.variant == "404":
        return Served(404, "text/html; charset=utf-8", _HTML)
    if spec.variant == "500":
        return Served(500, "text/plain; charset=utf-8", b"Internal Server Error\n")
    if spec.variant == "html":
        return Served(200, "image/jpeg", _HTML)
    if spec.variant == "empty":
        return Served(200, "image/jpeg", b"")
    whole = encode(paint(spec, seed), spec)
    return Served(200, "image/jpeg", whole[: len(whole) // 2])


def encode(rgb: Picture, spec: PictureSpec) -> bytes:
    """The file: JPEG of quality 82 to 94, PNG or WebP; with an EXIF block where it is stored turned."""
    if spec.orientation != 1:
        rgb = np.ascontiguousarray(np.rot90(rgb, _STORED_TURNS[spec.orientation]))
    quality = 82 + int(uniforms("quality", spec.face_seed, count=1)[0] * 13)
    options = {
        "jpg": [cv2.IMWRITE_JPEG_QUALITY, quality],
        "png": [cv2.IMWRITE_PNG_COMPRESSION, 1],
        "webp": [cv2.IMWRITE_WEBP_QUALITY, quality],
    }[spec.extension]
    data = cv2.imencode(f".{spec.extension}", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)[1].tobytes()
    return with_orientation(data, spec.orientation) if spec.orientation != 1 else data


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """The JPEG with an EXIF block (TIFF, big-endian, one entry) that names an orientation."""
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)  # Orientation, SHORT, one value
    tiff = b"MM\0*" + struct.pack(">IH", 8, 1) + entry + struct.pack(">I", 0)
    return with_segment(jpeg, 0xE1, b"Exif\0\0" + tiff)


def with_segment(jpeg: bytes, marker: int, payload: bytes) -> bytes:
    """The JPEG with one more segment right after its first two bytes (start of image)."""
    return jpeg[:2] + struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload + jpeg[2:]
