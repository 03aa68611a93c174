"""A training corpus from labelled sets: which pictures, with which captions, in which split of the shards.

Only training items come in, and none that is the same picture as a held-out one of any set. The shards' own val and
test are small parts of the training side (whole people, whole groups of look-alikes), for losses and matching on faces
that the model has not seen; held-out items of the sets themselves are for evaluation alone.
"""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gptface_core.datasets.captions import make_caption
from gptface_core.datasets.faceset import FaceItem, FaceSet
from gptface_core.datasets.lfw import plain_name
from gptface_core.datasets.twins import BLANK, MAX_BITS, Prints, fingerprints, joined, leaks

logger = logging.getLogger(__name__)
UNTRUE_SHARE = 0.25
VAL_SHARE, TEST_SHARE = 0.02, 0.03


@dataclass(frozen=True)
class CorpusRow:
    """One sample of the shards. `untrue`: the caption is that of another row of the same set."""

    row_id: str
    split: str
    caption: str
    untrue: bool
    faces: FaceSet
    item: FaceItem

    def metadata(self) -> dict[str, Any]:
        return {"set": self.faces.name, "id": self.item.id, "untrue": self.untrue}


@dataclass(frozen=True)
class Selection:
    """The training items that may be used, and what was dropped: set -> reason -> count; `cluster` by "set/id"."""

    parts: tuple[FaceSet, ...]
    dropped: Mapping[str, Mapping[str, int]]
    cluster: Mapping[str, str]


def select(sets: Sequence[FaceSet], folder: Path | None = None, max_bits: int = MAX_BITS) -> Selection:
    """Training items without blanks and without any that is the same picture as a val or test item of any set."""
    prints = {faces.name: fingerprints(faces, folder) for faces in sets}
    held_out = joined({f.name: _of(f, prints[f.name], train=False) for f in sets})
    parts: list[FaceSet] = []
    dropped: dict[str, dict[str, int]] = {}
    cluster: dict[str, str] = {}
    for faces in sets:
        mine = _of(faces, prints[faces.name], train=True)
        leaked = leaks(held_out, mine, max_bits)
        blank = {name for name, look in zip(mine.ids, mine.look, strict=True) if look == BLANK}
        away = blank | leaked.keys()
        usable = [item.split == "train" and _name(faces, item) not in away for item in faces.items]
        parts.append(faces.rows(np.flatnonzero(usable)))
        dropped[faces.name] = {"same_as_held_out": len(leaked.keys() - blank), "blank": len(blank)}
        cluster.update(zip(mine.ids, mine.look, strict=True))
        logger.info("%s: %d of %d training pictures; dropped %s", faces.name, len(parts[-1]), len(mine.ids), dropped)
    return Selection(tuple(parts), dropped, cluster)


def _name(faces: FaceSet, item: FaceItem) -> str:
    """As in Prints."""
    return f"{faces.name}/{item.id}"


def _of(faces: FaceSet, prints: Prints, train: bool) -> Prints:
    places = [place for place, item in enumerate(faces.items) if (item.split == "train") is train]
    return Prints(*(tuple(column[p] for p in places) for column in (prints.ids, prints.sha256, prints.look)))


def compose(
    parts: Sequence[FaceSet], style: str, cluster: Mapping[str, str], untrue_share: float = UNTRUE_SHARE
) -> list[CorpusRow]:
    """Rows in order of their ids, which are hashes: sets lie mixed. In train a share of the captions is untrue."""
    rows = []
    for faces in parts:
        made = [_row(faces, item, style, cluster) for item in faces.items]
        rows += swap_captions([row for row in made if row.split == "train"], untrue_share)
        rows += [row for row in made if row.split != "train"]
    return sorted(rows, key=lambda row: row.row_id)


def _row(faces: FaceSet, item: FaceItem, style: str, cluster: Mapping[str, str]) -> CorpusRow:
    name = _name(faces, item)
    group = f"person {plain_name(item.person)}" if item.person else cluster.get(name) or name
    row_id = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
    return CorpusRow(row_id, split_of(group), make_caption(item, style, row_id), False, faces, item)


def split_of(group: str) -> str:
    """The shards' split of a group of pictures that must stay together."""
    share = int.from_bytes(hashlib.blake2b(f"corpus\0{group}".encode(), digest_size=8).digest(), "big") / 2**64
    return "val" if share < VAL_SHARE else "test" if share < VAL_SHARE + TEST_SHARE else "train"


def swap_captions(rows: Sequence[CorpusRow], share: float) -> list[CorpusRow]:
    """The rows, a share of them with the caption of another one of that share: by hash, so without a seed.

    Captions move in a circle: each stays in use once. Two rows may have had the same caption all along.
    """
    order = sorted(
        range(len(rows)), key=lambda place: hashlib.blake2b(f"untrue\0{rows[place].row_id}".encode()).digest()
    )
    chosen = order[: round(share * len(rows))]
    if len(chosen) < 2:
        return list(rows)
    swapped = dict(zip(chosen, chosen[1:] + chosen[:1], strict=True))
    return [
        replace(row, caption=rows[swapped[place]].caption, untrue=True) if place in swapped else row
        for place, row in enumerate(rows)
    ]


def counts(rows: Sequence[CorpusRow]) -> dict[str, dict[str, int]]:
    """Rows by set and split."""
    table: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for row in rows:
        table[row.faces.name][row.split] += 1
    return {name: dict(splits) for name, splits in table.items()}
