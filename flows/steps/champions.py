"""The models of a root as a table, and who of them is the champion: what the lake says beside what lies in the folders.

The table and its history are rows (`warehouse.champions`); here a name must also have a folder with a finished model.
"""

from __future__ import annotations

import contextlib
import getpass
import logging
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flows.steps import model
from flows.steps.config import ConfigError
from flows.steps.layout import Layout

if TYPE_CHECKING:
    from warehouse.champions import Promotion

logger = logging.getLogger(__name__)
FIGURES = ("itm_accuracy", "probe_balanced_accuracy", "inpaint_gain_db", "mim_gain_nats")


@dataclass(frozen=True)
class ModelRow:
    """A model of the lake. `figures`: newest value by metric, of those in FIGURES; `whole`: its folder is there."""

    model: str
    alias: str
    release: int | None
    preset: str
    parent: str
    created_at: datetime
    figures: dict[str, float]
    whole: bool

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "created_at": self.created_at.isoformat()}


def read_models(layout: Layout) -> list[ModelRow]:
    """All models of the lake, the newest first. Raises InputError where there is no lake."""
    import warehouse

    settle(layout)
    with contextlib.closing(warehouse.connect(layout.root)) as con:
        rows = con.execute(
            """SELECT model, coalesce(alias, ''), release, preset, coalesce(parent, ''), created_at FROM models
               ORDER BY created_at DESC, model"""
        ).fetchall()
        measured = con.execute("SELECT model, metric, value FROM evaluations ORDER BY created_at").fetchall()
    figures: dict[str, dict[str, float]] = {}
    for name, metric, value in measured:
        if metric in FIGURES:
            figures.setdefault(name, {})[metric] = float(value)
    return [
        ModelRow(name, alias, release, preset, parent, at, figures.get(name, {}), model.is_whole(layout, name))
        for name, alias, release, preset, parent, at in rows
    ]


def read_history(layout: Layout) -> list[Promotion]:
    """Every decision about the champion, the newest first."""
    import warehouse
    from warehouse.champions import history

    with contextlib.closing(warehouse.connect(layout.root)) as con:
        return history(con)[::-1]


def promote(layout: Layout, name: str, why: str) -> Promotion:
    """Make a model the champion by a person's decision. Raises ConfigError where its folder is not whole."""
    from warehouse.champions import Reason
    from warehouse.champions import promote as write

    settle(layout)
    _check_whole(layout, name)
    return write(layout.root, name, Reason(_person(), why, _figures(layout, name)))


def rollback(layout: Layout, why: str) -> Promotion:
    """Bring back the champion before this one. Raises ConfigError where its folder is gone, InputError without one."""
    import warehouse
    from warehouse.champions import Reason, previous_champion
    from warehouse.champions import rollback as write

    settle(layout)
    with contextlib.closing(warehouse.connect(layout.root)) as con:
        earlier = previous_champion(con)
    if earlier is not None:
        _check_whole(layout, earlier)
    return write(layout.root, Reason(_person(), why, _figures(layout, earlier) if earlier else {}))


def settle(layout: Layout) -> None:
    """Where the champion's folder is gone (removed by hand, say after a takedown), its alias ends: no default dangles.

    Nobody takes its place by that: commands fall back to the newest model, `gptface rollback` to the champion before.
    """
    from warehouse.champions import Reason, retire
    from warehouse.mirror import fetch

    fetch(layout.root, f"models/*/{model.DONE_FILE}")
    name = model.champion(layout)
    if name is not None and not model.is_whole(layout, name):
        logger.warning("the champion %s has no folder any more: it is champion no longer", name)
        retire(layout.root, name, Reason("gptface", "its folder is gone"))


def _check_whole(layout: Layout, name: str) -> None:
    if not model.is_whole(layout, name):
        names = ", ".join(path.name for path in model.trained_models(layout)) or "none yet: run gptface train"
        raise ConfigError(f"no trained model {name!r} under {layout.models}: there is {names}")


def _person() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in some containers
        return "unknown"


def _figures(layout: Layout, name: str) -> dict[str, float]:
    return next((row.figures for row in read_models(layout) if row.model == name), {})
