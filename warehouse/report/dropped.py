"""A gallery by reason: small thumbnails of pictures that a rule dropped, so that one sees what it does.

Shown are pictures that were downloaded with consent and that decode. What was left out for its content (minors, NSFW,
blocklists) is never shown.
"""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from pathlib import Path

import duckdb

from warehouse.report.gallery import thumbnail

logger = logging.getLogger(__name__)

THUMBNAIL_PX = 96
PER_REASON = 6
_STAGES = ("picture", "face", "caption", "duplicate", "cap")
_MAX_BYTES = 20_000_000
_SPARE = 3  # candidates per shown picture: some may not decode


@dataclass(frozen=True)
class DroppedPicture:
    """`thumbnail` is a data URI; `caption` and `host` are as crawled, that is hostile."""

    thumbnail: str
    row_id: str
    caption: str
    host: str
    width_px: int
    height_px: int


@dataclass(frozen=True)
class DroppedReason:
    """What one reason dropped: some of it, and how many pairs in all."""

    reason: str
    pairs: int
    pictures: tuple[DroppedPicture, ...]


def read_dropped(con: duckdb.DuckDBPyConnection, root: Path, per_reason: int = PER_REASON) -> tuple[DroppedReason, ...]:
    """The first pictures of each reason by row_id (a hash: a random but fixed choice), in the order of the rules."""
    rows = con.execute(
        """SELECT d.reason, p.row_id, i.raw_shard, i.raw_offset, i.raw_bytes, t.width_px, t.height_px,
               coalesce(d.caption, (SELECT arg_min(text, rank) FROM captions c
                                   WHERE c.row_id = p.row_id AND c.kind <> 'page_title'), ''),
               regexp_replace(p.image_host, '^https?://', '')
           FROM decisions d JOIN reasons r USING (reason) JOIN pairs p USING (row_id) JOIN images i USING (url_id)
           JOIN pictures t ON t.image_id = i.image_id
           WHERE r.stage IN (SELECT unnest(?)) AND i.status = 'ok' AND i.raw_bytes < ? AND t.width_px IS NOT NULL
           QUALIFY row_number() OVER (PARTITION BY d.reason ORDER BY p.row_id) <= ?
           ORDER BY r.stage_order, p.row_id""",
        [list(_STAGES), _MAX_BYTES, per_reason * _SPARE],
    ).fetchall()
    totals = dict(con.execute("SELECT reason, pairs FROM funnel").fetchall())
    shown: dict[str, list[DroppedPicture]] = {}
    for reason, row_id, shard, offset, size, width, height, caption, host in rows:
        pictures = shown.setdefault(reason, [])
        if len(pictures) < per_reason:
            small = _thumbnail(root / shard, offset, size)
            if small is not None:
                pictures.append(DroppedPicture(small, row_id, caption, host, width, height))
    return tuple(DroppedReason(reason, totals[reason], tuple(found)) for reason, found in shown.items() if found)


def _thumbnail(path: Path, offset: int, size: int) -> str | None:
    """None where the bytes are gone (a takedown, a moved root) or do not decode."""
    from PIL import Image

    try:
        with path.open("rb") as raw:
            raw.seek(offset)
            data = raw.read(size)
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "GIF", "WEBP", "BMP")) as picture:
            picture.draft("RGB", (2 * THUMBNAIL_PX, 2 * THUMBNAIL_PX))
            out = io.BytesIO()
            picture.convert("RGB").save(out, "PNG")
        return thumbnail(out.getvalue(), THUMBNAIL_PX)
    except Exception as error:  # noqa: BLE001 row boundary: hostile bytes make decoders raise nearly any type
        logger.debug("no thumbnail from %s at %d: %s", path, offset, error)
        return None
