"""Captions: what is removed, what stays, what counts as boilerplate and as words; which of several is chosen."""

from __future__ import annotations

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warehouse.captions import boilerplate_sql, candidates_select, choose_captions, clean_sql, words_sql

_CON = duckdb.connect()


def evaluated(sql: str, text: str) -> object:
    row = _CON.execute(f"SELECT {sql} FROM (SELECT ?::VARCHAR AS t)", [text]).fetchone()
    assert row is not None
    return row[0]


def clean(text: str) -> str:
    return str(evaluated(clean_sql("t"), text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ana, write to ana.maria+x@mail.example.org today", "Ana, write to today"),
        ("Mail: mailto:bob@example.com", "Mail"),
        ("bob (at) example (dot) com has a beard", "has a beard"),
        ("josé.núñez@correo.example sonríe", "sonríe"),
        ("Call +1 (202) 555-0143 for Jim", "for Jim"),
        ("Jim, tel. 030 1234567, in his garden", "Jim, in his garden"),
        ("Jim 202-555-0143 smiles", "Jim smiles"),
        ("Jim (202) 555-0143 smiles", "Jim smiles"),
        ("Marie 01 23 45 67 89 à Paris", "Marie à Paris"),
        ("Marie +33 1 23 45 67 89 à Paris", "Marie à Paris"),
        ("Ring 0044 20 7946 0958 now", "Ring now"),
        ("Order 12345678901 of a woman", "Order of a woman"),
        ("See https://example.com/a?b=c or www.example.org for her", "See or for her"),
        ("Her hairhttps://example.com/a is brown", "Her hair is brown"),
        ("  two\u00a0 spaces\t and\nlines ", "two spaces and lines"),
        ("zero\u200bwidth and \u202eoverride \x1b[31mred", "zerowidth and override [31mred"),
        ("e\u0301te\u0301", "été"),
    ],
)
def test_personal_data_and_noise_are_removed(text: str, expected: str) -> None:
    assert clean(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Ana Lee (1990-1995) with glasses",
        "A man on 2020-11-22 in Bonn",
        "Taken 22.11.2020 by the sea",
        "1,250,000 people and one man",
        "Aged 35, 180 cm, 75 kg",
        "Route 66, mile 1234",
        "Senator (D-CA), 117th Congress, 2021–2023",
        "She won 6-4, 3-6, 7-6 in 2019",
        "IBM 704 at 10:30 on 3/4/2021",
    ],
)
def test_years_dates_and_plain_numbers_stay(text: str) -> None:
    assert clean(text) == text


@pytest.mark.parametrize(
    "text",
    ["image", "Photo", "IMG_1234", "DSC01234.JPG", "portrait-of-x.webp", "Click to enlarge", "No image available",
     "user avatar", "Getty Images", "Photo: Reuters", "photo 3", "Share this on Facebook", "image description",
     "logo", "BBC News logo", "Logo of a bank", "ada lovelace 1840.png", "/img/portrait.jpg", "example.org/ada"],
)  # fmt: skip
def test_boilerplate_is_known(text: str) -> None:
    assert evaluated(boilerplate_sql("t"), text) is True


@pytest.mark.parametrize(
    "text",
    [
        "A portrait of a smiling woman",
        "Photo of Jim with a red hat",
        "Man opening an image gallery",
        "Imogen",
        "Man in a red cap with a logo on it",
        "Logos, a Greek philosopher of St. John",
        "女性の写真",
    ],
)
def test_captions_about_people_are_no_boilerplate(text: str) -> None:
    assert evaluated(boilerplate_sql("t"), text) is False


@pytest.mark.parametrize(
    ("text", "count"),
    [("one two three", 3), ("", 0), ("123 456", 0), ("若い女性", 4), ("Ana-Maria d'Arc", 4), ("сидит мужчина", 2)],
)
def test_words(text: str, count: int) -> None:
    assert evaluated(words_sql("t"), text) == count


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60), st.from_regex(r"[a-z]{1,8}\.[a-z]{1,8}@[a-z]{1,8}\.(com|org)", fullmatch=True))
def test_no_address_survives_wherever_it_stands(text: str, address: str) -> None:
    assert address not in clean(f"{text} {address} {text}")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80))
def test_cleaning_never_fails_and_ends_trimmed(text: str) -> None:
    found = clean(text)
    assert found == found.strip()
    assert "  " not in found


def chosen(*texts: tuple[str, str]) -> tuple[object, ...] | None:
    con = duckdb.connect()
    con.execute("CREATE TABLE captions (row_id VARCHAR, rank INTEGER, kind VARCHAR, text VARCHAR)")
    for rank, (kind, text) in enumerate(texts):
        con.execute("INSERT INTO captions VALUES ('r', ?, ?, ?)", [rank, kind, text])
    choose_captions(con, min_words=3, max_chars=30)
    return con.execute("SELECT caption, kind, boilerplate, words < 3 FROM chosen_captions").fetchone()


def test_first_text_that_passes_is_chosen() -> None:
    texts = (
        ("alt", "image"),
        ("title", "two words"),
        ("figcaption", "A man with a hat"),
        ("nearby", "Also a good text"),
    )
    assert chosen(*texts) == ("A man with a hat", "figcaption", False, False)


def test_where_none_passes_the_nearest_shows_why() -> None:
    assert chosen(("alt", "image"), ("title", "two words")) == ("two words", "title", False, True)
    assert chosen(("alt", "click to enlarge this")) == ("click to enlarge this", "alt", True, False)
    assert chosen(("alt", " \u200b "), ("title", "a@b.org")) is None


def test_long_captions_are_cut_at_a_word() -> None:
    found = chosen(("alt", "A man with a hat and a very long explanation"))
    assert found is not None
    assert found[0] == "A man with a hat and a very"


def test_every_candidate_is_shown_with_the_reason_why_it_is_not_used() -> None:
    con = duckdb.connect()
    con.execute("""
        CREATE TABLE captions AS SELECT 'r' AS row_id, unnest([0, 1, 2, 3]) AS rank, 'alt' AS kind,
               unnest(['IMG_1234.jpg', 'https://example.org/x', 'Ada', 'Ada Lovelace in 1840']) AS text;
        CREATE TABLE releases AS SELECT unnest([1, 2]) AS release,
               unnest(['{"min_caption_words": 9}', '{"min_caption_words": 3}']) AS rules""")
    shown = con.execute(f"SELECT rank, reason FROM ({candidates_select('captions', 'releases')}) ORDER BY rank")
    assert shown.fetchall() == [
        (0, "caption_boilerplate"),
        (1, "no_caption"),
        (2, "caption_too_short"),
        (3, None),
    ]
    con.execute("SET VARIABLE release = 1")
    last = con.execute(f"SELECT reason FROM ({candidates_select('captions', 'releases')}) WHERE rank = 3")
    assert last.fetchone() == ("caption_too_short",)
