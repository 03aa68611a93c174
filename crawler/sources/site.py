"""site:URL - a polite crawl of one site with Scrapy, in a process of its own.

Scrapy's reactor can be started once per process and owns its signals; a child keeps both away from the caller. The
child writes a JSON line per page as soon as it is read, and this side hands it on.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from crawler.address import AddressError, parse_address
from crawler.errors import InputError
from crawler.extract import Caption
from crawler.sources.base import Candidate, CrawlLimits, Damage, Found, PageVisit, Unit
from warehouse.schema import CaptionKind

_GRACE_S = 60.0  # what the child may take over its own time budget before it is ended
_LOG_TAIL_BYTES = 4000


@dataclass(frozen=True)
class SiteSource:
    """Pictures on the pages of one site (several seeds: separated by white space)."""

    seeds: str
    limits: CrawlLimits

    def units(self) -> Sequence[Unit]:
        """The site is one unit, read again each time: its pages are asked for conditionally where they are known."""
        seeds = self.seeds.split()
        for seed in seeds:
            try:
                parse_address(seed)
            except AddressError as error:
                raise InputError(f"cannot crawl {seed}: {error.detail}; give an address like https://host/") from error
        return [Unit(" ".join(seeds))]

    def read(self, unit: Unit) -> Iterator[Found]:
        """Crawl, and yield each page's pictures and then its visit, level by level, while the crawl goes on.

        A crawl that a budget has cut short says so last. Raises InputError for a site that cannot be reached, forbids
        the crawl, or has no picture. The crawl ends when the generator is closed.
        """
        seeds = unit.name.split()
        report: dict[str, Any] | None = None
        with _child(seeds, self.limits) as (process, log):
            assert process.stdout is not None
            for line in process.stdout:
                row = json.loads(line)
                if "end" in row:
                    report = row["end"]
                    break
                yield from _page(row)
            if report is None:
                raise _unfinished(process, log, unit.name, self.limits)
        yield from _judged(report, unit.name)


def _page(row: dict[str, Any]) -> Iterator[Found]:
    """Candidates of one page, then the visit: so a page that counts as read is there as a whole."""
    for image_url, texts in row["pictures"]:
        captions = tuple(Caption(CaptionKind(kind), text) for kind, text in texts)
        yield Candidate(row["page_url"], image_url, captions, row["directives"])
    yield PageVisit(
        row["page_url"],
        row["status"],
        row["etag"],
        row["last_modified"],
        row["sha256"],
        datetime.fromisoformat(row["visited_at"]),
    )


def _judged(report: dict[str, Any], name: str) -> Iterator[Damage]:
    """Why the crawl ended early, if it did. Raises InputError for one that gave nothing and never has."""
    if report["error"]:
        raise InputError(str(report["error"]))
    why = "; ".join(report["notes"])
    if not report["pictures"] and not report["unchanged"] and not report["known"]:
        pages = f"{report['pages']} pages read{', ' if why else ''}{why}"
        raise InputError(f"no picture found on {name} ({pages}): check the address and the depth")
    if why:
        yield Damage("crawl ended early", -1, why)


def _unfinished(process: subprocess.Popen[str], log: IO[bytes], name: str, limits: CrawlLimits) -> Exception:
    """Why the child's output ended without its report."""
    code = process.wait()
    if code == -signal.SIGKILL:
        return InputError(f"crawl of {name} was ended from outside, or did not end in {limits.max_minutes:g} minutes")
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - _LOG_TAIL_BYTES))
    tail = log.read().decode("utf-8", "replace").strip().splitlines()[-1:]
    return RuntimeError(f"site crawl ended with code {code}: {' '.join(tail)}")


@contextmanager
def _child(seeds: list[str], limits: CrawlLimits) -> Iterator[tuple[subprocess.Popen[str], IO[bytes]]]:
    """The crawling process and its log; it is ended with the block, and by itself when this process dies."""
    job = json.dumps({"seeds": seeds, "limits": asdict(limits), "parent": os.getpid()})
    command = [sys.executable, "-P", "-m", "crawler.sources.site_process"]
    with tempfile.TemporaryFile(prefix="gptface-site-") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=_environment(), text=True
        )
        assert process.stdin is not None and process.stdout is not None
        alarm = threading.Timer(limits.max_minutes * 60 + _GRACE_S, process.kill)
        alarm.daemon = True
        alarm.start()
        try:
            process.stdin.write(job)
            process.stdin.close()
            yield process, log
        finally:
            alarm.cancel()
            process.kill()
            process.wait()
            process.stdout.close()


def _environment() -> dict[str, str]:
    """This process's environment, with the folder of our packages on the module path."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{path}" if path else root}
