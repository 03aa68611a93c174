"""Two dozen faces on a server of our own, and builds of them in this process: seconds, so that faults can be many."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import warehouse
from flows.steps.config import BuildConfig
from tests.flows.test_recrawl_e2e import Site, serving

FACES, PART_URLS = 24, 8
_TABLES = {
    "pairs": "SELECT * FROM pairs ORDER BY row_id",
    "decisions": "SELECT * FROM decisions ORDER BY row_id",
    "images": "SELECT url_id, status, reason, image_id FROM images ORDER BY url_id",
    "faces": "SELECT * FROM faces ORDER BY image_id, face_index",
    "corpus": "SELECT * FROM corpus ORDER BY row_id",
    "releases": "SELECT release FROM releases ORDER BY release",
}


@contextlib.contextmanager
def serving_faces(first: int = 0) -> Iterator[Site]:
    """A site of faces `first`, `first` + 1, ... without pages: lists name its pictures."""
    with serving(Site()) as site:
        for face in range(first, first + FACES):
            site.put(f"face{face}", face)
        yield site


def list_of(site: Site, folder: Path) -> str:
    """A CSV list of all pictures of the site, as a source; its name goes into rows, so it is one per site."""
    file = folder / "pairs.csv"
    lines = [f"{site.url}/{name}.jpg,A smiling woman named {name} with brown hair" for name in sorted(site.pictures)]
    file.write_text("\n".join(["url,caption", *lines]) + "\n")
    return f"list:{file}"


def config(source: str, root: Path, **more: Any) -> BuildConfig:
    """A build in three parts and several shards."""
    quick: dict[str, Any] = {"detector": "cascade", "allow_private": True, "part_urls": PART_URLS}
    return BuildConfig(source, str(root), **quick, **{"samples_per_shard": 6, **more})


def content(root: Path) -> dict[str, Any]:
    """Everything that a fault must leave as it was: rows, decisions, splits, and the sha256 of every shard."""
    with contextlib.closing(warehouse.connect(root)) as con:
        found: dict[str, Any] = {name: con.execute(query).fetchall() for name, query in _TABLES.items()}
    found["index"] = [json.loads(path.read_text()) for path in sorted(root.glob("shards/*/index.json"))]
    return found


def rows_of(root: Path) -> dict[str, int]:
    """How many rows each table holds; none before the first release."""
    try:
        with contextlib.closing(warehouse.connect(root)) as con:
            return {name: len(con.execute(query).fetchall()) for name, query in _TABLES.items()}
    except ValueError:
        return dict.fromkeys(_TABLES, 0)
