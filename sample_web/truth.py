"""What is true about every picture of a small web, as a table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from sample_web.errors import InputError
from sample_web.pages import page_path
from sample_web.site import HOSTS, Site
from sample_web.texts import TRUE, picture_text

_BATCH = 10_000

TRUTH = pa.schema(
    [
        pa.field("picture", pa.int32(), nullable=False),
        pa.field("image_url", pa.string(), nullable=False),
        pa.field("page_url", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("variant", pa.string()),  # of broken: 404, truncated, html, 500, empty; of duplicate: same, resized
        pa.field("faces", pa.int32(), nullable=False),
        pa.field("size_px", pa.int32(), nullable=False),  # side of the square that is served
        # attributes of the single face
        pa.field("smiling", pa.bool_()),
        pa.field("eyeglasses", pa.bool_()),
        pa.field("beard", pa.bool_()),
        pa.field("hair_colour", pa.string()),
        pa.field("skin_tone", pa.int32()),
        pa.field("face_mask", pa.bool_()),
        pa.field("age", pa.string()),
        pa.field("yaw_deg", pa.float32()),
        pa.field("roll_deg", pa.float32()),
        pa.field("frontal", pa.bool_()),
        # texts
        pa.field("caption", pa.string(), nullable=False),  # as it stands on the page
        pa.field("caption_place", pa.string(), nullable=False),
        pa.field("claim", pa.string()),  # true, contradicting, irrelevant
        pa.field("caption_true", pa.bool_()),
        pa.field("true_caption", pa.string()),
        pa.field("contradicting_caption", pa.string()),
        # what a build should make of it
        pa.field("duplicate_of", pa.string()),  # image_url of the original
        pa.field("expected_reason", pa.string()),
    ]
)
_ATTRIBUTES = (
    *("smiling", "eyeglasses", "beard", "hair_colour", "skin_tone", "face_mask", "age"),
    *("yaw_deg", "roll_deg", "frontal"),
)


def origins_of(base_url: str) -> tuple[str, ...]:
    """The hosts of the web whose first one is `base_url`: four ports in a row."""
    parts = urlsplit(base_url)
    if parts.scheme != "http" or not parts.hostname or parts.port is None:
        raise InputError(f"base address '{base_url}': give http://HOST:PORT")
    return tuple(f"http://{parts.hostname}:{parts.port + k}" for k in range(HOSTS))


def truth_table(images: int, seed: int, base_url: str, untrue: float = 0.25) -> pa.Table:
    """One row per picture on a page (schema `TRUTH`), in the order of the pages.

    Attributes are null where there is no single face. `caption_true` is null where there is none, and false for a
    caption that contradicts the picture or has nothing to do with it. `expected_reason` (a value of `Reason`, null for
    a kept row) is what a build with default rules and a perfect detector decides.
    """
    site, origins = Site(images, seed, untrue), origins_of(base_url)
    starts = range(0, images, _BATCH)
    tables = [pa.Table.from_pylist(list(_rows(site, origins, s, min(s + _BATCH, images))), TRUTH) for s in starts]
    return pa.concat_tables(tables)


def _rows(site: Site, origins: tuple[str, ...], start: int, stop: int) -> Iterator[dict[str, Any]]:
    for index in range(start, stop):
        spec = site.picture(index)
        text = picture_text(site, spec)
        original = site.picture(spec.subject)
        row: dict[str, Any] = {
            "picture": index,
            "image_url": origins[spec.host] + spec.path,
            "page_url": origins[0] + page_path(site.page_of(index)),
            "kind": spec.kind,
            "variant": spec.variant or None,
            "faces": spec.faces,
            "size_px": spec.served_px,
            "caption": text.caption,
            "caption_place": text.place,
            "claim": text.claim,
            "caption_true": None if text.claim is None else text.claim == TRUE,
            "true_caption": text.true_caption,
            "contradicting_caption": text.contradicting_caption,
            "duplicate_of": origins[original.host] + original.path if original is not spec else None,
            "expected_reason": spec.expected_reason,
        }
        if spec.attributes is not None:
            row |= {name: getattr(spec.attributes, name) for name in _ATTRIBUTES}
        yield row
