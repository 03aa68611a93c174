"""Labeled Faces in the Wild (Huang et al. 2007), deep-funneled, with the attribute table of Kumar et al. (2009).

The attributes are a classifier's outputs, binarised: 1 is a confident positive, 0 is not a clean negative. So each
attribute here opposes two columns: present where A = 1 and B = 0, absent where A = 0 and B = 1, else unknown.

Split by person: a hash of the name puts 70 % of the people into train, 10 % into val, 20 % into test. People who are
also in `congress`, by any spelling of their name there, all belong to train: the portraits are training data.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Collection, Mapping
from pathlib import Path

from gptface_core.datasets.faceset import FaceItem, FaceSet, Label
from gptface_core.datasets.files import check_counts, read_csv, require
from gptface_core.datasets.stores import ZipStore

SITE = "LFW's site (University of Massachusetts, vis-www.cs.umass.edu/lfw)"
COUNT = 13_233
ARCHIVE, FOLDER = "lfw-deepfunneled.zip", "lfw-deepfunneled"
# Attribute -> columns that speak against it (any of them).
OPPOSED: Mapping[str, tuple[str, ...]] = {
    "Male": ("Female",),
    "Smiling": ("Frowning",),
    "Eyeglasses": ("No Eyewear",),
    "Mouth Wide Open": ("Mouth Closed",),
    "Senior": ("Youth",),
    "Blond Hair": ("Black Hair",),
    "No Beard": ("Goatee", "5 o' Clock Shadow"),
    "Sunglasses": ("No Eyewear",),
}
VAL_SHARE, TEST_SHARE = 0.1, 0.2


def load_lfw(folder: Path, training_people: Collection[str] = (), *, whole: bool = True) -> FaceSet:
    """Labels: the attributes of OPPOSED. Groups: gender (name lists), age (Senior or Youth). Person: the name.

    Args:
        folder: holds lfw-deepfunneled.zip, lfw_images.csv, lfw_attributes_binary74.csv.gz.
        training_people: `plain_name`s that must lie in train (those of `congress`).
        whole: check the official number of pictures.

    Raises:
        InputError: a file is missing, unreadable or not whole.
    """
    archive = require(folder / ARCHIVE, "LFW", SITE)
    rows = read_csv(require(folder / "lfw_images.csv", "LFW", SITE))
    table = read_csv(require(folder / "lfw_attributes_binary74.csv.gz", "LFW's attributes", SITE))
    if whole:
        check_counts({"all": len(rows)}, {"all": COUNT}, "LFW", folder)
    attributes = {row["file"]: row for row in table}
    forced = frozenset(training_people)
    items = tuple(_item(row, attributes.get(row["file"]), forced) for row in rows)
    return FaceSet("lfw", items, ZipStore([archive]), framed=False, attributes=tuple(OPPOSED))


def _item(row: Mapping[str, str], table: Mapping[str, str] | None, forced: frozenset[str]) -> FaceItem:
    person = row["person"]
    labels = {name: opposed(table, name) for name in OPPOSED}
    groups = {}
    if row["gender"] in ("M", "F"):
        groups["gender"] = {"M": "male", "F": "female"}[row["gender"]]
    if labels["Senior"] is not None:
        groups["age"] = "senior" if labels["Senior"] else "youth"
    return FaceItem(
        id=row["file"].removesuffix(".jpg"),
        file=f"{FOLDER}/{row['file']}",
        split="train" if plain_name(person) in forced else split_of(person),
        labels=labels,
        person=person,
        groups=groups,
        facts={"name": person, **({"gender": groups["gender"]} if "gender" in groups else {})},
    )


def opposed(table: Mapping[str, str] | None, name: str) -> Label:
    """An attribute by its column and those that oppose it; None where they do not decide, or there is no row."""
    if table is None:
        return None
    says, against = table[name] == "1", any(table[column] == "1" for column in OPPOSED[name])
    return says if says != against else None


def split_of(person: str) -> str:
    """The split of a person: the same for all their pictures, whoever else is in the set."""
    share = int.from_bytes(hashlib.blake2b(f"lfw\0{person}".encode(), digest_size=8).digest(), "big") / 2**64
    if share < TEST_SHARE:
        return "test"
    return "val" if share < TEST_SHARE + VAL_SHARE else "train"


def plain_name(name: str) -> str:
    """Lower-case Latin letters and single spaces, without accents, brackets and points: to compare two lists."""
    bare = unicodedata.normalize("NFKD", re.sub(r"\(.*?\)", "", name)).lower()
    return " ".join(re.findall(r"[a-z]+", "".join(c for c in bare if not unicodedata.combining(c))))
