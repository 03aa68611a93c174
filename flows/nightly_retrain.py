"""The flow `nightly-retrain`: what is new on the web -> a new release -> a challenger, measured beside the last."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from flows.parameters import SAMPLE_SOURCE, BuildSettings, Detector

DEFAULTS = BuildSettings()


@flow(name="nightly-retrain", flow_run_name="night-{source}", persist_result=False)
def nightly_retrain(
    source: str = SAMPLE_SOURCE,
    root: str | None = None,
    detector: Detector = "auto",
    preset: str = "demo",
    seed: int = 0,
    settings: BuildSettings = DEFAULTS,
) -> None:
    """Take in what is new; with new kept faces train a challenger and measure it and the last model on the same faces.

    Nothing is promoted: both results are shown, and choosing stays with a person.

    Args:
        source: `site:URL`, `list:FILE`, or `sample:N`.
        root: dataset root; GPTFACE_ROOT, else ./gptface-data.
        detector: which detector finds the faces.
        preset: of the challenger.
        seed: of the challenger's training.
        settings: of the build.
    """
    from flows.prefect_artifacts import show_night
    from flows.prefect_runner import PrefectRunner
    from flows.steps.config import BuildConfig, default_root, from_dict
    from flows.steps.nightly import retrain
    from flows.steps.report import write_report

    chosen = {"source": source, "root": root or default_root(), "detector": detector, "refresh": True}
    config = from_dict(BuildConfig, chosen | settings.model_dump())
    with PrefectRunner(config.workers) as runner:
        night = retrain(config, preset, seed, runner)
        show_night(night, runner.step("report", write_report, Path(config.root)))
