"""The report of a root: what the lake says about its newest release, and what training and evaluation left behind."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crawler.files import write_json
from flows.steps.layout import Layout
from flows.steps.model_report import read_model, shown_model

logger = logging.getLogger(__name__)


def write_report(root: Path, at: int | None = None) -> Path:
    """Write ROOT/reports/index.html about the newest release and the champion, else the newest model; returns its path.

    With `at` it is ROOT/reports/release-NNNNN.html about that release and the newest model trained on it. Raises
    InputError where there is no lake or no such release, or where a model's files cannot be read.
    """
    from warehouse import lake
    from warehouse.mirror import fetch
    from warehouse.report.balance import read_balance
    from warehouse.report.changes import read_changes
    from warehouse.report.data import read_corpus, read_metrics
    from warehouse.report.dropped import read_dropped
    from warehouse.report.gallery import read_gallery
    from warehouse.report.page import More, render_page, write_page
    from warehouse.report.spread import read_spread
    from warehouse.storelock import offer

    layout = Layout(Path(root))
    fetch(layout.root, "models/*", "raw/*", "reports/*")
    with contextlib.closing(lake.connect(layout.root, at)) as con:
        corpus = read_corpus(con, at)
        changes = read_changes(con, corpus.release)
        faces = read_gallery(con, layout.root, corpus.release)
        more = More(read_spread(con, corpus.rules), read_balance(con), read_dropped(con, layout.root))
        folder = shown_model(layout, at)
        model = read_model(folder, read_metrics(con, folder.name)) if folder is not None else None
    name = "index.html" if at is None else f"release-{at:05d}.html"
    page = write_page(layout.reports / name, render_page(layout.root, corpus, faces, model, changes, more))
    offer(layout.root, f"reports/{name}")
    return page


def write_summary(root: Path, figures: Mapping[str, Any]) -> Path:
    """Merge `figures` into ROOT/reports/summary.json: other keys stay as they are; returns its path."""
    path = Layout(Path(root)).reports / "summary.json"
    write_json(path, {**_read_summary(path), **figures})
    return path


def _read_summary(path: Path) -> dict[str, Any]:
    """What is there; a file that is no JSON object is replaced, since every figure in it can be measured again."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        logger.warning("%s is replaced, it was no JSON: %s", path, error)
        return {}
    return found if isinstance(found, dict) else {}
