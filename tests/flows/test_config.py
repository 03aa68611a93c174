from __future__ import annotations

import pytest

from flows.steps.config import BuildConfig, ConfigError, from_dict
from gptface_core.faces.detector import DEFAULT_MIN_SCORE
from warehouse.errors import InputError
from warehouse.parameters import RuleParameters


def test_nested_rules_come_from_plain_data() -> None:
    config = from_dict(BuildConfig, {"source": "site:http://x", "rules": {"min_face_px": 96}})
    assert config.rules == RuleParameters(min_face_px=96)
    assert from_dict(BuildConfig, {"source": "site:http://x", "rules": {"face_px": 96}}) == config


def test_a_rule_that_is_none_is_named() -> None:
    with pytest.raises(InputError, match="no rule parameter 'min_face': choose from min_side_px"):
        from_dict(BuildConfig, {"source": "x", "rules": {"min_face": 1}})


def test_no_rule_asks_for_faces_that_no_detector_gives() -> None:
    # A lower score would change nothing, and somebody would think that it had.
    assert RuleParameters(min_score=DEFAULT_MIN_SCORE).min_score == RuleParameters().min_score
    with pytest.raises(InputError, match=r"min_score=0\.49: choose 0\.5 to 1 \(the detector gives no face of less\)"):
        RuleParameters(min_score=DEFAULT_MIN_SCORE - 0.01)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"source": "x", "colour": 1}, "unknown parameter 'colour'"),
        ({"source": "x", "part_urls": "many"}, "part_urls='many': must be of type int"),
        ({"source": "x", "part_urls": True}, "part_urls=True: must be of type int"),
        ({"source": "x", "part_urls": 0}, "part_urls=0: must be at least 1"),
        ({"source": "x", "detector": "foo"}, "choose from auto, insightface, cascade"),
    ],
)
def test_what_does_not_fit_is_named(data: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match="(?s)" + says.replace("(", r"\(")):
        from_dict(BuildConfig, data)


def test_settings_as_words() -> None:
    rules = RuleParameters.from_words(["face_px=32", "min_score=0.7", "one_face=false", "languages=en,de"])
    assert rules == RuleParameters(min_face_px=32, min_score=0.7, one_face=False, languages=("en", "de"))
    # Checked together: each beside the other's default would leave nothing to train on.
    assert RuleParameters.from_words(["val_share=0.96", "test_share=0.01"]).val_share == 0.96


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["min_face_px"], "'min_face_px' is not of the form name=value"),
        (["size=3"], "no rule parameter 'size': choose from min_side_px"),
        (["min_face_px=big"], "min_face_px='big': give a number"),
        (["face_px=0"], "min_face_px=0: choose 1 to 100000"),
        (["one_face=yes"], "one_face='yes': choose true or false"),
    ],
)
def test_settings_that_do_not_fit(words: list[str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        RuleParameters.from_words(words)
