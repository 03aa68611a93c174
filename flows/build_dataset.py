"""The flow `build-dataset`: a source on the web -> a release of the corpus and its training shards."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from flows.parameters import SAMPLE_SOURCE, BuildSettings, Detector

DEFAULTS = BuildSettings()


@flow(name="build-dataset", flow_run_name="build-{source}", persist_result=False)
def build_dataset(
    source: str = SAMPLE_SOURCE,
    root: str | None = None,
    detector: Detector = "auto",
    refresh: bool = False,
    settings: BuildSettings = DEFAULTS,
) -> None:
    """Crawl, find the faces, curate, publish a release and cut it into shards; a run that was cut short is resumed.

    Args:
        source: `site:URL`, `list:FILE`, or `sample:N` for the built-in small web with N pictures.
        root: dataset root; GPTFACE_ROOT, else ./gptface-data.
        detector: which detector finds the faces.
        refresh: crawl the source anew and download only what is new.
        settings: everything else.
    """
    from flows.prefect_artifacts import show_build
    from flows.prefect_runner import PrefectRunner
    from flows.steps import pipeline
    from flows.steps.config import BuildConfig, default_root, from_dict
    from flows.steps.report import write_report

    chosen = {"source": source, "root": root or default_root(), "detector": detector, "refresh": refresh}
    config = from_dict(BuildConfig, chosen | settings.model_dump())
    with PrefectRunner(config.workers) as runner:
        summary = pipeline.build(config, runner)
        show_build(summary, runner.step("report", write_report, Path(config.root)))
