"""The steps from a source to a release: extract, plan, consent, download, detect, publish, each a plain function."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from flows.steps.config import BuildConfig
from flows.steps.layout import Layout, is_published
from flows.steps.runner import Runner
from flows.steps.watched import Tally

if TYPE_CHECKING:
    from crawler.consent import ConsentConfig
    from crawler.download import DownloadConfig
    from crawler.plan import PlanSummary
    from crawler.sources.base import CrawlLimits, Unit
    from warehouse.publish import Release

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class UnitJob:
    """What a worker needs to read one unit of the source: a file, or a site."""

    index: int
    unit: Unit
    crawl: str
    source: str
    limits: CrawlLimits


@dataclass(frozen=True)
class PartJob:
    """What a worker needs to download or detect one part of a crawl, or to ask one batch of its hosts.

    `tombstones`: the roots whose takedowns count.
    """

    part: int
    crawl: str
    root: str
    detector: str
    pack: str
    download: DownloadConfig
    tombstones: tuple[str, ...]
    provider: str
    embed: bool
    embed_days: int
    embed_precision: str


def crawl_limits(config: BuildConfig, crawl: Path) -> CrawlLimits:
    """Bounds and politeness of the source, and what it knows of an earlier crawl."""
    from crawler.sources import CrawlLimits
    from warehouse.tombstones import tombstones_path

    limits = CrawlLimits(
        max_pages=config.max_pages,
        max_depth=config.max_depth,
        max_minutes=config.max_minutes,
        delay_s=config.page_delay_s,
        allow_private=config.allow_private,
        sitemaps=config.sitemaps,
        limit=config.limit,
        known_pages=str(crawl / "known" / "pages.parquet"),
        page_links=str(crawl.parent / "links.parquet"),
        tombstones=str(tombstones_path(Path(config.root))),
    )
    return replace(limits, cc_base=config.cc_base) if config.cc_base else limits


def download_config(config: BuildConfig) -> DownloadConfig:
    from crawler.download import DownloadConfig
    from crawler.fetch import FetchConfig

    return DownloadConfig(
        fetch=FetchConfig(allow_private=config.allow_private),
        threads=config.download_threads,
        retries=config.retries,
        host_concurrency=config.host_concurrency,
        host_delay_s=config.host_delay_s,
        refusal_limit=config.refusal_limit,
        processes=config.workers or os.cpu_count() or 1,
    )


def part_jobs(
    config: BuildConfig, crawl: Path, parts: int, detector: str = "", tombstones: Sequence[str] = ()
) -> list[PartJob]:
    """A job per part. `tombstones`: other roots whose takedowns count beside those of the crawl's own."""
    download, roots = download_config(config), (config.root, *tombstones)
    faces = (config.provider, config.embed, config.embed_days, config.embed_precision)
    return [
        PartJob(part, str(crawl), config.root, detector, config.pack, download, roots, *faces) for part in range(parts)
    ]


def lost_jobs(config: BuildConfig, crawl: Path, detector: str) -> list[PartJob]:
    """The parts of a published crawl without their done-marker: they were damaged, and somebody wants them anew."""
    from crawler.download import images_path
    from crawler.plan import read_plan

    planned = read_plan(crawl / "plan")
    jobs = part_jobs(config, crawl, planned.parts, detector) if planned else []
    return [job for job in jobs if not images_path(crawl, job.part, "_stats.json").is_file()]


def fetch(crawl: Path, jobs: list[PartJob], runner: Runner) -> None:
    """Ask the hosts of a planned crawl for their rules, decide consent, and download its parts."""
    if jobs:
        runner.map("hosts", ask_hosts, [replace(jobs[0], part=batch) for batch in range(host_batches(crawl))])
    runner.map("consent", consent, jobs)
    runner.map("download", download, jobs)


def resolve_detector(config: BuildConfig) -> str:
    """The detector that every part of this build uses; raises InputError where it, or with `embed` the recogniser of
    its pack in the precision asked for, is not at hand."""
    from gptface_core.errors import InputError
    from gptface_core.faces.detector import resolve_detector as resolve
    from gptface_core.faces.embed import check_precision, describe_embedder

    chosen = resolve(config.detector, config.pack)
    if config.embed:
        if chosen == "cascade":
            raise InputError(
                "--embed needs InsightFace, the cascade only guesses the points of a face: use --detector insightface "
                "with a pack that holds a recogniser (`gptface doctor` says how to get one)"
            )
        describe_embedder(config.pack)
        check_precision(config.embed_precision, config.provider)
    return chosen


