"""An evaluation goes on where it was: killed, asked for more, or asked again under another key."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptface_core.bundle import Bundle
from gptface_core.editing import EditResult, edit_each
from gptface_core.evaluation import EvaluationOptions, edits, evaluate
from gptface_core.evaluation.figure import Figure
from gptface_core.evaluation.kept import KeptWork, Record
from gptface_core.evaluation.rows import load_rows
from gptface_core.shards import Pictures

from .conftest import Drawn

FIGURE = Figure("fine", "share", 0.1 + 0.2, 0.1, 0.5, None, 4, 0, {"by": {"a": [1.5, None]}})


def record(before: int = 1, after: int = 1) -> Record:
    return Record([FIGURE], {"share": {"face": 1 / 3}}, {"part": "why"}, ["sheet"], 2.5, {"at": before}, {"at": after})


def test_a_record_comes_back_as_it_was_and_under_its_own_key_alone(tmp_path: Path) -> None:
    work = KeptWork(tmp_path, "fine", {"model": "a", "seed": 0})
    assert work.load({"at": 1}) is None
    work.save(record())
    assert work.load({"at": 1}) == record()
    assert KeptWork(tmp_path, "fine", {"seed": 0, "model": "a"}).load({"at": 1}) == record()
    assert KeptWork(tmp_path, "fine", {"model": "b", "seed": 0}).load({"at": 1}) is None
    (tmp_path / "fine.json").write_text('{"key": ')
    assert work.load({"at": 1}) is None
    work.save(record())
    work.forget()
    assert work.load({"at": 1}) is None and not list(tmp_path.iterdir())


def test_who_drew_from_the_suites_stream_must_meet_it_where_it_was(tmp_path: Path) -> None:
    work = KeptWork(tmp_path, "fine", {})
    work.save(record(before=1, after=2))
    assert work.load({"at": 1}) is not None and work.load({"at": 3}) is None
    work.save(record(before=1, after=1))
    assert work.load({"at": 3}) is not None, "it drew nothing: where the stream stands does not matter"


def test_chunks_stay_until_their_benchmark_has_ended(tmp_path: Path) -> None:
    work, other = KeptWork(tmp_path, "fine", {"seed": 0}), KeptWork(tmp_path, "fine", {"seed": 1})
    arrays = {"said": np.array(["red", "black"]), "right": np.array([True, False]), "db": np.array([0.1, np.nan])}
    work.save_chunk("a-00000", arrays)
    found = work.chunk("a-00000")
    assert found is not None and set(found) == set(arrays)
    for name, values in arrays.items():
        np.testing.assert_array_equal(found[name], values)
    assert other.chunk("a-00000") is None and work.chunk("a-00020") is None
    path = tmp_path / "fine" / "a-00000.npz"
    path.write_bytes(path.read_bytes()[:100])
    assert work.chunk("a-00000") is None, "damaged: made anew"
    work.save(record())
    assert not path.exists()


def measured(drawn: Drawn, out: Path, options: EvaluationOptions, dies_at: str = "", **more: Any) -> dict[str, Any]:
    """Evaluate; where `dies_at` is told as the progress, the process ends at once."""

    def tell(_done: int, _total: int, note: str) -> None:
        if dies_at and note == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    return evaluate(drawn.model_dir, drawn.shards, drawn.labels, out, options=options, on_progress=tell, **more)


def killed(drawn: Drawn, out: Path, options: EvaluationOptions, at: str) -> None:
    child = multiprocessing.get_context("fork").Process(target=measured, args=(drawn, out, options, at))
    child.start()
    child.join(600)
    assert child.exitcode == -signal.SIGKILL, f"it was to die at '{at}'"


def lasting(results: dict[str, Any]) -> dict[str, Any]:
    """What does not tell how a result came about."""
    return {name: value for name, value in results.items() if name not in ("seconds", "kept", "suite")}


@pytest.mark.e2e
def test_a_killed_evaluation_ends_as_an_undisturbed_one(drawn: Drawn, tmp_path: Path) -> None:
    options = EvaluationOptions(suite="quick")
    whole = measured(drawn, tmp_path / "whole", options)
    assert whole["kept"] == []
    killed(drawn, tmp_path / "killed", options, "itm")
    assert not (tmp_path / "killed" / "evaluation.json").exists()
    resumed = measured(drawn, tmp_path / "killed", options)
    assert resumed["kept"] == ["inpaint", "mim"], "they drew random numbers before the others, and are not run again"
    assert lasting(resumed) == lasting(whole)
    assert load_rows(tmp_path / "killed") == load_rows(tmp_path / "whole")

    (tmp_path / "killed" / "figures" / "edits.png").unlink()
    more = replace(options, only=(*whole["seconds"], "unmask"), faces=6)
    assert measured(drawn, tmp_path / "killed", more)["kept"] == ["inpaint", "mim", "itm", "probe"], "a picture is gone"
    assert (tmp_path / "killed" / "figures" / "edits.png").is_file()
    assert measured(drawn, tmp_path / "killed", more)["kept"] == [*whole["seconds"], "unmask"]
    assert measured(drawn, tmp_path / "killed", replace(more, faces=7))["kept"] == [*whole["seconds"]]
    assert measured(drawn, tmp_path / "killed", options, seed=1)["kept"] == []
    again = measured(drawn, tmp_path / "whole", options, fresh=True)
    assert again["kept"] == [] and lasting(again) == lasting(whole)


@pytest.mark.e2e
def test_a_long_benchmark_goes_on_within(drawn: Drawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = EvaluationOptions(only=("editing",), faces=24, classifier_steps=2)
    whole = measured(drawn, tmp_path / "whole", options)
    killed(drawn, tmp_path / "killed", options, "editing beard unguided: 20 of 24")
    chunks = sorted(path.stem for path in (tmp_path / "killed" / "kept" / "test" / "editing").iterdir())
    assert chunks[:3] == ["beard-guided-00000", "beard-guided-00020", "beard-unguided-00000"]

    edited: list[int] = []

    def counted(bundle: Bundle, crops: list[Pictures], *more: Any, **options: Any) -> Iterator[EditResult]:
        edited.append(len(crops))
        return edit_each(bundle, crops, *more, **options)

    monkeypatch.setattr(edits, "edit_each", counted)
    resumed = measured(drawn, tmp_path / "killed", options)
    assert edited == [4, *[20, 4] * 3], "the rest of that method, and three baselines; nothing of the tasks before"
    assert lasting(resumed) == lasting(whole) and resumed["kept"] == []
    assert not (tmp_path / "killed" / "kept" / "test" / "editing").exists()
