"""A fixed sample of the kept faces, as thumbnails from the shards, and pictures as data URIs."""

from __future__ import annotations

import base64
import io
import logging
import tarfile
from dataclasses import dataclass
from pathlib import Path

import duckdb

from warehouse.errors import InputError

logger = logging.getLogger(__name__)
THUMBNAIL_PX = 128
_FIGURE_PX = 1400  # wider pictures of a model are scaled down


@dataclass(frozen=True)
class Face:
    """A kept face. `thumbnail` is a data URI; texts and addresses are as crawled, that is hostile."""

    thumbnail: str
    row_id: str
    caption: str
    page_url: str
    host: str
    split: str
    face_px: float
    score: float


def read_gallery(con: duckdb.DuckDBPyConnection, root: Path, release: int, count: int = 48) -> tuple[Face, ...]:
    """The first `count` kept rows by row_id (a hash, so a random but fixed choice) whose crop lies in the shards."""
    rows = con.execute(
        """SELECT row_id, caption, page_url, regexp_replace(page_host, '^https?://', ''), split, face_px, score
           FROM corpus ORDER BY row_id LIMIT ?""",
        [count],
    ).fetchall()
    files = con.execute(
        "SELECT file FROM shards WHERE release = ? ORDER BY regexp_extract(file, '([0-9]+)[.]tar$', 1), file", [release]
    ).fetchall()
    crops = _read_crops([root / file for (file,) in files], {row[0] for row in rows})
    return tuple(Face(thumbnail(crops[row[0]]), *row) for row in rows if row[0] in crops)


def _read_crops(tars: list[Path], wanted: set[str]) -> dict[str, bytes]:
    """`<row_id>.jpg` of the wanted rows. Stops when all are found: shards are sorted by row_id."""
    found: dict[str, bytes] = {}
    for path in tars:
        if len(found) == len(wanted):
            break
        if not path.is_file():
            logger.warning("shard %s is missing: the gallery goes without it", path.name)
            continue
        with tarfile.open(path) as tar:
            for member in tar:
                key = member.name.removesuffix(".jpg")
                file = tar.extractfile(member) if member.name.endswith(".jpg") and key in wanted else None
                if file is not None:
                    found[key] = file.read()
    return found


def thumbnail(data: bytes, size_px: int = THUMBNAIL_PX) -> str:
    """Picture bytes -> data URI of a small JPEG without metadata."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as picture:
        small = picture.convert("RGB")
    small.thumbnail((size_px, size_px), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=82, optimize=True)
    return _data_uri(out.getvalue(), "image/jpeg")


def figure_uri(path: Path) -> tuple[str, int, int]:
    """A PNG file -> data URI, width and height in pixels; drawn anew, so that nothing but pixels gets through.

    Raises InputError where the file is no picture.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=["PNG"]) as picture:
            pixels = picture.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise InputError(f"{path} is no PNG that can be read ({error}): evaluate the model again") from error
    pixels.thumbnail((_FIGURE_PX, _FIGURE_PX * 2))
    out = io.BytesIO()
    pixels.save(out, "PNG", optimize=True)
    return _data_uri(out.getvalue(), "image/png"), pixels.width, pixels.height


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
