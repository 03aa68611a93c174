"""The rules that decide what is kept: named SQL predicates in one ordered list, their parameters in one dataclass.

A row's decision is the reason of the first rule it fails; what passes all is a survivor, and duplicates are then
settled among survivors (see `decide`). A predicate must be TRUE to pass; unknown (null) fails.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass

import duckdb

from warehouse import captions, dedup
from warehouse.errors import InputError
from warehouse.schema import CaptionKind, Reason
from warehouse.splits import split_sql

_MAX_DISTANCE = 16  # above, bands are so short that everything is compared with everything


@dataclass(frozen=True)
class RuleParameters:
    """Thresholds of the rules. Raises InputError for a value outside its range."""

    min_side_px: int = 64  # shorter side of the picture
    one_face: bool = True  # exactly one; otherwise the largest of several is used
    min_score: float = 0.5  # of the detector
    min_face_px: int = 64  # shorter side of the face's box
    min_caption_words: int = 3
    max_caption_chars: int = 400  # longer captions are cut at a word
    near_duplicate_bits: int = 3  # Hamming distance of 64-bit perceptual hashes up to which pictures count as one
    val_share: float = 0.05
    test_share: float = 0.05

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float, float]] = {
            "min_side_px": (1, 100_000),
            "min_score": (0, 1),
            "min_face_px": (1, 100_000),
            "min_caption_words": (1, 1000),
            "max_caption_chars": (8, 100_000),
            "near_duplicate_bits": (0, _MAX_DISTANCE),
            "val_share": (0, 1),
            "test_share": (0, 1),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            whole = isinstance(getattr(type(self), name), int)
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                raise InputError(f"rule parameter {name}={value!r}: give {'a whole' if whole else 'a'} number")
            if not low <= value <= high:
                raise InputError(f"rule parameter {name}={value!r}: choose {low:g} to {high:g}")
        if not isinstance(self.one_face, bool):
            raise InputError(f"rule parameter one_face={self.one_face!r}: choose true or false")
        if self.val_share + self.test_share >= 1:
            raise InputError(f"val_share {self.val_share} and test_share {self.test_share} leave nothing to train on")

    @classmethod
    def from_mapping(cls, values: Mapping[str, object]) -> RuleParameters:
        """Parameters by name; an unknown name is an InputError that lists the known ones."""
        known = [f.name for f in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise InputError(f"no rule parameter {name!r}: choose from {', '.join(known)}")
        return cls(**values)  # type: ignore[arg-type]

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True)


@dataclass(frozen=True)
class Rule:
    """`predicate` is SQL over `candidates` with {parameter} places; `reason_sql` where a row brings its own reason."""

    name: str
    reason: Reason
    predicate: str
    reason_sql: str | None = None

    def fails(self, parameters: RuleParameters) -> str:
        """SQL `WHEN ... THEN reason` for a row that does not pass."""
        values = {k: _literal(v) for k, v in dataclasses.asdict(parameters).items()}
        reason = f"'{self.reason.value}'"
        if self.reason_sql:
            reason = f"coalesce({self.reason_sql}, {reason})"
        return f"WHEN NOT coalesce(({self.predicate.format(**values)}), false) THEN {reason}"


RULES = (
    Rule("consent", Reason.INTERNAL_ERROR, "allowed", "consent_reason"),
    Rule("transfer", Reason.INTERNAL_ERROR, "status = 'ok'", "image_reason"),
    Rule("decoded", Reason.INTERNAL_ERROR, "detector IS NOT NULL AND picture_reason IS NULL", "picture_reason"),
    Rule("picture_side", Reason.TOO_SMALL, "least(width_px, height_px) >= {min_side_px}"),
    Rule("face", Reason.NO_FACE, "face_count >= 1 AND face_px IS NOT NULL"),
    Rule("one_face", Reason.SEVERAL_FACES, "face_count = 1 OR NOT {one_face}"),
    Rule("face_score", Reason.FACE_SCORE, "score >= {min_score}"),
    Rule("face_px", Reason.FACE_PX, "face_px >= {min_face_px}"),
    Rule("caption", Reason.NO_CAPTION, "caption IS NOT NULL"),
    Rule("caption_boilerplate", Reason.CAPTION_BOILERPLATE, "NOT boilerplate"),
    Rule("caption_words", Reason.CAPTION_TOO_SHORT, "words >= {min_caption_words}"),
)

# Of the captions of one picture on several pages: texts written for the picture first, then what stands around it.
_KIND_ORDER = (
    CaptionKind.ALT,
    CaptionKind.LIST,
    CaptionKind.FIGCAPTION,
    CaptionKind.ARIA_LABEL,
    CaptionKind.TITLE,
    CaptionKind.CARD,
    CaptionKind.META,
    CaptionKind.NEARBY,
)


def _literal(value: object) -> str:
    return str(value).upper() if isinstance(value, bool) else repr(value)


def decide(con: duckdb.DuckDBPyConnection, parameters: RuleParameters, release: int) -> None:
    """Temporary table `new_decisions` (schema.DECISIONS) over the views' current rows.

    Reads `pairs captions consent images pictures faces` as they stand in the open transaction; `release` is the number
    that new pictures count as first seen in.
    """
    captions.choose_captions(con, parameters.min_caption_words, parameters.max_caption_chars)
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE hashed_pictures AS
        WITH seen AS (SELECT image_id, min(release_from) AS first_release FROM history.pictures GROUP BY image_id)
        SELECT image_id, phash, coalesce(first_release, {release}) AS first_release
        FROM pictures LEFT JOIN seen USING (image_id) WHERE face_count >= 1 AND reason IS NULL""")
    dedup.find_clusters(con, parameters.near_duplicate_bits)
    _judge(con, parameters)
    _settle_duplicates(con, parameters)


