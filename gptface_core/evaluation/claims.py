"""What a caption of our own corpus says about a face, and the same caption untrue in one attribute alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from gptface_core import claims
from gptface_core.claims import Claims
from gptface_core.evaluation.labels import ATTRIBUTES

HAIR_COLOURS = ("black", "brown", "blond", "red", "grey")

_HAIR = re.compile(rf"\b({'|'.join(HAIR_COLOURS)})(?= hair)", re.I)
_NO_GLASSES = re.compile(r"\b(?:no|without) (?:eye)?glasses\b", re.I)
_GLASSES = re.compile(r"\b((?:eye)?glasses)\b", re.I)
_NO_BEARD = re.compile(r"\b(?:no beard|without a beard|a clean-shaven chin|clean-shaven)(?!\w)", re.I)
_BEARD = re.compile(r"\b(?:a )?(?:full )?beard\b", re.I)
_SMILING, _SERIOUS = re.compile(r"\bsmiling\b", re.I), re.compile(r"\bserious\b", re.I)


def read_claims(caption: str) -> Claims:
    """What a caption says of the labelled attributes: eyeglasses, beard, smiling true or false, hair_colour a word."""
    return {name: value for name, value in claims.read_claims(caption).items() if name in ATTRIBUTES}


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


def true_share(said: Mapping[str, Any], truth: Mapping[str, Any]) -> tuple[int, int]:
    """How many of the claims about known attributes are true, and how many there are."""
    known = {name: value for name, value in said.items() if truth.get(name) is not None}
    return sum(truth[name] == value for name, value in known.items()), len(known)
