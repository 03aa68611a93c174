"""Official portraits of members of the US Congress, with their table (`legislators.csv`): one picture per person.

All of them are training data; LFW keeps the people who are in both sets on the training side (`people_in`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gptface_core.datasets.faceset import FaceItem, FaceSet
from gptface_core.datasets.files import read_csv, require
from gptface_core.datasets.lfw import plain_name
from gptface_core.datasets.stores import FolderStore

SITE = "the congress-legislators project and the Congress's own portraits"
TABLE = "legislators.csv"
_FACTS = {"name": "full_name", "party": "party", "state": "state", "born": "birth_year", "chamber": "chamber"}
YOUNG_BELOW, OLD_FROM = 40, 65  # years at the photo


def load_congress(folder: Path) -> FaceSet:
    """No labels; groups gender and age, facts name, party, state, born, chamber, gender, age (years at the photo).

    Raises InputError where the table or the folder of pictures is missing.
    """
    rows = read_csv(require(folder / TABLE, "the congress portraits", SITE))
    require(folder / "images", "the congress portraits", SITE)
    return FaceSet("congress", tuple(_item(row) for row in rows), FolderStore(folder), framed=False)


def people_in(folder: Path) -> frozenset[str]:
    """`plain_name`s of everyone in the table, in each of its spellings: full, first and last, Wikipedia's."""
    rows = read_csv(require(folder / TABLE, "the congress portraits", SITE))
    spellings = [(row["full_name"], f"{row['first_name']} {row['last_name']}", row["wikipedia"]) for row in rows]
    return frozenset(plain_name(name) for names in spellings for name in names if name)


def _item(row: Mapping[str, str]) -> FaceItem:
    gender = {"M": "male", "F": "female"}.get(row["gender"])
    facts = {name: row[column] for name, column in _FACTS.items() if row[column]}
    groups = {}
    if gender:
        facts["gender"] = groups["gender"] = gender
    if row["age_at_photo"]:
        years = int(row["age_at_photo"])
        facts["age"] = str(years)
        groups["age"] = "young" if years < YOUNG_BELOW else "old" if years >= OLD_FROM else "middle-aged"
    return FaceItem(row["bioguide"], row["file"], "train", person=row["full_name"], groups=groups, facts=facts)
