"""Scores of attribute and expression benchmarks: by hand, against scikit-learn, and with errors planted on purpose."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from gptface_core.config import Preset, load_preset, override
from gptface_core.datasets import EXPRESSION, FaceItem, FaceSet
from gptface_core.datasets.faceset import UNKNOWN_CLASS
from gptface_core.errors import InputError
from gptface_core.evaluation.encoders import EmbeddingEncoder, HogEncoder, ModelEncoder, cached_features
from gptface_core.evaluation.finetune import FineTuning
from gptface_core.evaluation.linear import fit_column
from gptface_core.evaluation.protocol import Parts, majority, probes, tuned
from gptface_core.evaluation.subgroups import by_subgroup
from gptface_core.evaluation.supervised import (
    Attempt,
    attribute_problem,
    compare,
    expression_problem,
    figures,
    subset,
)
from gptface_core.evaluation.untrained import untrained_preset

CLASSES = ("calm", "happy", "sad")


class Stripes:
    """Pictures whose first letter decides: light at the left (a), at the top (b), or even noise."""

    def read(self, file: str) -> bytes:
        import io

        from PIL import Image

        rng = np.random.default_rng(int(file[1:]))
        rgb = rng.integers(60, 120, (32, 32, 3)).astype(np.uint8)
        if file[0] == "a":
            rgb[:, :16] += 120
        elif file[0] == "b":
            rgb[:16] += 120
        out = io.BytesIO()
        Image.fromarray(rgb).save(out, "JPEG", quality=95)
        return out.getvalue()


def striped(shuffled: bool = False, count: int = 360) -> FaceSet:
    """Expression and attribute follow the picture; shuffled, they follow nothing."""
    rng = np.random.default_rng(3)
    items = []
    for number in range(count):
        kind = "abc"[number % 3]
        split = ("train", "train", "train", "val", "test", "test")[number // 3 % 6]
        told = "abc"[int(rng.integers(3))] if shuffled else kind
        labels = {EXPRESSION: CLASSES["abc".index(told)], "Left": told == "a", "Top": told == "b"}
        if number % 7 == 0:
            labels["Top"] = None
        groups = {"age": "young" if number % 2 else "old"}
        items.append(FaceItem(f"{number}", f"{kind}{number}", split, labels, f"person {number // 3}", groups))
    return FaceSet("stripes", tuple(items), Stripes(), True, ("Left", "Top"), CLASSES)


def literal(truth: list[int], people: list[str] | None = None) -> FaceSet:
    names = ("calm", "happy", "sad")
    items = [
        FaceItem(f"{n}", f"c{n}", "test", {EXPRESSION: names[t] if t >= 0 else None}, people[n] if people else None)
        for n, t in enumerate(truth)
    ]
    return FaceSet("literals", tuple(items), Stripes(), True, (), CLASSES)


TRUE = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2]
SAID = [0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 1, 1, 1, 0, 0, 2, 2, 0, 0, 1]


def test_twenty_literals_scored_by_hand() -> None:
    """7 of 10, 3 of 6 and 1 of 4 are right: 11 of 20, and (0.7 + 0.5 + 0.25) / 3."""
    faces = literal(TRUE)
    attempt = Attempt("by hand", "probe", np.array(SAID)[None, :, None])
    exact, balanced = figures(expression_problem(faces), faces, attempt)
    assert (exact.metric, balanced.metric) == ("probe_accuracy", "probe_mean_class_accuracy")
    assert exact.value == pytest.approx(0.55) and balanced.value == pytest.approx(1.45 / 3)
    assert exact.baseline == pytest.approx(0.5) and balanced.baseline == pytest.approx(1 / 3)
    assert exact.details["confusion"] == [[7, 2, 1], [2, 3, 1], [2, 1, 1]]
    assert exact.details["recall"] == pytest.approx({"calm": 0.7, "happy": 0.5, "sad": 0.25})
    assert exact.low is not None and exact.high is not None and exact.low < 0.55 < exact.high
    assert exact.value == pytest.approx(accuracy_score(TRUE, SAID))
    assert balanced.value == pytest.approx(balanced_accuracy_score(TRUE, SAID))


def test_unknown_labels_count_nowhere() -> None:
    faces = literal([*TRUE, -1, -1])
    attempt = Attempt("by hand", "probe", np.array([*SAID, 0, 1])[None, :, None])
    exact, _ = figures(expression_problem(faces), faces, attempt)
    assert exact.value == pytest.approx(0.55) and exact.details["columns"]["expression"]["rows"] == 20


def test_attributes_are_averaged_over_columns_each_over_its_known_rows() -> None:
    table = [(1, None), (1, 0), (0, 0), (0, 1)]
    items = tuple(
        FaceItem(f"{n}", f"c{n}", "test", {"A": bool(a), "B": None if b is None else bool(b)})
        for n, (a, b) in enumerate(table)
    )
    faces = FaceSet("two", items, Stripes(), True, ("A", "B"))
    attempt = Attempt("by hand", "probe", np.array([[[1, 1], [0, 0], [0, 0], [0, 0]]]))
    exact, balanced = figures(attribute_problem(faces), faces, attempt)
    assert exact.value == pytest.approx((3 / 4 + 2 / 3) / 2) and exact.metric == "probe_accuracy"
    assert balanced.value == pytest.approx(((0.5 + 1) / 2 + (1 + 0) / 2) / 2)
    assert balanced.metric == "probe_balanced_accuracy" and exact.details["columns"]["B"]["rows"] == 3


def test_an_interval_is_that_of_a_share_and_wider_where_rows_are_of_few_people() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(3, size=900)
    right = np.repeat(rng.random(30) < 0.7, 30)  # 30 people, each always right or always wrong
    said = np.where(right, truth, (truth + 1) % 3)
    attempt = Attempt("by hand", "probe", said[None, :, None])
    widths = {}
    for name, people in (("apart", None), ("together", [f"p{n // 30}" for n in range(900)])):
        faces = literal(truth.tolist(), people)
        exact, _ = figures(expression_problem(faces), faces, attempt)
        assert exact.low is not None and exact.high is not None
        widths[name] = exact.high - exact.low
    share = right.mean()
    assert widths["apart"] == pytest.approx(2 * 1.96 * math.sqrt(share * (1 - share) / 900), rel=0.15)
    assert widths["together"] == pytest.approx(2 * 1.96 * math.sqrt(share * (1 - share) / 30), rel=0.25)


def test_several_seeds_give_their_mean_and_deviation() -> None:
    faces = literal(TRUE)
    other = np.array(TRUE)
    attempt = Attempt("by hand", "probe", np.stack([SAID, other])[:, :, None], 0.1)
    exact, _ = figures(expression_problem(faces), faces, attempt)
    assert exact.metric == "probe_10pct_accuracy" and exact.value == pytest.approx((0.55 + 1) / 2)
    assert exact.details["by_seed"] == pytest.approx([0.55, 1])
    assert exact.details["deviation"] == pytest.approx(0.3182, abs=1e-3)


def test_a_paired_difference_is_narrower_than_two_intervals_suggest() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(3, size=600)
    first = np.where(rng.random(600) < 0.6, truth, (truth + 1) % 3)
    second = np.where(rng.random(600) < 0.05, (truth + 2) % 3, first)  # nearly the same answers, a little worse
    faces = literal(truth.tolist())
    found = compare(expression_problem(faces), faces, first[None, :, None], second[None, :, None])["accuracy"]
    assert found["low"] > 0 and found["value"] == pytest.approx(np.mean(first == truth) - np.mean(second == truth))
    same = compare(expression_problem(faces), faces, first[None, :, None], first[None, :, None])["accuracy"]
    assert same == {"value": 0, "low": 0, "high": 0}


def test_a_subgroup_with_three_samples_gets_no_percentage() -> None:
    groups = [{"age": "old"}] * 3 + [{"age": "young"}] * 60 + [{}] * 5
    right = np.ones(68)
    right[3:33] = 0.5
    right[62] = np.nan  # an item of which nothing is known
    table = by_subgroup(right, groups)["age"]
    assert table["old"] == {"samples": 3}
    assert table["young"]["samples"] == 59 and table["young"]["value"] == pytest.approx((15 + 29) / 59)
    assert table["young"]["low"] < table["young"]["value"] < table["young"]["high"]
    many = replace(striped(), items=striped().items[:3])  # three items of two columns are three samples
    attempt = Attempt("by hand", "probe", np.zeros((1, 3, 2), np.int64))
    exact, _ = figures(attribute_problem(many), many, attempt)
    assert exact.details["subgroups"]["age"] == {"old": {"samples": 2}, "young": {"samples": 1}}


def micro() -> Preset:
    shape = {"layers": 1, "width": 32, "heads": 2, "projection_dim": 8, "max_text_tokens": 8}
    tokenizer = {"image_px": 32, "grid": 8, "levels": [8, 8], "width": 32, "blocks": 1}
    return override(load_preset("demo"), {"name": "micro", "threads": 1, "tokenizer": tokenizer, "model": shape})


@pytest.mark.e2e
@pytest.mark.parametrize("shuffled", [False, True])
def test_a_probe_reads_what_is_there_and_shuffled_labels_score_at_chance(shuffled: bool) -> None:
    faces = striped(shuffled)
    test = faces.part("test")
    for problem in (expression_problem(faces), attribute_problem(faces)):
        (attempt,) = probes(problem, HogEncoder(), faces)
        exact, balanced = figures(problem, test, attempt)
        assert balanced.low is not None and balanced.baseline is not None and balanced.high is not None
        if shuffled:
            assert balanced.low <= balanced.baseline <= balanced.high, "nothing to read: chance lies in the interval"
        else:
            assert exact.value > 0.9 and balanced.low > balanced.baseline


@pytest.mark.e2e
def test_validation_chooses_the_strength_and_test_labels_are_never_looked_at() -> None:
    faces = striped()
    problem = expression_problem(faces)
    hidden = replace(
        faces, items=tuple(replace(i, labels={EXPRESSION: None}) if i.split == "test" else i for i in faces.items)
    )
    first, second = (probes(problem, HogEncoder(), part)[0] for part in (faces, hidden))
    assert np.array_equal(first.predicted, second.predicted)
    rng = np.random.default_rng(0)
    noise = [rng.standard_normal((rows, 50)).astype(np.float32) for rows in (100, 2000, 10)]
    labels = rng.integers(2, size=100), rng.integers(2, size=2000)
    told = (noise[0][:, 0] > 0).astype(int), (noise[1][:, 0] > 0).astype(int)
    strengths = [fit_column((noise[0], noise[1], noise[2]), truth).strength for truth in (labels, told)]
    assert strengths[0] is not None and strengths[0] <= 1e-3, "nothing to learn: the strongest pull to zero is best"
    assert strengths[1] is not None and strengths[1] >= 1e-2, "one feature tells all: the fit may use it"
    unknown = np.full(100, UNKNOWN_CLASS), labels[1]
    assert fit_column((noise[0], noise[1], noise[2]), unknown).strength is None


@pytest.mark.e2e
def test_low_data_subsets_are_random_shares_by_seed() -> None:
    assert np.array_equal(subset(50, 1, 3), np.arange(50))
    first, again, other = subset(500, 0.1, 0), subset(500, 0.1, 0), subset(500, 0.1, 1)
    assert len(first) == 50 == len(set(first)) and np.array_equal(first, again) and not np.array_equal(first, other)
    assert len(subset(50, 0.001, 0)) == 1
    with pytest.raises(InputError, match=r"fraction 0: choose above 0, up to 1"):
        subset(50, 0, 0)
    faces = striped()
    few, whole = probes(expression_problem(faces), HogEncoder(), faces, (0.1, 1.0), (0, 1))
    assert few.predicted.shape == (2, len(faces.part("test")), 1) and whole.predicted.shape[0] == 1
    assert few.details is not None and few.details["training_rows"] == 18


def test_the_most_frequent_class_is_that_of_training() -> None:
    faces = striped()
    attempt = majority(attribute_problem(faces), faces)
    assert not attempt.predicted.any(), "each attribute is absent in two thirds"
    exact, balanced = figures(attribute_problem(faces), faces.part("test"), attempt)
    assert exact.value == pytest.approx(exact.baseline) and balanced.value == pytest.approx(0.5)


def test_people_in_two_splits_are_refused() -> None:
    faces = striped()
    torn = replace(faces, items=tuple(replace(item, person="same") for item in faces.items))
    with pytest.raises(InputError, match=r"pictures of one person in train and val .*: split it by person"):
        Parts.of(torn)
    with pytest.raises(InputError, match="stripes has no test pictures"):
        Parts.of(faces.where(lambda item: item.split != "test"))


def test_features_are_kept_by_encoder_and_items(tmp_path: Path) -> None:
    faces = striped().part("val")
    first = cached_features(HogEncoder(), faces, tmp_path)
    assert len(list(tmp_path.glob("*.npy"))) == 1

    class Never(HogEncoder):
        def encode(self, faces: FaceSet) -> Any:
            raise AssertionError("kept features were not used")

    assert np.array_equal(cached_features(Never(), faces, tmp_path), first)
    with pytest.raises(AssertionError):
        cached_features(Never(), faces.rows([0, 1]), tmp_path)


def test_an_untrained_network_tells_pictures_apart_and_is_the_same_for_a_seed() -> None:
    faces = striped().part("val")
    pictures = np.stack([faces.picture(item, 32) for item in faces.items])
    encoded = [ModelEncoder("random", *untrained_preset(micro(), pictures, seed)).encode(faces) for seed in (1, 1, 2)]
    assert np.array_equal(encoded[0], encoded[1]) and not np.array_equal(encoded[0], encoded[2])
    assert len(np.unique(encoded[0].round(4), axis=0)) == len(faces), "its codes differ from picture to picture"


@pytest.mark.e2e
def test_fine_tuning_learns_within_its_budget_and_keeps_what_validation_liked() -> None:
    faces = striped(count=180)
    model, tokenizer = untrained_preset(micro(), np.stack([faces.picture(i, 32) for i in faces.items[:64]]))
    settings = FineTuning(steps=40, batch=16, learning_rate=3e-3, validate_every=10)
    for problem in (expression_problem(faces), attribute_problem(faces)):
        attempt = tuned(problem, model.config, model, tokenizer, faces, settings)
        exact, balanced = figures(problem, faces.part("test"), attempt)
        assert exact.metric == "finetuned_accuracy" and balanced.low is not None and balanced.baseline is not None
        assert balanced.low > balanced.baseline, "stripes are learnt in forty steps"
        assert attempt.details is not None
        (run,) = attempt.details["runs"]
        losses = [look["validation_loss"] for look in run["history"]]
        assert run["history"][int(np.argmin(losses))]["step"] == run["chosen_step"]
    scratch = tuned(expression_problem(faces), model.config, None, tokenizer, faces, replace(settings, steps=2))
    assert scratch.mode == "scratch" and torch.isfinite(torch.tensor(scratch.predicted)).all()
    half = tuned(expression_problem(faces), model.config, model, tokenizer, faces, replace(settings, precision="bf16"))
    assert half.details is not None and half.details["settings"]["precision"] == "bf16"
    assert (half.predicted == expression_problem(faces).truth(faces.part("test"))).mean() > 0.5, (
        "it learns in bf16, too"
    )
    with pytest.raises(InputError, match="steps 0: choose at least 1"):
        FineTuning(steps=0)
    with pytest.raises(InputError, match="no precision 'fp16': choose fp32 or bf16"):
        FineTuning(precision="fp16")


def test_a_look_alike_in_training_changes_the_score_that_is_told_apart() -> None:
    faces = literal(TRUE)
    attempt = Attempt("by hand", "probe", np.array(SAID)[None, :, None])
    clean = np.arange(20) >= 10
    exact, _ = figures(expression_problem(faces), faces, attempt, {"without_look_alikes": clean})
    assert exact.details["parts"]["without_look_alikes"]["accuracy"] == pytest.approx(0.4)
    assert exact.details["parts"]["without_look_alikes"]["rows"] == 10 and exact.value == pytest.approx(0.55)


class Flat:
    """Stands in for a recogniser: tells the crop's mean colour."""

    def describe(self) -> str:
        return "flat"

    def embed(self, crops: Any) -> Any:
        return crops.reshape(len(crops), -1, 3).mean(1).astype(np.float32)


def test_embeddings_take_each_pictures_points_or_the_usual_ones() -> None:
    faces = striped(count=6)
    left = [2.0, 8, 8, 8, 5, 11, 3, 14, 7, 14]  # five points in the left half, which is light in pictures "a"
    right = [x + 16 if place % 2 == 0 else x for place, x in enumerate(left)]
    first = faces.items[0].file
    own = EmbeddingEncoder(Flat(), faces, {first: left}, {"another.jpg": right, "none.jpg": None})
    light, dark = own.encode(faces.rows([0, 3])).mean(1)
    assert faces.items[3].file[0] == "a" and light > dark + 40, "its own points, and those of the others"
    assert own.key != EmbeddingEncoder(Flat(), faces, {first: left}, {"another.jpg": left}).key
    with pytest.raises(InputError, match="stripes: no face to embed in"):
        EmbeddingEncoder(Flat(), faces, {first: left}, {}).encode(faces)
