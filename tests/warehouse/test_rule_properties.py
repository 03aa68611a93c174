"""Whatever the rows and parameters: the first rule that a row fails is its reason, and stricter never adds a row."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warehouse.parameters import RuleParameters
from warehouse.rules import RULES, _judge

# Text, its language, and whether it mentions a person.
CAPTIONS = (
    ("A smiling woman with brown hair and a red hat", "en", True),
    ("Tickets for the old harbour and the summer market", "en", False),
    ("Billetes para el puerto viejo y el mercado de verano", "es", False),
)


@dataclass(frozen=True)
class Row:
    """What the tables say about one pair; None where nobody has looked or nothing was found."""

    allowed: bool | None = True
    refused: str | None = None
    status: str | None = "ok"
    failed: str | None = None
    has_picture: bool = True
    broken: str | None = None
    width_px: int = 200
    height_px: int = 200
    face_count: int | None = 1
    score: float | None = 0.75
    face_px: float | None = 100.0
    yaw_deg: float | None = 10.0
    roll_deg: float | None = -10.0
    sharpness: float | None = 4.0
    flatness: float | None = 0.25
    blocked: bool = False
    nsfw: bool = False
    minor: bool = False
    caption: int | None = 0  # of CAPTIONS
    boilerplate: bool = False
    words: int = 9
    similarity: float | None = 0.5


# Values at which rules and their limits turn, exact in 32 bits. A row has a few that are not the default's.
UNUSUAL: dict[str, list[Any]] = {
    "allowed": [False, None],
    "refused": ["robots_txt"],
    "status": ["failed", None],
    "failed": ["dns"],
    "has_picture": [False],
    "broken": ["truncated_image"],
    "width_px": [63, 64, 128],
    "height_px": [63, 64, 128],
    "face_count": [0, 2, None],
    "score": [0.5, 0.875, None],
    "face_px": [20.0, 64.0, 96.0, None],
    "yaw_deg": [-45.0, 90.0, 91.0, None],
    "roll_deg": [30.0, -31.0, None],
    "sharpness": [0.0, 8.0, None],
    "flatness": [0.5, 0.75, None],
    "blocked": [True],
    "nsfw": [True],
    "minor": [True],
    "caption": [1, 2, None],
    "boilerplate": [True],
    "words": [1, 3, 4],
    "similarity": [-0.5, 0.25, None],
}
ROWS = st.lists(
    st.dictionaries(st.sampled_from(list(UNUSUAL)), st.integers(0, 11), max_size=4).map(
        lambda picked: Row(**{name: UNUSUAL[name][i % len(UNUSUAL[name])] for name, i in picked.items()})
    ),
    min_size=1,
    max_size=25,
)
# From loose to strict, beside the default's.
LIMITS: dict[str, list[Any]] = {
    "min_side_px": [1, 64, 128],
    "allow_nsfw": [True, False],
    "allow_minors": [True, False],
    "one_face": [False, True],
    "min_score": [0.5, 0.75, 0.875],
    "min_face_px": [1, 64, 96],
    "max_yaw_deg": [180, 90, 45],
    "max_roll_deg": [180, 30, 5],
    "min_sharpness": [0.0, 4.0, 8.0],
    "min_caption_words": [1, 3, 4],
    "languages": [(), ("en", "es"), ("en",)],
    "need_person": [False, True],
    "min_clip_similarity": [-1.0, 0.25, 0.5],
}
LOOSE = {name: values[0] for name, values in LIMITS.items()}
STRICT = {name: values[-1] for name, values in LIMITS.items()}
EACH = [{field: value} for field, values in UNUSUAL.items() for value in values]
STEPS = st.fixed_dictionaries({}, optional={name: st.integers(0, 2) for name in LIMITS})
TYPES = st.fixed_dictionaries(
    {"image_type": st.sampled_from(["any", "photo", "drawing"]), "drawing_flatness": st.sampled_from([0.5, 0.75])}
)


def parameters(steps: dict[str, int], **others: Any) -> RuleParameters:
    return RuleParameters(**{name: LIMITS[name][min(i, len(LIMITS[name]) - 1)] for name, i in steps.items()}, **others)


def passes(row: Row, p: RuleParameters) -> Iterator[tuple[str, bool, str | None]]:
    """Name of each rule, whether the row passes it, and a reason that the row brings along; told anew, in Python."""
    text, language, person = CAPTIONS[row.caption] if row.caption is not None else (None, None, False)
    yield "consent", row.allowed is True, None if row.allowed is None else row.refused
    yield "transfer", row.status == "ok", None if row.status is None else row.failed
    yield "decoded", row.has_picture and row.broken is None, row.broken if row.has_picture else None
    yield "picture_side", min(row.width_px, row.height_px) >= p.min_side_px, None
    is_drawing = None if row.flatness is None else row.flatness >= p.drawing_flatness
    yield "image_type", p.image_type == "any" or is_drawing in (None, p.image_type == "drawing"), None
    yield "blocked", not row.blocked, None
    yield "nsfw", p.allow_nsfw or not row.nsfw, None
    yield "minor", p.allow_minors or not row.minor, None
    yield "face", (row.face_count or 0) >= 1 and row.face_px is not None, None
    yield "one_face", row.face_count == 1 or not p.one_face, None
    yield "face_score", row.score is not None and row.score >= p.min_score, None
    yield "face_px", row.face_px is not None and row.face_px >= p.min_face_px, None
    turned = abs(row.yaw_deg or 0) > p.max_yaw_deg or abs(row.roll_deg or 0) > p.max_roll_deg
    yield "face_pose", not turned, None
    yield "face_sharpness", row.sharpness is not None and row.sharpness >= p.min_sharpness, None
    yield "caption", text is not None, None
    yield "caption_boilerplate", not row.boilerplate, None
    yield "caption_words", row.words >= p.min_caption_words, None
    yield "caption_language", not p.languages or language in p.languages, None
    yield "caption_person", not p.need_person or person, None
    yield "clip_similarity", row.similarity is None or row.similarity >= p.min_clip_similarity, None


def expected(row: Row, p: RuleParameters) -> str:
    rules = {rule.name: rule for rule in RULES}
    told = list(passes(row, p))
    assert [name for name, _, _ in told] == list(rules)
    return next((own or rules[name].reason.value for name, passed, own in told if not passed), "kept")


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    """The tables that `_judge` reads, empty."""
    with duckdb.connect() as con:
        for table in (
            "pairs (row_id VARCHAR, url_id VARCHAR, image_host VARCHAR)",
            "consent (row_id VARCHAR, allowed BOOLEAN, reason VARCHAR)",
            "images (url_id VARCHAR, status VARCHAR, reason VARCHAR, image_id VARCHAR)",
            "pictures (image_id VARCHAR, detector VARCHAR, reason VARCHAR, width_px INT, height_px INT, "
            "face_count INT)",
            "faces (image_id VARCHAR, face_index INT, score FLOAT, face_px FLOAT, yaw_deg FLOAT, roll_deg FLOAT, "
            "sharpness FLOAT, flatness FLOAT)",
            "content (row_id VARCHAR, blocked BOOLEAN, nsfw BOOLEAN, minor BOOLEAN)",
            "chosen_captions (row_id VARCHAR, rank INT, kind VARCHAR, caption VARCHAR, boilerplate BOOLEAN, words INT, "
            "caption_id VARCHAR)",
            "clusters (image_id VARCHAR, elder_id VARCHAR)",
            "similarities (image_id VARCHAR, caption_id VARCHAR, model VARCHAR, similarity FLOAT)",
        ):
            con.execute(f"CREATE TABLE {table}")
        yield con


def tables(name: str, row: Row) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """The rows of one pair, in all tables."""
    yield "pairs", (name, name, "http://a.example")
    yield "content", (name, row.blocked, row.nsfw, row.minor)
    if row.allowed is not None:
        yield "consent", (name, row.allowed, row.refused)
    if row.status is not None:
        yield "images", (name, row.status, row.failed, name)
    if row.has_picture:
        yield "pictures", (name, "test 1", row.broken, row.width_px, row.height_px, row.face_count)
        measured = (row.score, row.face_px, row.yaw_deg, row.roll_deg, row.sharpness, row.flatness)
        yield "faces", (name, 0, *measured)
    if row.caption is not None:
        yield "chosen_captions", (name, 0, "alt", CAPTIONS[row.caption][0], row.boilerplate, row.words, "c")
    if row.similarity is not None:
        yield "similarities", (name, "c", "", row.similarity)


def judged(con: duckdb.DuckDBPyConnection, rows: list[Row], p: RuleParameters) -> list[str]:
    """The reason of each row before duplicates and caps, by the rules' SQL."""
    filled: dict[str, list[tuple[Any, ...]]] = {}
    for i, row in enumerate(rows):
        for table, values in tables(f"{i:03d}", row):
            filled.setdefault(table, []).append(values)
    for (table,) in con.execute("SELECT table_name FROM duckdb_tables() WHERE NOT temporary").fetchall():
        con.execute(f"DELETE FROM {table}")
        if values := filled.get(table):
            places = f"({', '.join('?' * len(values[0]))})"
            flat = [value for one in values for value in one]
            con.execute(f"INSERT INTO {table} VALUES {', '.join([places] * len(values))}", flat)
    _judge(con, p)
    return [reason for (reason,) in con.execute("SELECT reason FROM judged ORDER BY row_id").fetchall()]


