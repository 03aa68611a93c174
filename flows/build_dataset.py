"""The flow `build-dataset`: a source on the web -> a release of the corpus and its training shards."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from flows.parameters import SAMPLE_SOURCE, BuildSettings, Minutes
from flows.steps.config import Detector

DEFAULTS = BuildSettings()


@flow(name="build-dataset", flow_run_name="build-{source}", persist_result=False)
def build_dataset(
    source: str = SAMPLE_SOURCE,
    root: str | None = None,
    detector: Detector = "auto",
    refresh: bool = False,
    timeout_minutes: Minutes = 0,
    settings: BuildSettings = DEFAULTS,
) -> None:
    """Crawl, find the faces, curate, publish a release and cut it into shards; a run that was cut short is resumed.

    The first build that ends with a release emits the event gptface.snapshot.published.

    Args:
        source: `site:URL`, `list:FILE`, or `sample:N` for the built-in small web with N pictures.
        root: dataset root; GPTFACE_ROOT, else ./gptface-data.
        detector: which detector finds the faces.
        refresh: crawl the source anew and download only what is new.
        timeout_minutes: the run is ended after so many minutes; 0: never.
        settings: everything else.
    """
    from flows.prefect_artifacts import show_build
    from flows.prefect_events import tell_published
    from flows.prefect_runner import PrefectRunner
    from flows.steps import pipeline
    from flows.steps.config import BuildConfig, chosen_root, from_dict
    from flows.steps.layout import Layout
    from flows.steps.pools import open_pool
    from flows.steps.report import write_report
    from flows.steps.runs import is_first_build

    chosen = {"source": source, "root": chosen_root(root), "detector": detector, "refresh": refresh}
    config, pool = open_pool(from_dict(BuildConfig, chosen | settings.model_dump()))
    with PrefectRunner(timeout_minutes=timeout_minutes, pool=pool) as runner:
        summary = pipeline.build(config, runner)
        if is_first_build(Layout(Path(summary.root)), summary.release):
            tell_published(summary)
        show_build(summary, runner.step("report", write_report, Path(config.root)))
