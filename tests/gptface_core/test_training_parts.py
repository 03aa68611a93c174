"""Parts of a batch - on processes, one after the other, half as many - and what they add up to."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gptface_core.batches import PairBatch, Shuffled, Stream, ahead
from gptface_core.config import RunOptions
from gptface_core.distributed import open_engine
from gptface_core.errors import InputError, TrainingError
from gptface_core.objectives import info_nce, info_nce_part, same_caption
from gptface_core.optimise import SpikeGuard
from gptface_core.pretrain import PairLosses, joint_batch, pair_losses
from gptface_core.training import train

from .conftest import Micro
from .micro import micro_preset
from .test_model import small_model, tokens

CPU = RunOptions(device="cpu")


def batch_of(rows: int = 8) -> tuple[Any, PairBatch]:
    model, data = small_model(), tokens(rows)
    numbers = np.arange(rows)
    return model, joint_batch(model, data, numbers, numbers, micro_preset(), np.random.default_rng(0))


@pytest.mark.parametrize("parts", [2, 4])
def test_losses_and_gradients_of_parts_add_up_to_those_of_the_whole(parts: int) -> None:
    model, batch = batch_of()
    whole = pair_losses(model, batch, 0.1)
    names = ("mlm", "mim", "itm")  # contrast spans a part alone, see the next test
    torch.stack([whole[name] for name in names]).sum().backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    sums = dict.fromkeys(names, 0.0)
    for part in batch.cut(parts):
        losses = pair_losses(model, part, 0.1)
        torch.stack([losses[name] for name in names]).sum().backward()
        sums = {name: sums[name] + losses[name].item() for name in names}
    assert sums == pytest.approx({name: whole[name].item() for name in names}, rel=1e-5)
    for name, p in model.named_parameters():
        if name in expected:
            assert p.grad is not None and torch.allclose(p.grad, expected[name], atol=1e-6), name


def test_contrast_of_parts_of_the_rows_averages_to_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    image, text = (torch.randn(6, 4, dtype=torch.float64, generator=generator) for _ in range(2))
    same = same_caption([0, 0, 1, 2, 3, 4])
    same[5] = False  # a picture without its caption is left out
    scale = torch.tensor(0.7, dtype=torch.float64)
    parts = [info_nce_part((image[at : at + 2], text[at : at + 2]), (image, text), scale, same, at) for at in (0, 2, 4)]
    assert torch.stack(parts).mean().item() == pytest.approx(info_nce(image, text, scale, same).item(), abs=1e-12)


def test_batches_ahead_are_those_drawn_in_place_and_their_state_is_theirs() -> None:
    def stream(seed: int) -> Stream[Any]:
        rng = np.random.default_rng(seed)
        order = Shuffled(10, 4, rng)
        return Stream(rng, (order,), lambda: (next(order), rng.integers(1000)))

    plain = stream(0)
    in_place = [plain.draw() for _ in range(7)]
    with ahead(stream(0), 7) as drawn:
        items = list(drawn)
    for mine, (rows, number) in zip(items, in_place, strict=True):
        assert mine.batch[0].tolist() == rows.tolist() and mine.batch[1] == number
    again = stream(99)
    again.restore(items[2].state)  # the thread was already two batches further
    rows, number = again.draw()
    assert rows.tolist() == in_place[3][0].tolist() and number == in_place[3][1]


def test_an_error_of_the_drawing_thread_is_raised_where_the_batch_is_waited_for() -> None:
    def fail() -> Any:
        raise InputError("no such row")

    with pytest.raises(InputError, match="no such row"), ahead(Stream(np.random.default_rng(0), (), fail), 3) as drawn:
        next(drawn)


# -- processes


def _torchrun(processes: int, shards: Path, out: Path, *words: str) -> None:
    preset = out.parent / "preset.json"
    preset.write_text(json.dumps({"preset": "demo", **asdict(micro_preset())}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-port", str(port)]
    training = ["-m", "gptface_core", str(shards), str(out), "--preset", str(preset), "--device", "cpu", "--seed", "5"]
    done = subprocess.run(
        [sys.executable, *launch, *training, *words],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr


def _losses(path: Path, stages: set[str]) -> dict[str, float]:
    losses = {}
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        stage, step = entry.pop("stage"), entry.pop("step")
        losses |= {f"{stage} {step} {name}": loss for name, loss in entry.items() if stage in stages}
    return losses


@pytest.mark.slow
def test_two_processes_train_the_tokenizer_as_one_does(micro: Micro, tmp_path: Path) -> None:
    """Training losses: biases before the normaliser have no gradient but rounding, which Adam makes large steps of."""
    _torchrun(2, micro.shards, tmp_path / "m", "--stage", "tokenizer")
    one, two = (_losses(folder / "history.jsonl", {"tokenizer"}) for folder in (micro.model_dir, tmp_path / "m"))
    names = [name for name in one if "validation" not in name]
    assert len(names) == 6
    assert [two[name] for name in names] == pytest.approx([one[name] for name in names], abs=2e-5)


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(micro: Micro, tmp_path: Path) -> None:
    shutil.copytree(micro.model_dir, tmp_path / "m")
    (tmp_path / "m" / "training.json").unlink()
    for stage in ("modelling", "warm-up", "main"):
        (tmp_path / "m" / "checkpoints" / f"{stage}.json").unlink()
    _torchrun(2, micro.shards, tmp_path / "m")
    stages = {"modelling", "warm-up", "main"}
    one, two = (_losses(folder / "history.jsonl", stages) for folder in (micro.model_dir, tmp_path / "m"))
    assert len(one) == 29 and {name.split()[0] for name in one} == stages
    assert two == pytest.approx(one, abs=2e-4)


def test_a_batch_that_cannot_be_shared_is_one_clear_line(micro: Micro, tmp_path: Path) -> None:
    preset = micro_preset()
    odd = replace(preset, training=replace(preset.training, accumulate=3))
    with pytest.raises(InputError, match=r"training.milm_batch 8 cannot be shared .* choose a multiple of 3"):
        train(micro.shards, tmp_path / "m", odd)


# -- memory, leaps, precision


def _short_of_memory(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """As on a GPU that holds `most` rows of masked modelling."""
    fitting = PairLosses.forward

    def forward(self: PairLosses, batch: PairBatch) -> dict[str, torch.Tensor]:
        if batch.milm is not None and len(batch.milm.text) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return fitting(self, batch)

    monkeypatch.setattr(PairLosses, "forward", forward)


def test_out_of_memory_names_the_batch_that_fits(micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _short_of_memory(monkeypatch, 3)
    with pytest.raises(TrainingError) as error:
        train(micro.shards, tmp_path / "m", micro_preset(), 5)
    assert str(error.value) == (
        "modelling step 0: cpu out of memory with training.milm_batch 8: training.milm_batch 2 fits, "
        "or training.accumulate 4 for the same batch (in a preset file)"
    )
    # What it names is true, and goes on after the tokenizer of the first try only with the same preset.
    preset = micro_preset()
    cut = replace(preset, training=replace(preset.training, accumulate=4))
    assert train(micro.shards, tmp_path / "cut", cut, 5).losses


def test_out_of_memory_with_a_single_row_names_a_smaller_preset(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _short_of_memory(monkeypatch, 0)
    with pytest.raises(TrainingError, match="choose a smaller preset"):
        train(micro.shards, tmp_path / "m", micro_preset(), 5)


def test_a_leap_of_the_loss_stops_with_the_rows(micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SpikeGuard, "ENOUGH", 3)
    ordinary, steps = PairLosses.forward, []

    def forward(self: PairLosses, batch: PairBatch) -> dict[str, torch.Tensor]:
        losses = ordinary(self, batch)
        steps.append(batch)
        return {name: loss * 50 for name, loss in losses.items()} if len(steps) == 10 else losses

    monkeypatch.setattr(PairLosses, "forward", forward)
    with pytest.raises(
        TrainingError, match=r"main step 3: the loss leaps to .* --spike-sigmas 0 .*batch: [0-9a-f]{32}"
    ):
        train(micro.shards, tmp_path / "m", micro_preset(), 5)
    steps.clear()
    assert train(micro.shards, tmp_path / "free", micro_preset(), 5, options=replace(CPU, spike_sigmas=0)).losses


def test_the_guard_is_silent_at_first_and_bears_noise() -> None:
    rng = np.random.default_rng(0)
    guard = SpikeGuard(20.0)
    for _ in range(SpikeGuard.ENOUGH - 1):
        guard.add(4 + rng.normal() / 10)
    assert guard.limit() is None
    for _ in range(200):
        guard.add(4 + rng.normal() / 10)
    limit = guard.limit()
    assert limit is not None and 7 < limit < 9, "twice the median, where that is more than 20 deviations of 0.1"
    assert len(guard.known) == SpikeGuard.WINDOW
    assert SpikeGuard(0.0, [1.0] * 99).limit() is None


def test_losses_in_bf16_stay_near_those_in_fp32(micro: Micro, tmp_path: Path) -> None:
    model, batch = batch_of()
    expected = pair_losses(model, batch, 0.1)
    with replace(open_engine(CPU), bf16=True).autocast():
        found = pair_losses(model, batch, 0.1)
    for name, loss in expected.items():
        assert found[name].item() != loss.item(), f"{name}: not in bf16 at all"
        assert found[name].item() == pytest.approx(loss.item(), rel=0.03), name
        assert found["itc"].dtype == torch.float32, "a temperature of 14 and more would blow up the steps of bf16"
        assert batch.itm is not None
        assert model.text_features(batch.itm.text).dtype == torch.float32
    summary = train(micro.shards, tmp_path / "m", micro_preset(), 5, options=replace(CPU, precision="bf16"))
    assert all(np.isfinite(loss) for loss in summary.losses.values())
    from safetensors.torch import load_file

    assert {t.dtype for t in load_file(tmp_path / "m" / "model.safetensors").values()} == {torch.float32}


def test_options_that_cannot_be_met_are_one_clear_line() -> None:
    with pytest.raises(InputError, match="no device 'tpu': choose auto, cpu, cuda"):
        RunOptions(device="tpu")
    with pytest.raises(InputError, match="checkpoint_every 0"):
        RunOptions(checkpoint_every=0)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no CUDA device"):
            open_engine(RunOptions(device="cuda"))
    engine = open_engine(CPU)
    assert (engine.device.type, engine.world, engine.bf16, engine.compile) == ("cpu", 1, False, False)