def find_units(config: BuildConfig, layout: Layout, crawl: Path) -> list[UnitJob]:
    """What the source has to read that no release has read before; what the lake knows is laid beside it."""
    from crawler.extraction import list_units
    from flows.steps.incremental import done_units, write_known
    from flows.steps.kept_out import lay_tombstones

    lay_tombstones(layout)
    limits = crawl_limits(config, crawl)
    write_known(layout, crawl, config.source, config.max_attempts, config.recheck_days)
    units = list_units(config.source, limits, crawl, done_units(layout, config.source))
    return [UnitJob(index, unit, str(crawl), config.source, limits) for index, unit in enumerate(units)]


def extract(job: UnitJob, progress: Callable[[int], None] | None = None) -> Tally:
    """Read one unit into pairs. `progress` is called with their number so far."""
    from crawler.extraction import extract_unit

    return Tally(extract_unit(job.source, job.limits, Path(job.crawl), job.index, progress, job.unit).pairs)


def plan(config: BuildConfig, crawl: Path) -> PlanSummary:
    """Join what the units gave, leave out what the lake knows, and cut the rest into parts."""
    from crawler.plan import plan_crawl

    return plan_crawl(crawl, config.part_urls, config.source)


def host_batches(crawl: Path) -> int:
    """How many batches of hosts there are to ask for their rules."""
    from crawler.consent import host_batches as count

    return count(crawl)


def ask_hosts(job: PartJob) -> int:
    """Ask one batch of hosts for robots.txt and tdmrep.json; how many were asked."""
    from crawler.consent import ask_hosts as ask

    return ask(job.part, Path(job.crawl), _consent_config(job)).asked


def consent(job: PartJob) -> Tally:
    """Decide consent for one part from what its hosts said. Who refuses, and why, is counted with the download."""
    from crawler.consent import decide_consent

    return Tally(decide_consent(job.part, Path(job.crawl), _consent_config(job)).pairs)


def _consent_config(job: PartJob) -> ConsentConfig:
    from crawler.consent import ConsentConfig

    config = ConsentConfig()
    return replace(config, fetch=replace(config.fetch, allow_private=job.download.fetch.allow_private))


def download(job: PartJob) -> Tally:
    """Download one part into a raw shard. What was taken down is dropped at any address."""
    from crawler.download import download_part
    from flows.steps.kept_out import keeper

    raw_prefix = Path(job.crawl).relative_to(job.root).as_posix()
    keepers = [keeper(Path(root)) for root in job.tombstones]

    def is_taken_down(data: bytes) -> bool:
        return any(keeper(data) for keeper in keepers)

    stats = download_part(job.part, Path(job.crawl), f"{raw_prefix}/images", job.download, is_taken_down)
    return Tally(stats.urls, stats.reasons)


def detect(job: PartJob) -> Tally:
    """Find the faces in one raw shard."""
    from flows.steps.detect import detect_part

    stats = detect_part(
        job.part,
        Path(job.crawl),
        job.detector,
        pack=job.pack,
        provider=job.provider,
        embed=job.embed,
        embed_days=job.embed_days,
        embed_precision=job.embed_precision,
    )
    return Tally(stats.pictures, stats.reasons)


def embed_jobs(config: BuildConfig, layout: Layout) -> list[PartJob]:
    """The parts of all crawls that a release holds: where `embed` is on, they get embeddings that they lack."""
    from crawler.plan import read_plan

    crawls = [crawl for crawl in layout.crawls() if is_published(crawl)]
    planned = [(crawl, read_plan(crawl / "plan")) for crawl in crawls] if config.embed else []
    return [job for crawl, plan in planned if plan for job in part_jobs(config, crawl, plan.parts)]


def embed(job: PartJob) -> bool:
    """Make the embeddings of a detected part that has none (any more); whether there were any to make."""
    from flows.steps.detect import embed_part

    path = Path(job.crawl)
    if not (path / "faces" / f"{job.part:05d}.pictures.parquet").is_file():  # a rebuild's: nobody looked for faces
        return False
    if not (path / "images" / f"{job.part:05d}.tar").is_file():  # pruned: no row needs a picture of it
        return False
    return embed_part(
        job.part,
        path,
        pack=job.pack,
        provider=job.provider,
        embed_days=job.embed_days,
        embed_precision=job.embed_precision,
    )


def publish(
    layout: Layout, crawl: Path, config: BuildConfig, run_id: str, similarities: Sequence[Path] = ()
) -> Release:
    """Curate everything in the lake and this crawl, and publish it; the release that is there if nothing is new.

    `similarities`: files of how well captions fit faces.
    """
    from warehouse.publish import publish as run

    settings = {**asdict(config), "root": ""}  # where a root lies is no part of what was built
    provenance = {"run_id": run_id, "code_version": version("gptface"), "config": settings}
    release = run(layout.root, [crawl], config.rules, provenance, similarities=similarities)
    logger.info("release %d: %d of %d pairs kept", release.number, release.kept, release.pairs)
    return release
