"""Ablations: the same training with one thing changed, over several seeds, and what the change is worth.

All arms share shards, image tokenizer, steps and evaluation. An arm's figure is what the whole method gains over it,
face by face and seed by seed. Each arm leaves a JSON row when it is done, so a stopped run goes on where it was.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gptface_core.config import Preset, RunOptions, load_preset, override
from gptface_core.errors import InputError
from gptface_core.evaluation.intervals import percentiles
from gptface_core.evaluation.rows import RowValues, load_rows
from gptface_core.files import replacing, write_text
from gptface_core.shards import open_index

WHOLE, WORK = "whole", "work"
METRICS = ("itm_accuracy", "probe_balanced_accuracy", "mim_gain_nats", "inpaint_gain_db")
DRAWS = 2000


@dataclass(frozen=True)
class Arm:
    """`changes` of the preset, as in a preset file; `says` for people. `unfair`: figures that would compare nothing."""

    says: str
    changes: Mapping[str, Any]
    unfair: tuple[str, ...] = ()


# PAPER: the abstract has span masking, MILM and ITM; the rest are our choices.
ARMS = {
    WHOLE: Arm("the method as it is", {}),
    "scattered": Arm(
        "no spans: single words, scattered slots",
        {"masking": {"block_share": 0.0, "span_cap": 1}},
        ("mim_gain_nats",),  # measured under the model's own law of masks
    ),
    "milm": Arm(
        "masked modelling alone",
        {"training": {"weight_itm": 0.0, "weight_itc": 0.0, "warmup_steps": 0}},
        ("itm_accuracy",),  # it never learns to match
    ),
    "clean-itm": Arm("matching sees whole pairs alone", {"training": {"itm_masked_share": 0.0}}),
    "no-warm-up": Arm("no spell of contrast alone", {"training": {"warmup_steps": 0}}),
    "no-contrast": Arm("no contrast, no warm-up", {"training": {"weight_itc": 0.0, "warmup_steps": 0}}),
}
SUITES = {"quick": (WHOLE, "scattered", "milm", "clean-itm"), "full": tuple(ARMS)}


@dataclass(frozen=True)
class Difference:
    """What the whole method gains over an arm: mean over seeds and faces, and a 95 % interval over both."""

    arm: str
    metric: str
    whole: float
    without: float
    difference: float
    low: float
    high: float
    seeds: int
    faces: int


OnArm = Callable[[str, int], None]  # before an arm is trained: its name and seed
Values = dict[str, npt.NDArray[np.float64]]  # metric -> a value per face, in the order of row ids


def ablate(
    shards: Path | str,
    labels: Path | str | None,
    out: Path | str,
    preset: str | Path | Preset = "demo",
    suite: str = "quick",
    seeds: Sequence[int] = (0, 1, 2),
    options: RunOptions | None = None,
    on_arm: OnArm | None = None,
) -> list[Difference]:
    """Train and evaluate every arm of the suite with every seed; what the whole method gains, also as a file.

    Each leaves `out/rows/ARM-sSEED.json` and `.npz` (values by face, without their ids); the models are removed.
    Raises InputError for an unknown suite, no seeds, and what `train` and `evaluate` refuse.
    """
    if suite not in SUITES:
        raise InputError(f"no suite '{suite}': choose {' or '.join(SUITES)}")
    if not seeds:
        raise InputError("no seeds: give at least one")
    base, folder, digest = load_preset(preset), Path(out), open_index(shards).digest()
    for seed in seeds:
        for name in SUITES[suite]:
            key = _key(base, name, digest)
            if not _finished(folder, name, seed, key):
                if on_arm is not None:
                    on_arm(name, seed)
                _run_arm(name, seed, base, Path(shards), labels, folder, key, options)
    shutil.rmtree(folder / WORK, ignore_errors=True)  # pictures of faces are in it
    values = {name: [_values(folder, name, seed) for seed in seeds] for name in SUITES[suite]}
    differences = [
        compare(name, metric, [v[metric] for v in values[WHOLE]], [v[metric] for v in values[name]])
        for name in SUITES[suite]
        for metric in METRICS
        if name != WHOLE and metric in values[WHOLE][0] and metric not in ARMS[name].unfair
    ]
    write_text(folder / "ablations.json", json.dumps([dataclasses.asdict(each) for each in differences], indent=1))
    return differences


def arm_preset(base: Preset, name: str, tokenizer: Path) -> Preset:
    """The preset of an arm: its changes, and the image tokenizer that all arms share."""
    changes = {section: dict(values) for section, values in ARMS[name].changes.items()}
    return override(base, changes | {"name": f"{base.name}-{name}", "tokenizer": {"source": str(tokenizer)}})


def _key(base: Preset, name: str, shards: str) -> dict[str, Any]:
    """What makes a row another one, as JSON has it."""
    key = {"preset": base.to_dict(), "shards": shards, "changes": ARMS[name].changes}
    return dict(json.loads(json.dumps(key)))


def _row(out: Path, name: str, seed: int) -> Path:
    return out / "rows" / f"{name}-s{seed}.json"


def _finished(out: Path, name: str, seed: int, key: Mapping[str, Any]) -> bool:
    row = _row(out, name, seed)
    known = row.is_file() and row.with_suffix(".npz").is_file()
    return known and bool(json.loads(row.read_text(encoding="utf-8"))["key"] == key)


def _run_arm(
    name: str,
    seed: int,
    base: Preset,
    shards: Path,
    labels: Path | str | None,
    out: Path,
    key: Mapping[str, Any],
    options: RunOptions | None,
) -> None:
    """Train and evaluate; what is half done goes on. The row is written last."""
    from gptface_core.evaluation import evaluate
    from gptface_core.training import train

    tokenizer, model = out / WORK / "tokenizer", out / WORK / f"{name}-s{seed}"
    train(shards, tokenizer, base, stage="tokenizer", options=options)
    summary = train(shards, model, arm_preset(base, name, tokenizer), seed, options=options)
    found = evaluate(model, shards, labels, model / "evaluation", seed=0)  # the same faces and masks for all
    figures = {
        metric: {part: figure.get(part) for part in ("value", "low", "high")}
        for metric, figure in found["metrics"].items()
        if metric in METRICS
    }
    record = {"arm": name, "says": ARMS[name].says, "seed": seed, "metrics": figures}
    record |= {"seconds": round(sum(summary.seconds.values())), "version": version("gptface"), "key": key}
    row = _row(out, name, seed)
    row.parent.mkdir(parents=True, exist_ok=True)
    _save_values(row.with_suffix(".npz"), load_rows(model / "evaluation"))
    write_text(row, json.dumps(record, indent=1))
    shutil.rmtree(model)


def _save_values(path: Path, rows: RowValues) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        arrays = {metric: np.array([by_id[i] for i in sorted(by_id)]) for metric, by_id in rows.items()}
        np.savez_compressed(file, allow_pickle=False, **arrays)


def _values(out: Path, name: str, seed: int) -> Values:
    with np.load(_row(out, name, seed).with_suffix(".npz"), allow_pickle=False) as file:
        return {metric: file[metric] for metric in file.files}


def compare(
    arm: str,
    metric: str,
    whole: Sequence[npt.NDArray[np.float64]],
    without: Sequence[npt.NDArray[np.float64]],
    seed: int = 0,
) -> Difference:
    """Values by face, one array per seed and side. Two-stage bootstrap: seeds, then faces, with replacement."""
    a, b = np.array(whole), np.array(without)
    gain, rng = a - b, np.random.default_rng(seed)
    draws = []
    for _ in range(DRAWS):
        seeds, faces = (rng.integers(size, size=size) for size in gain.shape)
        draws.append(gain[seeds][:, faces].mean())
    means = (float(a.mean()), float(b.mean()), float(gain.mean()))
    return Difference(arm, metric, *means, *percentiles(np.array(draws)), *gain.shape)
