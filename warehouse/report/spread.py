"""How the corpus spreads: pose and light of its faces, hosts, languages, duplicates; counted by SQL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import duckdb

from warehouse.report.card import read_languages
from warehouse.report.data import Histogram, histogram

_SIMILAR = """
    SELECT i.image_id, d.clip_similarity AS x
    FROM decisions d JOIN pairs p USING (row_id) JOIN images i USING (url_id)"""
_HOSTS = 12
_LANGUAGES = 10
_MOST_COPIES = 5


@dataclass(frozen=True)
class HostRow:
    """Pairs whose picture lies on a host, and how many of them are kept."""

    host: str
    pairs: int
    kept: int


@dataclass(frozen=True)
class Spread:
    """`copies`: clusters of duplicates by their number of pairs (the last: that many or more)."""

    histograms: tuple[Histogram, ...]
    hosts: tuple[HostRow, ...]
    host_count: int
    languages: tuple[tuple[str, int], ...]
    language_captions: int
    copies: tuple[tuple[int, int], ...]
    most_copies: int
    largest_cluster: int


def read_spread(con: duckdb.DuckDBPyConnection, rules: dict[str, Any]) -> Spread:
    """The figures of the release that `con` shows; `rules` are its parameters, for the limits in the charts."""
    hosts = con.execute(
        """SELECT regexp_replace(p.image_host, '^https?://', ''), count(*), count(*) FILTER (d.kept)
           FROM pairs p JOIN decisions d USING (row_id) GROUP BY p.image_host ORDER BY 2 DESC, 1"""
    ).fetchall()
    copies = con.execute(
        """WITH sizes AS (SELECT count(*) AS n FROM decisions WHERE cluster_id IS NOT NULL GROUP BY cluster_id)
           SELECT least(n, ?)::INT, count(*), max(n) FROM sizes GROUP BY 1 ORDER BY 1""",
        [_MOST_COPIES],
    ).fetchall()
    languages = read_languages(con)
    shown = languages if len(languages) <= _LANGUAGES else languages[: _LANGUAGES - 1]
    if len(shown) < len(languages):
        shown = (*shown, ("others", sum(count for _, count in languages[_LANGUAGES - 1 :])))
    return Spread(
        histograms=_histograms(con, rules),
        hosts=tuple(HostRow(*row) for row in hosts[:_HOSTS]),
        host_count=len(hosts),
        languages=shown,
        language_captions=sum(count for _, count in languages),
        copies=tuple((int(size), int(count)) for size, count, _ in copies),
        most_copies=_MOST_COPIES,
        largest_cluster=max((int(row[2]) for row in copies), default=0),
    )


def _histograms(con: duckdb.DuckDBPyConnection, rules: dict[str, Any]) -> tuple[Histogram, ...]:
    faces = "SELECT image_id, {}::FLOAT AS x FROM faces WHERE face_index = 0"
    wanted = (
        ("Yaw, to either side", "°", "round(abs(yaw_deg), 1)", _limit(rules, "max_yaw_deg", 90)),
        ("Roll, to either side", "°", "round(abs(roll_deg), 1)", _limit(rules, "max_roll_deg", 180)),
        ("Pitch, up is positive", "°", "round(pitch_deg, 1)", None),
        ("Sharpness", "", "sharpness", _limit(rules, "min_sharpness", 0)),
        ("Brightness", "of 255", "brightness", None),
    )
    found = [histogram(con, title, unit, faces.format(column), limit) for title, unit, column, limit in wanted]
    flat_from = rules.get("drawing_flatness") if rules.get("image_type", "any") != "any" else None
    later = [
        histogram(con, "Flat colour in the face", "of 1", faces.format("flatness"), flat_from),
        histogram(con, "CLIP similarity of face and caption", "", _SIMILAR, _limit(rules, "min_clip_similarity", -1)),
    ]
    found += [each for each in later if each.found]  # older releases have none, nor builds without --clip
    return tuple(each for each in found if len(each.found) != 1)  # one bar says nothing: the detector gives no pose


def _limit(rules: dict[str, Any], name: str, off: float) -> float | None:
    """A rule's limit, None where it is off."""
    value = rules.get(name)
    return None if value is None or float(value) == off else float(value)
