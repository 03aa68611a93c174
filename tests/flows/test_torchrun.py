"""Training in several processes: what they are told, what is made of what they say, and that none is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from flows.steps.config import ConfigError, TrainConfig
from flows.steps.torchrun import _option_words, _relay, count_processes, train_in_processes
from gptface_core.__main__ import _parser
from gptface_core.config import RunOptions
from gptface_core.errors import TrainingError
from gptface_core.training import DONE
from tests.gptface_core.micro import micro_preset, write_corpus

UNLIKE = RunOptions("cpu", "fp32", True, 7, 0.5, 3.0, 12.5, True)


@pytest.mark.parametrize("options", [RunOptions(), UNLIKE, RunOptions(compile=False)])
def test_the_processes_get_the_options_of_the_run(options: RunOptions) -> None:
    told = vars(_parser().parse_args(["shards", "out", *_option_words(options)]))
    assert RunOptions(**{name: told[name] for name in vars(options)}) == options


def test_the_first_message_of_a_process_that_failed_is_the_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    lines = [
        "W1123 06:00:00.000000 1 torch/distributed/run.py:1] ****",
        "2026-11-23 06:00:00,123 INFO main 1 of 4: loss 1.0",
        "2026-11-23 06:00:01,123 ERROR loss nan at main step 2: rows a, b",
        "2026-11-23 06:00:01,124 ERROR the other process has gone",
        "torch.distributed.elastic.multiprocessing.errors.ChildFailedError:",
    ]
    assert _relay(lines) == "loss nan at main step 2: rows a, b"
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO", "ERROR", "ERROR", "INFO"]
    assert "main 1 of 4: loss 1.0" in caplog.messages
    assert _relay(lines[:2]) == ""


@pytest.mark.parametrize(("asked", "devices", "found"), [(0, 0, 1), (0, 8, 8), (2, 0, 2), (2, 8, 2), (1, 8, 1)])
def test_zero_processes_are_one_per_device(
    asked: int, devices: int, found: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    assert count_processes(TrainConfig(processes=asked)) == found
    assert count_processes(TrainConfig(processes=asked, options=RunOptions("cpu"))) == max(asked, 1)


def test_more_processes_than_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"processes=2: .* 1 CUDA devices"):
        count_processes(TrainConfig(processes=2))
    with pytest.raises(ConfigError, match="processes=2: stage tokenizer"):
        TrainConfig(processes=2, stage="tokenizer")


@pytest.mark.slow
def test_two_processes_train_to_the_end_and_one_that_fails_says_why(tmp_path: Path) -> None:
    shards, out, preset = write_corpus(tmp_path)[0], tmp_path / "m", micro_preset()
    summary = train_in_processes(2, shards, out, preset, TrainConfig(seed=5), None)
    assert (summary.model_dir, summary.seed, summary.preset) == ("m", 5, "micro")
    assert {"main_itm", "modelling_mim"} <= set(summary.losses)
    assert (out / "model.safetensors").is_file()
    odd = replace(preset, training=replace(preset.training, milm_batch=7))
    with pytest.raises(TrainingError, match=r"training\.milm_batch 7 cannot be shared"):
        train_in_processes(2, shards, tmp_path / "odd", odd, TrainConfig(), None)


TRAIN = """
import sys; from dataclasses import replace; from pathlib import Path
from flows.steps.config import TrainConfig
from flows.steps.torchrun import train_in_processes
from tests.gptface_core.micro import micro_preset
preset = micro_preset()
preset = replace(preset, tokenizer_training=replace(preset.tokenizer_training, steps=100_000))
train_in_processes(2, Path(sys.argv[1]), Path(sys.argv[2]), preset, TrainConfig(), None)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's death signal is a Linux feature")
@pytest.mark.parametrize("victim", ["caller", "launcher"])
def test_sigkill_of_caller_or_torchrun_is_the_end_of_all(tmp_path: Path, victim: str) -> None:
    shards, out = write_corpus(tmp_path)[0], tmp_path / "m"
    caller = subprocess.Popen([sys.executable, "-c", TRAIN, str(shards), str(out)])
    try:
        deadline = time.monotonic() + 150
        while not list(out.glob("tensorboard/tokenizer/events.*")):  # then it takes steps
            assert caller.poll() is None and time.monotonic() < deadline
            time.sleep(0.3)
        family = psutil.Process(caller.pid).children(recursive=True)
        launcher = next(process for process in family if "torch.distributed.run" in process.cmdline())
        assert len(launcher.children()) == 2
        os.kill(launcher.pid if victim == "launcher" else caller.pid, signal.SIGKILL)
        _, left = psutil.wait_procs(family, timeout=60)
        assert not left
        assert caller.wait(30)
        assert not (out / DONE).exists()
        assert list(out.glob("checkpoints/tokenizer-*.safetensors")), "the step under way was not saved"
    finally:
        caller.kill()
