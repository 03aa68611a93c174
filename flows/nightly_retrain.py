"""The flow `nightly-retrain`: what is new on the web -> a new release -> a challenger that the champion must stand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from prefect import flow

from flows.parameters import SAMPLE_SOURCE, BuildSettings, ChallengeSettings, Minutes, RetentionSettings
from flows.steps.config import Detector

DEFAULTS = BuildSettings()
CHALLENGE = ChallengeSettings()
RETENTION = RetentionSettings()


@flow(name="nightly-retrain", flow_run_name="night-{source}", persist_result=False)
def nightly_retrain(
    source: str = SAMPLE_SOURCE,
    root: str | None = None,
    detector: Detector = "auto",
    preset: str = "demo",
    seed: int = 0,
    min_new_rows: int = 100,
    challenge: ChallengeSettings = CHALLENGE,
    prune: bool = False,
    retention: RetentionSettings = RETENTION,
    notify_block: str = "",
    timeout_minutes: Minutes = 0,
    settings: BuildSettings = DEFAULTS,
) -> None:
    """Take in what is new; with enough of it go on from the champion, and promote what is better beyond its interval.

    Args:
        source: `site:URL`, `list:FILE`, or `sample:N`.
        root: dataset root; GPTFACE_ROOT, else ./gptface-data.
        detector: which detector finds the faces.
        preset: of the challenger; to go on from the champion it must have its shape.
        seed: of the challenger's training.
        min_new_rows: kept rows that no model has seen yet; fewer train nothing.
        challenge: how the challenger is trained and judged.
        prune: remove what the policy does not keep, afterwards.
        retention: that policy.
        notify_block: a notification block of Prefect, such as slack-webhook/team, that is told how the night ended.
        timeout_minutes: the night is ended after so many minutes, and finished by the next one; 0: never.
        settings: of the build.
    """
    from flows.prefect_artifacts import show_night
    from flows.prefect_notify import load_notifier
    from flows.prefect_runner import PrefectRunner
    from flows.steps.config import BuildConfig, NightConfig, RetentionConfig, chosen_root, from_dict
    from flows.steps.nightly import retrain
    from flows.steps.pools import open_pool
    from flows.steps.report import write_report

    notifier = load_notifier(notify_block)
    chosen = {"source": source, "root": chosen_root(root), "detector": detector, "refresh": True}
    pruned = RetentionConfig(**retention.model_dump()) if prune else None
    build = from_dict(BuildConfig, chosen | settings.model_dump())
    config = NightConfig(build, preset, seed, min_new_rows, **challenge.model_dump(), retention=pruned)
    try:
        build, pool = open_pool(build)
        with PrefectRunner(timeout_minutes=timeout_minutes, pool=pool) as runner:
            night = retrain(dataclasses.replace(config, build=build), runner)
            show_night(night, runner.step("report", write_report, Path(build.root)))
    except Exception as error:
        notifier.tell("GPTFace: the night failed", f"{type(error).__name__}: {' '.join(str(error).split())}")
        raise
    notifier.tell("GPTFace: the night is over", night.sentence())
