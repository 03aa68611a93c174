"""One type for every labelled set of faces: items with what is known of them, and pictures that are read when asked.

A label that is not known is None, never a negative. A set is loaded whole, with its official splits, and cut into
parts by `part`. Nothing here is kept in memory but names and labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gptface_core.datasets.stores import PictureStore
from gptface_core.errors import InputError
from gptface_core.shards import SPLITS, Pictures, decode_jpeg

Label = bool | str | None
EXPRESSION = "expression"  # the label of sets with classes
UNKNOWN_CLASS = -100  # as torch's cross-entropy leaves out


@dataclass(frozen=True)
class FaceItem:
    """One picture of one face.

    id: unique within the set and stable.
    file: its name in the set's store.
    split: train, val or test, as the set's authors cut it (or as its loader says).
    labels: attribute -> bool, EXPRESSION -> class; None where it is not known.
    person: who it is, where the set says so: people never lie in two splits.
    groups: for results by subgroup (gender, age), where known.
    facts: what a caption may be made from beside the labels (name, party, ...).
    points: the five points in pixels of the picture (ten numbers), where the set brings them.
    """

    id: str
    file: str
    split: str
    labels: Mapping[str, Label] = field(default_factory=dict)
    person: str | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    points: tuple[float, ...] | None = None


@dataclass(frozen=True)
class FaceSet:
    """`framed`: the whole picture is the face's frame, else it has to be aligned first (`framing.align`)."""

    name: str
    items: tuple[FaceItem, ...]
    store: PictureStore
    framed: bool
    attributes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    def part(self, split: str) -> FaceSet:
        """The items of a split. Raises InputError for a split that does not exist."""
        if split not in SPLITS:
            raise InputError(f"no split {split!r}: choose from {', '.join(SPLITS)}")
        return self.where(lambda item: item.split == split)

    def where(self, keep: Callable[[FaceItem], bool]) -> FaceSet:
        return replace(self, items=tuple(item for item in self.items if keep(item)))

    def rows(self, numbers: npt.ArrayLike) -> FaceSet:
        """The items at these places, in this order."""
        return replace(self, items=tuple(self.items[int(number)] for number in np.asarray(numbers)))

    def read(self, item: FaceItem) -> bytes:
        """The picture file. Raises InputError where it is not there."""
        try:
            return self.store.read(item.file)
        except (OSError, KeyError) as error:
            raise InputError(f"{self.name} lacks the picture {item.file}: unpack the data set again") from error

    def picture(self, item: FaceItem, size_px: int) -> Pictures:
        """The framed face as uint8 (size_px, size_px, 3), scaled as training scales its crops."""
        if not self.framed:
            raise InputError(f"pictures of {self.name} are not framed: align the set first (gptface_core.datasets)")
        return decode_jpeg(self.read(item), size_px)

    def attribute_table(self) -> npt.NDArray[np.float32]:
        """(R, A) of `attributes`: 1, 0, or NaN where unknown."""
        values = [[item.labels.get(name) for name in self.attributes] for item in self.items]
        table = np.array([[np.nan if v is None else float(v) for v in row] for row in values], np.float32)
        return table.reshape(len(self), len(self.attributes))

    def class_numbers(self) -> npt.NDArray[np.int64]:
        """(R,) places in `classes`, UNKNOWN_CLASS where the expression is not known."""
        places: dict[Any, int] = {name: place for place, name in enumerate(self.classes)}
        return np.array([places.get(item.labels.get(EXPRESSION), UNKNOWN_CLASS) for item in self.items], np.int64)

    def people(self) -> list[str]:
        """(R) who is in each picture; a name of its own where that is not known."""
        return [item.person or f"{self.name}/{item.id}" for item in self.items]

    def counts(self) -> dict[str, int]:
        """Items by split."""
        return {split: sum(item.split == split for item in self.items) for split in SPLITS}
