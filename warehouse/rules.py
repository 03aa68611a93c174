"""The rules that decide what is kept: named SQL predicates in one ordered list (parameters: `RuleParameters`).

A row's decision is the reason of the first rule it fails; what passes all is a survivor, and duplicates are then
settled among survivors (see `decide`). A predicate must be TRUE to pass; unknown (null) fails.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass

import duckdb

from warehouse import captions, content, dedup, words
from warehouse.identities import NO_VECTORS, FaceVectors, find_people, told_before
from warehouse.lake import quoted
from warehouse.languages import language_sql
from warehouse.parameters import RuleParameters
from warehouse.schema import CAPTION_RANKING, Reason
from warehouse.splits import keep_sides, split_sql

__all__ = ["RULES", "Rule", "RuleParameters", "decide"]
_LOG = logging.getLogger(__name__)


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
    Rule(
        "image_type",
        Reason.IMAGE_TYPE,
        "{image_type} = 'any' OR coalesce((flatness >= {drawing_flatness}) = ({image_type} = 'drawing'), true)",
    ),
    Rule("blocked", Reason.BLOCKED, "NOT blocked"),
    Rule("nsfw", Reason.NSFW, "{allow_nsfw} OR NOT nsfw"),
    Rule("minor", Reason.MINOR, "{allow_minors} OR NOT minor"),
    Rule("face", Reason.NO_FACE, "face_count >= 1 AND face_px IS NOT NULL"),
    Rule("one_face", Reason.SEVERAL_FACES, "face_count = 1 OR NOT {one_face}"),
    Rule("face_score", Reason.FACE_SCORE, "score >= {min_score}"),
    Rule("face_px", Reason.FACE_PX, "face_px >= {min_face_px}"),
    Rule(
        "face_pose",
        Reason.FACE_POSE,
        "coalesce(abs(yaw_deg), 0) <= {max_yaw_deg} AND coalesce(abs(roll_deg), 0) <= {max_roll_deg}",
    ),
    Rule("face_sharpness", Reason.FACE_BLURRED, "sharpness >= {min_sharpness}"),
    Rule("caption", Reason.NO_CAPTION, "caption IS NOT NULL"),
    Rule("caption_boilerplate", Reason.CAPTION_BOILERPLATE, "NOT boilerplate"),
    Rule("caption_words", Reason.CAPTION_TOO_SHORT, "words >= {min_caption_words}"),
    Rule("caption_language", Reason.CAPTION_LANGUAGE, "len({languages}) = 0 OR list_contains({languages}, language)"),
    Rule("caption_person", Reason.NO_PERSON_MENTIONED, "NOT {need_person} OR person"),
    Rule("clip_similarity", Reason.CLIP_SIMILARITY, "coalesce(clip_similarity >= {min_clip_similarity}, true)"),
)


def _literal(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(quoted(word) for word in value)}]::VARCHAR[]"
    if isinstance(value, str):
        return quoted(value)
    return str(value).upper() if isinstance(value, bool) else repr(value)


def decide(
    con: duckdb.DuckDBPyConnection, parameters: RuleParameters, release: int, vectors: FaceVectors = NO_VECTORS
) -> int:
    """Temporary table `new_decisions` (schema.DECISIONS) over the views' current rows; how many people were told apart.

    Reads `pairs captions consent images pictures faces similarities decisions` as they stand in the open transaction;
    `release` is the number that new pictures count as first seen in. `vectors`: embeddings of faces that are at hand.
    """
    captions.choose_captions(con, parameters.min_caption_words, parameters.max_caption_chars)
    content.judge_content(con, parameters)
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE hashed_pictures AS
        WITH seen AS (SELECT image_id, min(release_from) AS first_release FROM history.pictures GROUP BY image_id)
        SELECT image_id, phash, f.face_phash, f.face_thumb, coalesce(first_release, {release}) AS first_release
        FROM pictures LEFT JOIN seen USING (image_id)
        LEFT JOIN (SELECT image_id, face_phash, face_thumb FROM faces WHERE face_index = 0) f USING (image_id)
        WHERE face_count >= 1 AND reason IS NULL""")
    near = dedup.Nearness(parameters.near_duplicate_bits, parameters.near_face_bits, parameters.min_face_likeness)
    dedup.find_clusters(con, near)
    _judge(con, parameters)
    _warn_of_unmeasured(con, parameters)
    keep_sides(con, parameters.val_share, parameters.test_share, bool(vectors.by_model) or told_before(con))
    people = find_people(con, vectors, parameters)
    _settle_duplicates(con, parameters)
    return people


