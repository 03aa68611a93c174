"""What two builds of the same addresses kept, and why they differ, for `bench.e2e`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

KEPT = "kept"
_NEAR = "near-duplicates, which only ours looks for"
_OTHER_COPY = "another copy of the same bytes is kept"
# Why one side drops what the other keeps, by the reason of the side that drops it. Rules first that only ours has.
_OUR_RULES = {
    "robots_txt": "refused by robots.txt, which img2dataset does not read",
    "near_duplicate_image": _NEAR,
    "truncated_image": "files cut short, which OpenCV fills with grey",
    "caption_boilerplate": "captions that say nothing, which only ours knows",
    "minor": "texts about children, which only ours leaves out",
    "nsfw": "texts not safe for work, which only ours leaves out",
    "image_opted_out": "opted out by header, as only ours understands it",
}
_DETECTION = {"no_face", "several_faces", "face_score", "face_px"}


@dataclass(frozen=True)
class Verdict:
    """What one side decided about an address; `sha256` of its bytes, where they came."""

    reason: str
    sha256: str | None


def our_verdicts(root: Path) -> dict[str, Verdict]:
    import warehouse

    with warehouse.connect(root) as con:
        rows = con.execute(
            "SELECT p.image_url, d.reason, i.image_id FROM decisions d JOIN pairs p USING (row_id) "
            "LEFT JOIN images i ON i.url_id = p.url_id"
        ).fetchall()
    return {url: Verdict(reason, sha256) for url, reason, sha256 in rows}


def plain_verdicts(file: Path) -> dict[str, Verdict]:
    rows = pq.read_table(file, columns=["url", "reason", "sha256"]).to_pylist()
    return {row["url"]: Verdict(row["reason"], row["sha256"]) for row in rows}


def compare(ours: dict[str, Verdict], theirs: dict[str, Verdict]) -> dict[str, Any]:
    """Counts of what both kept and of each kind of difference; `same_kept` is the share of agreement among the rows
    that both judge: no rule that one side lacks decided about them, and both have their bytes."""
    if set(ours) != set(theirs):
        raise RuntimeError(f"{len(set(ours) ^ set(theirs))} addresses were judged by one side alone")
    copies = _kept_copies(ours), _kept_copies(theirs)
    differences: Counter[str] = Counter()
    judged = agreed = 0
    for url, mine in ours.items():
        other = theirs[url]
        same = (mine.reason == KEPT) == (other.reason == KEPT)
        kind = "" if same else _kind(mine, other, copies)
        differences[kind] += not same
        if mine.reason not in _OUR_RULES and kind != _NEAR and mine.sha256 and other.sha256:
            judged += 1
            agreed += same or kind == _OTHER_COPY
    kept_by_both = sum(v.reason == theirs[url].reason == KEPT for url, v in ours.items())
    return {
        "kept": {
            "ours": sum(v.reason == KEPT for v in ours.values()),
            "theirs": sum(v.reason == KEPT for v in theirs.values()),
            "both": kept_by_both,
        },
        "judged_by_both": judged,
        "same_kept": round(agreed / max(judged, 1), 4),
        "differences": {kind: count for kind, count in differences.most_common() if kind},
    }


def _kept_copies(verdicts: dict[str, Verdict]) -> set[str | None]:
    return {v.sha256 for v in verdicts.values() if v.reason == KEPT}


def _kind(mine: Verdict, other: Verdict, copies: tuple[set[str | None], set[str | None]]) -> str:
    """In words, why just one side keeps this address."""
    dropped, by, kept_there = (other, "theirs", copies[1]) if mine.reason == KEPT else (mine, "ours", copies[0])
    if dropped.reason == "duplicate_image":  # where no copy of its bytes is kept, they all gave way to a near one
        return _OTHER_COPY if dropped.sha256 in kept_there else _NEAR
    if by == "ours" and dropped.reason in _OUR_RULES:
        return _OUR_RULES[dropped.reason]
    if dropped.reason in _DETECTION:
        return f"detectors differ: {dropped.reason} for {by}"
    return f"{dropped.reason} for {by} alone"
