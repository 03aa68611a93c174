"""What a change of rules would cost, before anything is applied: rows lost and gained, as a whole and by group."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb

from warehouse import lake
from warehouse.errors import InputError
from warehouse.identities import read_vectors
from warehouse.parameters import RuleParameters
from warehouse.rules import decide

# Groups that a change may treat differently; SQL over pairs p, images i, pictures t, faces f. The place
# {drawing_flatness} is for that of the rules before the change.
GROUPS = {
    "host": "p.image_host",
    "source": "p.source",
    "detector": "t.detector",
    "format": "t.format",
    "caption_kind": "coalesce(a.caption_kind, b.caption_kind)",
    "brightness": "CASE WHEN f.brightness < 80 THEN 'dark' WHEN f.brightness < 160 THEN 'medium' ELSE 'bright' END",
    "pose": "CASE WHEN abs(f.yaw_deg) < 15 THEN 'frontal' WHEN abs(f.yaw_deg) < 45 THEN 'turned' ELSE 'profile' END",
    "image_type": "CASE WHEN f.flatness >= {drawing_flatness} THEN 'drawing' "
    "WHEN f.flatness IS NOT NULL THEN 'photo' END",
    "face_size": "CASE WHEN f.face_px < 64 THEN 'under 64' WHEN f.face_px < 128 THEN '64-127' ELSE '128 and more' END",
}


@dataclass(frozen=True)
class GroupCost:
    """Of one group: kept before and after, rows lost and gained, and the share of the kept that is lost."""

    group: str
    before: int
    after: int
    lost: int
    gained: int

    @property
    def lost_share(self) -> float:
        return self.lost / self.before if self.before else 0.0


@dataclass(frozen=True)
class WhatIf:
    """The answer: all rows, the groups (the largest first), and where lost rows would go by reason."""

    total: GroupCost
    groups: tuple[GroupCost, ...]
    reasons: dict[str, int]


def release_rules(con: duckdb.DuckDBPyConnection, release: int | None = None) -> RuleParameters:
    """The rules of a release (default: the newest). Raises InputError where there is none."""
    row = con.execute(
        "SELECT rules FROM releases WHERE release = coalesce(?, (SELECT max(release) FROM releases))", [release]
    ).fetchone()
    if row is None:
        raise InputError(f"no release {release or ''} in this lake: run `gptface build ...` first")
    return RuleParameters.from_release(row[0])


def what_if(
    root: Path, before: RuleParameters, after: RuleParameters, by: str = "host", at: int | None = None
) -> WhatIf:
    """Decide about every pair of a release twice, under both sets of rules, and compare. Writes nothing.

    Raises InputError for an unknown group and for a lake that cannot be read.
    """
    if by not in GROUPS:
        raise InputError(f"no group {by!r}: choose from {', '.join(GROUPS)}")
    group = GROUPS[by].format(drawing_flatness=before.drawing_flatness)
    vectors = read_vectors(root)
    with lake.connect(root, at) as con:
        for name, rules in (("before", before), ("after", after)):
            decide(con, rules, 1 << 62, vectors)  # no picture is new here
            con.execute(f"CREATE TEMP TABLE rules_{name} AS FROM new_decisions")
        con.execute(f"""
            CREATE TEMP TABLE compared AS
            SELECT coalesce({group}, 'unknown') AS grouped, a.kept AS was, b.kept AS would, b.reason
            FROM rules_before a JOIN rules_after b USING (row_id) JOIN pairs p USING (row_id)
            LEFT JOIN images i USING (url_id) LEFT JOIN pictures t ON t.image_id = i.image_id
            LEFT JOIN faces f ON f.image_id = i.image_id AND f.face_index = 0
            WHERE a.kept OR b.kept""")
        counts = "count(*) FILTER (was), count(*) FILTER (would), count(*) FILTER (was AND NOT would), "
        counts += "count(*) FILTER (would AND NOT was)"
        total = con.execute(f"SELECT 'all', {counts} FROM compared").fetchall()
        groups = con.execute(f"SELECT grouped, {counts} FROM compared GROUP BY grouped ORDER BY 2 DESC, 1").fetchall()
        reasons = con.execute(
            "SELECT reason, count(*) FROM compared WHERE was AND NOT would GROUP BY reason ORDER BY 2 DESC, 1"
        ).fetchall()
    return WhatIf(GroupCost(*total[0]), tuple(GroupCost(*row) for row in groups), dict(reasons))
