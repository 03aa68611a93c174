"""The demo: the whole way on the built-in small web, from a crawl to a trained, evaluated model and a report."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

from flows.steps.config import DEFAULT_ROOT, BuildConfig, EvaluateConfig, TrainConfig
from flows.steps.pipeline import BuildSummary, EvaluateSummary, TrainSummary, build, evaluate, train
from flows.steps.runner import Runner
from warehouse.rules import RuleParameters

# The figures at the end of the demo and in reports/summary.json, and what to call them.
HEADLINE = {
    "itm_accuracy": "matching accuracy",
    "probe_balanced_accuracy": "linear probe",
    "inpaint_gain_db": "inpainting gain, dB",
    "mim_gain_nats": "masked-image gain, nats",
}


@dataclasses.dataclass(frozen=True)
class DemoConfig:
    """images: pictures of the small web; about three in four end in the corpus, a fifth of them held out."""

    root: str = DEFAULT_ROOT
    images: int = 3_600
    detector: str = "auto"
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class DemoSummary:
    """What the demo made. `headline` holds the figures of HEADLINE, each with its baseline."""

    build: BuildSummary
    training: TrainSummary
    evaluation: EvaluateSummary
    headline: dict[str, dict[str, float | None]]
    model: str
    report: str
    seconds: float

    def figures(self) -> dict[str, Any]:
        """What reports/summary.json says."""
        corpus = {name: getattr(self.build, name) for name in ("pairs", "downloaded", "with_face", "kept", "reasons")}
        model = {name: metric["value"] for name, metric in self.headline.items()}
        return {
            **corpus,
            **model,
            "baselines": {name: metric.get("baseline") for name, metric in self.headline.items()},
            "intervals": {name: [metric.get("low"), metric.get("high")] for name, metric in self.headline.items()},
            "release": self.build.release,
            "shards": self.build.shards,
            "detector": self.build.detector,
            "seconds": round(self.seconds, 1),
        }


def run_demo(config: DemoConfig, runner: Runner) -> DemoSummary:
    """Build, train, evaluate, edit, report; started again after a kill it goes on where it was."""
    from flows.steps.report import write_report, write_summary

    started = time.monotonic()
    built = build(
        BuildConfig(
            source=f"sample:{config.images}",
            root=config.root,
            detector=config.detector,
            part_urls=max(50, config.images // 8),
            # Held out: a fifth, so that matching is measured on 500 faces; the release remembers it.
            rules=RuleParameters(val_share=0.05, test_share=0.2),
        ),
        runner,
    )
    trained = train(TrainConfig(root=config.root, preset="demo", release=built.release, seed=config.seed), runner)
    evaluated = evaluate(
        EvaluateConfig(root=config.root, model=trained.model, release=built.release, seed=config.seed), runner
    )
    report = Path(config.root) / "reports" / "index.html"
    summary = DemoSummary(
        build=built,
        training=trained,
        evaluation=evaluated,
        headline={name: evaluated.metrics[name] for name in HEADLINE},
        model=trained.path,
        report=str(report),
        seconds=time.monotonic() - started,
    )
    write_summary(Path(config.root), summary.figures())
    runner.step("report", write_report, Path(config.root))
    return summary
