"""The flow `train-gptface`: the shards of a release -> a trained model."""

from __future__ import annotations

from pathlib import Path

from prefect import flow


@flow(name="train-gptface", flow_run_name="train-{preset}", persist_result=False)
def train_gptface(
    root: str | None = None, preset: str = "demo", name: str = "", release: int = 0, seed: int = 0
) -> None:
    """Train the image tokenizer and the model on a release's shards.

    Args:
        root: dataset root; GPTFACE_ROOT, else ./gptface-data.
        preset: sizes and schedule of model and training.
        name: of the model; by default made from preset and release.
        release: 0 for the newest.
        seed: of all randomness.
    """
    from flows.prefect_artifacts import show_model
    from flows.prefect_runner import PrefectRunner
    from flows.steps import pipeline
    from flows.steps.config import TrainConfig, default_root
    from flows.steps.report import write_report

    config = TrainConfig(root=root or default_root(), preset=preset, name=name, release=release, seed=seed)
    with PrefectRunner() as runner:
        summary = pipeline.train(config, runner)
        show_model(summary, runner.step("report", write_report, Path(config.root)))
