"""Cuts a stream of pairs, sorted by url_id, into part files."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from crawler.files import replacing
from warehouse.schema import CAPTIONS, PAIRS

_GROUP_ROWS = 65_536  # of a part's row groups: bounds memory where one address is on millions of pages
_PAIR_DICTIONARIES = ["page_host", "image_host", "source", "page_directives"]


class PartWriter:
    """Takes batches of rows.EXTRACTED, sorted by url_id and row_id; every part but the last has `part_urls` urls.

    `path` names a part's file from folder, part and table. Counts are of what was added.
    """

    def __init__(self, plan_dir: Path, part_urls: int, path: Callable[[Path, int, str], Path]) -> None:
        self._dir, self._part_urls, self._path = plan_dir, part_urls, path
        self._last: str | None = None
        self._group: list[_Rows] = []
        self._pending = 0
        self._files: _PartFiles | None = None
        self._files_stack = ExitStack()
        self.parts = self.pairs = self.urls = self.captions = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files_stack.__exit__(kind, error, trace)

    def add(self, batch: pa.RecordBatch) -> None:
        if not batch.num_rows:
            return
        ids = batch.column("url_id")
        is_new = np.empty(len(ids), dtype=bool)
        is_new[0] = ids[0].as_py() != self._last
        is_new[1:] = pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
        parts = (self.urls + np.cumsum(is_new) - 1) // self._part_urls
        edges = [0, *(np.flatnonzero(np.diff(parts)) + 1).tolist(), len(ids)]
        rows = _Rows.of(batch)
        for start, end in pairwise(edges):
            self._append(int(parts[start]), rows, start, end)
        self.urls += int(is_new.sum())
        self._last = ids[-1].as_py()

    def _append(self, part: int, rows: _Rows, start: int, end: int) -> None:
        """Add rows, in row groups of a fixed size, so that files do not depend on the batches they came in."""
        if part != self.parts - 1:
            self._close_part()
            self._files = self._files_stack.enter_context(_PartFiles(self._dir, part, self._path))
            self.parts = part + 1
        while start < end:
            stop = min(end, start + _GROUP_ROWS - self._pending)
            self._group.append(rows.slice(start, stop))
            self._pending += stop - start
            start = stop
            if self._pending == _GROUP_ROWS:
                self._flush()

    def _flush(self) -> None:
        assert self._files is not None, "rows belong to an open part"
        pairs = pa.concat_tables([rows.pairs for rows in self._group])
        captions = pa.concat_tables([rows.captions for rows in self._group])
        self._files.pairs.write_table(pairs)
        self._files.captions.write_table(captions)
        self.pairs += pairs.num_rows
        self.captions += captions.num_rows
        self._group, self._pending = [], 0

    def _close_part(self) -> None:
        if self._files is not None:
            if self._pending:
                self._flush()
            self._files = None
            self._files_stack.close()

    def finish(self) -> None:
        """Write what is pending; called once, after the last batch."""
        self._close_part()


class _PartFiles(ExitStack):
    """The two files of a part, under temporary names until they are whole."""

    def __init__(self, folder: Path, part: int, path: Callable[[Path, int, str], Path]) -> None:
        super().__init__()
        self.pairs = self._open(path(folder, part, "pairs"), PAIRS, _PAIR_DICTIONARIES)
        self.captions = self._open(path(folder, part, "captions"), CAPTIONS, ["kind"])

    def _open(self, path: Path, schema: pa.Schema, dictionaries: list[str]) -> pq.ParquetWriter:
        temporary = self.enter_context(replacing(path))
        # An open file: for a path, a third of the time that a small part takes goes into finding its file system.
        file = self.enter_context(pa.OSFile(str(temporary), "wb"))
        writer = pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=dictionaries)
        return self.enter_context(writer)


@dataclass(frozen=True)
class _Rows:
    """Rows of PAIRS with theirs of CAPTIONS, made once per batch, of which many parts may be cut.

    The captions of pair i are those from `starts[i]` to `starts[i + 1]`.
    """

    pairs: pa.Table
    captions: pa.Table
    starts: NDArray[np.intp]

    @classmethod
    def of(cls, batch: pa.RecordBatch) -> Self:
        """The captions are in the order of the pairs and of rank."""
        lists = batch.column("captions")
        parents, texts = pc.list_parent_indices(lists), lists.flatten()
        starts = np.searchsorted(parents.to_numpy(zero_copy_only=False), np.arange(len(lists) + 1))
        rank = np.arange(len(texts)) - np.repeat(starts[:-1], np.diff(starts))
        columns = {
            "row_id": batch.column("row_id").take(parents),
            "rank": pa.array(rank, pa.int32()),
            "kind": texts.field("kind"),
            "text": texts.field("text"),
        }
        pairs = pa.Table.from_batches([batch]).select(PAIRS.names).cast(PAIRS)
        return cls(pairs, pa.table(columns).cast(CAPTIONS), starts)

    def slice(self, start: int, end: int) -> _Rows:
        first, last = int(self.starts[start]), int(self.starts[end])
        return _Rows(
            self.pairs.slice(start, end - start), self.captions.slice(first, last - first), self.starts[start : end + 1]
        )
