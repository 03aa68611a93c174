from __future__ import annotations

import pytest

from flows.steps.config import BuildConfig, ConfigError, from_dict, parse_settings
from warehouse.rules import RuleParameters


def test_nested_rules_come_from_plain_data() -> None:
    config = from_dict(BuildConfig, {"source": "site:http://x", "rules": {"min_face_px": 96}})
    assert config.rules == RuleParameters(min_face_px=96)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"source": "x", "colour": 1}, "unknown parameter 'colour'"),
        ({"source": "x", "rules": {"min_face": 1}}, "unknown parameter 'min_face'"),
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
    rules = parse_settings(RuleParameters, ["min_face_px=32", "min_score=0.7", "one_face=false"])
    assert rules == RuleParameters(min_face_px=32, min_score=0.7, one_face=False)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["min_face_px"], "not of the form name=value"),
        (["size=3"], "unknown parameter 'size'"),
        (["min_face_px=big"], "not a number"),
        (["one_face=yes"], "choose true or false"),
    ],
)
def test_settings_that_do_not_fit(words: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_settings(RuleParameters, words)