def _judge(con: duckdb.DuckDBPyConnection, parameters: RuleParameters) -> None:
    """Temporary table `judged`: every pair with the reason of the first rule it fails, or 'kept'."""
    whens = " ".join(rule.fails(parameters) for rule in RULES)
    caption = words.without_names_sql("k.caption") if parameters.replace_names else "k.caption"
    language = language_sql(con, "k.caption") if parameters.languages else "NULL"
    person = words.names_person_sql("k.caption") if parameters.need_person else "NULL"
    cluster = dedup.cluster_id_sql("u.elder_id")
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE judged AS
        WITH candidates AS (
            SELECT p.row_id, c.allowed, c.reason AS consent_reason, i.status, i.reason AS image_reason, i.image_id,
                   t.detector, t.reason AS picture_reason, t.width_px, t.height_px, t.face_count,
                   f.score, f.face_px, f.yaw_deg, f.roll_deg, f.sharpness, f.flatness, x.blocked, x.nsfw, x.minor,
                   {caption} AS caption, k.kind AS caption_kind, k.rank AS caption_rank, k.boilerplate, k.words,
                   {language} AS language, {person} AS person, {cluster} AS cluster_id, p.image_host,
                   s.similarity AS clip_similarity
            FROM pairs p
            LEFT JOIN consent c ON c.row_id = p.row_id
            LEFT JOIN images i ON i.url_id = p.url_id
            LEFT JOIN pictures t ON t.image_id = i.image_id
            LEFT JOIN faces f ON f.image_id = i.image_id AND f.face_index = 0
            LEFT JOIN chosen_captions k ON k.row_id = p.row_id
            LEFT JOIN content x ON x.row_id = p.row_id
            LEFT JOIN clusters u ON u.image_id = i.image_id
            LEFT JOIN (SELECT * FROM similarities WHERE model = {quoted(parameters.clip_model)}) s
                ON s.image_id = i.image_id AND s.caption_id = k.caption_id)
        SELECT row_id, image_id, CASE {whens} ELSE '{Reason.KEPT.value}' END AS reason, clip_similarity,
               caption, caption_kind, caption_rank, cluster_id, image_host, width_px::BIGINT * height_px AS pixels
        FROM candidates""")


def _warn_of_unmeasured(con: duckdb.DuckDBPyConnection, parameters: RuleParameters) -> None:
    """A threshold says nothing about pairs without a similarity: the user should know how many pass for that."""
    if parameters.min_clip_similarity <= -1:
        return
    row = con.execute("SELECT count(*) FROM judged WHERE reason = 'kept' AND clip_similarity IS NULL").fetchone()
    if row and row[0]:
        _LOG.warning(
            "min_clip_similarity=%g: %d pairs have no similarity and pass (build with --clip MODEL:PRETRAINED)",
            parameters.min_clip_similarity,
            row[0],
        )


def _settle_duplicates(con: duckdb.DuckDBPyConnection, parameters: RuleParameters) -> None:
    """Of one picture on several pages the best caption stays, of one cluster the largest picture; ties by row_id.

    A picture that was in the corpus before keeps the split that it had there (see `splits` and `identities`).
    """
    kinds = ", ".join(f"'{kind.value}'" for kind in CAPTION_RANKING)
    # Of more than the cap those with the smallest hash stay: any subset, but always that.
    host_cap, caption_cap = parameters.max_per_host or "NULL", parameters.max_per_caption or "NULL"
    person_cap = parameters.max_per_identity or "NULL"
    split = split_sql("coalesce(leader_home, own_home)", parameters.val_share, parameters.test_share)
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE new_decisions AS
        WITH survivors AS (
            SELECT row_id, image_id, cluster_id, pixels, image_host, row_number() OVER (
                PARTITION BY image_id
                ORDER BY coalesce(list_position([{kinds}], caption_kind), 99), caption_rank, row_id) AS copy
            FROM judged WHERE reason = 'kept'),
        distinct_pictures AS (
            SELECT row_id, image_id, image_host, row_number() OVER (
                PARTITION BY coalesce(cluster_id, image_id) ORDER BY pixels DESC, row_id) AS nth
            FROM survivors WHERE copy = 1),
        counted AS (
            SELECT row_id, image_id, row_number() OVER (PARTITION BY image_host ORDER BY md5(row_id), row_id) AS of_host
            FROM distinct_pictures WHERE nth = 1),
        of_people AS (
            SELECT row_id, row_number() OVER (PARTITION BY person ORDER BY md5(row_id), row_id) AS of_person
            FROM counted JOIN people USING (image_id) WHERE coalesce(of_host <= {host_cap}, true)
            UNION ALL SELECT row_id, {person_cap} + 1 FROM still_capped),
        captioned AS (
            SELECT row_id, row_number() OVER (
                PARTITION BY {captions.near_identical_sql("caption")} ORDER BY md5(row_id), row_id) AS of_caption
            FROM counted JOIN judged USING (row_id) LEFT JOIN of_people USING (row_id)
            WHERE coalesce(of_host <= {host_cap}, true) AND coalesce(of_person <= {person_cap}, true)),
        settled AS (
            SELECT j.row_id, j.caption, j.caption_kind, j.cluster_id, j.image_host, j.clip_similarity, q.leader_home,
                   coalesce(h.home_id, j.cluster_id) AS own_home,
                   CASE WHEN s.copy > 1 THEN '{Reason.DUPLICATE_IMAGE.value}'
                        WHEN d.nth > 1 THEN '{Reason.NEAR_DUPLICATE_IMAGE.value}'
                        WHEN c.of_host > {host_cap} THEN '{Reason.HOST_CAP.value}'
                        WHEN c.row_id IS NOT NULL AND o.of_person > {person_cap} THEN '{Reason.IDENTITY_CAP.value}'
                        WHEN k.of_caption > {caption_cap} THEN '{Reason.CAPTION_CAP.value}'
                        ELSE j.reason END AS reason
            FROM judged j LEFT JOIN survivors s USING (row_id) LEFT JOIN distinct_pictures d USING (row_id)
            LEFT JOIN counted c USING (row_id) LEFT JOIN of_people o USING (row_id) LEFT JOIN captioned k USING (row_id)
            LEFT JOIN homes h ON h.image_id = j.image_id LEFT JOIN people q ON q.image_id = j.image_id)
        SELECT row_id, reason = 'kept' AS kept, reason, caption, caption_kind, cluster_id,
               coalesce(own.split, theirs.split, {split}) AS split, image_host, clip_similarity
        FROM settled LEFT JOIN sides own ON own.home_id = own_home
        LEFT JOIN sides theirs ON theirs.home_id = leader_home""")
