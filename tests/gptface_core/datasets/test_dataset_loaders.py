"""Loaders of the sets that the project itself uses: official splits and counts, labels by opposed columns, nothing
silently missing. The real ones are read where they are at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gptface_core.datasets import EXPRESSION, load_faces
from gptface_core.datasets.congress import load_congress, people_in
from gptface_core.datasets.fer2013 import CLASSES, load_fer2013
from gptface_core.datasets.lfw import OPPOSED, load_lfw, opposed, plain_name, split_of
from gptface_core.errors import InputError
from tests.gptface_core.small_sets import write_congress, write_fer2013, write_lfw

PEOPLE = {f"Person {letter}{other}": 1 + (ord(letter) + ord(other)) % 3 for letter in "ABCDEFG" for other in "HIJKLM"}


def test_fer2013_has_the_official_split_and_classes(tmp_path: Path) -> None:
    faces = load_fer2013(
        write_fer2013(tmp_path / "fer2013", {"Training": 21, "PublicTest": 7, "PrivateTest": 7}), whole=False
    )
    assert faces.counts() == {"train": 21, "val": 7, "test": 7}
    assert set(faces.part("val").class_numbers()) == set(range(7)) and faces.classes == CLASSES
    first = faces.part("test").items[0]
    assert first.id == "PrivateTest/angry/PrivateTest_0" and first.labels[EXPRESSION] == "angry"
    assert faces.picture(first, 64).shape == (64, 64, 3), "48 px pictures are framed as they are"


def test_a_set_of_another_size_than_the_official_one_is_refused(tmp_path: Path) -> None:
    folder = write_fer2013(tmp_path / "fer2013", {"Training": 7, "PublicTest": 7, "PrivateTest": 7})
    with pytest.raises(InputError, match=r"not the official one: train has 7 of 28,709, val has 7 of 3,589") as error:
        load_faces("fer2013", tmp_path)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)


@pytest.mark.parametrize("name", ["lfw", "fer2013", "congress"])
def test_a_missing_set_is_one_line_with_whose_site_has_it_and_where_it_belongs(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"get the data set from .+ and unpack it so that .+ exists") as error:
        load_faces(name, tmp_path)
    assert "\n" not in str(error.value) and str(tmp_path / name) in str(error.value)
    assert list(tmp_path.iterdir()) == [], "nothing was fetched or made up"


def test_an_unknown_set_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no data set 'imagenet': choose from lfw, fer2013, congress"):
        load_faces("imagenet", tmp_path)


def test_lfw_is_split_by_person_and_those_in_congress_train(tmp_path: Path) -> None:
    write_lfw(tmp_path / "lfw", PEOPLE)
    in_test = next(person for person in PEOPLE if split_of(person) == "test")
    write_congress(tmp_path / "congress", [in_test.upper(), "Somebody Else"])
    free = load_lfw(tmp_path / "lfw", whole=False)
    held = load_lfw(tmp_path / "lfw", people_in(tmp_path / "congress"), whole=False)
    for faces in (free, held):
        homes: dict[str, set[str]] = {}
        for item in faces.items:
            homes.setdefault(str(item.person), set()).add(item.split)
        assert all(len(splits) == 1 for splits in homes.values()), "a person lies in one split"
        assert min(faces.counts().values()) > 0
    assert {item.split for item in free.items if item.person == in_test} == {"test"}
    assert {item.split for item in held.items if item.person == in_test} == {"train"}
    others = [[i.split for i in faces.items if i.person != in_test] for faces in (free, held)]
    assert others[0] == others[1], "nobody else moved"


def test_opposed_columns_decide_or_leave_it_open() -> None:
    table = dict.fromkeys({name for pair in OPPOSED.items() for name in (pair[0], *pair[1])}, "0")
    assert opposed({**table, "Smiling": "1"}, "Smiling") is True
    assert opposed({**table, "Frowning": "1"}, "Smiling") is False
    assert opposed(table, "Smiling") is None, "0 is no clean negative"
    assert opposed({**table, "Smiling": "1", "Frowning": "1"}, "Smiling") is None
    assert opposed({**table, "5 o' Clock Shadow": "1"}, "No Beard") is False
    assert opposed(None, "Smiling") is None


def test_unknown_labels_are_nan_and_never_negative(tmp_path: Path) -> None:
    faces = load_lfw(write_lfw(tmp_path / "lfw", {"One Person": 2, "Other Person": 2}), whole=False)
    table = faces.attribute_table()
    assert table.shape == (4, len(OPPOSED)) and np.isnan(table[-1]).all(), "the last picture has no row in the table"
    assert table[1, list(OPPOSED).index("Smiling")] == 1 and table[0, list(OPPOSED).index("Smiling")] == 0
    assert np.isnan(table[1, list(OPPOSED).index("Sunglasses")])


def test_congress_knows_ages_and_spellings(tmp_path: Path) -> None:
    folder = write_congress(tmp_path / "congress", ["Ána P. Example (politician)", "Ben Other"])
    faces = load_congress(folder)
    assert [item.groups.get("age") for item in faces.items] == [None, "middle-aged"]
    assert people_in(folder) == {"ana p example", "ben other"} and faces.counts()["train"] == 2
    assert plain_name("Ána  P. Example") == "ana p example"


def test_a_picture_that_is_gone_is_one_clear_line(tmp_path: Path) -> None:
    folder = write_congress(tmp_path / "congress", ["Ann Example"])
    faces = load_congress(folder)
    (folder / faces.items[0].file).unlink()
    with pytest.raises(InputError, match=r"congress lacks the picture images/A000000\.jpg"):
        faces.read(faces.items[0])
    with pytest.raises(InputError, match="not framed: align the set first"):
        faces.picture(faces.items[0], 64)


@pytest.mark.realdata
def test_the_real_sets_have_the_counts_of_their_descriptions(test_data: Path) -> None:
    fer, congress, lfw = (load_faces(name, test_data) for name in ("fer2013", "congress", "lfw"))
    assert fer.counts() == {"train": 28_709, "val": 3_589, "test": 3_589}
    assert len(congress) == 539 and sum(item.groups.get("gender") == "female" for item in congress.items) == 155
    assert sum("age" in item.groups for item in congress.items) == 492
    assert len(lfw) == 13_233 and len(set(lfw.people())) == 5_749
    assert sum(all(v is None for v in item.labels.values()) for item in lfw.items) >= 90
    people = people_in(test_data / "congress")
    both = {str(item.person) for item in lfw.items if plain_name(str(item.person)) in people}
    assert 20 <= len(both) <= 21 and {i.split for i in lfw.items if i.person in both} == {"train"}
    shares = {split: count / len(lfw) for split, count in lfw.counts().items()}
    assert 0.15 < shares["test"] < 0.25 and 0.05 < shares["val"] < 0.15
    assert all(lfw.read(lfw.items[place])[:2] == b"\xff\xd8" for place in (0, 6000, 13_232))
