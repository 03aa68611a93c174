"""Corpora from labelled sets: nothing held out gets in, captions say what they should, the same every time."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gptface_core.datasets import FaceItem, FaceSet
from gptface_core.datasets.captions import TELLING_WORDS, drawn_caption, make_caption, telling_words
from gptface_core.datasets.corpus import compose, counts, select, swap_captions
from gptface_core.datasets.fer2013 import CLASSES, load_fer2013
from gptface_core.datasets.lfw import load_lfw
from gptface_core.datasets.twins import BLANK, fingerprints, leaks, look_of
from gptface_core.errors import InputError
from tests.gptface_core.small_sets import picture, write_fer2013, write_lfw


@pytest.fixture(scope="module")
def fer(tmp_path_factory: pytest.TempPathFactory) -> FaceSet:
    """300 training pictures, of which 3 are also test pictures."""
    folder = tmp_path_factory.mktemp("sets") / "fer2013"
    counted = {"Training": 300, "PublicTest": 14, "PrivateTest": 14}
    return load_fer2013(write_fer2013(folder, counted, twins=3), whole=False)


@pytest.fixture(scope="module")
def lfw(tmp_path_factory: pytest.TempPathFactory) -> FaceSet:
    folder = tmp_path_factory.mktemp("sets") / "lfw"
    people = {f"{first} {last}": 2 for first in ("Ann", "Bob", "Cy", "Di") for last in ("Ash", "Birch", "Young")}
    return replace(load_lfw(write_lfw(folder, people), whole=False), framed=True)


def test_a_test_picture_in_training_is_reported_as_a_leak(fer: FaceSet) -> None:
    found = leaks(fingerprints(fer.part("train")), fingerprints(fer.part("test")))
    assert found == {
        f"fer2013/PrivateTest/{CLASSES[n]}/PrivateTest_{n}": f"fer2013/Training/{CLASSES[n]}/Training_{n}"
        for n in range(3)
    }
    assert leaks(fingerprints(fer.part("train")), fingerprints(fer.part("val"))) == {}


def test_a_twin_is_found_though_its_bytes_differ_and_a_blank_has_no_twin() -> None:
    data = picture(1, 100)
    with Image.open(io.BytesIO(data)) as image:
        again = io.BytesIO()
        image.resize((90, 90)).save(again, "JPEG", quality=70)
    assert bin(int(look_of(data), 16) ^ int(look_of(again.getvalue()), 16)).count("1") <= 2
    assert bin(int(look_of(data), 16) ^ int(look_of(picture(2, 100)), 16)).count("1") > 10
    blank = io.BytesIO()
    Image.new("L", (48, 48), 7).save(blank, "JPEG")
    assert look_of(blank.getvalue()) == BLANK == look_of(b"no picture")


def test_held_out_pictures_never_get_into_a_corpus(fer: FaceSet, lfw: FaceSet, tmp_path: Path) -> None:
    chosen = select([fer, lfw], tmp_path)
    assert chosen.dropped["fer2013"] == {"same_as_held_out": 3, "blank": 0}
    rows = compose(chosen.parts, "labels", chosen.cluster)
    assert {row.item.split for row in rows} == {"train"} and len({row.row_id for row in rows}) == len(rows)
    assert not {row.item.id for row in rows} & {f"Training/{CLASSES[n]}/Training_{n}" for n in range(3)}
    assert sum(counts(rows)["fer2013"].values()) == 297
    assert select([fer, lfw], tmp_path).dropped == chosen.dropped, "from the notes as from the pictures"


def test_the_same_corpus_every_time_and_a_quarter_of_its_captions_untrue(fer: FaceSet) -> None:
    chosen = select([fer])
    rows = compose(chosen.parts, "labels", chosen.cluster)
    again = compose([replace(part, items=part.items[::-1]) for part in chosen.parts], "labels", chosen.cluster)
    assert [(r.row_id, r.split, r.caption) for r in rows] == [(r.row_id, r.split, r.caption) for r in again]
    train = [row for row in rows if row.split == "train"]
    assert sum(row.untrue for row in train) == round(0.25 * len(train))
    assert all(not row.untrue for row in rows if row.split != "train")
    true = {row.row_id: row.caption for row in compose(chosen.parts, "labels", chosen.cluster, untrue_share=0)}
    changed = [row for row in train if row.caption != true[row.row_id]]
    assert all(row.untrue for row in changed) and len(changed) > 0.8 * sum(row.untrue for row in train)
    assert sorted(row.caption for row in rows) == sorted(true.values()), "captions only change places"


def test_one_caption_has_no_other_to_change_with(fer: FaceSet) -> None:
    chosen = select([fer])
    row = compose(chosen.parts, "labels", chosen.cluster)[0]
    assert swap_captions([row], 1.0) == [row]


def test_look_alikes_share_a_split_of_the_shards(fer: FaceSet) -> None:
    rows = compose([fer.part("train")], "labels", dict.fromkeys((f"fer2013/{i.id}" for i in fer.items), "one look"))
    assert len({row.split for row in rows}) == 1


def test_captions_say_what_the_labels_say(fer: FaceSet, lfw: FaceSet) -> None:
    said = {make_caption(item, "labels", item.id) for item in fer.items if item.labels["expression"] == "happy"}
    assert all({"happy", "smiling"} & set(caption.split()) for caption in said) and len(said) > 3
    text = [(item, make_caption(item, "labels", f"{item.id} {n}")) for item in lfw.items for n in range(20)]
    for item, caption in text:
        words = caption.lower().replace(",", " ").replace(":", " ").split()
        smiling, senior = item.labels["Smiling"], item.labels["Senior"]
        assert not ("smiling" in words and smiling is not True) and not ("serious" in words and smiling is not False)
        assert not ("elderly" in words and senior is not True)
        assert not ("woman" in words and item.groups["gender"] != "female")
        assert not ("man" in words and item.groups["gender"] != "male")
        assert "a old" not in caption and "a elderly" not in caption
    assert any("eyeglasses" in caption for _, caption in text) and any("no beard" in caption for _, caption in text)
    assert any(str(item.person) in caption for item, caption in text)


def test_neutral_captions_hold_no_word_of_a_class_or_an_attribute(fer: FaceSet, lfw: FaceSet) -> None:
    for faces in (fer, lfw):
        for item in faces.items:
            caption = make_caption(item, "neutral", item.id)
            assert telling_words(caption) == [] and caption
    young = [item for item in lfw.items if "Young" in str(item.person)]
    assert young and all("young" in telling_words(str(item.person)) for item in young), "a name can be such a word"
    named = {make_caption(item, "neutral", item.id) for item in lfw.items if item not in young}
    assert any("Ann Ash" in caption for caption in named)
    assert telling_words(drawn_caption("x")) == []
    every = [*CLASSES, "smiling", "beard", "eyeglasses", "sunglasses", "senior", "male", "woman", "blond", "mouth"]
    assert set(every) - {"disgust", "angry"} <= TELLING_WORDS and {"disgust", "angry"} <= TELLING_WORDS


def test_a_table_makes_captions_without_saying_gender_or_age() -> None:
    facts = {"name": "Ann Ash", "party": "Independent", "state": "OH", "born": "1960", "chamber": "sen"}
    item = FaceItem("A", "a.jpg", "train", facts={**facts, "gender": "female", "age": "70"}, groups={"age": "old"})
    neutral = {make_caption(item, "neutral", str(n)) for n in range(50)}
    assert len(neutral) == 5 and all(not telling_words(caption) and "Ann Ash" in caption for caption in neutral)
    told = [make_caption(item, "labels", str(n)) for n in range(50)]
    assert any("woman" in caption for caption in told) and any("old" in caption.split() for caption in told)


def test_an_unknown_style_is_refused() -> None:
    with pytest.raises(InputError, match="no captions 'poetic': choose labels or neutral"):
        make_caption(FaceItem("A", "a.jpg", "train"), "poetic", "A")


def test_blank_pictures_are_left_out(fer: FaceSet) -> None:
    class Blank:
        def read(self, file: str) -> bytes:
            buffer = io.BytesIO()
            Image.fromarray(np.full((48, 48), len(file), np.uint8)).save(buffer, "JPEG")
            return buffer.getvalue()

    chosen = select([replace(fer.part("train"), store=Blank())])
    assert chosen.dropped["fer2013"] == {"same_as_held_out": 0, "blank": 300} and len(chosen.parts[0]) == 0
