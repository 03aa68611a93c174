"""Which model is the champion, and how that came about: an alias in `models`, and a row of `promotions` per decision.

Both change in one transaction, so there is never more than one champion and never a change without its reason.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import duckdb

from warehouse import lake, tables
from warehouse.errors import InputError
from warehouse.schema import PromotionAction

CHAMPION, CHALLENGER = "champion", "challenger"
_PATIENCE_S = 30


@dataclass(frozen=True)
class Reason:
    """Who decided and why; `figures` is plain data: what was measured."""

    decided_by: str
    why: str
    figures: Mapping[str, Any] = field(default_factory=dict)
    run_id: str = ""


@dataclass(frozen=True)
class Promotion:
    """A row of `promotions`."""

    number: int
    decided_at: dt.datetime
    action: str
    model: str
    champion: str | None
    previous: str | None
    decided_by: str
    why: str
    figures: Mapping[str, Any]
    run_id: str


def champion_of(con: duckdb.DuckDBPyConnection) -> str | None:
    """Name of the champion; None where there is none."""
    row = con.execute(f"SELECT model FROM models WHERE alias = '{CHAMPION}'").fetchone()
    return str(row[0]) if row else None


def history(con: duckdb.DuckDBPyConnection) -> list[Promotion]:
    """All decisions, the oldest first."""
    names = [each.name for each in fields(Promotion)]
    rows = con.execute(f"SELECT {', '.join(names)} FROM promotions ORDER BY number").fetchall()
    told = [dict(zip(names, row, strict=True)) for row in rows]
    return [Promotion(**{**row, "figures": json.loads(row["figures"] or "{}")}) for row in told]


def succession(decisions: list[Promotion]) -> list[str]:
    """Champions that have not been rolled back or retired, in the order in which they came: the present one last."""
    line: list[str] = []
    for each in decisions:
        if each.action == PromotionAction.PROMOTE:
            line.append(each.model)
        elif each.action == PromotionAction.RETIRE:
            line = [model for model in line if model != each.model]
        elif each.action == PromotionAction.ROLLBACK:
            while line and line[-1] != each.champion:
                line.pop()
    return line


def previous_champion(con: duckdb.DuckDBPyConnection) -> str | None:
    """Whom `rollback` would bring back."""
    champion = champion_of(con)
    line = [model for model in succession(history(con)) if model != champion]
    return line[-1] if line else None


def promote(root: Path | str, model: str, reason: Reason) -> Promotion:
    """Make `model` the champion. Raises InputError where the lake has no such model, or it is the champion already."""

    def change(con: duckdb.DuckDBPyConnection, before: str | None) -> tuple[str, str | None]:
        _check_known(con, model)
        if before == model:
            raise InputError(f"{model} is the champion already")
        return model, model

    return _decide(root, PromotionAction.PROMOTE, change, reason)


def keep(root: Path | str, challenger: str, reason: Reason) -> Promotion:
    """Write down that `challenger` does not take the champion's place."""
    return _decide(root, PromotionAction.KEEP, lambda _con, before: (challenger, before), reason)


def rollback(root: Path | str, reason: Reason) -> Promotion:
    """Bring the champion before this one back. Raises InputError where there was none."""

    def change(con: duckdb.DuckDBPyConnection, before: str | None) -> tuple[str, str | None]:
        earlier = previous_champion(con)
        if earlier is None:
            raise InputError(f"no champion before {before}: choose one with `gptface promote`" if before else _NONE)
        _check_known(con, earlier)
        return earlier, earlier

    return _decide(root, PromotionAction.ROLLBACK, change, reason)


def retire(root: Path | str, model: str, reason: Reason) -> Promotion:
    """End the alias of the champion `model`, whose folder is gone. Raises InputError where it is not the champion."""

    def change(_con: duckdb.DuckDBPyConnection, before: str | None) -> tuple[str, str | None]:
        if before != model:
            raise InputError(f"{model} is not the champion ({before or 'there is none'})")
        return model, None

    return _decide(root, PromotionAction.RETIRE, change, reason)


def challenge(root: Path | str, model: str) -> None:
    """Give `model` the alias of the challenger, and no other. The champion stays what it is."""

    def write() -> None:
        with lake.writing(root) as con:
            con.execute("BEGIN")
            _check_known(con, model)
            if champion_of(con) != model:
                _move_alias(con, CHALLENGER, model)
            lake.commit(con, root)

    lake.patiently(write, _PATIENCE_S)


_NONE = "no model has been champion yet: choose one with `gptface promote`"


def _check_known(con: duckdb.DuckDBPyConnection, model: str) -> None:
    names = [row[0] for row in con.execute("SELECT model FROM models ORDER BY created_at, model").fetchall()]
    if model not in names:
        raise InputError(f"the lake has no model {model!r}: it has {', '.join(names) or 'none'}")


def _move_alias(con: duckdb.DuckDBPyConnection, alias: str, model: str | None) -> None:
    con.execute("UPDATE models SET alias = NULL WHERE alias = ?", [alias])
    if model is not None:
        con.execute("UPDATE models SET alias = ? WHERE model = ?", [alias, model])


def _decide(
    root: Path | str,
    action: PromotionAction,
    change: Callable[[duckdb.DuckDBPyConnection, str | None], tuple[str, str | None]],
    reason: Reason,
) -> Promotion:
    """One transaction: `change` (connection, champion) gives whom it is about and the champion after it."""

    def write() -> Promotion:
        with lake.writing(root) as con:
            con.execute("BEGIN")
            before = champion_of(con)
            model, after = change(con, before)
            row = con.execute("SELECT coalesce(max(number), 0) + 1 FROM promotions").fetchone()
            number, at = int(row[0]) if row else 1, dt.datetime.now(dt.UTC)
            if after != before:
                _move_alias(con, CHAMPION, after)
            figures = json.dumps(dict(reason.figures), sort_keys=True)
            who = (reason.decided_by, reason.why)
            con.execute(
                "INSERT INTO promotions (number, decided_at, action, model, champion, previous, decided_by, why, "
                "figures, run_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [number, at, action.value, model, after, before, *who, figures, reason.run_id],
            )
            message = lake.quoted(f"{action.value} {model}")
            con.execute(f"CALL {tables.LAKE}.set_commit_message('gptface', {message})")
            lake.commit(con, root)
            return Promotion(number, at, action.value, model, after, before, *who, reason.figures, reason.run_id)

    return lake.patiently(write, _PATIENCE_S)
