"""Results per picture that are dear to make and cheap to keep: a JSON file that is written now and then on the way."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gptface_core.datasets.faceset import FaceItem, FaceSet
from gptface_core.files import write_text

logger = logging.getLogger(__name__)
TELL_EVERY_S, KEEP_EVERY_S = 10.0, 60.0


def note_each(
    faces: FaceSet, what: str, maker: str, compute: Callable[[FaceItem], Any], folder: Path | None
) -> dict[str, Any]:
    """`compute` of every item by its file: a plain JSON value each.

    With a folder, `FOLDER/SET-WHAT.json` keeps them; notes of another `maker` (whatever decides the values) are made
    anew, and a run that was stopped goes on where it last wrote.
    """
    path = folder / f"{faces.name}-{what}.json" if folder else None
    notes = _read(path, maker)
    missing = [item for item in faces.items if item.file not in notes]
    told = kept = time.monotonic()
    for done, item in enumerate(missing, 1):
        notes[item.file] = compute(item)
        now = time.monotonic()
        if now - told >= TELL_EVERY_S:
            told = now
            logger.info("%s of %s: %d of %d", what, faces.name, done, len(missing))
        if path and now - kept >= KEEP_EVERY_S:
            kept = now
            _write(path, maker, notes)
    if path and missing:
        _write(path, maker, notes)
    return {item.file: notes[item.file] for item in faces.items}


def _read(path: Path | None, maker: str) -> dict[str, Any]:
    if path is None or not path.is_file():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return dict(document["notes"]) if document["maker"] == maker else {}
    except (ValueError, KeyError, TypeError) as error:
        logger.warning("%s is damaged (%s): made anew", path, error)
        return {}


def _write(path: Path, maker: str, notes: Mapping[str, Any]) -> None:
    write_text(path, json.dumps({"maker": maker, "notes": notes}))
