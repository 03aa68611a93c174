"""A night: take in what is new, and where there are new faces, train a challenger and measure it beside the last model.

Nothing is promoted here: the figures of both are reported, and choosing stays with a person.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from flows.steps.config import BuildConfig, EvaluateConfig, TrainConfig
from flows.steps.pipeline import BuildSummary, EvaluateSummary, TrainSummary, build, evaluate, train
from flows.steps.runner import Runner


@dataclasses.dataclass(frozen=True)
class NightSummary:
    """What a night did; without new faces nothing was trained and only `built` is there."""

    built: BuildSummary
    new_faces: int
    trained: TrainSummary | None = None
    challenger: EvaluateSummary | None = None
    last: EvaluateSummary | None = None

    def sentence(self) -> str:
        """The night in one sentence, for people."""
        if self.challenger is None:
            return f"No new faces: release {self.built.release} stands, nothing was trained."
        beside = f"measured beside {self.last.model}" if self.last else "the first model, so there is none to compare"
        return (
            f"{self.new_faces:,} new faces in release {self.built.release}: trained {self.challenger.model}, {beside}. "
            "Nothing was promoted."
        )

    def comparison(self) -> list[dict[str, str | float | None]]:
        """Metric by metric: challenger, last model, and the baseline without any model."""
        if self.challenger is None:
            return []
        last = self.last.metrics if self.last else {}
        return [
            {
                "metric": name,
                "challenger": metric["value"],
                "last model": last.get(name, {}).get("value"),
                "baseline": metric.get("baseline"),
            }
            for name, metric in self.challenger.metrics.items()
        ]


def retrain(config: BuildConfig, preset: str, seed: int, runner: Runner) -> NightSummary:
    """Build from `config`; with new kept faces train and measure. Raises what `build` and `train` raise."""
    built = build(config, runner)
    new_faces = count_new_faces(built.root, built.release) if built.is_new else 0
    if not new_faces:
        return NightSummary(built, new_faces)
    name = f"night-{Path(preset).stem}-r{built.release:05d}-s{seed}"
    trained = train(TrainConfig(built.root, preset, name, built.release, seed), runner)
    challenger = evaluate(EvaluateConfig(built.root, name, built.release, seed=seed), runner)
    before = last_model(built.root, name)
    last = evaluate(EvaluateConfig(built.root, before, built.release, seed=seed), runner) if before else None
    return NightSummary(built, new_faces, trained, challenger, last)


def count_new_faces(root: str, release: int) -> int:
    """Rows of the corpus that this release was the first to keep (a row whose caption changed is not new)."""
    import warehouse

    first = "SELECT row_id, min(release_from) AS release FROM history.corpus GROUP BY row_id"
    with warehouse.connect(Path(root)) as con:
        row = con.execute(f"SELECT count(*) FROM ({first}) WHERE release = ?", [release]).fetchone()
    return int(row[0]) if row else 0


def last_model(root: str, challenger: str) -> str:
    """The newest model in the lake besides the challenger; empty where there is none."""
    import warehouse

    with warehouse.connect(Path(root)) as con:
        row = con.execute(
            "SELECT model FROM models WHERE model <> ? ORDER BY created_at DESC, model LIMIT 1", [challenger]
        ).fetchone()
    return str(row[0]) if row else ""
