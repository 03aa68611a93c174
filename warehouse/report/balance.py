"""Who is in the corpus and whom each rule drops: shares by group with 95 % confidence intervals, counted by SQL.

Intervals are Wilson's (E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 1927):
they hold for small groups and for shares near 0 and 1.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import duckdb

from warehouse.rules import RULES
from warehouse.tables import reason_rows
from warehouse.whatif import GROUPS

_Z = 1.959964  # of the normal distribution, two-sided 95 %
_SHOWN_GROUPS = 8
_OTHERS = "all others"
# Groupings of the report: title, and whether only pairs with a face have one.
GROUPINGS = {
    "pose": ("Pose", True),
    "face_size": ("Face size, px", True),
    "brightness": ("Brightness of the face", True),
    "host": ("Host of the picture", False),
}


@dataclass(frozen=True)
class Share:
    """`part` of `whole`, 0..1, with its 95 % interval."""

    part: int
    whole: int
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Group:
    """A group: which share of it is kept, and which share of the corpus it is."""

    name: str
    kept: Share
    of_corpus: Share


@dataclass(frozen=True)
class Drop:
    """Of those of a group that reached a rule, what it drops; `differs` where the interval leaves out the overall
    share."""

    group: str
    dropped: Share
    differs: bool


@dataclass(frozen=True)
class RuleDrops:
    """What one reason drops of the pairs that passed all rules before it, over all groups and by group."""

    reason: str
    overall: Share
    groups: tuple[Drop, ...]


@dataclass(frozen=True)
class Balance:
    """One grouping of the pairs (those with a face, where the groups are of faces)."""

    by: str
    title: str
    of_faces: bool
    groups: tuple[Group, ...]
    rules: tuple[RuleDrops, ...]


def wilson(part: int, whole: int) -> Share:
    """Share of `part` in `whole` with Wilson's 95 % interval; 0 to 1 where `whole` is 0."""
    if whole == 0:
        return Share(part, whole, 0.0, 0.0, 1.0)
    share, z2 = part / whole, _Z * _Z / whole
    centre = (share + z2 / 2) / (1 + z2)
    half = _Z * math.sqrt(share * (1 - share) / whole + z2 / (4 * whole)) / (1 + z2)
    low = 0.0 if part == 0 else max(0.0, centre - half)
    return Share(part, whole, share, low, 1.0 if part == whole else min(1.0, centre + half))


def read_balance(con: duckdb.DuckDBPyConnection) -> tuple[Balance, ...]:
    """All groupings of the release that `con` shows; one without any pair is left out."""
    found = (_balance(con, by, title, of_faces) for by, (title, of_faces) in GROUPINGS.items())
    return tuple(balance for balance in found if balance.groups)


def _balance(con: duckdb.DuckDBPyConnection, by: str, title: str, of_faces: bool) -> Balance:
    rows = con.execute(f"""
        SELECT coalesce({GROUPS[by]}, 'unknown'), d.reason, count(*)
        FROM pairs p JOIN decisions d USING (row_id) LEFT JOIN images i USING (url_id)
        LEFT JOIN pictures t ON t.image_id = i.image_id
        LEFT JOIN faces f ON f.image_id = i.image_id AND f.face_index = 0
        WHERE f.image_id IS NOT NULL OR NOT {of_faces} GROUP BY ALL""").fetchall()
    rows = [(group.partition("://")[2] or group, reason, count) for group, reason, count in rows]
    sizes: Counter[str] = Counter()
    for group, _, count in rows:
        sizes[group] += count
    names = sorted(sizes, key=lambda name: (-sizes[name], name))
    if len(names) > _SHOWN_GROUPS:
        names = names[: _SHOWN_GROUPS - 1]
    counts: Counter[tuple[str, str]] = Counter()
    for group, reason, count in rows:
        counts[group if group in names else _OTHERS, reason] += count
    if set(sizes) - set(names):
        names.append(_OTHERS)
    totals = {name: sum(n for (group, _), n in counts.items() if group == name) for name in names}
    kept = sum(counts[name, "kept"] for name in names)
    groups = tuple(
        Group(name, wilson(counts[name, "kept"], totals[name]), wilson(counts[name, "kept"], kept)) for name in names
    )
    return Balance(by, title, of_faces, groups, _rules(counts, totals))


def _rules(counts: Counter[tuple[str, str]], totals: dict[str, int]) -> tuple[RuleDrops, ...]:
    """Every reason that dropped something, in the order of the rules."""
    left = dict(totals)
    rules = []
    for reasons in _reasons_by_rule():
        for reason in reasons:
            dropped = {name: counts[name, reason] for name in totals}
            if any(dropped.values()):
                overall = wilson(sum(dropped.values()), sum(left.values()))
                shares = {name: wilson(dropped[name], left[name]) for name in totals}
                drops = (Drop(name, s, not s.low <= overall.share <= s.high) for name, s in shares.items())
                rules.append(RuleDrops(reason, overall, tuple(drops)))
        left = {name: left[name] - sum(counts[name, reason] for reason in reasons) for name in totals}
    return tuple(rules)


def _reasons_by_rule() -> list[list[str]]:
    """Reasons in the order in which a pair can fall; those of one rule (consent, transfer, decoding) together."""
    own = {rule.reason.value for rule in RULES if rule.reason_sql is None}
    found: dict[str, list[str]] = {}
    for reason, stage, _ in reason_rows():
        several = stage in ("consent", "transfer", "picture") and reason not in own
        if stage != "kept":
            found.setdefault(stage if several else reason, []).append(reason)
    return list(found.values())
