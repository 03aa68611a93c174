"""The process that crawls a site: `python -m crawler.sources.site_process`.

A JSON job on the standard input names seeds and limits; JSON lines on the standard output are the result, one per
page, and the report last. robots.txt comes first, so a site that is down or closed to us is told before Scrapy is even
imported.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from crawler.extract import absolute
from crawler.fetch import FetchConfig, Fetcher
from crawler.robots import ROBOTS_MAX_BYTES, RobotsGate
from crawler.sources.base import CrawlLimits
from crawler.sources.site_crawl import Crawl, Report
from crawler.sources.site_known import KnownPages, LinksWriter
from crawler.sources.site_visit import refused


def _die_with(parent: int) -> None:
    """End this process when its parent has gone, also when it was killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(3)

    threading.Thread(target=watch, daemon=True).start()


def _crawl(seeds: list[str], limits: CrawlLimits, gate: RobotsGate, output: TextIO) -> Report:
    from crawler.sources.site_spider import run  # Scrapy takes 2 s to import: not for a dead site

    known = KnownPages(_path(limits.known_pages), _path(limits.page_links))
    reports: list[Report] = []

    async def job(ask: Any) -> None:
        with LinksWriter(_path(limits.page_links), known) as links:
            report = await Crawl(limits, gate, ask, output, known, links).run(seeds)
        reports.append(report)
        _write_end(report, output)
        os._exit(0)  # nothing is left to do: Scrapy would wait for idle connections to close

    run(limits, job)
    raise RuntimeError("the crawl ended without a report")


def _path(name: str) -> Path | None:
    return Path(name) if name else None


def _write_end(report: Report, output: TextIO) -> None:
    output.write(json.dumps({"end": asdict(report)}) + "\n")
    output.flush()


def main(job: dict[str, Any], output: TextIO) -> None:
    """Crawl as `job` says, and write what is found to `output`."""
    _die_with(int(job["parent"]))
    limits = CrawlLimits(**job["limits"])
    config = FetchConfig(total_s=limits.timeout_s, max_bytes=ROBOTS_MAX_BYTES, allow_private=limits.allow_private)
    with Fetcher(config) as fetcher:
        gate = RobotsGate(fetcher)
        seeds = [absolute(seed, seed) or seed for seed in job["seeds"]]
        verdicts = {seed: gate.verdict(seed) for seed in seeds}
        if not any(verdict.allowed for verdict in verdicts.values()):
            _write_end(Report(error=refused(seeds[0], verdicts[seeds[0]])), output)
            return
        _crawl(seeds, limits, gate, output)


if __name__ == "__main__":
    main(json.load(sys.stdin), sys.stdout)
