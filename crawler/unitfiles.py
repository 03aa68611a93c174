"""The files of one unit of a source as they are written: pairs in sorted runs, pages, pictures it holds itself."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from crawler.rows import EXTRACTED, Identifier, found_batch, leading_digits
from crawler.sources.base import Candidate, Damage, Found, PageVisit, StoredPicture, Unit
from crawler.stored import StoredWriter
from crawler.tombstones import Tombstones
from warehouse.schema import PAGES

_BATCH_ROWS = 10_000  # candidates and pages taken together
_RUN_ROWS = 131_072
_RUN_BYTES = 64 << 20
_GROUP_ROWS = 4096
# Of what compresses and repeats; hashes do neither.
_DICTIONARIES = ["page_host", "image_host", "source", "page_directives", "captions.list.element.kind"]


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


class UnitWriter:
    """The files of one unit in the folder `scratch`, whole when `stack` closes. Page and picture files only if any."""

    def __init__(self, scratch: Path, index: int, source: str, stack: ExitStack, taken_down: Tombstones) -> None:
        self._scratch, self._index, self._stack = scratch, index, stack
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

    def _path(self, suffix: str) -> Path:
        return self._scratch / unit_path(Path(), self._index, suffix).name

    def _writer(self, suffix: str, schema: pa.Schema) -> pq.ParquetWriter:
        writer = pq.ParquetWriter(self._path(suffix), schema, compression="zstd", use_dictionary=_DICTIONARIES)
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
            pictures = self._path("stored.bin")
            self._stored = StoredWriter(pictures, self._path("stored.parquet"), pictures.name)
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
