"""A training that is killed, stopped or damaged goes on, and ends as if nothing had happened."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gptface_core.checkpoints import Checkpoints, Saved
from gptface_core.config import Preset, RunOptions
from gptface_core.errors import InputError, TrainingInterrupted
from gptface_core.training import Progress, train

from .conftest import Micro
from .micro import micro_preset

pytestmark = pytest.mark.e2e  # several trainings or releases

OFTEN = RunOptions(checkpoint_every=2)
RESULTS = ("model.safetensors", "image_tokenizer.safetensors", "history.jsonl")


def assert_same_results(folder: Path, other: Path) -> None:
    for name in RESULTS:
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name


class KilledError(Exception):
    pass


def kill_at(stage: str, step: int) -> object:
    def tell(progress: Progress) -> None:
        if (progress.stage, progress.step) == (stage, step):
            raise KilledError

    return tell


@pytest.mark.parametrize(("stage", "step", "first"), [("tokenizer", 5, 5), ("modelling", 3, 3), ("main", 4, 3)])
def test_a_stage_goes_on_from_its_newest_checkpoint(
    micro: Micro, tmp_path: Path, stage: str, step: int, first: int
) -> None:
    with pytest.raises(KilledError):
        train(micro.shards, tmp_path / "m", micro_preset(), 5, kill_at(stage, step), options=OFTEN)
    seen: list[Progress] = []
    train(micro.shards, tmp_path / "m", micro_preset(), 5, seen.append, options=OFTEN)
    assert (seen[0].stage, seen[0].step) == (stage, first), "work was done again, or left out"
    assert_same_results(tmp_path / "m", micro.model_dir)
    left = [path.name for path in (tmp_path / "m" / "checkpoints").glob("*-0*.safetensors")]
    assert left == [], "checkpoints of finished stages are of no use"


def test_moving_average_and_accumulation_survive_a_kill(micro: Micro, tmp_path: Path) -> None:
    preset = micro_preset()
    preset = replace(preset, training=replace(preset.training, ema_decay=0.9, accumulate=2))
    train(micro.shards, tmp_path / "whole", preset, 5)
    with pytest.raises(KilledError):
        train(micro.shards, tmp_path / "m", preset, 5, kill_at("main", 3), options=OFTEN)
    train(micro.shards, tmp_path / "m", preset, 5, options=OFTEN)
    assert_same_results(tmp_path / "m", tmp_path / "whole")
    # The average of the weights is what is saved, not the last weights.
    plain = replace(preset, training=replace(preset.training, ema_decay=0.0))
    train(micro.shards, tmp_path / "plain", plain, 5)
    saved, last = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "plain"))
    assert saved != last


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_after_the_step_and_the_next_start_goes_on(
    micro: Micro, tmp_path: Path, number: signal.Signals
) -> None:
    def ask(progress: Progress) -> None:
        if (progress.stage, progress.step) == ("main", 1):
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(TrainingInterrupted, match=rf"stopped by {number.name} after main step 2 of 4, saved") as error:
        train(micro.shards, tmp_path / "m", micro_preset(), 5, ask)
    assert error.value.exit_code == 128 + number
    assert signal.getsignal(number) is before, "handlers are put back"
    seen: list[Progress] = []
    train(micro.shards, tmp_path / "m", micro_preset(), 5, seen.append)
    assert [(p.stage, p.step) for p in seen] == [("main", 3), ("main", 4)]
    assert_same_results(tmp_path / "m", micro.model_dir)


def test_a_signal_is_handed_on_to_who_listened_before(micro: Micro, tmp_path: Path) -> None:
    """Prefect marks its run by its own handler."""

    class MarkedError(Exception):
        pass

    def mark(*_: object) -> None:
        raise MarkedError

    def ask(progress: Progress) -> None:
        if (progress.stage, progress.step) == ("tokenizer", 1):
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, mark)
    try:
        with pytest.raises(MarkedError):
            train(micro.shards, tmp_path / "m", micro_preset(), 5, ask)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert [p.name for p in (tmp_path / "m" / "checkpoints").glob("*.safetensors")] == [
        "tokenizer-00000002.safetensors"
    ]


def test_outside_the_main_thread_training_works_without_handlers(micro: Micro, tmp_path: Path) -> None:
    failed: list[BaseException] = []

    def work() -> None:
        try:
            train(micro.shards, tmp_path / "m", micro_preset(), 5, stage="tokenizer")
        except BaseException as error:  # noqa: BLE001  told to the test
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failed == []


def _start(micro: Micro, out: Path, preset: Preset) -> subprocess.Popen[bytes]:
    """The training in a process of its own, with checkpoints at every 50th step."""
    (out.parent / "preset.json").write_text(json.dumps({"preset": "demo", **asdict(preset)}))
    words = ["-m", "gptface_core", str(micro.shards), str(out), "--preset", str(out.parent / "preset.json")]
    words += ["--seed", "5", "--checkpoint-every", "50", "--device", "cpu"]
    return subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE)


@pytest.mark.slow
def test_a_killed_process_ends_with_the_same_weights(micro: Micro, tmp_path: Path) -> None:
    """Stopped by SIGTERM, killed by SIGKILL, finished, and all as if it had run through."""
    preset = micro_preset()
    preset = replace(preset, training=replace(preset.training, steps=400))
    train(micro.shards, tmp_path / "whole", preset, 5)
    out = tmp_path / "m"
    for number, newest in ((signal.SIGTERM, 50), (signal.SIGKILL, 150)):
        process = _start(micro, out, preset)
        _wait_for(out / "checkpoints" / f"main-{newest:08d}.safetensors", process)
        process.send_signal(number)
        _, said = process.communicate(timeout=300)
        assert not (out / "training.json").exists(), "it was too fast to be stopped"
        if number == signal.SIGTERM:
            assert process.returncode == 128 + signal.SIGTERM
            assert b"stopped by SIGTERM after main step" in said and b"Traceback" not in said
            assert not list(out.rglob("*.tmp"))
    last = _start(micro, out, preset)
    _, said = last.communicate(timeout=300)
    assert last.returncode == 0, said
    assert_same_results(out, tmp_path / "whole")


def _wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline, f"{path.name} was never written"
        time.sleep(0.01)


# -- files


def checkpoints(folder: Path, key: str = "k") -> Checkpoints:
    folder.mkdir(exist_ok=True)
    return Checkpoints(folder, "main", {"key": key})


def save(folder: Path, *steps: int) -> list[Path]:
    store = checkpoints(folder)
    for step in steps:
        # An epoch's order is empty, or a single row, at its end.
        orders = {"none": torch.from_numpy(np.arange(4)[4:].copy()), "one": torch.from_numpy(np.arange(4)[3:].copy())}
        tensors = {"w": torch.full((3,), float(step)), "n": torch.tensor(step), **orders}
        store.save(Saved(step, tensors, {"step": step}))
    return store.paths()


def test_the_newest_two_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    paths = save(tmp_path / "c", 2, 4, 6)
    assert [path.name for path in paths] == ["main-00000004.safetensors", "main-00000006.safetensors"]
    saved = checkpoints(tmp_path / "c").newest()
    assert saved is not None and saved.step == 6 and saved.facts == {"step": 6}
    assert saved.tensors["w"].tolist() == [6.0] * 3 and saved.tensors["n"].item() == 6
    assert saved.tensors["none"].tolist() == [] and saved.tensors["one"].tolist() == [3]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip, truncate, empty])
def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(
    tmp_path: Path, damage: object, caplog: pytest.LogCaptureFixture
) -> None:
    paths = save(tmp_path / "c", 2, 4)
    damage(paths[1])  # type: ignore[operator]
    with caplog.at_level(logging.WARNING):
        saved = checkpoints(tmp_path / "c").newest()
    assert saved is not None and saved.step == 2
    assert "main-00000004.safetensors is corrupt" in caplog.text and "going on from main-00000002" in caplog.text
    damage(paths[0])  # type: ignore[operator]
    with pytest.raises(InputError, match=r"main-00000004.safetensors is corrupt .*: delete it to begin") as error:
        checkpoints(tmp_path / "c").newest()
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_another_version_or_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "c", 2)
    with pytest.raises(InputError, match="belongs to other data"):
        checkpoints(tmp_path / "c", "another").newest()
    monkeypatch.setattr("gptface_core.checkpoints.VERSION", 9)
    with pytest.raises(InputError, match="has version 1, this program reads 9"):
        checkpoints(tmp_path / "c").newest()


def test_a_write_that_fails_leaves_the_last_checkpoint_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "c", 2)

    def fail(tensors: object, path: Path, **_: object) -> None:
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr("gptface_core.checkpoints.save_file", fail)
    with pytest.raises(OSError, match="no space"):
        save(tmp_path / "c", 4)
    saved = checkpoints(tmp_path / "c").newest()
    assert saved is not None and saved.step == 2
    monkeypatch.undo()
    assert [path.name for path in save(tmp_path / "c", 4)][-1] == "main-00000004.safetensors"


def test_a_checkpoint_names_preset_and_corpus(micro: Micro, tmp_path: Path) -> None:
    from safetensors import safe_open

    with pytest.raises(KilledError):
        train(micro.shards, tmp_path / "m", micro_preset(), 5, kill_at("main", 3), options=OFTEN)
    [path] = (tmp_path / "m" / "checkpoints").glob("main-*.safetensors")
    with safe_open(path, framework="pt") as file:
        document = json.loads(json.loads(file.metadata()["gptface"])["document"])
        names = {name.partition("/")[0] for name in file.keys()}  # noqa: SIM118  no mapping
    assert document["release"] == 3 and document["preset"]["name"] == "micro" and document["seed"] == 5
    assert len(document["shards"]) == 32 and document["step"] == 2
    assert names == {"model", "optimizer", "pool", "random"}
