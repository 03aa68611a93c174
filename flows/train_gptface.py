"""The flow `train-gptface`: the shards of a release -> a trained model."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from flows.parameters import Minutes


@flow(name="train-gptface", flow_run_name="train-{preset}", persist_result=False)
def train_gptface(
    root: str | None = None,
    preset: str = "demo",
    name: str = "",
    release: int = 0,
    seed: int = 0,
    processes: int = 1,
    wait_minutes: Minutes = 0,
    timeout_minutes: Minutes = 0,
) -> None:
    """Train the image tokenizer and the model on a release's shards; emits the event gptface.model.trained.

    Args:
        root: dataset root; GPTFACE_ROOT, else ./gptface-data.
        preset: sizes and schedule of model and training.
        name: of the model; by default made from preset and release.
        release: 0 for the newest.
        seed: of all randomness.
        processes: of this machine that train, started by torchrun; 0: one per CUDA device.
        wait_minutes: for how long to wait where another run writes the root; 0: that is an error.
        timeout_minutes: the run is ended after so many minutes, to be gone on with by the next; 0: never.
    """
    from flows.prefect_artifacts import show_model
    from flows.prefect_events import tell_trained
    from flows.prefect_runner import PrefectRunner
    from flows.steps import pipeline
    from flows.steps.config import TrainConfig, chosen_root
    from flows.steps.report import write_report

    config = TrainConfig(
        root=chosen_root(root),
        preset=preset,
        name=name,
        release=release,
        seed=seed,
        processes=processes,
        wait_minutes=wait_minutes,
    )
    with PrefectRunner(timeout_minutes=timeout_minutes) as runner:
        summary = pipeline.train(config, runner)
        tell_trained(summary, config.root)
        show_model(summary, runner.step("report", write_report, Path(config.root)))
