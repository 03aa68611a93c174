"""site:URL - a polite crawl of one site with Scrapy, in a process of its own.

Scrapy's reactor can be started once per process and owns its signals; a child keeps both away from the caller. The
child writes candidates as JSON lines, and this side reads them when the crawl has ended.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crawler.address import AddressError, parse_address
from crawler.errors import InputError
from crawler.extract import Caption
from crawler.sources.base import Candidate, CrawlLimits
from warehouse.schema import CaptionKind

logger = logging.getLogger(__name__)

_GRACE_S = 60.0  # what the child may take over its own time budget before it is ended


@dataclass(frozen=True)
class SiteSource:
    """Pictures on the pages of one site (several seeds: separated by white space)."""

    seeds: str
    limits: CrawlLimits

    def candidates(self) -> Iterator[Candidate]:
        """Crawl, then yield in page order. Raises InputError for a site that cannot be reached, forbids the crawl,
        or has no picture."""
        seeds = self.seeds.split()
        for seed in seeds:
            try:
                parse_address(seed)
            except AddressError as error:
                raise InputError(f"cannot crawl {seed}: {error.detail}; give an address like https://host/") from error
        with tempfile.TemporaryDirectory(prefix="gptface-site-") as folder:
            report = _crawl(seeds, self.limits, Path(folder))
            if report.get("error"):
                raise InputError(str(report["error"]))
            if not report["pictures"]:
                pages = f"{report['pages']} pages read"
                raise InputError(f"no picture found on {self.seeds} ({pages}): check the address and the depth")
            if report["cut"]:
                logger.warning("crawl of %s ended early: %s", self.seeds, report["cut"])
            with (Path(folder) / "candidates.jsonl").open(encoding="utf-8") as lines:
                for line in lines:
                    yield _candidate(json.loads(line))


def _candidate(row: dict[str, Any]) -> Candidate:
    captions = tuple(Caption(CaptionKind(kind), text) for kind, text in row["captions"])
    return Candidate(row["page_url"], row["image_url"], captions, row["page_directives"])


def _crawl(seeds: list[str], limits: CrawlLimits, folder: Path) -> dict[str, Any]:
    """Run the spider process to its end; returns its report."""
    job = {"seeds": seeds, "limits": asdict(limits), "parent": os.getpid()}
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    command = [sys.executable, "-m", "crawler.sources.site_process", str(folder)]
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment())
        try:
            process.wait(timeout=limits.max_minutes * 60 + _GRACE_S)
        except subprocess.TimeoutExpired as error:
            raise InputError(f"crawl of {' '.join(seeds)} did not end in {limits.max_minutes} minutes") from error
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    report = folder / "report.json"
    if not report.exists():
        tail = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(f"site crawl ended with code {process.returncode}: {' '.join(tail)}")
    result: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return result


def _environment() -> dict[str, str]:
    """This process's environment, with the folder of our packages on the module path."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{path}" if path else root}
