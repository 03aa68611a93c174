from __future__ import annotations

import numpy as np
import pytest

from gptface_core.claims import WORDS, claim_codes, opposed, read_claims
from sample_web.captions import sample_wording, true_claim, write
from sample_web.render import sample_attributes


@pytest.mark.parametrize(
    ("caption", "claims"),
    [
        ("A bearded man without glasses", {"beard": True, "gender": "male", "eyeglasses": False}),
        ("Elderly lady, silver-haired, laughing", {"gender": "female", "age": "old", "hair_colour": "grey"}),
        ("a clean-shaven young woman in sunglasses", {"beard": False, "age": "young", "eyeglasses": True}),
        ("The brunette was not smiling", {"hair_colour": "brown", "smiling": False}),
        ("Manchester: the barbershop, Glassesmith & Sons, the older harbour", {}),
    ],
)
def test_plain_words_are_read_and_parts_of_other_words_are_not(caption: str, claims: dict[str, object]) -> None:
    found = read_claims(caption)
    assert {name: found.get(name) for name in claims} == claims
    if not claims:
        assert found == {}


def test_an_opposed_caption_contradicts_in_one_attribute_and_says_the_same_otherwise() -> None:
    captions = ["smiling, glasses, no beard", "serious, glasses, no beard", "serious, no glasses, beard", "smiling"]
    codes = claim_codes(captions)
    found = opposed(codes[:1], codes, np.random.default_rng(0))
    assert found.tolist() == [1], "the third contradicts in three, the last in nothing"
    assert opposed(codes[3:], codes[[0, 3]], np.random.default_rng(0)).tolist() == [-1], "nobody contradicts it"


def test_attributes_have_equal_shares_however_rare_the_captions_that_contradict_in_them() -> None:
    pool = claim_codes(["serious, beard"] * 99 + ["smiling, no beard"])
    rows = np.repeat(claim_codes(["smiling, beard"]), 400, axis=0)
    found = opposed(rows, pool, np.random.default_rng(0))
    assert abs(float((found == 99).mean()) - 0.5) < 0.1


def test_the_small_web_s_captions_have_opposed_ones_in_every_attribute_that_they_name() -> None:
    codes = claim_codes([_caption(number) for number in range(600)])
    found = opposed(codes[:300], codes[300:], np.random.default_rng(0))
    assert (found >= 0).mean() > 0.9
    asked = np.flatnonzero(found >= 0)
    own, other = codes[asked], codes[300 + found[asked]]
    clash = (own >= 0) & (other >= 0) & (own != other)
    assert (clash.sum(1) == 1).all()
    named = dict(zip(WORDS, clash.sum(0).tolist(), strict=True))
    assert min(named[name] for name in ("eyeglasses", "beard", "hair_colour", "smiling")) > 30, named


def _caption(number: int) -> str:
    attributes = sample_attributes(number, 3)
    wording = sample_wording(attributes, number)
    return write(true_claim(attributes, wording), wording)
