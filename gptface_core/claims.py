"""What a caption says about a face, by a short list of plain English words, and captions that contradict one another.

A random caption of another face differs in so much that the first thing the model finds suffices to refuse it; what it
has not found yet, it never learns to look for. A caption that contradicts the true one in a single attribute leaves
nothing else to go by. Such captions are taken from other faces and never made by rewriting: a made one could be told
from a real one by its wording alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

POOL = 256  # rows among which contradicting captions are looked for, drawn anew for each batch
Claims = dict[str, Any]  # attribute -> true, false or a word
Codes = npt.NDArray[np.int8]


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{pattern})(?!\w)", re.I)


# Attribute -> values with their words; the first that is found holds.
WORDS: dict[str, tuple[tuple[bool | str, re.Pattern[str]], ...]] = {
    "eyeglasses": (
        (False, _words(r"(?:no|without) (?:eye|sun)?glasses")),
        (True, _words(r"(?:eye|sun)?glasses|spectacles")),
    ),
    "beard": (
        (False, _words(r"no beard|without a beard|clean[- ]shaven|beardless")),
        (True, _words(r"beard|bearded|goatee")),
    ),
    "hair_colour": (
        ("black", _words(r"black[- ]hair(?:ed)?")),
        ("brown", _words(r"brown[- ]hair(?:ed)?|brunette")),
        ("blond", _words(r"blonde?[- ]hair(?:ed)?|blonde?")),
        ("red", _words(r"(?:red|ginger)[- ]hair(?:ed)?|redhead")),
        ("grey", _words(r"(?:gr[ae]y|white|silver)[- ]hair(?:ed)?")),
    ),
    "smiling": (
        (False, _words(r"(?:un|not )smiling|serious|frowning|stern")),
        (True, _words(r"smiling|smiles?|grinning|laughing")),
    ),
    "gender": (
        ("female", _words(r"wom[ae]n|female|lady|girl|actress|she|her")),
        ("male", _words(r"m[ae]n|male|gentleman|boy|he|his")),
    ),
    "age": (
        ("middle-aged", _words("middle[- ]aged")),
        ("young", _words("young|youthful|teenage")),
        ("old", _words("old|elderly|senior")),
    ),
}


def read_claims(caption: str) -> Claims:
    """Attribute to what is said of it; a caption that says nothing of an attribute leaves it out."""
    found: Claims = {}
    for attribute, values in WORDS.items():
        for value, words in values:
            if words.search(caption):
                found[attribute] = value
                break
    return found


def claim_codes(captions: Sequence[str]) -> Codes:
    """(R, attributes): which of an attribute's values each caption claims, -1 for none."""
    codes = np.full((len(captions), len(WORDS)), -1, np.int8)
    for row, caption in enumerate(captions):
        claims = read_claims(caption)
        for column, (attribute, values) in enumerate(WORDS.items()):
            if attribute in claims:
                codes[row, column] = [value for value, _ in values].index(claims[attribute])
    return codes


def opposed(rows: Codes, pool: Codes, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """For each of `rows` (B, attributes) one of `pool` that contradicts it in a single attribute, -1 where none does.

    The attribute is drawn first, so that a rare one has its share; then the caption that else says most of the same.
    """
    chosen = np.full(len(rows), -1, np.int64)
    for number, own in enumerate(rows):
        said = (own >= 0) & (pool >= 0)
        clash = said & (own != pool)
        once = clash.sum(1) == 1
        attributes = np.flatnonzero(clash[once].any(0))
        if not len(attributes):
            continue
        fits = once & clash[:, attributes[rng.integers(len(attributes))]]
        alike = np.where(fits, (said & ~clash).sum(1) - ((pool >= 0) & (own < 0)).sum(1), -len(WORDS) - 1)
        best = np.flatnonzero(alike == alike.max())
        chosen[number] = best[rng.integers(len(best))]
    return chosen
