"""The dataset card of a root: README.md and croissant.json, for who gets the shards."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from crawler.files import replacing
from flows.steps.layout import Layout

if TYPE_CHECKING:
    from warehouse.report.card import Naming


def write_card(root: Path, naming: Naming | None = None, at: int | None = None) -> Path:
    """Write ROOT/reports/card/README.md and croissant.json about release `at` (default: the newest); their folder.

    Raises InputError where there is no lake or no such release, or its shards have no manifest.
    """
    from warehouse import lake
    from warehouse.manifest import read_manifest
    from warehouse.mirror import fetch
    from warehouse.report.card import Naming, read_card, render_card
    from warehouse.report.croissant import as_json, croissant
    from warehouse.storelock import offer

    layout = Layout(Path(root))
    naming = naming or Naming()
    fetch(layout.root, "shards/*/manifest*", "reports/*")
    with contextlib.closing(lake.connect(layout.root, at)) as con:
        card = read_card(con, at)
        manifest = read_manifest(layout.shards(card.corpus.release))
        documents = {
            "README.md": render_card(card, naming),
            "croissant.json": as_json(croissant(con, card, naming, manifest.table_sha256)),
        }
    folder = layout.reports / "card"
    for name, text in documents.items():
        with replacing(folder / name) as temporary:
            temporary.write_text(text, "utf-8")
    offer(layout.root, *(f"reports/card/{name}" for name in documents))
    return folder
