from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gptface_core import GPTFace, InputError
from gptface_core.bundle import load_bundle
from gptface_core.config import load_preset, override
from gptface_core.editing import REGIONS, edit, token_slots
from gptface_core.evaluation import evaluate
from gptface_core.evaluation.intervals import wilson
from gptface_core.optimise import TrainingError
from gptface_core.shards import open_index
from gptface_core.training import Progress, train

from .conftest import Micro
from .micro import micro_preset

pytestmark = pytest.mark.e2e  # several trainings or releases


def test_training_writes_a_complete_model_folder(micro: Micro) -> None:
    names = {path.name for path in micro.model_dir.iterdir()}
    assert {
        "model.safetensors",
        "config.json",
        "image_tokenizer.safetensors",
        "history.jsonl",
        "training.json",
    } <= names
    assert not list(micro.model_dir.rglob("*.tmp"))
    config = json.loads((micro.model_dir / "config.json").read_text())
    assert config["provenance"]["release"] == 3 and config["resolved"]["name"] == "micro"
    stages = [json.loads(line)["stage"] for line in (micro.model_dir / "history.jsonl").read_text().splitlines()]
    assert stages == ["tokenizer"] * 6 + ["modelling"] * 3 + ["warm-up"] * 3 + ["main"] * 4
    assert "main_validation_mim" in micro.summary.losses


def test_training_again_does_nothing(micro: Micro) -> None:
    seen: list[Progress] = []
    assert train(micro.shards, micro.model_dir, micro_preset(), seed=5, on_progress=seen.append) == micro.summary
    assert seen == []


def test_a_killed_training_ends_with_the_same_weights(micro: Micro, tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def kill(progress: Progress) -> None:
        if progress.stage == "main" and progress.step == 2:
            raise KilledError

    with pytest.raises(KilledError):
        train(micro.shards, tmp_path / "model", micro_preset(), seed=5, on_progress=kill)
    assert not (tmp_path / "model" / "training.json").exists()
    seen: list[Progress] = []
    train(micro.shards, tmp_path / "model", micro_preset(), seed=5, on_progress=seen.append)
    assert {progress.stage for progress in seen} == {"main"}
    for name in ("model.safetensors", "image_tokenizer.safetensors", "history.jsonl"):
        assert (tmp_path / "model" / name).read_bytes() == (micro.model_dir / name).read_bytes()


def test_a_loss_that_is_no_number_stops_with_the_rows(micro: Micro, tmp_path: Path) -> None:
    preset = micro_preset()
    broken = replace(preset, tokenizer_training=replace(preset.tokenizer_training, gradient_weight=float("nan")))
    with pytest.raises(TrainingError, match=r"tokenizer step 0: the loss is nan; rows of the batch: [0-9a-f]{32}"):
        train(micro.shards, tmp_path / "model", broken)


def test_evaluation_puts_each_figure_beside_its_baseline(micro: Micro, tmp_path: Path) -> None:
    results = evaluate(micro.model_dir, micro.shards, micro.labels, tmp_path)
    assert json.loads((tmp_path / "evaluation.json").read_text()) == results
    metrics = results["metrics"]
    assert set(metrics) == {"mim_gain_nats", "inpaint_gain_db", "itm_accuracy", "probe_balanced_accuracy"}
    for metric in metrics.values():
        assert metric["low"] <= metric["value"] <= metric["high"]
    assert metrics["itm_accuracy"]["chance"] == 0.5
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        "inpaintings.png",
        "inpaintings_extremes.png",
        "edits.png",
    }


def test_evaluation_without_labels_says_what_it_left_out(micro: Micro, tmp_path: Path) -> None:
    results = evaluate(micro.model_dir, micro.shards, None, tmp_path)
    assert "labels" in results["left_out"]["probe_balanced_accuracy"]
    assert "another test face" in results["metrics"]["itm_accuracy"]["against"]


