"""Commands of the model: train, evaluate."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import DEFAULT_ROOT, Metrics, Release, Root, Seed


def train(
    root: Root = DEFAULT_ROOT,
    preset: Annotated[str, typer.Option(help="demo, tiny, mini, small or base.")] = "demo",
    name: Annotated[str, typer.Option(help="Name below ROOT/models (default: preset, release and seed).")] = "",
    release: Release = 0,
    seed: Seed = 0,
    init_from: Annotated[
        str, typer.Option("--init-from", help="Go on from this model (name or folder) of the same shape.")
    ] = "",
    steps: Annotated[int, typer.Option(min=0, help="Steps of the main stage (0: as the preset says).")] = 0,
    learning_rate: Annotated[float, typer.Option(min=0, help="Its learning rate (0: as the preset says).")] = 0.0,
    stage: Annotated[str, typer.Option(help="all, or tokenizer: stop after the image tokenizer.")] = "all",
    device: Annotated[str, typer.Option(help="auto (CUDA where there is any), cpu or cuda.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto (bf16 on CUDA, else fp32), bf16 or fp32.")] = "auto",
    compile_: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="torch.compile (default: on CUDA alone).")
    ] = None,
    checkpoint_every: Annotated[int, typer.Option(help="Steps between two checkpoints of a stage.")] = 1000,
    checkpoint_minutes: Annotated[float, typer.Option(help="Save after so many minutes in any case.")] = 10.0,
    spike_sigmas: Annotated[
        float, typer.Option(help="Stop at a loss so many robust deviations above the running median (0: never).")
    ] = 20.0,
    peak_tflops: Annotated[float, typer.Option(help="Peak of the device for MFU (0: as known for its name).")] = 0.0,
    wandb: Annotated[bool, typer.Option("--wandb", help="Losses to Weights & Biases as well as TensorBoard.")] = False,
    metrics: Metrics = "",
) -> None:
    """Train GPTFace on the shards of a release: image tokenizer, tokens on disk, then MILM and matching.

    Stopped by Ctrl-C, SIGTERM or a crash, the same command goes on from the newest checkpoint.

    Example: gptface train --preset demo   ·   torchrun --nproc-per-node 8 --no-python gptface train --preset base
    """
    from flows.cli.tables import print_training
    from flows.cli.ui import RichSink
    from flows.steps.config import TrainConfig
    from flows.steps.metrics import served_metrics
    from flows.steps.model import join_training
    from flows.steps.pipeline import train as run
    from flows.steps.runner import LocalRunner, WorkerPool
    from gptface_core.config import RunOptions

    options = RunOptions(
        device, precision, compile_, checkpoint_every, checkpoint_minutes, spike_sigmas, peak_tflops, wandb
    )
    config = TrainConfig(str(root), preset, name, release, seed, stage, options, init_from, steps, learning_rate)
    if int(os.environ.get("RANK", "0")):
        join_training(config)
        return
    with WorkerPool() as pool, served_metrics(root, metrics), RichSink() as sink:
        print_training(run(config, LocalRunner(pool, sink)))


def evaluate(
    root: Root = DEFAULT_ROOT,
    model: Annotated[str, typer.Option(help="Name below ROOT/models (default: the champion, else the newest).")] = "",
    release: Release = 0,
    labels: Annotated[Path | None, typer.Option(help="Parquet of attributes and opposed captions per row_id.")] = None,
    seed: Seed = 0,
    suite: Annotated[str, typer.Option(help="quick, or full: all benchmarks.")] = "quick",
    only: Annotated[list[str] | None, typer.Option(help="A benchmark by name, instead of a suite; repeatable.")] = None,
    faces: Annotated[int, typer.Option(help="Faces to edit, at most, per attribute.")] = 200,
    split: Annotated[str, typer.Option(help="Whose faces are edited: test, or val while you tune.")] = "test",
    alphas: Annotated[str, typer.Option(help="Strengths of guidance to compare on val, as 0.1,0.3,1.")] = "",
    face_models: Annotated[
        Path | None, typer.Option(help="Folder with InsightFace's models/: do edits keep the identity?")
    ] = None,
    pack: Annotated[str, typer.Option(help="InsightFace's model pack.")] = "buffalo_sc",
    data: Annotated[
        Path | None, typer.Option(help="Folder of public data sets, for benchmarks that read some.")
    ] = None,
    fine_tune: Annotated[
        int, typer.Option(min=0, help="Steps of fine-tuning on each public set (0: the frozen probe alone).")
    ] = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure anew what an earlier run has measured.")] = False,
) -> None:
    """Evaluate a model on held-out faces, each figure beside its chance level or baseline.

    What an earlier run, ended or killed, has measured of the same weights, faces, options and code is not run again.

    Example: gptface evaluate --model demo-r00001-s0 --suite full   ·   gptface evaluate --only editing --split val
    """
    from flows.cli.tables import print_evaluation
    from flows.cli.ui import RichSink
    from flows.steps.config import EvaluateConfig
    from flows.steps.pipeline import evaluate as run
    from flows.steps.runner import LocalRunner, WorkerPool
    from gptface_core.evaluation_options import EvaluationOptions

    options = EvaluationOptions(
        suite=suite,
        only=tuple(only or ()),
        faces=faces,
        split=split,
        alphas=_numbers("alphas", alphas),
        face_models=str(face_models or ""),
        pack=pack,
        data=str(data or ""),
        fine_tune=fine_tune,
    )
    config = EvaluateConfig(
        root=str(root), model=model, release=release, labels=str(labels or ""), seed=seed, options=options, fresh=fresh
    )
    with WorkerPool() as pool, RichSink() as sink:
        print_evaluation(run(config, LocalRunner(pool, sink)))


def _numbers(name: str, text: str) -> tuple[float, ...]:
    """Numbers with commas between them; ConfigError for anything else."""
    from flows.steps.config import ConfigError

    try:
        return tuple(float(word) for word in text.split(",") if word.strip())
    except ValueError as error:
        raise ConfigError(f"--{name} {text}: give numbers with commas between them, as 0.1,0.3,1") from error
