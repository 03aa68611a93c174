"""Word lists as SQL: what counts as speaking of minors, nudity, persons, and what looks like a name."""

from __future__ import annotations

import duckdb
import pytest

from warehouse import words


def ask(sql: str) -> object:
    row = duckdb.sql(f"SELECT {sql}").fetchone()
    assert row is not None
    return row[0]


def text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


@pytest.mark.parametrize(
    "caption",
    [
        "A child with a red cap",
        "Two KIDS, smiling",
        "a 12-year-old chess player",
        "Boy, aged 9, at home",
        "My baby daughter",
        "Ein Mädchen mit Zöpfen",
        "une fillette blonde",
        "un niño sonriente",
        "公園の子供",
        "улыбающийся малыш",
        "school children",
    ],
)
def test_speaks_of_a_minor(caption: str) -> None:
    assert ask(words.says_minor_sql(text(caption))) is True


@pytest.mark.parametrize(
    "caption",
    [
        "A kind old man",
        "She is 21 years old",
        "aged 64",
        "Kidman at the premiere",
        "a boycott",
        "Babylon",
        "118 years old",
    ],
)
def test_does_not_speak_of_a_minor(caption: str) -> None:
    assert ask(words.says_minor_sql(text(caption))) is False


@pytest.mark.parametrize(
    ("caption", "expected"),
    [("nude portrait", True), ("NSFW!", True), ("Essex county fair", False), ("a nudge", False), ("Dickens", False)],
)
def test_speaks_of_nudity(caption: str, expected: bool) -> None:
    assert ask(words.says_nsfw_sql(text(caption))) is expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("https://bestporn.example", True),
        ("http://sex.example.org:8080", True),
        ("https://photos.example.xxx", True),
        ("https://essex.gov.example", False),
        ("https://adulteducation.example", True),  # the list leans to leaving out
        ("https://middlesex.example", False),
    ],
)
def test_names_of_hosts_for_adults(host: str, expected: bool) -> None:
    assert ask(words.is_nsfw_host_sql(text(host))) is expected


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A smiling woman", True),
        ("Portrait in blue", True),
        ("Anna Maria Schmidt, 1974", True),
        ("A cup of coffee on a table", False),
        ("Opening hours from Monday to Friday", False),
    ],
)
def test_mentions_a_person(caption: str, expected: bool) -> None:
    assert ask(words.names_person_sql(text(caption))) is expected


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("Ada Lovelace in 1840", "a person in 1840"),
        ("Photo of Ludwig van Beethoven, smiling", "Photo of a person, smiling"),
        ("Senator Jane Q. Public speaks", "a person speaks"),
        ("Dr. Curie with glasses", "a person with glasses"),
        ("A smiling woman with glasses", "A smiling woman with glasses"),
        ("Zoë O’Brien-Müller", "a person"),
    ],
)
def test_names_are_replaced(caption: str, expected: str) -> None:
    assert ask(words.without_names_sql(text(caption))) == expected