@pytest.mark.parametrize("region", ["mouth", "eyes", "hair"])
def test_an_edit_changes_nothing_outside_its_region(micro: Micro, region: str, tmp_path: Path) -> None:
    crop = np.random.default_rng(0).integers(0, 256, (256, 256, 3)).astype(np.uint8)
    result = edit(micro.model_dir, crop, "red face", region, seed=1, samples=2, steps=2, sheet=tmp_path / "sheet.png")
    assert len(result.images) == 2 and (tmp_path / "sheet.png").is_file()
    for image in result.images:
        assert np.array_equal(image[~result.region], crop[~result.region])
        assert not np.array_equal(image[result.region], crop[result.region])


def test_an_edit_is_the_same_for_the_same_seed_and_names_unknown_words(micro: Micro) -> None:
    crop, bundle = np.full((64, 64, 3), 90, np.uint8), load_bundle(micro.model_dir)
    first, second = (edit(bundle, crop, "zebra face", "mouth", seed=3, steps=2) for _ in range(2))
    assert np.array_equal(first.images[0], second.images[0])
    assert first.unknown_words == ["zebra"]


def test_token_slots_cover_the_whole_region() -> None:
    mask = np.zeros((64, 64), bool)
    mask[15:17, 40] = True
    assert sorted(zip(*np.nonzero(token_slots(mask, 8)), strict=True)) == [(1, 5), (2, 5)]


@pytest.mark.parametrize(
    ("prompt", "region", "message"),
    [
        ("smiling", "knee", "no region 'knee': choose"),
        ("  ", "mouth", "prompt is empty"),
        ("a " * 40, "mouth", "the prompt has 40 tokens"),
    ],
)
def test_bad_edits_are_one_clear_line(micro: Micro, prompt: str, region: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        edit(micro.model_dir, np.zeros((64, 64, 3), np.uint8), prompt, region)
    assert "\n" not in str(error.value)
    assert "all" in REGIONS


def test_bad_input_to_training(micro: Micro, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no preset 'huge': choose demo"):
        train(micro.shards, tmp_path, "huge")
    with pytest.raises(InputError, match="no shards"):
        train(tmp_path / "nowhere", tmp_path)
    with pytest.raises(InputError, match="no stage 'x'"):
        train(micro.shards, tmp_path, stage="x")
    (tmp_path / "index.json").write_text(json.dumps({"release": 1, "crop_px": 256, "splits": {}}))
    with pytest.raises(InputError, match="no training samples"):
        open_index(tmp_path)


@pytest.mark.parametrize("values", [{"learning_rate": 1}, {"training": {"step": 1}}, {"training": {"steps": "9"}}])
def test_unknown_and_ill_typed_keys_are_errors(values: dict[str, object]) -> None:
    with pytest.raises(InputError, match="key '"):
        override(load_preset("demo"), values)


@pytest.mark.parametrize("name", ["demo", "tiny", "mini", "small", "base"])
def test_presets_load(name: str) -> None:
    assert load_preset(name).name == name


def test_a_changed_shard_is_refused(micro: Micro, tmp_path: Path) -> None:
    for path in micro.shards.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with (tmp_path / "train-00000.tar").open("r+b") as file:
        file.seek(600)
        file.write(b"x")
    with pytest.raises(InputError, match="sha256"):
        train(tmp_path, tmp_path / "model", micro_preset())


def test_models_of_another_version_or_kind_are_refused(micro: Micro, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no GPTFace"):
        GPTFace.from_pretrained(tmp_path)
    config = json.loads((micro.model_dir / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "format_version": 99}))
    with pytest.raises(InputError, match="model format 99"):
        load_bundle(tmp_path)


def test_wilson_interval_is_the_textbook_one() -> None:
    low, high = wilson(15, 20)
    assert low == pytest.approx(0.5313, abs=1e-4) and high == pytest.approx(0.8881, abs=1e-4)
