"""The steps from a source to a release: plan, consent, download, detect, publish, each a plain function."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from flows.steps.config import BuildConfig
from flows.steps.layout import Layout

if TYPE_CHECKING:
    import pyarrow as pa

    from crawler.plan import PlanSummary
    from crawler.sources.base import Candidate
    from warehouse.publish import Release

logger = logging.getLogger(__name__)
_TELL_EVERY = 100


@dataclass(frozen=True)
class PartJob:
    """What a worker needs to consent, download or detect one part of a crawl."""

    part: int
    crawl: str
    root: str
    detector: str
    pack: str
    allow_private: bool
    threads: int
    retries: int


def part_jobs(config: BuildConfig, crawl: Path, parts: int, detector: str) -> list[PartJob]:
    return [
        PartJob(
            part,
            str(crawl),
            config.root,
            detector,
            config.pack,
            config.allow_private,
            config.download_threads,
            config.retries,
        )
        for part in range(parts)
    ]


def resolve_detector(config: BuildConfig) -> str:
    """The detector that every part of this build uses; raises InputError where it is not at hand."""
    from gptface_core.faces.detector import resolve_detector as resolve

    return resolve(config.detector, config.pack)


def plan(
    config: BuildConfig, layout: Layout, crawl: Path, progress: Callable[[float, float | None, str], None]
) -> PlanSummary:
    """Find the source's pairs and cut them into parts; what the lake has downloaded before is left out."""
    from crawler.plan import read_plan, write_plan
    from crawler.sources import CrawlLimits, open_source

    folder = crawl / "plan"
    finished = read_plan(folder)
    if finished is not None:
        return finished
    limits = CrawlLimits(
        max_pages=config.max_pages,
        max_depth=config.max_depth,
        max_minutes=config.max_minutes,
        delay_s=config.page_delay_s,
        allow_private=config.allow_private,
    )
    found = _told(open_source(config.source, limits).candidates(), progress)
    known = known_rows(layout, crawl) if config.refresh else None
    return write_plan(found, folder, config.part_urls, config.source, known)


def known_rows(layout: Layout, crawl: Path) -> pa.Array | None:
    """Pairs that a release holds with their picture: a refreshed crawl need not fetch them again."""
    from warehouse.lake import catalog_path, connect

    if not catalog_path(layout.root).is_file():
        return None
    with connect(layout.root) as con:
        query = "SELECT row_id FROM pairs JOIN images USING (url_id) WHERE status = 'ok' ORDER BY row_id"
        return con.execute(query).to_arrow_table()["row_id"].combine_chunks()


def consent(job: PartJob) -> int:
    """Decide consent for one part; how many pairs refuse."""
    from crawler.consent import ConsentConfig, decide_consent
    from crawler.fetch import FetchConfig
    from crawler.robots import ROBOTS_MAX_BYTES

    fetch = FetchConfig(total_s=20.0, max_bytes=ROBOTS_MAX_BYTES, allow_private=job.allow_private)
    return decide_consent(job.part, Path(job.crawl), ConsentConfig(fetch=fetch)).refused


def download(job: PartJob) -> int:
    """Download one part into a raw shard; how many pictures came."""
    from crawler.download import DownloadConfig, download_part
    from crawler.fetch import FetchConfig

    config = DownloadConfig(
        fetch=FetchConfig(allow_private=job.allow_private), threads=job.threads, retries=job.retries
    )
    raw_prefix = Path(job.crawl).relative_to(job.root).as_posix()
    return download_part(job.part, Path(job.crawl), f"{raw_prefix}/images", config).ok


def detect(job: PartJob) -> int:
    """Find the faces in one raw shard; how many."""
    from flows.steps.detect import detect_part

    return detect_part(job.part, Path(job.crawl), job.detector, pack=job.pack).faces


def publish(layout: Layout, crawl: Path, config: BuildConfig, run_id: str) -> Release:
    """Curate everything in the lake and this crawl, and publish it; the release that is there if nothing is new."""
    from warehouse.publish import publish as run

    settings = {**asdict(config), "root": ""}  # where a root lies is no part of what was built
    provenance = {"run_id": run_id, "code_version": version("gptface"), "config": settings}
    release = run(layout.root, [crawl], config.rules, provenance)
    logger.info("release %d: %d of %d pairs kept", release.number, release.kept, release.pairs)
    return release


def _told(found: Iterator[Candidate], progress: Callable[[float, float | None, str], None]) -> Iterator[Candidate]:
    for count, candidate in enumerate(found, 1):
        if count % _TELL_EVERY == 0:
            progress(count, None, f"{count:,} pictures found")
        yield candidate
