"""The same picture twice: by its bytes (sha256) and by its look (perceptual hash). What a test must never share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gptface_core.datasets.faceset import FaceItem, FaceSet
from gptface_core.datasets.notes import note_each
from gptface_core.faces.decode import Undecodable, decode_upright
from gptface_core.faces.phash import perceptual_hash

BLANK = ""  # in place of the hash of a picture of one colour, or of none
MAX_BITS = 2  # in which hashes of twins may differ: frames of one scene (correlation of pixels 0.97 on FER2013)
_ROWS = 512


@dataclass(frozen=True)
class Prints:
    """Fingerprints of a set's items, in its order: `sha256` of the bytes, `look` 16 hex digits, or BLANK."""

    ids: tuple[str, ...]
    sha256: tuple[str, ...]
    look: tuple[str, ...]


@dataclass(frozen=True)
class Twin:
    """Two items, by their places in the two lists; `bits` in which their hashes differ, `same_bytes`."""

    first: int
    second: int
    bits: int
    same_bytes: bool


def fingerprints(faces: FaceSet, folder: Path | None = None) -> Prints:
    """Of the pictures as the set stores them; with a folder they are kept there."""

    def print_of(item: FaceItem) -> list[str]:
        data = faces.read(item)
        return [hashlib.sha256(data).hexdigest(), look_of(data)]

    notes = note_each(faces, "prints", "sha256, phash without blanks", print_of, folder)
    pairs = [notes[item.file] for item in faces.items]
    ids = tuple(f"{faces.name}/{item.id}" for item in faces.items)
    return Prints(ids, tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs))


def look_of(data: bytes) -> str:
    """Perceptual hash of a picture file; BLANK where it does not decode or shows nothing (levels within 8 of 255)."""
    picture = decode_upright(data)
    if isinstance(picture, Undecodable) or int(np.ptp(picture.rgb)) < 8:
        return BLANK
    return perceptual_hash(picture.rgb)


def find_twins(first: Prints, second: Prints, max_bits: int = MAX_BITS) -> list[Twin]:
    """Every pair of an item of `first` and one of `second` that is the same picture; blanks by their bytes alone."""
    same = _same_bytes(first, second)
    twins = [Twin(a, b, 0, True) for a, b in sorted(same)]
    twins += [Twin(a, b, bits, False) for a, b, bits in _near(first, second, max_bits) if (a, b) not in same]
    return twins


def leaks(train: Prints, test: Prints, max_bits: int = MAX_BITS) -> dict[str, str]:
    """Test item -> the training item that is the same picture (the nearest). Empty where nothing leaks."""
    found: dict[str, tuple[int, str]] = {}
    for twin in find_twins(test, train, max_bits):
        near = (0 if twin.same_bytes else 1 + twin.bits, train.ids[twin.second])
        name = test.ids[twin.first]
        found[name] = min(found.get(name, near), near)
    return {name: near[1] for name, near in found.items()}


def _same_bytes(first: Prints, second: Prints) -> set[tuple[int, int]]:
    places: dict[str, list[int]] = {}
    for place, digest in enumerate(second.sha256):
        places.setdefault(digest, []).append(place)
    return {(a, b) for a, digest in enumerate(first.sha256) for b in places.get(digest, ())}


def _near(first: Prints, second: Prints, max_bits: int) -> Iterator[tuple[int, int, int]]:
    (rows, left), (columns, right) = _hashes(first), _hashes(second)
    for start in range(0, len(rows), _ROWS):
        bits = np.bitwise_count(left[start : start + _ROWS, None] ^ right[None])
        for a, b in zip(*np.nonzero(bits <= max_bits), strict=True):
            yield int(rows[start + a]), int(columns[b]), int(bits[a, b])


def _hashes(prints: Prints) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    seen = [place for place, look in enumerate(prints.look) if look != BLANK]
    return np.array(seen, np.int64), np.array([int(prints.look[place], 16) for place in seen], np.uint64)


def joined(parts: Mapping[str, Prints]) -> Prints:
    """Several sets' fingerprints as one list, in the order of the mapping."""
    every = list(parts.values())
    return Prints(
        tuple(name for part in every for name in part.ids),
        tuple(digest for part in every for digest in part.sha256),
        tuple(look for part in every for look in part.look),
    )
