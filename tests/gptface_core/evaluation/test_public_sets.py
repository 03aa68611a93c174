"""Benchmarks on data sets that a user has: drawn noise in the official layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gptface_core.datasets import fer2013
from gptface_core.evaluation import manipulation
from gptface_core.evaluation.attribute_classifier import SIDE_PX
from gptface_core.evaluation.context import Context
from gptface_core.evaluation.expression_judge import trained_judge
from gptface_core.evaluation.registry import choose, run_suite
from gptface_core.evaluation_options import EvaluationOptions

from ..small_sets import write_fer2013
from ..test_supervised import striped
from .conftest import Drawn

COUNTS = {"Training": 42, "PublicTest": 21, "PrivateTest": 150}
TWINS = 3


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds FER2013 alone; three of its test pictures are training pictures."""
    monkeypatch.setattr(fer2013, "COUNTS", {"train": 42, "val": 21, "test": 150})
    write_fer2013(tmp_path / "data" / "fer2013", COUNTS, TWINS)
    return tmp_path / "data"


def asked(drawn: Drawn, out: Path, data: Path, *names: str) -> Context:
    options = EvaluationOptions(only=names, data=str(data), faces=22, judge_steps=2, fine_tune=1)
    return drawn.context(out, options)


@pytest.mark.e2e
def test_sets_that_are_there_are_measured_and_others_say_where_to_get_them(
    drawn: Drawn, data: Path, tmp_path: Path
) -> None:
    context = asked(drawn, tmp_path, data, "expression_fer2013", "expression_rafdb", "attributes_lfw")
    measured = run_suite(context, choose(context.options))
    metrics = {figure.metric for figure in measured.figures}
    modes = ("probe_1pct", "probe_10pct", "probe", "finetuned")
    assert metrics == {f"{mode}_{score}" for mode in modes for score in ("accuracy", "mean_class_accuracy")}
    assert {figure.benchmark for figure in measured.figures} == {"expression_fer2013"}
    assert set(context.left_out) == {"expression_rafdb", "attributes_lfw"}
    assert "no lfw-deepfunneled.zip of LFW" in context.left_out["attributes_lfw"]
    assert "RAF-DB" in context.left_out["expression_rafdb"] and "get the data set" in context.left_out["attributes_lfw"]
    for figure in measured.figures:
        leak_free = figure.details["parts"]["without_look_alikes"]
        assert leak_free["rows"] == 150 - TWINS, "a test picture put into training is reported"
        assert figure.details["framing"] == "as it is"


@pytest.mark.e2e
def test_expressions_are_put_on_neutral_faces_and_judged(drawn: Drawn, data: Path, tmp_path: Path) -> None:
    context = asked(drawn, tmp_path, data, "manipulation")
    figures = {figure.metric: figure for figure in run_suite(context, choose(context.options)).figures}
    assert set(figures) == {"success", "success_unguided", "judge_accuracy", "judge_accuracy_reconstructed"}
    assert figures["success"].samples == 21, "the neutral test faces; none of the twins is one of them"
    assert figures["success"].low is not None and figures["success"].baseline is not None
    assert list(figures["success"].details["by"]["expression"]) == ["happy"]
    assert {name.split(" ")[-1] for name in context.left_out} == {"surprise", "sad", "angry"}
    assert "surprised nor astonished" in context.left_out["manipulation surprise"]
    assert figures["judge_accuracy"].samples == 150 - TWINS
    assert (tmp_path / "figures" / "manipulation.png").is_file()


def test_an_expression_is_changed_within_the_inner_face_alone() -> None:
    region = manipulation.inner_face(48)
    marks = (fer2013.FRAME_POINTS * 48).astype(int)
    assert region[marks[:, 1], marks[:, 0]].all() and not region[0].any() and not region[:, 0].any()
    assert 0.4 < region.mean() < 0.7


@pytest.mark.e2e
def test_the_judge_learns_what_is_to_be_seen_and_is_kept(tmp_path: Path) -> None:
    faces = striped()
    test = faces.part("test")
    judge = trained_judge(faces.part("train"), tmp_path, 40)
    truth = np.asarray(test.classes)[test.class_numbers()]
    pictures = [test.picture(item, SIDE_PX) for item in test.items]
    said = judge.predict(pictures)
    assert (said == truth).mean() > 0.8
    tinted = [np.stack([p[..., 0], p[..., 0], p[..., 0]], 2) for p in pictures]
    assert (judge.predict(tinted) == said).mean() > 0.9, "colour tells nothing"
    assert (trained_judge(faces.part("train"), tmp_path, 40).predict(pictures) == said).all()
    assert len(list(tmp_path.glob("expression-judge-*.safetensors"))) == 1
