"""The pipeline: which steps run in which order, for the command line and the Prefect flows alike.

A step is a plain function on files below the root. It finds what an earlier, interrupted run had finished and goes on
from there, so `build` may be killed at any moment and started again.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crawler.errors import InputError
from flows.steps import crawl, kept_out, model, sample, shard, similarity
from flows.steps.config import BuildConfig, EvaluateConfig, TrainConfig
from flows.steps.layout import Layout, discard_unplanned, is_published, mark_published, prepare_root
from flows.steps.model_card import write_model_card
from flows.steps.runner import Runner
from flows.steps.runs import recorded
from flows.steps.space import told_if_full
from flows.steps.watched import watched

if TYPE_CHECKING:
    from gptface_core.clip import ClipWeights

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class BuildSummary:
    """What a build found and left. `reasons` counts every pair of the release once, kept ones included."""

    source: str
    root: str
    release: int
    is_new: bool
    pairs: int
    downloaded: int
    with_face: int
    kept: int
    reasons: dict[str, int]
    samples: dict[str, int]
    shards: int
    detector: str
    labels: str
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class TrainSummary:
    """A trained model: its name below ROOT/models and the figures of its training."""

    model: str
    path: str
    preset: str
    release: int
    seconds: float
    metrics: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class EvaluateSummary:
    """A model's figures: metric -> value, baseline, low, high, samples (see gptface_core.evaluation)."""

    model: str
    release: int
    seconds: float
    metrics: dict[str, dict[str, float | None]]
    left_out: dict[str, str]
    kept: tuple[str, ...] = ()  # benchmarks that an earlier run had measured

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def build(config: BuildConfig, runner: Runner) -> BuildSummary:
    """Source to release and shards: plan, consent, download, detect, compare, publish (which curates), shard.

    Raises InputError for what a user can mend (an unreachable or empty source, a locked root) and OSError where the
    root can't be written (DiskFullError where it is full); the root then holds what it held before, plus finished parts
    that a next run takes up.
    """
    from warehouse.lake import choose_catalog, create, has_lake, root_lock
    from warehouse.store import store_of

    started = time.monotonic()
    detector = crawl.resolve_detector(config)
    weights = similarity.find_weights(config)
    layout = prepare_root(Path(config.root))
    asked = config.source
    if config.catalog and store_of(layout.root):  # its database has the lock as well
        choose_catalog(layout.root, config.catalog)
    with told_if_full(layout.root), root_lock(layout.root), sample.served(config) as (config, web):
        _tidy(layout, runner)
        kept_out.check_source(layout, config.source)
        if config.catalog:
            choose_catalog(layout.root, config.catalog)
        if has_lake(layout.root):
            create(layout.root)  # a catalogue that was chosen, or one whose tables a crash or a full disk prevented
        # A small web of another size is another source, although it has the same address.
        crawled = f"{asked} {config.source}" if web else asked
        folder = layout.open_crawl(crawled, refresh=config.refresh)
        with (
            recorded(layout, "build", config) as run,
            watched(layout.root, run.run_id, "build", asked, runner) as runner,
        ):
            if not is_published(folder):
                _fetch(config, layout, folder, detector, runner)
            elif lost := crawl.lost_jobs(config, folder, detector):
                _download(layout, folder, lost, runner)
            if missing := crawl.embed_jobs(config, layout):
                runner.map("embed", crawl.embed, missing)
            measured = _measure(config, layout, folder, weights, runner) if weights else []
            told = similarity.told(config, weights) if weights else config
            release = runner.step("publish", crawl.publish, layout, folder, told, run.run_id, measured)
            runner.decided(release.reasons)
            mark_published(folder, release.number)
            shards = shard.write_shards(layout, release.number, config.samples_per_shard, runner)
            labels = runner.step("labels", sample.write_labels, layout, release.number, web) if web else None
            summary = BuildSummary(
                source=asked,
                root=str(layout.root),
                release=release.number,
                is_new=release.created,
                pairs=release.pairs,
                downloaded=release.downloaded,
                with_face=release.with_face,
                kept=release.kept,
                reasons=release.reasons,
                samples=shards.samples,
                shards=shards.shard_count,
                detector=detector,
                labels=str(labels or ""),
                seconds=time.monotonic() - started,
            )
            run.result = summary.as_dict()
    return summary


