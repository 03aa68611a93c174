"""The table of real data: parts run once and are kept, pairs are compared; what cannot run is said before any is."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

import bench.contrastive
import bench.real_data
from bench._results import Results
from bench.contrastive import ContrastiveEncoder, train
from bench.real_data import main
from gptface_core.bundle import load_bundle
from gptface_core.datasets import FaceSet
from gptface_core.datasets.fer2013 import load_fer2013
from gptface_core.errors import InputError
from gptface_core.evaluation.protocol import measure
from gptface_core.evaluation.supervised import expression_problem
from gptface_core.training import train as train_gptface
from tests.gptface_core.micro import micro_preset, write_corpus
from tests.gptface_core.small_sets import write_fer2013


@pytest.fixture
def fer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FaceSet:
    counts = {"Training": 140, "PublicTest": 35, "PrivateTest": 70}
    faces = load_fer2013(write_fer2013(tmp_path / "data" / "fer2013", counts, twins=2), whole=False)
    monkeypatch.setattr(bench.real_data, "load_faces", lambda name, root: {"fer2013": faces}[name])
    monkeypatch.setenv("GPTFACE_TEST_DATA", str(tmp_path / "data"))
    return faces


def run(tmp_path: Path, *words: str) -> int:
    return main(["--out", str(tmp_path / "r.json"), "--cache", str(tmp_path / "cache"), "--sets", "fer2013", *words])


def test_parts_are_kept_and_the_table_has_published_numbers_apart(
    fer: FaceSet, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(tmp_path, "--methods", "majority,hog", "--fractions", "0.1,1") == 0
    out = capsys.readouterr().out
    assert "| fer2013 | HOG | probe_10pct_accuracy |" in out and "published (Khaireddin and Chen 2021) | 73.28" in out
    document = json.loads((tmp_path / "r.json").read_text())
    assert set(document["parts"]) == {"fer2013:majority", "fer2013:hog"}
    figures = document["parts"]["fer2013:hog"]["figures"]
    assert [figure["metric"] for figure in figures][2:] == ["probe_accuracy", "probe_mean_class_accuracy"]
    assert figures[2]["samples"] == 70 and figures[2]["low"] <= figures[2]["value"] <= figures[2]["high"]
    assert figures[2]["details"]["parts"]["without_look_alikes"]["rows"] == 68, "two test pictures are in training"
    summary = json.loads(out.splitlines()[-1])
    assert summary["fer2013:majority:majority_accuracy"] == pytest.approx(1 / 7, abs=1e-4)

    def never(*_: Any) -> Any:
        raise AssertionError("a part that is there was run again")

    monkeypatch.setattr(bench.real_data, "_run_part", never)
    assert run(tmp_path, "--methods", "majority,hog") == 0


def test_what_cannot_be_run_is_one_line_and_exit_code_2(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for words, line in (
        (("--methods", "magic"), "unknown magic: choose from majority"),
        (("--methods", "model"), "model cannot be run: name a MODEL folder"),
        (("--sets", "imagenet"), "unknown imagenet: choose from fer2013, lfw"),
    ):
        assert run(tmp_path, *words) == 2
        assert line in caplog.messages[-1] and "\n" not in caplog.messages[-1]
    (tmp_path / "r.json").write_text("{}")
    with pytest.raises(InputError, match="no results file"):
        Results(tmp_path / "r.json")


def test_claimed_pairs_are_compared_over_the_same_pictures(fer: FaceSet, tmp_path: Path) -> None:
    assert run(tmp_path, "--methods", "majority,hog") == 0
    results = Results(tmp_path / "r.json")
    for method in ("model", "random"):  # as if a model had been probed: the majority's answers, and HOG's
        source = "fer2013:hog" if method == "model" else "fer2013:majority"
        results.document["parts"][f"fer2013:{method}"] = results.document["parts"][source]
        (results.folder / f"fer2013-{method}.npy").write_bytes(
            (results.folder / f"{source.replace(':', '-')}.npy").read_bytes()
        )
    problem, test = expression_problem(fer), fer.part("test")
    for pair in bench.real_data.PAIRS:
        results.compare_pair("fer2013", pair, problem, test)
    found = results.document["differences"]["fer2013:model-random"]["accuracy"]
    parts = results.document["parts"]
    gap = parts["fer2013:hog"]["figures"][0]["value"] - parts["fer2013:majority"]["figures"][0]["value"]
    assert found["value"] == pytest.approx(gap) and found["low"] <= found["value"] <= found["high"]
    assert set(results.document["differences"]) == {"fer2013:model-random", "fer2013:model-hog"}


@pytest.mark.e2e
def test_the_contrastive_baseline_trains_is_loaded_and_told_apart(
    fer: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = {
        "embed_dim": 16,
        "vision": {"layers": 1, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 64},
        "text": {"context_length": 12, "width": 32, "heads": 2, "layers": 1},
    }
    monkeypatch.setattr(bench.contrastive, "SHAPE", shape)
    monkeypatch.setattr(bench.contrastive, "BATCH", 8)
    shards, _ = write_corpus(tmp_path / "corpus")
    spent = train(shards, tmp_path / "clip", steps=3, minutes=1)
    assert spent["steps"] == 3 and spent["samples"] == 24 and spent["final_loss"] > 0
    encoder = ContrastiveEncoder(tmp_path / "clip")
    assert encoder.encode(fer.part("val")).shape == (35, 16 + 16 * 32) and encoder.description.startswith("3 steps of ")
    train(shards, tmp_path / "again", steps=3, minutes=1)
    assert ContrastiveEncoder(tmp_path / "again").key == encoder.key, "the same for a seed"
    with pytest.raises(InputError, match="holds no contrastive model"):
        ContrastiveEncoder(tmp_path)


def test_without_a_model_the_network_is_the_presets(fer: FaceSet, tmp_path: Path) -> None:
    options = argparse.Namespace(model=None, preset="demo", cache=tmp_path)
    task = bench.real_data.Task("fer2013", options)
    model, tokenizer, what = task.network
    assert model.config.grid == tokenizer.config.grid and "untrained" in what
    assert len(task.test) == len(fer.part("test"))


@pytest.mark.e2e
def test_a_trained_model_is_probed_and_fine_tuned_beside_its_untrained_twin(
    fer: FaceSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards, _ = write_corpus(tmp_path / "corpus")
    train_gptface(shards, tmp_path / "model", micro_preset(), seed=5)
    words = ("--methods", "random,scratch,model,finetuned", "--steps", "2")
    assert run(tmp_path, str(tmp_path / "model"), *words) == 0
    out = capsys.readouterr().out
    document = json.loads((tmp_path / "r.json").read_text())
    metrics = {name: part["figures"][0]["metric"] for name, part in document["parts"].items()}
    assert metrics == {
        "fer2013:random": "probe_accuracy",
        "fer2013:scratch": "scratch_accuracy",
        "fer2013:model": "probe_accuracy",
        "fer2013:finetuned": "finetuned_accuracy",
    }
    assert set(document["differences"]) == {"fer2013:model-random", "fer2013:finetuned-scratch"}
    assert "| fer2013 | finetuned-scratch | accuracy |" in out
    network = document["parts"]["fer2013:random"]["figures"][0]["details"]["network"]
    assert network == "random transformer, the model's image tokenizer"

    bundle = load_bundle(tmp_path / "model")
    figures = measure(expression_problem(fer), bundle, fer, fractions=(0.1, 1.0), seeds=(0, 1))
    assert [figure.metric for figure in figures][::2] == ["probe_10pct_accuracy", "probe_accuracy"]
    written = document["parts"]["fer2013:model"]["figures"][0]["value"]
    assert figures[2].value == written, "the same code, the same number"
    assert run(tmp_path, "--methods", "random") == 2, "another model's untrained twin is no answer"
