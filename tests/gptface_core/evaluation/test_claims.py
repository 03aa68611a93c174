from __future__ import annotations

import numpy as np
import pytest

from gptface_core.evaluation.claims import contradict, read_claims, true_share
from gptface_core.evaluation.labels import ATTRIBUTES
from sample_web.captions import contradiction, sample_wording, true_claim, write
from sample_web.render import sample_attributes


@pytest.mark.parametrize("untrue", [False, True])
def test_claims_are_read_as_the_small_web_writes_them(untrue: bool) -> None:
    for number in range(400):
        attributes = sample_attributes(number, 3)
        wording = sample_wording(attributes, number)
        claim = true_claim(attributes, wording)
        claim = contradiction(claim, number) if untrue else claim
        said = {name: value for name, value in vars(claim).items() if value is not None and name != "age"}
        assert read_claims(write(claim, wording)) == said


def test_a_contradiction_in_one_attribute_leaves_the_others() -> None:
    rng = np.random.default_rng(0)
    for number in range(200):
        attributes = sample_attributes(number, 4)
        wording = sample_wording(attributes, number)
        caption = write(true_claim(attributes, wording), wording)
        before = read_claims(caption)
        for name in ATTRIBUTES:
            other = contradict(caption, name, rng)
            if name not in before:
                assert other is None
                continue
            assert other is not None
            after = read_claims(other)
            assert after.pop(name) != before[name]
            assert after == {key: value for key, value in before.items() if key != name}, other


def test_claims_are_counted_against_what_is_known() -> None:
    claims = read_claims("A serious person with red hair, no glasses and a full beard")
    assert claims == {"smiling": False, "hair_colour": "red", "eyeglasses": False, "beard": True}
    truth = {"smiling": False, "hair_colour": "red", "eyeglasses": True, "beard": None}
    assert true_share(claims, truth) == (2, 3)
    assert read_claims("IMG_1234.jpg, the barbershop at the harbour") == {}
