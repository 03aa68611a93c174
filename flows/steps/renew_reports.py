"""Reports after a takedown: pages and the card are written again from what is left, all else of them is deleted."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

from flows.steps.layout import Layout

logger = logging.getLogger(__name__)

_PAGE = re.compile(r"index\.html|release-([0-9]{5,})\.html")


def renew_reports(layout: Layout) -> None:
    """Write every page, and the card, that is there again; what is not to be written any more is deleted, and so are
    pictures. Each is replaced where it lies, so that a takedown which is finished later finds those that are left."""
    from flows.steps.report import write_report

    for path in sorted(layout.reports.rglob("*")):
        page = _PAGE.fullmatch(path.name) if path.parent == layout.reports else None
        if page:
            _renew([path], write_report, layout.root, int(page[1]) if page[1] else None)
        elif path.suffix in (".html", ".png", ".jpg"):
            path.unlink()
    card = [path for name in ("README.md", "croissant.json") if (path := layout.reports / "card" / name).is_file()]
    if card:
        _renew(card, _write_card, layout)


def _write_card(layout: Layout) -> Path:
    """The card of the same release under the same name, both as its own metadata tell them."""
    from flows.steps.card import write_card
    from warehouse.report.croissant import read_naming

    naming, release = read_naming(json.loads((layout.reports / "card" / "croissant.json").read_text("utf-8")))
    return write_card(layout.root, naming, release)


def _renew(paths: list[Path], write: Callable[..., object], *args: object) -> None:
    from gptface_core.errors import InputError as ModelError
    from warehouse.errors import InputError

    try:
        write(*args)
    except (InputError, ModelError, OSError, json.JSONDecodeError) as error:  # nothing is left to report on, say
        for path in paths:
            logger.warning("%s is deleted, it cannot be written again: %s", path, error)
            path.unlink(missing_ok=True)
