"""What was taken down is kept out: tombstones laid out for a crawl, and pictures recognised by their bytes or looks."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from flows.steps.layout import Layout
from warehouse.schema import Reason

logger = logging.getLogger(__name__)


def lay_tombstones(layout: Layout) -> None:
    """Write the lake's tombstones where a crawl looks for them. Raises InputError where their key is gone."""
    import warehouse
    from crawler.tombstones import load_tombstones
    from warehouse.lake import has_lake
    from warehouse.tombstones import export, tombstones_path

    if has_lake(layout.root):
        with contextlib.closing(warehouse.connect(layout.root)) as con:
            export(con, layout.root)
    load_tombstones(tombstones_path(layout.root))


def check_source(layout: Layout, source: str) -> None:
    """Raises InputError where the source is a site whose host or start page was taken down."""
    from crawler.errors import InputError
    from crawler.tombstones import load_tombstones
    from warehouse.tombstones import tombstones_path

    kind, _, rest = source.partition(":")
    stones = load_tombstones(tombstones_path(layout.root))
    barred = [url for url in rest.split() if stones.bars_address(url)] if kind == "site" else []
    if barred:
        raise InputError(f"{barred[0]} was taken down from {layout.root}: it is not crawled again")


def keeper(root: Path) -> Callable[[bytes], bool]:
    """A function that tells whether a picture with these bytes, or one that looks like it, was taken down."""
    from crawler.tombstones import load_tombstones
    from warehouse.tombstones import tombstones_path

    stones = load_tombstones(tombstones_path(root))

    def is_taken_down(data: bytes) -> bool:
        if stones.bars_picture(hashlib.sha256(data).hexdigest()):
            return True
        if not stones.looks:
            return False
        from flows.steps.likeness import phash_of

        return stones.bars_look(phash_of(data))

    return is_taken_down


def drop_taken_down(layout: Layout, crawl: Path) -> int:
    """Take out of a crawl what its download recognised, and bury the addresses at which it now stood; how many.

    So neither the picture nor where it can be had reaches a release.
    """
    import pyarrow.parquet as pq

    from flows.steps.erase_files import overwrite, scrub_tables
    from warehouse.removal import Removal

    found: dict[str, str] = {}
    for stats in sorted((crawl / "images").glob("*_stats.json")):
        if Reason.TAKEN_DOWN not in json.loads(stats.read_text("utf-8")).get("reasons", (Reason.TAKEN_DOWN,)):
            continue  # nearly always; to open each table would take far longer
        path = stats.with_name(stats.name.replace("_stats.json", ".parquet"))
        table = pq.read_table(path, columns=["url_id", "image_url", "reason"]).to_pylist()
        found |= {row["url_id"]: row["image_url"] for row in table if row["reason"] == Reason.TAKEN_DOWN}
    if not found:
        return 0
    logger.info("%d addresses gave pictures that were taken down: they are left out", len(found))
    _bury(layout, found.values())
    removal = Removal(_rows_of(crawl, set(found)), frozenset(found), address_ids=frozenset(found))
    overwrite(crawl, _stored(crawl, set(found)))
    scrub_tables(sorted(crawl.rglob("*.parquet")), removal)
    return len(found)


def drop_faces(layout: Layout, crawl: Path) -> int:
    """Take out of a crawl, whose faces were looked for, pictures with the face of one that was taken down: of copies
    that are cropped, the whole looks different. They and their addresses are buried; how many pictures."""
    import pyarrow.parquet as pq

    from crawler.tombstones import load_tombstones
    from warehouse.tombstones import tombstones_path

    stones = load_tombstones(tombstones_path(layout.root))
    found: set[str] = set()
    for path in (crawl / "faces").glob("*.faces.parquet") if stones.faces else ():
        rows = pq.read_table(path, columns=["image_id", "face_phash"], filters=[("face_index", "==", 0)]).to_pylist()
        found |= {row["image_id"] for row in rows if stones.bars_face(row["face_phash"])}
    if found:
        logger.info("%d pictures show a face as one that was taken down: they are left out", len(found))
        _bury(layout, {row["image_url"] for row in _images(crawl, found)}, found)
        erase_pictures(layout, crawl, found)
    return len(found)


def erase_pictures(layout: Layout, crawl: Path, image_ids: set[str]) -> None:
    """Take pictures out of a crawl that is not published: bytes first, and the tables of faces, by which a next run
    finds what this one did not come to, last."""
    from flows.steps.erase_files import overwrite, scrub_tables
    from warehouse.removal import Removal

    rows = _images(crawl, image_ids)
    url_ids = {row["url_id"] for row in rows}
    overwrite(layout.root, {(r["raw_shard"], r["raw_offset"], r["raw_bytes"]) for r in rows if r["raw_shard"]})
    overwrite(crawl, _stored(crawl, url_ids))
    removal = Removal(_rows_of(crawl, url_ids), frozenset(url_ids), frozenset(image_ids), frozenset(url_ids))
    scrub_tables(sorted(crawl.rglob("*.parquet"), key=lambda path: (path.parent.name == "faces", path)), removal)


def _images(crawl: Path, image_ids: set[str]) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    tables = [pq.read_table(path, filters=[("image_id", "in", image_ids)]) for path in crawl.glob("images/*.parquet")]
    return [row for table in tables for row in table.to_pylist()]


def _bury(layout: Layout, urls: Iterable[str], image_ids: Iterable[str] = ()) -> None:
    from warehouse.erase import bury
    from warehouse.tombstones import address_stones, ensure_key, picture_stones

    key = ensure_key(layout.root)
    bury(layout.root, [*address_stones(key, urls), *picture_stones(key, image_ids)])


def _rows_of(crawl: Path, url_ids: set[str]) -> frozenset[str]:
    import pyarrow.parquet as pq

    found: set[str] = set()
    for step in ("plan", "extract"):
        for path in (crawl / step).glob("*.pairs.parquet"):
            table = pq.read_table(path, columns=["row_id", "url_id"], filters=[("url_id", "in", url_ids)])
            found.update(table["row_id"].to_pylist())
    return frozenset(found)


def _stored(crawl: Path, url_ids: set[str]) -> list[tuple[str, int, int]]:
    """Where the source's own bytes of these pictures lie: file below the crawl, offset, bytes."""
    import pyarrow.parquet as pq

    places = []
    for path in (crawl / "extract").glob("*.stored.parquet"):
        rows = pq.read_table(path, filters=[("url_id", "in", url_ids)]).to_pylist()
        places += [(f"extract/{row['file']}", row["offset"], row["bytes"]) for row in rows]
    return places