def _judge(con: duckdb.DuckDBPyConnection, parameters: RuleParameters) -> None:
    """Temporary table `judged`: every pair with the reason of the first rule it fails, or 'kept'."""
    whens = " ".join(rule.fails(parameters) for rule in RULES)
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE judged AS
        WITH candidates AS (
            SELECT p.row_id, c.allowed, c.reason AS consent_reason, i.status, i.reason AS image_reason, i.image_id,
                   t.detector, t.reason AS picture_reason, t.width_px, t.height_px, t.face_count,
                   f.score, f.face_px, k.caption, k.kind AS caption_kind, k.rank AS caption_rank,
                   k.boilerplate, k.words, u.cluster_id
            FROM pairs p
            LEFT JOIN consent c ON c.row_id = p.row_id
            LEFT JOIN images i ON i.url_id = p.url_id
            LEFT JOIN pictures t ON t.image_id = i.image_id
            LEFT JOIN faces f ON f.image_id = i.image_id AND f.face_index = 0
            LEFT JOIN chosen_captions k ON k.row_id = p.row_id
            LEFT JOIN clusters u ON u.image_id = i.image_id)
        SELECT row_id, image_id, CASE {whens} ELSE '{Reason.KEPT.value}' END AS reason,
               caption, caption_kind, caption_rank, cluster_id, width_px::BIGINT * height_px AS pixels
        FROM candidates""")


def _settle_duplicates(con: duckdb.DuckDBPyConnection, parameters: RuleParameters) -> None:
    """Of one picture on several pages the best caption stays, of one cluster the largest picture; ties by row_id."""
    kinds = ", ".join(f"'{kind.value}'" for kind in _KIND_ORDER)
    split = split_sql("cluster_id", parameters.val_share, parameters.test_share)
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE new_decisions AS
        WITH survivors AS (
            SELECT row_id, image_id, cluster_id, pixels, row_number() OVER (
                PARTITION BY image_id
                ORDER BY coalesce(list_position([{kinds}], caption_kind), 99), caption_rank, row_id) AS copy
            FROM judged WHERE reason = 'kept'),
        distinct_pictures AS (
            SELECT row_id, row_number() OVER (
                PARTITION BY coalesce(cluster_id, image_id) ORDER BY pixels DESC, row_id) AS nth
            FROM survivors WHERE copy = 1),
        settled AS (
            SELECT j.row_id, j.caption, j.caption_kind, j.cluster_id,
                   CASE WHEN s.copy > 1 THEN '{Reason.DUPLICATE_IMAGE.value}'
                        WHEN d.nth > 1 THEN '{Reason.NEAR_DUPLICATE_IMAGE.value}'
                        ELSE j.reason END AS reason
            FROM judged j LEFT JOIN survivors s USING (row_id) LEFT JOIN distinct_pictures d USING (row_id))
        SELECT row_id, reason = 'kept' AS kept, reason, caption, caption_kind, cluster_id, {split} AS split
        FROM settled""")
