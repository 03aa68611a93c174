"""What a caption of our own corpus says about a face, and the same caption untrue in one attribute alone.

The words are those of `sample_web` and their plain synonyms. A caption that says nothing of an attribute leaves it out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

HAIR_COLOURS = ("black", "brown", "blond", "red", "grey")
Claims = dict[str, Any]

_HAIR = re.compile(rf"\b({'|'.join(HAIR_COLOURS)})(?= hair)", re.I)
_NO_GLASSES = re.compile(r"\b(?:no|without) (?:eye)?glasses\b", re.I)
_GLASSES = re.compile(r"\b((?:eye)?glasses)\b", re.I)
_NO_BEARD = re.compile(r"\b(?:no beard|without a beard|a clean-shaven chin|clean-shaven)(?!\w)", re.I)
_BEARD = re.compile(r"\b(?:a )?(?:full )?beard\b", re.I)
_SMILING, _SERIOUS = re.compile(r"\bsmiling\b", re.I), re.compile(r"\bserious\b", re.I)


def read_claims(caption: str) -> Claims:
    """Attribute to what is said of it: eyeglasses, beard, smiling true or false, hair_colour a word."""
    found: Claims = {}
    if _GLASSES.search(caption):
        found["eyeglasses"] = not _NO_GLASSES.search(caption)
    if _NO_BEARD.search(caption):
        found["beard"] = False
    elif _BEARD.search(caption):
        found["beard"] = True
    if hair := _HAIR.search(caption):
        found["hair_colour"] = hair[1].lower()
    if _SMILING.search(caption) or _SERIOUS.search(caption):
        found["smiling"] = bool(_SMILING.search(caption))
    return found


def contradict(caption: str, attribute: str, rng: np.random.Generator) -> str | None:
    """The caption with what it says of one attribute turned into its opposite (hair: any other colour), or None."""
    said = read_claims(caption)
    if attribute not in said:
        return None
    if attribute == "hair_colour":
        others = [colour for colour in HAIR_COLOURS if colour != said[attribute]]
        return _HAIR.sub(others[int(rng.integers(len(others)))], caption)
    if attribute == "eyeglasses":
        return (
            _GLASSES.sub(r"no \1", caption)
            if said[attribute]
            else re.sub(r"\b(?:no|without) (?=(?:eye)?glasses)", "", caption, flags=re.I)
        )
    if attribute == "beard":
        return _BEARD.sub("no beard", caption) if said[attribute] else _NO_BEARD.sub("a beard", caption)
    return _SMILING.sub("serious", caption) if said[attribute] else _SERIOUS.sub("smiling", caption)


def true_share(claims: Mapping[str, Any], truth: Mapping[str, Any]) -> tuple[int, int]:
    """How many of the claims about known attributes are true, and how many there are."""
    known = {name: value for name, value in claims.items() if truth.get(name) is not None}
    return sum(truth[name] == value for name, value in known.items()), len(known)
