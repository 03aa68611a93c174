"""A night: take in what is new; where that is enough, a challenger goes on from the champion, and the better one stays.

Both are measured on the same frozen faces: the test faces of the release that the champion was trained on, as they were
shown and described then, without those that have left the corpus since. So neither new captions nor new pictures move
the measure, and a challenger that learnt from bad ones cannot be measured by them. Until a model was promoted, the
newest stands for the champion.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.steps import model
from flows.steps.champions import settle
from flows.steps.config import EvaluateConfig, NightConfig, TrainConfig
from flows.steps.layout import Layout
from flows.steps.pipeline import BuildSummary, EvaluateSummary, TrainSummary, build, evaluate, train
from flows.steps.retention import PruneSummary, prune
from flows.steps.runner import Runner
from flows.steps.runs import recorded
from flows.steps.shard import ensure_shards

if TYPE_CHECKING:
    from gptface_core.evaluation.paired import Paired, Verdict

DECIDED_BY = "nightly-retrain"


@dataclasses.dataclass(frozen=True)
class Reigning:
    """Who is to be beaten, and the release that it was trained on."""

    model: str
    release: int


@dataclasses.dataclass(frozen=True)
class Decision:
    """What became of the challenger: whether it is the champion now and why, and both models' figures, paired."""

    promoted: bool
    why: str
    challenger: str
    champion: str = ""  # before
    test_release: int = 0
    figures: tuple[Paired, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class NightSummary:
    """What a night did; where too little was new, nothing was trained and `decision` is None."""

    built: BuildSummary
    new_rows: int
    min_new_rows: int
    trained: TrainSummary | None = None
    challenger: EvaluateSummary | None = None
    champion: EvaluateSummary | None = None
    decision: Decision | None = None
    pruned: PruneSummary | None = None

    def sentence(self) -> str:
        """The night in a few words, for people."""
        pruned = f" {self.pruned.sentence()}" if self.pruned else ""
        if self.decision is None:
            why = f"{self.new_rows:,} new faces, {self.min_new_rows:,} are needed" if self.new_rows else "No new faces"
            return f"{why}: release {self.built.release} stands, nothing was trained.{pruned}"
        told = f"{self.new_rows:,} new faces in release {self.built.release}: trained {self.decision.challenger}"
        if not self.decision.champion:
            return f"{told}, the first champion: there is none to compare it with.{pruned}"
        before = self.decision.champion
        done = "promoted" if self.decision.promoted else f"rejected, {before} stays"
        return f"{told} from {before}. {done[0].upper()}{done[1:]}; {self.decision.why}.{pruned}"

    def comparison(self) -> list[dict[str, str | float | int]]:
        """Metric by metric, both models on the same faces, and the difference with its interval."""
        return [dataclasses.asdict(figure) for figure in self.decision.figures] if self.decision else []


def retrain(config: NightConfig, runner: Runner) -> NightSummary:
    """A night by `config`. Raises what `build`, `train`, `evaluate` and `prune` raise.

    A night that was killed is finished by the next one: what was built or trained is found again.
    """
    built = build(config.build, runner)
    layout = Layout(Path(built.root))
    settle(layout)
    reigning = read_reigning(layout)
    new_rows = count_new_rows(layout, seen_release(layout, reigning))
    summary = NightSummary(built, new_rows, config.min_new_rows)
    if new_rows >= config.min_new_rows:
        with recorded(layout, "night", config) as run:
            summary = _challenge(config, layout, summary, reigning, run.run_id, runner)
            run.result = summary.decision.as_dict() if summary.decision else None
    if config.retention is not None:
        summary = dataclasses.replace(summary, pruned=prune(layout, config.retention, runner))
    return summary


def _challenge(
    config: NightConfig, layout: Layout, night: NightSummary, reigning: Reigning | None, run_id: str, runner: Runner
) -> NightSummary:
    """Train the challenger, measure it and the champion on the same faces, decide, and write the decision down."""
    from warehouse.champions import challenge

    release = night.built.release
    name = f"night-{Path(config.preset).stem}-r{release:05d}-s{config.seed}"
    asked = TrainConfig(night.built.root, config.preset, name, release, config.seed)
    if reigning is not None and config.from_champion:
        asked = dataclasses.replace(
            asked, init_from=reigning.model, steps=config.steps, learning_rate=config.learning_rate
        )
    trained = train(asked, runner)
    challenge(layout.root, name)
    test_release = reigning.release if reigning else release
    ensure_shards(layout, test_release, config.build.samples_per_shard, runner)

    def measure(model_name: str) -> EvaluateSummary:
        return evaluate(EvaluateConfig(night.built.root, model_name, test_release, config.labels, config.seed), runner)

    challenger = measure(name)
    champion = measure(reigning.model) if reigning else None
    if reigning is None:
        decision = Decision(True, "the first model: there is no champion to compare it with", name)
    else:
        verdict, figures = runner.step("compare", _compare, config, layout, reigning, name, release)
        decision = Decision(verdict.promoted, verdict.why, name, reigning.model, test_release, tuple(figures))
    _write_down(layout, decision, run_id)
    return dataclasses.replace(night, trained=trained, challenger=challenger, champion=champion, decision=decision)


def _compare(
    config: NightConfig, layout: Layout, reigning: Reigning, challenger: str, release: int
) -> tuple[Verdict, list[Paired]]:
    """Both models' figures on the frozen faces, face by face, and what follows from them."""
    from gptface_core.evaluation.paired import compare, judge
    from gptface_core.evaluation.rows import load_rows

    before, after = (load_rows(layout.models / name / "evaluation") for name in (reigning.model, challenger))
    figures = compare(before, after, frozen_faces(layout, reigning.release, release), config.seed)
    return judge(figures, config.metric), figures


def _write_down(layout: Layout, decision: Decision, run_id: str) -> None:
    """The alias, where it moves, and the row of `promotions`."""
    from warehouse.champions import Reason, keep, promote

    told = decision.as_dict()
    figures = {"test_release": told["test_release"], "paired": list(told["figures"])}
    (promote if decision.promoted else keep)(
        layout.root, decision.challenger, Reason(DECIDED_BY, decision.why, figures, run_id)
    )


def read_reigning(layout: Layout) -> Reigning | None:
    """The champion, else the one before it, else the newest model that no night has put up; with a whole folder."""
    import warehouse
    from warehouse.champions import champion_of, history, succession

    with warehouse.connect(layout.root) as con:
        rows = con.execute("SELECT model, release, alias FROM models ORDER BY created_at DESC, model").fetchall()
        decisions, champion = history(con), champion_of(con)
    decided = {each.model for each in decisions}
    newest = [name for name, _, alias in rows if name not in decided and alias is None]
    releases = {name: release for name, release, _ in rows if release is not None and model.is_whole(layout, name)}
    line = [*([champion] if champion else []), *succession(decisions)[::-1], *newest]
    return next((Reigning(name, releases[name]) for name in line if name in releases), None)


def seen_release(layout: Layout, reigning: Reigning | None) -> int:
    """The newest release that the champion, or a model that was decided about, was trained on; 0 where there is none.

    What a rejected challenger was trained on is not new again the night after.
    """
    import warehouse

    with warehouse.connect(layout.root) as con:
        row = con.execute(
            "SELECT coalesce(max(release), 0) FROM models WHERE model IN (SELECT model FROM promotions)"
        ).fetchone()
    return max(int(row[0]) if row else 0, reigning.release if reigning else 0)


def count_new_rows(layout: Layout, seen: int) -> int:
    """Rows of the corpus that no release up to `seen` kept (a row whose caption changed is not new)."""
    import warehouse

    first = "SELECT row_id, min(release_from) AS release FROM history.corpus GROUP BY row_id"
    with warehouse.connect(layout.root) as con:
        row = con.execute(
            f"SELECT count(*) FROM corpus JOIN ({first}) USING (row_id) WHERE release > ?", [seen]
        ).fetchone()
    return int(row[0]) if row else 0


def frozen_faces(layout: Layout, first: int, last: int) -> set[str]:
    """Row ids of the test faces of release `first` that are test faces of release `last` still."""
    import warehouse

    shown = "SELECT row_id FROM history.corpus WHERE split = 'test' AND release_from <= {0} AND {1}"
    both = [shown.format(n, f"(release_to IS NULL OR release_to > {n})") for n in (first, last)]
    with warehouse.connect(layout.root) as con:
        return {row[0] for row in con.execute(" INTERSECT ".join(both)).fetchall()}