@settings(max_examples=40, deadline=None)
@given(rows=ROWS, steps=STEPS, types=TYPES)
def test_a_row_is_kept_where_every_rule_passes_and_else_has_the_first_that_fails(
    con: duckdb.DuckDBPyConnection, rows: list[Row], steps: dict[str, int], types: dict[str, Any]
) -> None:
    p = parameters(steps, **types)
    assert judged(con, rows, p) == [expected(row, p) for row in rows]


@settings(max_examples=40, deadline=None)
@given(rows=ROWS, steps=STEPS, types=TYPES, name=st.sampled_from(list(LIMITS)), stricter=st.integers(1, 2))
def test_a_stricter_limit_never_adds_a_row(
    con: duckdb.DuckDBPyConnection,
    rows: list[Row],
    steps: dict[str, int],
    types: dict[str, Any],
    name: str,
    stricter: int,
) -> None:
    loose = parameters({**steps, name: 0}, **types)
    strict = parameters({**steps, name: stricter}, **types)
    before, after = judged(con, rows, loose), judged(con, rows, strict)
    assert not [i for i, (was, now) in enumerate(zip(before, after, strict=True)) if was != "kept" and now == "kept"]


def test_every_limit_costs_a_row_that_only_it_leaves_out(con: duckdb.DuckDBPyConnection) -> None:
    # Else the property above could hold for a rule that does nothing.
    rows = [Row(**each) for each in EACH]
    before = judged(con, rows, RuleParameters(**LOOSE))
    for name, value in STRICT.items():
        after = judged(con, rows, RuleParameters(**{**LOOSE, name: value}))
        assert before.count("kept") > after.count("kept"), name


def test_the_rows_reach_every_rule(con: duckdb.DuckDBPyConnection) -> None:
    p = RuleParameters(**STRICT, image_type="photo")
    good = Row(score=0.875, sharpness=8.0, yaw_deg=0.0, roll_deg=0.0)
    rows = [good, *(dataclasses.replace(good, **each) for each in EACH)]
    found = judged(con, rows, p)
    assert found == [expected(row, p) for row in rows]
    assert {rule.reason for rule in RULES if not rule.reason_sql} | {"kept", "internal_error"} <= set(found)
