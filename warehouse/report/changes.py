"""What changed since the release before: a few lines of the report, only where something did."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from warehouse.diff import KINDS, read_diff


@dataclass(frozen=True)
class Change:
    """One kind of change; `reasons` are the causes where it has some, the most frequent first."""

    kind: str
    title: str
    count: int
    unit: str
    reasons: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Changes:
    since: int  # the release before
    kept_before: int
    kinds: tuple[Change, ...]


def read_changes(con: duckdb.DuckDBPyConnection, release: int) -> Changes | None:
    """What `release` changed; None for the first one and where nothing did. `con` is a `lake.connect`."""
    if release < 2:
        return None
    found = read_diff(con, release - 1, release)
    if found.is_empty:
        return None
    kinds = tuple(
        Change(
            kind.name, kind.title, found.counts[kind.name], kind.unit, tuple(found.reasons.get(kind.name, {}).items())
        )
        for kind in KINDS
        if found.counts[kind.name]
    )
    return Changes(found.a, found.kept_a, kinds)
