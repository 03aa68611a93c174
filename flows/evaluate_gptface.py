"""The flow `evaluate-gptface`: a trained model -> its figures on held-out faces."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from prefect import flow

from flows.parameters import Minutes


@flow(name="evaluate-gptface", flow_run_name="evaluate", persist_result=False)
def evaluate_gptface(
    root: str | None = None,
    model: str = "",
    release: int = 0,
    labels: str = "",
    seed: int = 0,
    suite: Literal["quick", "full"] = "quick",
    face_models: str = "",
    pack: str = "buffalo_sc",
    data: str = "",
    fine_tune: int = 0,
    fresh: bool = False,
    wait_minutes: Minutes = 0,
    timeout_minutes: Minutes = 0,
) -> None:
    """Measure a model, each figure beside its chance level or baseline.

    Args:
        root: dataset root; GPTFACE_ROOT, else ./gptface-data.
        model: a name below ROOT/models, or a path; empty for the champion, else the newest.
        release: whose held-out faces; 0 for the newest.
        labels: Parquet with attribute labels and opposed captions by row_id; empty for those that the build wrote.
        seed: of all randomness.
        suite: quick (matching captions, linear probe, filling in masked regions), or full (all benchmarks).
        face_models: folder with InsightFace's `models/`, for identities before and after an edit; empty: not measured.
        pack: InsightFace's model pack.
        data: folder of public data sets, for the benchmarks that read some.
        fine_tune: steps of fine-tuning on each public set; 0 for the frozen probe alone.
        fresh: measure anew what an earlier run has measured of the same weights, faces, options and code.
        wait_minutes: for how long to wait where another run writes the root; 0: that is an error.
        timeout_minutes: the run is ended after so many minutes; 0: never.
    """
    from flows.prefect_artifacts import show_evaluation
    from flows.prefect_runner import PrefectRunner
    from flows.steps import pipeline
    from flows.steps.config import EvaluateConfig, chosen_root
    from flows.steps.report import write_report
    from gptface_core.evaluation_options import EvaluationOptions

    config = EvaluateConfig(
        root=chosen_root(root),
        model=model,
        release=release,
        labels=labels,
        seed=seed,
        options=EvaluationOptions(suite=suite, face_models=face_models, pack=pack, data=data, fine_tune=fine_tune),
        fresh=fresh,
        wait_minutes=wait_minutes,
    )
    with PrefectRunner(timeout_minutes=timeout_minutes) as runner:
        summary = pipeline.evaluate(config, runner)
        show_evaluation(summary, runner.step("report", write_report, Path(config.root)))
