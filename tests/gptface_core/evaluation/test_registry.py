from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gptface_core import InputError
from gptface_core.evaluation import evaluate
from gptface_core.evaluation.context import Context, NotMeasuredError, crop_points
from gptface_core.evaluation.figure import Figure
from gptface_core.evaluation.registry import NEEDS, Benchmark, benchmarks, choose, run_suite
from gptface_core.evaluation.rows import load_rows
from gptface_core.evaluation_options import SUITES, EvaluationOptions
from gptface_core.regions import CANONICAL

from .conftest import Drawn


def test_every_benchmark_is_named_once_and_runs_in_known_suites() -> None:
    found = benchmarks()
    for name, benchmark in found.items():
        assert benchmark.name == name and set(benchmark.suites) <= set(SUITES) and set(benchmark.needs) <= set(NEEDS)
    quick, full = ([b.name for b in choose(EvaluationOptions(suite=suite))] for suite in SUITES)
    assert set(quick) < set(full) and "editing" in full and "editing" not in quick
    assert full[: len(quick)] == quick, "the quick ones come first: their numbers are those of the quick suite"


def test_benchmarks_are_chosen_by_name_and_the_sweep_by_its_strengths() -> None:
    assert [b.name for b in choose(EvaluationOptions(only=("unmask", "itm")))] == ["itm", "unmask"]
    assert "editing_alpha" not in [b.name for b in choose(EvaluationOptions(suite="full"))]
    assert "editing_alpha" in [b.name for b in choose(EvaluationOptions(suite="full", alphas=(0.1,)))]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"suite": "slow"}, "no suite 'slow': choose quick or full"),
        ({"only": ("nothing",)}, "no benchmark 'nothing': choose inpaint"),
        ({"split": "train"}, "no split 'train' to measure on: choose val or test"),
        ({"alphas": (0.1, -1)}, "alphas 0.1, -1: give numbers above 0"),
        ({"faces": 0}, "faces 0"),
    ],
)
def test_what_does_not_fit_is_one_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose(EvaluationOptions(**options))  # type: ignore[arg-type]


def test_what_cannot_run_is_told_with_its_reason(drawn: Drawn, tmp_path: Path) -> None:
    def refuses(_: Context) -> list[Figure]:
        raise NotMeasuredError("the moon is not full")

    def works(context: Context) -> list[Figure]:
        return [context.share("fine", "share", [True, False, True, True], baseline=0.5, note="n")]

    chosen = [
        Benchmark("odd", ("full",), refuses),
        Benchmark("fine", ("full",), works),
        Benchmark("labelled", ("full",), works, needs=("labels",), headline="labelled_share"),
        Benchmark("public", ("full",), works, needs=("data",)),
    ]
    context = drawn.context(tmp_path, labelled=False)
    measured = run_suite(context, chosen)
    assert [(f.benchmark, f.value, f.baseline, f.samples, f.details) for f in measured.figures] == [
        ("fine", 0.75, 0.5, 4, {"note": "n"})
    ]
    assert list(measured.seconds) == ["fine"]
    assert context.left_out["odd"] == "the moon is not full"
    assert "labels" in context.left_out["labelled_share"] and "--data" in context.left_out["public"]


def test_few_training_faces_make_no_judge(drawn: Drawn, tmp_path: Path) -> None:
    context = drawn.context(tmp_path)
    assert context.missing("classifier") is None
    for row_id in context.train.row_ids[10:]:
        assert context.truth is not None
        del context.truth[row_id]
    assert "there are 10" in (context.missing("classifier") or "")


class Watched(EvaluationOptions):
    """EvaluationOptions that tell which of them are asked for."""

    def seen(self, names: set[str]) -> None:
        """From now on the names go there."""
        object.__setattr__(self, "_seen", names)

    def __getattribute__(self, name: str) -> object:
        if name in EvaluationOptions.__dataclass_fields__:
            self.__dict__.get("_seen", set()).add(name)
        return super().__getattribute__(name)


@pytest.mark.e2e
def test_the_full_suite_measures_everything_that_is_at_hand(drawn: Drawn, tmp_path: Path) -> None:
    options = Watched(suite="full", faces=24, classifier_steps=3, alphas=(0.5,), face_models=str(tmp_path))
    looked_at: dict[str, set[str]] = {}

    def on_progress(done: int, total: int, note: str) -> None:
        assert 0 <= done < total
        options.seen(looked_at.setdefault(note.split(" ")[0], set()))

    results = evaluate(drawn.model_dir, drawn.shards, drawn.labels, tmp_path, options=options, on_progress=on_progress)
    options.seen(set())
    assert json.loads((tmp_path / "evaluation.json").read_text()) == results
    figures = {(f["benchmark"], f["metric"]): f for f in results["figures"]}
    assert len(figures) == len(results["figures"]), "a metric is named once in its benchmark"
    for figure in figures.values():
        assert figure["low"] <= figure["value"] <= figure["high"]
    public = {b.name for b in choose(options) if "data" in b.needs}
    assert len(public) == 7 and set(results["seconds"]) == {b.name for b in choose(options)} - public
    assert set(results["left_out"]) == {"editing identity", *public}
    assert "InsightFace" in results["left_out"]["editing identity"]
    for benchmark in choose(options):
        missed = looked_at[benchmark.name] - {"split", "suite", "only", *benchmark.options}
        assert not missed, f"{benchmark.name} depends on {missed}, which its key does not know"
    assert set(results["metrics"]) == {"mim_gain_nats", "inpaint_gain_db", "itm_accuracy", "probe_balanced_accuracy"}
    for name, rows in load_rows(tmp_path).items():
        assert np.mean(list(rows.values())) == pytest.approx(results["metrics"][name]["value"])
    assert set(load_rows(tmp_path)) == set(results["metrics"])
    drawn_pictures = {path.stem for path in (tmp_path / "figures").iterdir()}
    drawn_pictures.discard("leaks")  # drawn faces may look alike
    assert drawn_pictures == {
        "inpaintings",
        "inpaintings_extremes",
        "edits",
        "editing",
        "unmask",
        "text_to_face",
    }


@pytest.mark.e2e
def test_the_strength_of_guidance_is_compared_on_val_alone(drawn: Drawn, tmp_path: Path) -> None:
    context = drawn.context(
        tmp_path, EvaluationOptions(only=("editing_alpha",), alphas=(0.1, 1.0), faces=8, classifier_steps=2)
    )
    figures = run_suite(context, choose(context.options)).figures
    assert "test" not in vars(context), "the test split was read"
    assert {f.metric.split("_", 2)[2] for f in figures} == {"unguided", "alpha_0.1", "alpha_1"}
    assert all(f.samples == 8 for f in figures)


def test_points_go_with_the_crop() -> None:
    assert (crop_points({}, 100) == CANONICAL * 100).all()
    # An upright face whose eyes are 50 px apart: the crop's side is 4 times that, so the points keep their distances.
    photo = [[100, 100], [150, 100], [125, 120], [105, 150], [145, 150]]
    found = crop_points({"points_px": [x for pair in photo for x in pair]}, 200)
    assert found[1][0] - found[0][0] == pytest.approx(50) and found[3][1] - found[0][1] == pytest.approx(50)
    assert (found[0][0] + found[1][0]) / 2 == pytest.approx(100)
