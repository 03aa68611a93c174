"""Extraction: each unit of a source (a file, a site) becomes files of its own, in any process and in any order.

    extract/units.json            what there is to read, written once
    extract/00000.pairs.parquet   rows.EXTRACTED, in runs sorted by url_id, so that planning reads ranges of it
    extract/00000.pages.parquet   schema.PAGES
    extract/00000.stored.bin, .stored.parquet   pictures that the source itself holds (crawler.stored)
    extract/00000_done.json       UnitStats: last, so that a unit without it is read again from its beginning

extract/retry.pairs.parquet, where it exists, holds pairs that are due again though the source did not show them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import pyarrow as pa

from crawler.errors import InputError
from crawler.files import attempt, write_json
from crawler.sources.base import Candidate, CrawlLimits, Found, Unit
from crawler.tombstones import Tombstones, load_tombstones
from crawler.unitfiles import UnitStats, UnitWriter, unit_path

if TYPE_CHECKING:
    from crawler.sources.base import Source

logger = logging.getLogger(__name__)

_TELL_EVERY = 100


@runtime_checkable
class ColumnarSource(Protocol):
    """A source that also gives its candidates as columns, which is several times faster."""

    def batches(self, unit: Unit) -> Iterator[Found | pa.RecordBatch]:
        """What `read` gives, its candidates as batches of rows.FOUND."""
        ...


def list_units(
    source_spec: str, limits: CrawlLimits | None, crawl_dir: Path, done: Collection[tuple[str, str]] = ()
) -> list[Unit]:
    """The units of a crawl; asked of the source once and kept, so that a crawl that goes on reads the same.

    After a unit could not be read (InputError) the source is asked again: what is wrong may have been mended or taken
    away. `done` holds (name, fingerprint) of what was read before and is left out; a unit without a fingerprint is
    read again. `limits.limit` bounds what is left. May be empty, where all is done. Raises InputError where the source
    has none.
    """
    from crawler.sources import open_source

    kept, doubt = read_units(crawl_dir), _doubt_path(crawl_dir)
    if kept is not None and not doubt.is_file():
        return kept
    found = open_source(source_spec, limits).units()
    before = set(done)
    new = (unit for unit in found if not unit.fingerprint or (unit.name, unit.fingerprint) not in before)
    units = list(dict.fromkeys(new))[: (limits.limit or None) if limits else None]
    logger.info("%s: %d units, %d read before", source_spec, len(found), len(found) - len(units))
    units = write_units(crawl_dir, _placed(crawl_dir, units, len(kept or ())))
    doubt.unlink(missing_ok=True)
    return units


def _placed(crawl_dir: Path, units: list[Unit], kept: int) -> list[Unit]:
    """`units` with those that are extracted at their old places; markers of what is not among them any more go."""
    free = dict.fromkeys(units)
    places: dict[int, Unit] = {}
    for index in range(kept):
        stats = read_unit_stats(crawl_dir, index)
        unit = Unit(stats.unit, stats.fingerprint) if stats else None
        if unit in free and index < len(units):
            places[index] = unit
            del free[unit]
        else:
            _done_path(crawl_dir, index).unlink(missing_ok=True)
    others = iter(free)
    return [places[index] if index in places else next(others) for index in range(len(units))]


def forget_units(crawl_dir: Path) -> None:
    """Take back what was listed and extracted: the source is read from its beginning the next time."""
    for index in range(len(read_units(crawl_dir) or ())):
        _done_path(crawl_dir, index).unlink(missing_ok=True)
    (crawl_dir / "extract" / "units.json").unlink(missing_ok=True)


def write_units(crawl_dir: Path, units: Iterable[Unit]) -> list[Unit]:
    kept = list(units)
    write_json(crawl_dir / "extract" / "units.json", {"units": [asdict(unit) for unit in kept]})
    return kept


def read_units(crawl_dir: Path) -> list[Unit] | None:
    """The units that were listed, or None where that has not been done."""
    path = crawl_dir / "extract" / "units.json"
    if not path.is_file():
        return None
    return [Unit(**unit) for unit in json.loads(path.read_text(encoding="utf-8"))["units"]]


def read_unit_stats(crawl_dir: Path, index: int) -> UnitStats | None:
    """What a finished unit held, or None where it is missing or was cut short."""
    path = _done_path(crawl_dir, index)
    return UnitStats(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def extract_unit(
    source_spec: str,
    limits: CrawlLimits | None,
    crawl_dir: Path,
    index: int,
    progress: Callable[[int], None] | None = None,
    unit: Unit | None = None,
) -> UnitStats:
    """Read unit `index` of units.json into its files; a unit that is done is not read again.

    Who has listed the units gives `unit` as well: a list of 100,000 is not to be read for each of them. `progress` is
    told the number of pairs so far, now and then. Memory is bounded whatever the size of the unit.
    Raises InputError where it cannot be opened.
    """
    from crawler.sources import open_source

    finished = read_unit_stats(crawl_dir, index)
    if finished is not None:
        return finished
    if unit is None:
        units = read_units(crawl_dir)
        if units is None:
            raise RuntimeError(f"{crawl_dir} has no list of units: call list_units first")
        unit = units[index]
    source = open_source(source_spec, limits)
    items = _items(source, unit)
    if progress is not None:
        items = _told(items, progress)
    try:
        taken_down = load_tombstones(limits.tombstones if limits else "")
        return write_unit(crawl_dir, index, unit, source_spec, items, taken_down)
    except InputError:
        _doubt_path(crawl_dir).touch()
        raise


def _items(source: Source, unit: Unit) -> Iterator[Found | pa.RecordBatch]:
    return source.batches(unit) if isinstance(source, ColumnarSource) else source.read(unit)


def _told(items: Iterator[Found | pa.RecordBatch], progress: Callable[[int], None]) -> Iterator[Found | pa.RecordBatch]:
    count = told = 0
    for item in items:
        count += 1 if isinstance(item, Candidate) else item.num_rows if isinstance(item, pa.RecordBatch) else 0
        if count >= told + _TELL_EVERY:
            progress(count)
            told = count
        yield item


def write_unit(
    crawl_dir: Path,
    index: int,
    unit: Unit,
    source: str,
    items: Iterable[Found | pa.RecordBatch],
    taken_down: Tombstones | None = None,
) -> UnitStats:
    """Write what a unit gives to its files, the marker last; leftovers of a cut-short run are replaced."""
    with attempt(crawl_dir / "extract" / f".{index:05d}.work") as scratch:
        for suffix in ("pairs.parquet", "pages.parquet", "stored.parquet", "stored.bin"):
            unit_path(crawl_dir, index, suffix).unlink(missing_ok=True)
        with ExitStack() as stack:
            writer = UnitWriter(scratch, index, source, stack, taken_down or Tombstones())
            for item in items:
                writer.add(item)
            stats = writer.finish(unit)
        files, done = list(scratch.iterdir()), _done_path(crawl_dir, index)
        write_json(scratch / done.name, asdict(stats))
        for file in (*files, scratch / done.name):  # the marker last
            file.replace(done.with_name(file.name))
    if stats.warning:
        logger.warning("%s: %s", unit.name, stats.warning)
    return stats


def _doubt_path(crawl_dir: Path) -> Path:
    """Where this is, the list of units is in doubt: one of them could not be read."""
    return crawl_dir / "extract" / "doubt"


def _done_path(crawl_dir: Path, index: int) -> Path:
    return crawl_dir / "extract" / f"{index:05d}_done.json"
