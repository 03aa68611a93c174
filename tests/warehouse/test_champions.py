"""Who is the champion: the alias, its history, and that both change together or not at all."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path

import duckdb
import pytest

from warehouse import champions, connect, lake
from warehouse.champions import (
    Promotion,
    Reason,
    challenge,
    champion_of,
    history,
    keep,
    previous_champion,
    retire,
    rollback,
    succession,
)
from warehouse.champions import promote as make_champion
from warehouse.errors import InputError
from warehouse.register import register

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
WHY = Reason("me", "better", {"itm_accuracy": 0.9}, "run")


def model(name: str, **others: object) -> dict[str, object]:
    fixed = {"kind": "gptface", "preset": "demo", "path": f"models/{name}", "run_id": "r", "created_at": NOW}
    return {"model": name, **fixed, **others}


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with the models a, b and c. Never changed: copy it."""
    root = tmp_path_factory.mktemp("champions")
    lake.create(root)
    register(root, "models", [model(name) for name in "abc"])
    return root


@pytest.fixture
def root(registered: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(registered, tmp_path / "root"))


def aliases(root: Path) -> dict[str, str]:
    with connect(root) as con:
        return dict(con.execute("SELECT model, alias FROM models WHERE alias IS NOT NULL").fetchall())


def test_promotions_flip_the_alias_and_rollbacks_walk_back(root: Path) -> None:
    challenge(root, "a")
    assert aliases(root) == {"a": "challenger"}
    make_champion(root, "a", WHY)
    challenge(root, "b")
    assert aliases(root) == {"a": "champion", "b": "challenger"}
    make_champion(root, "b", WHY)
    make_champion(root, "c", WHY)
    assert aliases(root) == {"c": "champion"}
    assert rollback(root, WHY).champion == "b"
    assert rollback(root, WHY).champion == "a"
    assert aliases(root) == {"a": "champion"}
    with pytest.raises(InputError, match="no champion before a: choose one"):
        rollback(root, WHY)
    with connect(root) as con:
        told = [(each.action, each.model, each.previous) for each in history(con)]
        assert json.loads(con.execute("SELECT figures FROM promotions").fetchall()[0][0]) == {"itm_accuracy": 0.9}
    assert told == [
        ("promote", "a", None),
        ("promote", "b", "a"),
        ("promote", "c", "b"),
        ("rollback", "b", "c"),
        ("rollback", "a", "b"),
    ]


def test_a_rejected_challenger_is_written_down_and_changes_no_alias(root: Path) -> None:
    make_champion(root, "a", WHY)
    challenge(root, "b")
    kept = keep(root, "b", Reason("night", "worse: itm_accuracy"))
    assert (kept.number, kept.champion, kept.previous) == (2, "a", "a")
    assert aliases(root) == {"a": "champion", "b": "challenger"}
    challenge(root, "a")  # the champion is its own challenger never
    assert aliases(root) == {"a": "champion", "b": "challenger"}


def test_a_model_that_is_registered_again_keeps_its_alias(root: Path) -> None:
    make_champion(root, "a", WHY)
    register(root, "models", model("a", release=7))
    assert aliases(root) == {"a": "champion"}


def test_a_retired_champion_leaves_no_alias_and_rollback_finds_the_one_before(root: Path) -> None:
    make_champion(root, "a", WHY)
    make_champion(root, "b", WHY)
    with pytest.raises(InputError, match=r"a is not the champion \(b\)"):
        retire(root, "a", WHY)
    retire(root, "b", WHY)
    assert aliases(root) == {}
    with connect(root) as con:
        assert champion_of(con) is None
        assert previous_champion(con) == "a"
    assert rollback(root, WHY).champion == "a"


def test_what_cannot_be_is_one_line_and_changes_nothing(root: Path) -> None:
    with pytest.raises(InputError, match="no model has been champion yet"):
        rollback(root, WHY)
    make_champion(root, "a", WHY)
    with pytest.raises(InputError, match="the lake has no model 'x': it has a, b, c"):
        make_champion(root, "x", WHY)
    with pytest.raises(InputError, match="a is the champion already"):
        make_champion(root, "a", WHY)
    with connect(root) as con:
        assert len(history(con)) == 1


def test_a_crash_before_the_commit_leaves_alias_and_history_as_they_were(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_champion(root, "a", WHY)
    moved: list[str | None] = []

    def move(con: duckdb.DuckDBPyConnection, alias: str, name: str | None) -> None:
        original(con, alias, name)
        moved.append(name)
        raise RuntimeError("power cut")

    original = champions._move_alias
    monkeypatch.setattr(champions, "_move_alias", move)
    with pytest.raises(RuntimeError, match="power cut"):
        make_champion(root, "b", WHY)
    assert moved == ["b"]
    assert aliases(root) == {"a": "champion"}
    with connect(root) as con:
        assert len(history(con)) == 1


def line(*steps: tuple[str, str, str | None]) -> list[str]:
    return succession([Promotion(n, NOW, a, m, c, None, "", "", {}, "") for n, (a, m, c) in enumerate(steps)])


def test_succession_of_one_who_comes_back() -> None:
    promoted = [("promote", name, name) for name in ("a", "b", "a")]
    assert line(*promoted) == ["a", "b", "a"]
    assert line(*promoted, ("rollback", "b", "b")) == ["a", "b"]
    assert line(*promoted, ("keep", "c", "a"), ("retire", "a", None)) == ["b"]
