"""tdmrep.json: rules, patterns and hostile files, as tables of cases."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.tdmrep import MAX_RULES, parse_tdmrep

HOST = "https://example.org"

LOCATIONS: list[tuple[str, str, bool]] = [
    ("/", "/", True),
    ("/", "/a/b.jpg?x=1", True),
    ("/a/", "/a/b.jpg", True),
    ("/a/", "/a", False),
    ("/a", "/abc", True),  # a prefix, as in robots.txt
    ("/a", "/b/a", False),
    ("/A", "/a", False),
    ("/*.jpg", "/x/y.jpg", True),
    ("/*.jpg", "/x/y.jpg?size=1", True),
    ("/*.jpg$", "/x/y.jpg", True),
    ("/*.jpg$", "/x/y.jpg?size=1", False),
    ("/a$", "/a", True),
    ("/a$", "/ab", False),
    ("/a/*/c", "/a/b/b/c/d", True),
    ("/a/*/c", "/a/c", False),
    ("/a*a$", "/a", False),  # no character counts twice
    ("/a**b$", "/ab", True),
    ("*", "/a", True),
    ("*.png", "/a.png", True),
    ("images/", "/images/a.jpg", True),
    ("/*?size=", "/a.jpg?size=1", True),
    ("/path/foo-%24", "/path/foo-$", True),  # the example of the specification
    ("/path/foo-%24", "/path/foo-%24", True),
    ("/path/foo-$x", "/path/foo-$x", True),  # only the last "$" is an anchor
    ("/%7Euser/", "/~user/a.jpg", True),
    ("/~user/", "/%7euser/a.jpg", True),
    ("/ä/", "/%C3%A4/a.jpg", True),
    ("/%c3%a4/", "/ä/a.jpg", True),
    ("/a%2Fb", "/a/b", False),  # a reserved character is not its escape
    ("https://example.org/a/", "/a/b.jpg", True),
    ("https://example.org", "/a/b.jpg", True),
    ("https://other.example/", "/a/b.jpg", False),
]


@pytest.mark.parametrize(("location", "path", "matches"), LOCATIONS)
def test_locations(location: str, path: str, matches: bool) -> None:
    text = json.dumps([{"location": location, "tdm-reservation": 1}])
    assert (parse_tdmrep(text, HOST).reservation(path) is not None) is matches


def test_the_first_rule_that_matches_counts() -> None:
    rules = [
        {"location": "/open/", "tdm-reservation": 0},
        {"location": "/", "tdm-reservation": 1, "tdm-policy": "https://example.org/policy.json"},
        {"location": "/never/reached", "tdm-reservation": 0},
    ]
    found = parse_tdmrep(json.dumps(rules))
    assert found.reservation("/open/a.jpg") is None
    rule = found.reservation("/never/reached")
    assert rule is not None
    assert (rule.location, rule.policy) == ("/", "https://example.org/policy.json")


def test_the_example_of_the_specification() -> None:
    found = parse_tdmrep(
        """[{"location": "/directory-a/", "tdm-reservation": 1},
            {"location": "/directory-b/html/", "tdm-reservation": 1, "tdm-policy": "https://provider.com/policy.json"},
            {"location": "/directory-b/images/*.jpg", "tdm-reservation": 0}]"""
    )
    reserved = ["/directory-a/x.pdf", "/directory-b/html/p"]
    assert [path for path in reserved if found.reservation(path) is None] == []
    assert found.reservation("/directory-b/images/a.jpg") is None
    assert found.reservation("/") is None
    assert found.note == ""


@pytest.mark.parametrize(
    ("value", "reserved", "is_read"),
    [
        *[(1, True, True), (1.0, True, True), ("1", True, True), (" 1 ", True, True), (True, True, True)],
        *[(0, False, True), ("0", False, True), (False, False, True)],
        *[(2, False, False), (-1, False, False), ("yes", False, False), (None, False, False), ([1], False, False)],
    ],
)
def test_values_of_a_reservation(value: Any, reserved: bool, is_read: bool) -> None:
    found = parse_tdmrep(json.dumps([{"location": "/", "tdm-reservation": value}]))
    assert (found.reservation("/a") is not None) is reserved
    assert (found.note == "") is is_read


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("", "not JSON"),
        ("<html>not here</html>", "not JSON"),
        ("[" * 500_000, "not JSON"),
        ('{"a":' * 100_000, "not JSON"),
        ('<!-- [{"location": "/", "tdm-reservation": 1}] -->', "not JSON"),
        ('[{"location": "/", "tdm-reservation": 1', "not JSON"),
        ("[" + '{"location": 1},' * 5, "not JSON"),
        ('[{"location": "/", "tdm-reservation": ' + "9" * 5000 + "}]", "not JSON"),
        ("1", "not an array of rules"),
        ('"/"', "not an array of rules"),
        ("null", "not an array of rules"),
        ("[]", ""),
        ("[[[]], null, 1]", "3 of 3 rules not readable"),
        ('[{"location": 1, "tdm-reservation": 1}]', "1 of 1 rules not readable"),
        ('[{"location": "", "tdm-reservation": 1}]', "1 of 1 rules not readable"),
        ('[{"location": "/"}]', "1 of 1 rules not readable"),
        ('[{"tdm-reservation": 1}]', "1 of 1 rules not readable"),
        ('[{"location": "/' + "a" * 5000 + '", "tdm-reservation": 1}]', "1 of 1 rules not readable"),
        ('[{"location": "/", "tdm-reservation": NaN}]', "1 of 1 rules not readable"),
    ],
    ids=lambda value: value[:30],
)
def test_hostile_files_reserve_nothing_and_say_why(text: str, note: str) -> None:
    found = parse_tdmrep(text)
    assert found.reservation("/a.jpg") is None
    assert found.note == note


def test_rules_beside_a_broken_one_count() -> None:
    found = parse_tdmrep('[{"location": 7}, {"location": "/a", "tdm-reservation": 1}]')
    assert found.reservation("/a") is not None
    assert found.note == "1 of 2 rules not readable"


def test_what_owners_write_beside_the_letter() -> None:
    assert parse_tdmrep('\ufeff[{"location": "/", "tdm-reservation": 1}]').reserves  # a byte-order mark
    assert parse_tdmrep('{"location": "/", "tdm-reservation": 1}').reserves  # one rule without the array
    assert parse_tdmrep('[{"location": "/", "tdm-reservation": 1},]').reserves  # a comma too many
    found = parse_tdmrep('[{"location": "/a", "tdm-reservation": 1}, {"location": "/b", "tdm-res')  # a file cut short
    assert found.reservation("/a") is not None
    assert found.note == "not JSON, but for 1 rules"


def test_time_and_number_of_rules_are_bounded() -> None:
    star = "/" + "*a" * 1000
    found = parse_tdmrep(json.dumps([{"location": "/x", "tdm-reservation": 1}] * (MAX_RULES + 5)))
    assert len(found.rules) == MAX_RULES
    assert found.note == f"5 of {MAX_RULES + 5} rules not readable"
    started = time.perf_counter()
    one = parse_tdmrep(json.dumps([{"location": star + "b$", "tdm-reservation": 1}]))
    assert one.reservation("/" + "a" * 8000) is None
    assert time.perf_counter() - started < 0.5


def test_a_policy_is_evidence_and_kept_short() -> None:
    rule = parse_tdmrep(json.dumps([{"location": "/", "tdm-reservation": 1, "tdm-policy": "p\n" * 999}])).rules[0]
    assert rule.policy == "p" * 100
    assert parse_tdmrep('[{"location": "/", "tdm-reservation": 1, "tdm-policy": {}}]').rules[0].policy == ""


_NAMES = st.sampled_from(["location", "tdm-reservation", "tdm-policy"])
_RULES = st.lists(st.dictionaries(_NAMES, st.none() | st.booleans() | st.floats() | st.text(max_size=9) | st.just([])))


@settings(max_examples=25)
@given(_RULES, st.text(max_size=20))
def test_no_file_raises(content: Any, path: str) -> None:
    parse_tdmrep(json.dumps(content), HOST).reservation(path)
