"""Extraction: each unit of a source (a file, a site) becomes files of its own, in any process and in any order.

    extract/units.json            what there is to read, written once
    extract/00000.pairs.parquet   rows.EXTRACTED, in runs sorted by url_id, so that planning reads ranges of it
    extract/00000.pages.parquet   schema.PAGES
    extract/00000.stored.bin, .stored.parquet   pictures that the source itself holds (crawler.stored)
    extract/00000_done.json       UnitStats: last, so that a unit without it is read again from its beginning

extract/retry.pairs.parquet, where it exists, holds pairs that are due again though the source did not show them.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from crawler.errors import InputError
from crawler.files import replacing, write_json
from crawler.rows import EXTRACTED, Identifier, found_batch, leading_digits
from crawler.sources.base import Candidate, CrawlLimits, Damage, Found, PageVisit, StoredPicture, Unit
from crawler.stored import StoredWriter
from crawler.tombstones import Tombstones, load_tombstones
from warehouse.schema import PAGES

if TYPE_CHECKING:
    from crawler.sources.base import Source

logger = logging.getLogger(__name__)

_BATCH_ROWS = 10_000  # candidates and pages taken together
_TELL_EVERY = 100
_RUN_ROWS = 131_072
_RUN_BYTES = 64 << 20
_GROUP_ROWS = 4096
# Of what compresses and repeats; hashes do neither.
_DICTIONARIES = ["page_host", "image_host", "source", "page_directives", "captions.list.element.kind"]


@runtime_checkable
class ColumnarSource(Protocol):
    """A source that also gives its candidates as columns, which is several times faster."""

    def batches(self, unit: Unit) -> Iterator[Found | pa.RecordBatch]:
        """What `read` gives, its candidates as batches of rows.FOUND."""
        ...


@dataclass(frozen=True)
class UnitStats:
    """What one unit held. `pairs` as found, before deduplication; `warning` where the file was damaged."""

    unit: str
    fingerprint: str
    pairs: int
    pages: int
    stored: int
    warning: str | None
    taken_down: int = 0  # pairs left out because they were taken down once


def unit_path(crawl_dir: Path, index: int, suffix: str) -> Path:
    """Path of a unit's file: "pairs.parquet", "pages.parquet", "stored.parquet" or "stored.bin"."""
    return crawl_dir / "extract" / f"{index:05d}.{suffix}"


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
) -> UnitStats:
    """Read unit `index` of units.json into its files; a unit that is done is not read again.

    `progress` is told the number of pairs so far, now and then. Memory is bounded whatever the size of the unit.
    Raises InputError where it cannot be opened.
    """
    from crawler.sources import open_source

    finished = read_unit_stats(crawl_dir, index)
    if finished is not None:
        return finished
    units = read_units(crawl_dir)
    if units is None:
        raise RuntimeError(f"{crawl_dir} has no list of units: call list_units first")
    source = open_source(source_spec, limits)
    items = _items(source, units[index])
    if progress is not None:
        items = _told(items, progress)
    try:
        taken_down = load_tombstones(limits.tombstones if limits else "")
        return write_unit(crawl_dir, index, units[index], source_spec, items, taken_down)
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
    for suffix in ("pairs.parquet", "pages.parquet", "stored.parquet", "stored.bin"):
        unit_path(crawl_dir, index, suffix).unlink(missing_ok=True)
    with ExitStack() as stack:
        writer = _UnitWriter(crawl_dir, index, source, stack, taken_down or Tombstones())
        for item in items:
            writer.add(item)
        stats = writer.finish(unit)
    write_json(_done_path(crawl_dir, index), asdict(stats))
    if stats.warning:
        logger.warning("%s: %s", unit.name, stats.warning)
    return stats


def _doubt_path(crawl_dir: Path) -> Path:
    """Where this is, the list of units is in doubt: one of them could not be read."""
    return crawl_dir / "extract" / "doubt"


def _done_path(crawl_dir: Path, index: int) -> Path:
    return crawl_dir / "extract" / f"{index:05d}_done.json"