def _tidy(layout: Layout, runner: Runner) -> None:
    """Nothing is read or written by what a killed takedown has left half done, no embedding outlives its time, and what
    killed runs left half-written goes."""
    from crawler.files import sweep
    from flows.steps.embeddings import expire_embeddings
    from flows.steps.takedown import finish

    sweep(layout.raw)
    finish(layout, runner)
    expire_embeddings(layout.root)


def _fetch(config: BuildConfig, layout: Layout, folder: Path, detector: str, runner: Runner) -> None:
    """The part of a build that is done once per crawl: everything before the lake."""
    try:
        units = runner.step("sources", crawl.find_units, config, layout, folder)
        _extract(units, runner)
        planned = runner.step("plan", crawl.plan, config, folder)
    except InputError:
        discard_unplanned(folder)
        raise
    _download(layout, folder, crawl.part_jobs(config, folder, planned.parts, detector), runner)


def _download(layout: Layout, folder: Path, jobs: list[crawl.PartJob], runner: Runner) -> None:
    crawl.fetch(folder, jobs, runner)
    runner.step("taken down", kept_out.drop_taken_down, layout, folder)
    runner.map("detect", crawl.detect, jobs)
    runner.step("faces taken down", kept_out.drop_faces, layout, folder)


def _measure(config: BuildConfig, layout: Layout, folder: Path, weights: ClipWeights, runner: Runner) -> list[Path]:
    """Compare captions with faces where that was not done yet; the files of all similarities by this model."""
    crawls = [each for each in layout.crawls() if is_published(each) or each == folder]
    jobs = similarity.jobs(config, crawls, weights)
    if jobs:
        runner.map("clip", similarity.measure_part, jobs)
    return similarity.files(jobs)


def _extract(units: list[crawl.UnitJob], runner: Runner) -> None:
    """Files are read by the workers; a single unit here, where it can say how far it is."""
    if len(units) != 1:
        runner.map("extract", crawl.extract, units)
        return

    def tell(pairs: int) -> None:
        runner.progress("extract", pairs, None, f"{pairs:,} pictures found")

    runner.step("extract", crawl.extract, units[0], tell)


def train(config: TrainConfig, runner: Runner) -> TrainSummary:
    """Train a model on a release's shards. Raises InputError where there are none, or for an unknown preset."""
    from warehouse.lake import root_lock

    started = time.monotonic()
    layout = Layout(Path(config.root))
    release = shard.resolve_release(layout, config.release)
    name = model.model_name(config, release)
    with (
        told_if_full(layout.root),
        root_lock(layout.root, config.wait_minutes * 60),
        recorded(layout, "train", config) as run,
        watched(layout.root, run.run_id, "train", name, runner) as runner,
    ):
        _tidy(layout, runner)
        model.check_name(layout, name, release, config)
        metrics = runner.step("train", model.train, layout, name, release, config, runner.progress)
        if config.stage == "all":
            model.register_model(layout, name, release, config, metrics, run.run_id)
        summary = TrainSummary(
            model=name,
            path=str(layout.models / name),
            preset=config.preset,
            release=release,
            seconds=time.monotonic() - started,
            metrics=metrics,
        )
        run.result = summary.as_dict()
    return summary


def evaluate(config: EvaluateConfig, runner: Runner) -> EvaluateSummary:
    """Measure a model on a release's held-out faces. Raises InputError where there is no such model."""
    from warehouse.lake import root_lock

    started = time.monotonic()
    layout = Layout(Path(config.root))
    release = shard.resolve_release(layout, config.release)
    folder = model.resolve_model(layout, config.model)
    with (
        told_if_full(layout.root),
        root_lock(layout.root, config.wait_minutes * 60),
        recorded(layout, "evaluate", config) as run,
        watched(layout.root, run.run_id, "evaluate", folder.name, runner) as runner,
    ):
        found = runner.step("evaluate", model.evaluate, layout, folder, release, config, runner.progress)
        if config.options.split == "test":  # what was measured while something was tuned is no result
            model.register_evaluation(layout, folder.name, release, found.metrics, run.run_id)
        if not config.options.is_part:
            write_model_card(folder, release, found.metrics)
        seconds = time.monotonic() - started
        summary = EvaluateSummary(folder.name, release, seconds, found.metrics, found.left_out, found.kept)
        run.result = summary.as_dict()
    return summary
