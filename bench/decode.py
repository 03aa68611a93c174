"""Faces and region edits decoded per second, beside token-by-token decoding: `python -m bench.decode`.

Ours fills N slots in T steps (`gptface_core.sampling`), guided by the matching loss and not; the other side fills one
slot per pass in a random order, with the same transformer, batch, temperature and top-k, logits of that one slot only.
Both alternate, and the ratio is the median of the pairs (`cpu_ratio`: in processor time, for a machine under load). The
sequential side may be timed on fewer slots than N (`--sequential-slots`): each of its passes costs the same, whichever
slot it fills. Preset small with random weights (speed does not depend on them), or `--model FOLDER`. One line of JSON
last; `ratio` is that of text-to-face, unguided.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gptface_core.canvas import Canvas
from gptface_core.config import load_preset
from gptface_core.guidance import Guidance
from gptface_core.model import SPECIALS, GPTFace, GPTFaceConfig
from gptface_core.regions import region_mask, token_slots
from gptface_core.sampling import SamplingConfig, fill

TARGET_SHARE = 0.8  # of N / T
_TEXT_TOKENS = 12
_EDITED = "eyes"


@dataclass(frozen=True)
class Job:
    """What is filled: `unknown` (B, N) slots of a canvas."""

    canvas: Canvas
    unknown: Tensor
    steps: int

    @property
    def slots(self) -> int:
        return int(self.unknown[0].sum())


def model_of(preset: str, folder: str, seed: int) -> GPTFace:
    """A trained model, or one of the preset's shape with random weights."""
    if folder:
        model: GPTFace = GPTFace.from_pretrained(Path(folder)).eval()
        return model
    chosen = load_preset(preset)
    torch.manual_seed(seed)
    words = 49_406 if chosen.model.vocabulary == "full" else 512
    config = GPTFaceConfig.of_preset(chosen, words, fsq_levels=list(chosen.tokenizer.levels))
    return GPTFace(config).eval()


def jobs(model: GPTFace, batch: int, steps: int, seed: int) -> dict[str, Job]:
    """Text to face (all slots) and an edit of the eyes."""
    generator = torch.Generator().manual_seed(seed)
    config = model.config
    text = torch.randint(SPECIALS + 1, model.first_code, (batch, _TEXT_TOKENS), generator=generator)
    codes = torch.randint(config.codes, (batch, config.image_slots), generator=generator)
    canvas = Canvas(model, text, codes + model.first_code, fills_image=True)
    region = torch.from_numpy(token_slots(region_mask(_EDITED, 256), config.grid).reshape(1, -1)).expand(batch, -1)
    return {
        "text_to_face": Job(canvas, torch.ones_like(region), steps),
        "region_edit": Job(canvas, region, min(steps, 8)),
    }


@torch.no_grad()
def token_by_token(job: Job, config: SamplingConfig, generator: torch.Generator, passes: int) -> Tensor:
    """Ids (B, N) after `passes` slots, in a random order, one transformer pass each."""
    canvas, model = job.canvas, job.canvas.model
    ids = canvas.start.masked_fill(job.unknown, canvas.mask_id)
    order = job.unknown[0].nonzero()[:, 0]
    order = order[torch.randperm(len(order), generator=generator)]
    for slot in order[:passes].tolist():
        states = model.encode(canvas.text_ids, ids).image
        assert states is not None
        top = (model.image_logits(states[:, slot]) / config.temperature).topk(min(config.top_k, model.config.codes), -1)
        drawn = torch.multinomial(top.values.softmax(-1), 1, generator=generator)
        ids[:, slot] = top.indices.gather(-1, drawn)[:, 0] + model.first_code
    return ids


def measure(job: Job, rounds: int, sequential_slots: int, guided_rounds: int) -> dict[str, Any]:
    """Both sides in alternation, and what follows from their times; the guidance's cost is in processor time."""
    plain = SamplingConfig(steps=job.steps)
    guided = replace(plain, guidance=Guidance())
    passes = min(sequential_slots or job.slots, job.slots)
    generator = torch.Generator().manual_seed(0)
    token_by_token(job, plain, generator, 1)  # warm
    ours, theirs = [], []
    for number in range(rounds):
        sides: list[Callable[[], None]] = [
            lambda: ours.append(_clock(lambda: fill(job.canvas, job.unknown, plain, generator))),
            lambda: theirs.append(_clock(lambda: token_by_token(job, plain, generator, passes)) * job.slots / passes),
        ]
        for side in sides if number % 2 else sides[::-1]:
            side()
        print(f"  round {number + 1}: ours {ours[-1][0]:.2f} s, token by token {theirs[-1][0]:.2f} s", flush=True)
    slow = [_clock(lambda: fill(job.canvas, job.unknown, guided, generator)) for _ in range(guided_rounds)]
    ratio, cpu_ratio = np.median(np.array(theirs) / np.array(ours), axis=0).tolist()
    rates = {name: len(job.unknown) / np.median(times, axis=0) for name, times in (("ours", ours), ("theirs", theirs))}
    found = {
        "slots": job.slots,
        "steps": job.steps,
        "ratio": round(ratio, 2),
        "cpu_ratio": round(cpu_ratio, 2),
        "target": round(TARGET_SHARE * job.slots / job.steps, 2),
        "per_s": round(float(rates["ours"][0]), 3),
        "sequential_per_s": round(float(rates["theirs"][0]), 4),
        "sequential_slots_timed": passes,
    }
    if slow:
        guided_s = np.median(slow, axis=0)
        found |= {
            "guided_per_s": round(len(job.unknown) / float(guided_s[0]), 4),
            "guidance_cost": round(float((guided_s / np.median(ours, axis=0))[1]), 2),
        }
    return found


def _clock(action: Callable[[], object]) -> NDArray[np.float64]:
    """Seconds of the wall clock and of processor time (2,)."""
    started = time.perf_counter(), time.process_time()
    action()
    return np.array([time.perf_counter() - started[0], time.process_time() - started[1]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--model", default="", help="folder of a trained model, instead of the preset's shape")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--guided-rounds", type=int, default=1)
    parser.add_argument("--sequential-slots", type=int, default=48, help="passes that are timed; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = model_of(options.preset, options.model, options.seed)
    found: dict[str, Any] = {}
    for name, job in jobs(model, options.batch, options.steps, options.seed).items():
        print(f"{name}: {job.slots} slots in {job.steps} steps, batch {options.batch}", flush=True)
        found[name] = measure(job, options.rounds, options.sequential_slots, options.guided_rounds)
    whole = found["text_to_face"]
    print(f"ratio {whole['ratio']} (target {whole['target']}: {TARGET_SHARE} x slots / steps)")
    row = {"ratio": whole["ratio"], "target": whole["target"], "ok": whole["ratio"] >= whole["target"]}
    machine = {"threads": torch.get_num_threads(), "load_average": round(os.getloadavg()[0], 1)}
    print(json.dumps({**row, "model": options.model or options.preset, "batch": options.batch, **found, **machine}))


if __name__ == "__main__":
    main()