class _UnitWriter:
    """The files of one unit, under temporary names until `stack` closes well. Page and picture files only if any."""

    def __init__(self, crawl_dir: Path, index: int, source: str, stack: ExitStack, taken_down: Tombstones) -> None:
        self._dir, self._index, self._stack = crawl_dir, index, stack
        self._source = source
        self._taken_down = taken_down
        self._taken_down_pairs = 0
        self._identifier = Identifier(source)
        self._candidates: list[Candidate] = []
        self._visits: list[PageVisit] = []
        self._run: list[pa.RecordBatch] = []
        self._pages: pq.ParquetWriter | None = None
        self._stored: StoredWriter | None = None
        self._warnings: list[str] = []
        self.pair_count = self.page_count = 0
        self._pairs = self._writer("pairs.parquet", EXTRACTED)

    def _temporary(self, suffix: str) -> Path:
        return self._stack.enter_context(replacing(unit_path(self._dir, self._index, suffix)))

    def _writer(self, suffix: str, schema: pa.Schema) -> pq.ParquetWriter:
        writer = pq.ParquetWriter(self._temporary(suffix), schema, compression="zstd", use_dictionary=_DICTIONARIES)
        return self._stack.enter_context(writer)

    def add(self, item: Found | pa.RecordBatch) -> None:
        if isinstance(item, Candidate):
            self._candidates.append(item)
            if len(self._candidates) >= _BATCH_ROWS:
                self._flush_candidates()
        elif isinstance(item, PageVisit):
            if self._taken_down.bars_address(item.page_url):
                return
            self._visits.append(item)
            if len(self._visits) >= _BATCH_ROWS:
                self._flush_visits()
        elif isinstance(item, StoredPicture):
            if not self._is_taken_down(item):
                self._store(item)
        elif isinstance(item, Damage):
            place = f"{item.file}, byte {item.offset}" if item.offset >= 0 else item.file
            self._warnings.append(f"{place}: {item.message}")
        else:
            self._add_rows(item)

    def _flush_candidates(self) -> None:
        if self._candidates:
            self._add_rows(found_batch(self._candidates))
            self._candidates = []

    def _is_taken_down(self, picture: StoredPicture) -> bool:
        stones = self._taken_down
        return bool(stones) and (
            stones.bars_address(picture.image_url) or stones.bars_picture(hashlib.sha256(picture.body).hexdigest())
        )

    def _add_rows(self, found: pa.RecordBatch) -> None:
        allowed = self._taken_down.allowed(found)
        self._taken_down_pairs += found.num_rows - allowed.num_rows
        found = allowed
        self._run.append(self._identifier.extracted(found))
        self.pair_count += found.num_rows
        rows, size = sum(b.num_rows for b in self._run), sum(b.nbytes for b in self._run)
        if rows >= _RUN_ROWS or size >= _RUN_BYTES:
            self._flush_run()

    def _flush_run(self) -> None:
        """Write a run sorted by url_id in small row groups, so that a range of url_ids touches few of them."""
        if not self._run:
            return
        run = pa.Table.from_batches(self._run).combine_chunks()
        self._run = []
        order = np.argsort(leading_digits(run["url_id"].chunk(0)), kind="stable")
        self._pairs.write_table(run.take(pa.array(order)), row_group_size=_GROUP_ROWS)

    def _flush_visits(self) -> None:
        if self._visits:
            if self._pages is None:
                self._pages = self._writer("pages.parquet", PAGES)
            rows: list[dict[str, Any]] = [{**asdict(visit), "source": self._source} for visit in self._visits]
            self._pages.write_table(pa.Table.from_pylist(rows, schema=PAGES))
            self.page_count += len(rows)
            self._visits = []

    def _store(self, picture: StoredPicture) -> None:
        if self._stored is None:
            name = unit_path(self._dir, self._index, "stored.bin").name
            self._stored = StoredWriter(self._temporary("stored.bin"), self._temporary("stored.parquet"), name)
            self._stack.callback(self._stored.close)
        self._stored.add(picture)

    def finish(self, unit: Unit) -> UnitStats:
        self._flush_candidates()
        self._flush_run()
        self._flush_visits()
        stored = self._stored.count if self._stored else 0
        if self._stored is not None and self._stored.left_out:
            self._warnings.append(f"{self._stored.left_out} pictures beyond the bound of stored bytes are not kept")
        warning = "; ".join(self._warnings) or None
        return UnitStats(
            unit.name, unit.fingerprint, self.pair_count, self.page_count, stored, warning, self._taken_down_pairs
        )
