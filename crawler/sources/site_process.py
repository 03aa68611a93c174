"""The process that crawls a site: `python -m crawler.sources.site_process FOLDER`.

FOLDER/job.json names seeds and limits; FOLDER/candidates.jsonl and FOLDER/report.json (last) are the result. The
seeds are asked for first, so a site that cannot be crawled is told before Scrapy is even imported.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

from crawler.address import AddressError, authority_of, parse_address, resolve
from crawler.extract import absolute
from crawler.fetch import FetchConfig, Fetcher, FetchError, Hooks
from crawler.robots import ROBOTS_MAX_BYTES, RobotsGate
from crawler.sources.base import CrawlLimits
from warehouse.schema import Reason


def _die_with(parent: int) -> None:
    """End this process when its parent has gone, also when it was killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(3)

    threading.Thread(target=watch, daemon=True).start()


def _reached(seeds: list[str], fetcher: Fetcher, gate: RobotsGate) -> tuple[list[str], str]:
    """The seeds' final addresses after redirects, and "" or one line that says why the crawl cannot start."""
    final: list[str] = []
    for seed in seeds:
        try:
            resolve(parse_address(seed), fetcher.config.allow_private)
            verdict = gate.verdict(seed)
            if verdict.reason is Reason.ROBOTS_TXT:
                return [], f"{verdict.evidence} on {seed}: choose pages that its owner lets us read"
            if not verdict.allowed:
                return [], _unreachable(seed, verdict.evidence)
            answer = fetcher.get(seed, Hooks(truncate=True))
        except (AddressError, FetchError) as error:
            return [], _unreachable(seed, error.detail, error.reason)
        if answer.status // 100 != 2:
            return [], _unreachable(seed, f"HTTP {answer.status}")
        final.append(absolute(answer.url, answer.url) or answer.url)
    return final, ""


def _unreachable(seed: str, detail: str, reason: Reason | None = None) -> str:
    if reason is Reason.PRIVATE_ADDRESS:
        return f"cannot crawl {seed}: {detail}; add --allow-private if this is your own site"
    return f"cannot reach {seed}: {detail}; check the address and that the site is up"


def main(folder: Path) -> None:
    """Crawl as FOLDER/job.json says."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    _die_with(int(job["parent"]))
    limits = CrawlLimits(**job["limits"])
    config = FetchConfig(total_s=limits.timeout_s, max_bytes=ROBOTS_MAX_BYTES, allow_private=limits.allow_private)
    with Fetcher(config) as fetcher, (folder / "candidates.jsonl").open("w", encoding="utf-8") as output:
        gate = RobotsGate(fetcher)
        seeds, error = _reached(list(job["seeds"]), fetcher, gate)
        report: dict[str, object] = {"error": error, "pages": 0, "pictures": 0, "bytes": 0, "cut": ""}
        if not error:
            from crawler.sources.site_spider import Crawl, run  # Scrapy takes 2 s to import: not for a dead site

            crawl = Crawl(limits, gate, {authority_of(seed) for seed in seeds}, sorted(set(seeds)), output)
            crawl.seen.update(crawl.level)
            run(crawl)
            report |= {"pages": crawl.pages, "pictures": crawl.pictures, "bytes": crawl.bytes, "cut": crawl.cut}
    temporary = folder / "report.tmp"
    temporary.write_text(json.dumps(report), encoding="utf-8")
    temporary.replace(folder / "report.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
