"""What a training tells: operations, speed, curves, pictures."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gptface_core.config import RunOptions, load_preset
from gptface_core.errors import InputError
from gptface_core.flops import expected_shape, peak_flops, step_flops, tokenizer_step_flops
from gptface_core.image_tokenizer import ImageTokenizer, reconstruction_loss
from gptface_core.pretrain import batch_flops, joint_batch, pair_losses
from gptface_core.telemetry import SpeedMeter
from gptface_core.training import Progress, train

from .conftest import Micro
from .micro import micro_preset
from .test_model import small_model, tokens


def test_the_formula_agrees_with_operations_counted_by_torch() -> None:
    """Counted are products of both passes; torch counts attention's on the math path as products, too."""
    from dataclasses import replace

    model, data, preset = small_model(), tokens(8), micro_preset()
    shape = replace(preset.model, layers=2, width=32, heads=2, projection_dim=8)
    preset = replace(preset, model=shape)
    rows = np.arange(8)
    batch = joint_batch(model, data, rows, rows, preset, np.random.default_rng(0))
    with FlopCounterMode(display=False) as counter, nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
        torch.stack(list(pair_losses(model, batch, 0.1).values())).sum().backward()
    assert batch_flops(model, preset, batch) == pytest.approx(counter.get_total_flops(), rel=0.03)


def test_the_tokenizers_formula_agrees_with_operations_counted_by_torch() -> None:
    config = micro_preset().tokenizer
    tokenizer, pictures = ImageTokenizer(config), torch.rand(4, 3, config.image_px, config.image_px)
    with FlopCounterMode(display=False) as counter:
        reconstruction_loss(tokenizer(pictures), pictures, 0.3).backward()
    # The first layer needs no gradient of its input.
    assert tokenizer_step_flops(config, 4) == pytest.approx(counter.get_total_flops(), rel=0.1)


def test_expected_shape_follows_the_masking_law() -> None:
    from gptface_core.masking import CLEAN, draw_masks

    preset = load_preset("demo")
    shape = expected_shape(preset, 20)
    masks = draw_masks(np.full(6000, 20), 20, 8, preset.masking, np.random.default_rng(0))
    assert shape.hidden_text / (64 * 20) == pytest.approx((masks.text != CLEAN).mean(), rel=0.05)
    assert shape.hidden_image / (64 * 64) == pytest.approx(masks.image.mean(), rel=0.08)  # the last rectangle's excess
    base = load_preset("base")
    flops = step_flops(base.model, 49408, 1000, 16, expected_shape(base, 75))
    assert 1e14 < flops < 1e15


def test_peaks_are_known_by_name_or_given() -> None:
    assert peak_flops("NVIDIA H200") == 790e12
    assert peak_flops("") is None
    assert peak_flops("NVIDIA H200", 100) == 100e12


def test_speed_counts_samples_waiting_and_the_rest_of_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 2.0, 4.0])
    monkeypatch.setattr("gptface_core.telemetry.time.perf_counter", lambda: next(clock))
    meter = SpeedMeter(10, peak=100.0)
    meter.step(1, 8, 50.0, 0.5)
    speed = meter.step(2, 8, 50.0, 0.5)
    assert (speed.samples_per_s, speed.seconds_left, speed.waiting_share, speed.mfu) == (4.0, 16.0, 0.25, 0.25)
    assert str(speed) == "4 samples/s, MFU 25.0 %, 0:00:16 left"


def test_curves_and_pictures_of_every_stage_are_there(micro: Micro) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = micro.model_dir / "tensorboard"
    assert {path.name for path in folder.iterdir()} == {"tokenizer", "modelling", "warm-up", "main"}
    main, tokenizer = (EventAccumulator(str(folder / name)).Reload() for name in ("main", "tokenizer"))
    scalars = set(main.Tags()["scalars"])
    assert {"mlm", "mim", "itm", "itc", "validation_mim", "samples_per_s", "learning_rate"} <= scalars
    assert [event.step for event in main.Scalars("validation_mim")] == [4]
    assert main.Tags()["images"] == ["filled"] and tokenizer.Tags()["images"] == ["reconstructions"]


def test_the_logs_of_training_lie_where_a_takedown_looks_for_them(micro: Micro, tmp_path: Path) -> None:
    """`flows.steps.erase_derived` deletes by these patterns; captions and row ids stand in no log at all."""
    import shutil

    from flows.steps.erase_derived import erase_from_models
    from flows.steps.layout import Layout
    from warehouse.removal import Removal

    shutil.copytree(micro.model_dir, tmp_path / "models" / "m")
    logs = list((tmp_path / "models" / "m" / "tensorboard").rglob("events*"))
    assert len(logs) == 4
    kept = tmp_path / "models" / "m" / "evaluation" / "kept" / "test" / "editing"
    kept.mkdir(parents=True)
    (kept / "beard-guided-00000.npz").write_bytes(b"the first edited faces")
    erase_from_models(Layout(tmp_path), Removal(), ["m"])
    assert not [path for path in logs if path.exists()] and not kept.parents[1].exists()


def test_a_takedown_finds_trainings_that_are_not_finished(micro: Micro, tmp_path: Path) -> None:
    from flows.steps.erase_derived import _models
    from flows.steps.layout import Layout

    train(micro.shards, tmp_path / "models" / "begun", micro_preset(), 5, stage="tokenizer")
    assert not (tmp_path / "models" / "begun" / "training.json").exists()
    assert _models(Layout(tmp_path), {3}) == ["begun"], "its reconstructions show faces of release 3"
    assert _models(Layout(tmp_path), {2}) == []


def test_progress_names_speed(micro: Micro, tmp_path: Path) -> None:
    seen: list[Progress] = []
    options = RunOptions(device="cpu", peak_tflops=1.0)
    train(micro.shards, tmp_path / "m", micro_preset(), 5, seen.append, "tokenizer", options)
    speed = seen[-1].speed
    assert speed is not None and speed.samples_per_s > 0 and speed.seconds_left == 0
    assert speed.mfu is not None and 0 < speed.mfu < 1


def test_wandb_that_is_not_there_is_one_clear_line(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gptface_core.telemetry.find_spec", lambda name: None if name == "wandb" else sys)
    with pytest.raises(InputError, match="wandb is not installed: pip install wandb, or train without --wandb"):
        train(micro.shards, tmp_path / "m", micro_preset(), options=RunOptions(device="cpu", wandb=True))


@pytest.mark.slow
def test_wandb_offline_gets_losses_and_no_pictures(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    train(micro.shards, tmp_path / "m", micro_preset(), options=RunOptions(device="cpu", wandb=True))
    assert list((tmp_path / "m" / "wandb").rglob("*.wandb"))
    assert not list((tmp_path / "m" / "wandb").rglob("*.png"))
