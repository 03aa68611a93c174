"""A training step beside a plain one: `python -m bench.train_step`.

Per preset: samples/s, tokens/s, MFU (gptface_core.flops, where the device's peak is known or given) and the share of
time spent waiting for data, of our main stage; by turns with the same losses on PyTorch's own `nn.TransformerEncoder`
of the same shape, in the same loop, compiled the same way. Key `ratio`: ours over plain in samples/s, the median of the
pairs, the smallest of the presets. On a CPU batches are smaller than the presets'. One line of JSON last.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench._plain_encoder import PlainEncoder
from gptface_core.checkpoints import Checkpoints
from gptface_core.config import Preset, RunOptions, load_preset
from gptface_core.distributed import Engine, compile_blocks, open_engine
from gptface_core.image_tokenizer import ImageTokenizer
from gptface_core.loop import Loop, Surroundings
from gptface_core.model import SPECIALS, GPTFace, GPTFaceConfig
from gptface_core.optimise import History, Progress
from gptface_core.pretrain import Stage, batch_flops, main_work
from gptface_core.stopping import Stop
from gptface_core.tokens import TokenSet

PRESETS = ("tiny", "mini", "small", "base")
WORDS = {"pruned": 512, "full": 49408}
TARGET, WAITING_TARGET = 0.95, 0.01
# (rows of a batch, steps of a turn) on a CPU; on a GPU the batches of the preset and 20 steps.
ON_CPU = {"tiny": (16, 3), "mini": (8, 2), "small": (4, 1), "base": (2, 1)}


@dataclasses.dataclass(frozen=True)
class Turn:
    samples_per_s: float
    tokens_per_s: float
    flops_per_s: float
    waiting_share: float
    cpu_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", default=",".join(PRESETS), help="which, with commas between")
    parser.add_argument("--pairs", type=int, default=5, help="turns of each; the median counts")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU (0: as the preset says)")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="torch.compile (default: on CUDA)")
    parser.add_argument("--peak-tflops", type=float, default=0.0, help="of the device, for MFU")
    words = parser.parse_args()
    options = RunOptions(words.device, compile=words.compile, spike_sigmas=0, peak_tflops=words.peak_tflops)
    engine = open_engine(options)
    rows = {name: measure(name, words.threads, engine, options, words.pairs) for name in words.presets.split(",")}
    result: dict[str, Any] = {
        "bench": "train_step",
        "device": torch.cuda.get_device_name() if engine.device.type == "cuda" else "cpu",
        "compiled": engine.compile,
        "ratio": min(row["ratio"] for row in rows.values()),
        "waiting_share": max(row["waiting_share"] for row in rows.values()),
        "presets": rows,
    }
    if engine.device.type != "cuda":
        result["gpu"] = "not measured yet"
    result["ok"] = result["ratio"] >= TARGET and result["waiting_share"] < WAITING_TARGET
    print(json.dumps(result))


def measure(name: str, threads: int, engine: Engine, options: RunOptions, pairs: int) -> dict[str, Any]:
    """Both by turns; what is first changes from pair to pair."""
    from gptface_core.flops import peak_flops

    preset, steps = sized(load_preset(name), engine)
    preset = dataclasses.replace(preset, threads=threads or preset.threads)
    runners = {kind: Runner(kind, preset, engine, options) for kind in ("ours", "plain")}
    for runner in runners.values():
        runner.turn(max(1, steps // 2))  # warm: allocators, compilation
    turns: dict[str, list[Turn]] = {kind: [] for kind in runners}
    for pair in range(pairs):
        for kind in ("ours", "plain") if pair % 2 == 0 else ("plain", "ours"):
            turns[kind].append(runners[kind].turn(steps))
    speeds = {kind: [turn.samples_per_s for turn in made] for kind, made in turns.items()}
    ratios = [ours / plain for ours, plain in zip(speeds["ours"], speeds["plain"], strict=True)]
    device = torch.cuda.get_device_name() if engine.device.type == "cuda" else ""
    peak = peak_flops(device, options.peak_tflops)
    flops = statistics.median(turn.flops_per_s for turn in turns["ours"])
    row = {
        "batch": [preset.training.milm_batch, preset.training.itm_batch],
        "samples_per_s": round(statistics.median(speeds["ours"]), 2),
        "plain_samples_per_s": round(statistics.median(speeds["plain"]), 2),
        "tokens_per_s": round(statistics.median(turn.tokens_per_s for turn in turns["ours"])),
        "tflops_per_s": round(flops / 1e12, 4),
        "mfu": round(flops / peak, 4) if peak else None,
        "waiting_share": round(statistics.median(turn.waiting_share for turn in turns["ours"]), 5),
        "ratio": round(statistics.median(ratios), 3),
        # On a loaded machine wall clock tells little: the same by processor time, which is no target.
        "cpu_ratio": round(statistics.median(p.cpu_s / o.cpu_s for o, p in zip(*turns.values(), strict=True)), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }
    print(f"{name:<6} {row}", flush=True)
    return row


def sized(preset: Preset, engine: Engine) -> tuple[Preset, int]:
    """The preset with batches that this machine bears, and the steps of a turn."""
    if engine.device.type == "cuda":
        return preset, 20
    rows, steps = ON_CPU.get(preset.name, (32, 4))
    training = dataclasses.replace(preset.training, milm_batch=rows, itm_batch=rows)
    return dataclasses.replace(preset, training=training), steps


class Runner:
    """A model that trains on drawn tokens through the loop of real training."""

    def __init__(self, kind: str, preset: Preset, engine: Engine, options: RunOptions) -> None:
        torch.manual_seed(0)
        torch.set_num_threads(preset.threads)
        self._preset, self._engine, self._options = preset, engine, options
        words, levels = WORDS[preset.model.vocabulary], list(preset.tokenizer.levels)
        config = GPTFaceConfig.of_preset(preset, words, fsq_levels=levels)
        model = (GPTFace if kind == "ours" else PlainEncoder)(config).to(engine.device)
        compile_blocks(list(model.blocks), engine)
        self._model = model
        self._tokens = drawn_tokens(config, rows=4 * (preset.training.milm_batch + 8))

    def turn(self, steps: int) -> Turn:
        """`steps` steps of the main stage, no validation, no checkpoint."""
        seen: list[Progress] = []
        flops, tokens = 0.0, 0
        preset = dataclasses.replace(self._preset, training=dataclasses.replace(self._preset.training, steps=steps))
        with tempfile.TemporaryDirectory() as folder:
            checkpoints = Checkpoints(Path(folder), "main", {"key": ""})
            around = Surroundings(self._engine, self._options, checkpoints, History(None, seen.append), None, Stop())
            image = ImageTokenizer(preset.tokenizer)
            nothing = dataclasses.replace(self._tokens, row_ids=[])
            stage = Stage(self._model, self._tokens, nothing, preset, image, np.random.default_rng(0), around)
            work = main_work(stage)
            draw = work.stream.draw

            def counted() -> Any:
                nonlocal flops, tokens
                batch = draw()
                flops += batch_flops(self._model, preset, batch)
                assert batch.milm is not None and batch.itm is not None
                tokens += sum(part.text.numel() + part.image.numel() for part in (batch.milm, batch.itm))
                return batch

            work.stream.draw = counted  # type: ignore[method-assign]
            self._wait()
            started, cpu = time.perf_counter(), time.process_time()
            Loop(work, around).run()
            self._wait()
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        samples = steps * (preset.training.milm_batch + preset.training.itm_batch)
        waiting = seen[-1].speed.waiting_share if seen[-1].speed else 0.0
        return Turn(samples / seconds, tokens / seconds, flops / seconds, waiting, cpu)

    def _wait(self) -> None:
        if self._engine.device.type == "cuda":
            torch.cuda.synchronize()


def drawn_tokens(config: GPTFaceConfig, rows: int) -> TokenSet:
    """Captions of half the context's length, on average, and codes, all at random: a step's cost is that of faces."""
    rng = np.random.default_rng(0)
    slots = config.max_text_tokens
    lengths = rng.integers(slots // 4, 3 * slots // 4 + 1, rows)
    text = rng.integers(SPECIALS, SPECIALS + config.text_vocab_size, (rows, slots))
    text[np.arange(slots)[None] >= lengths[:, None]] = 0
    codes = rng.integers(0, config.codes, (rows, config.image_slots))
    names = [str(row) for row in range(rows)]
    return TokenSet(names, names, text, lengths, codes, np.arange(rows))


if __name__ == "__main__":
    main()
