"""cc:CC-MAIN-2024-10 - the WAT files of one Common Crawl, by its published list of paths.

`cc:CC-MAIN-2024-10[10:20]` is a slice of that list (the eleventh to the twentieth file). What was read is remembered by
the ledger, by name: a crawl's files never change, so their fingerprint is the crawl's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from crawler.errors import InputError
from crawler.sources.base import CrawlLimits, Found, Unit
from crawler.sources.wat import WatSource
from crawler.streams import DamagedError, open_binary

_SPEC = re.compile(r"(?P<crawl>[A-Za-z0-9._-]+)(?:\[(?P<start>\d*)(?P<colon>:)?(?P<stop>\d*)\])?")
_MAX_LIST_BYTES = 256 << 20


@dataclass(frozen=True)
class CommonCrawl:
    """The WAT files of one crawl below `base`; `start` and `stop` cut its list as Python does.

    `units()` gives all files of the slice, those that were read before as well: whoever lists units leaves these out
    and takes the first `limit` of the rest (0: all), so that the same command goes on night after night.
    """

    crawl: str
    base: str
    start: int = 0
    stop: int | None = None
    limit: int = 0

    def units(self) -> Sequence[Unit]:
        """Raises InputError where the crawl does not exist, its list cannot be read, or the slice is empty."""
        paths = self._paths()
        chosen = paths[self.start : self.stop]
        if not chosen:
            raise InputError(f"cc:{self.crawl} has {len(paths)} WAT files, none of them in the slice: give another")
        return [Unit(self.base + path, self.crawl) for path in chosen]

    def read(self, unit: Unit) -> Iterator[Found]:
        """See `WatSource.read`."""
        return WatSource(unit.name).read(unit)

    def _paths(self) -> list[str]:
        address = f"{self.base}crawl-data/{self.crawl}/wat.paths.gz"
        try:
            with open_binary(address) as file:
                text = file.read(_MAX_LIST_BYTES)
        except InputError as error:
            raise InputError(f"no crawl {self.crawl}: {error}; see https://commoncrawl.org/get-started") from error
        except DamagedError as error:
            raise InputError(f"the list of paths of {self.crawl} is broken: {error}; try again later") from error
        paths = [line.strip() for line in text.decode("utf-8", "replace").splitlines() if line.strip()]
        if odd := next((path for path in paths if not path.startswith("crawl-data/")), None):
            raise InputError(f"{address} is no list of paths: it has the line {odd[:60]!r}")
        return paths


def open_crawl(where: str, limits: CrawlLimits) -> CommonCrawl:
    """`where` is CRAWL, CRAWL[n], or CRAWL[from:to] with either end left out. Raises InputError."""
    match = _SPEC.fullmatch(where.strip())
    if match is None or (match["start"] == "" and not match["colon"]):
        raise InputError(f"cc:{where} names no crawl: give one like cc:CC-MAIN-2024-10 or cc:CC-MAIN-2024-10[10:20]")
    start = int(match["start"] or 0)
    stop = int(match["stop"]) if match["stop"] else None
    if match["start"] and not match["colon"]:
        stop = start + 1
    base = limits.cc_base if limits.cc_base.endswith("/") else limits.cc_base + "/"
    return CommonCrawl(match["crawl"], base, start, stop, limits.limit)
