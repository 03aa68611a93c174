"""Cuts a stream of pairs, sorted by url_id, into part files."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

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
        self._rows: list[pa.RecordBatch] = []
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
        for start, end in pairwise(edges):
            self._append(int(parts[start]), batch.slice(start, end - start))
        self.urls += int(is_new.sum())
        self._last = ids[-1].as_py()

    def _append(self, part: int, rows: pa.RecordBatch) -> None:
        if part != self.parts - 1:
            self._close_part()
            self._files = self._files_stack.enter_context(_PartFiles(self._dir, part, self._path))
            self.parts = part + 1
        self._rows.append(rows)
        self._pending += rows.num_rows
        if self._pending >= _GROUP_ROWS:
            self._flush(whole=False)

    def _flush(self, whole: bool) -> None:
        """Write pending rows in row groups of a fixed size, so that files do not depend on the batches they came in."""
        table = pa.Table.from_batches(self._rows)
        while table.num_rows >= _GROUP_ROWS or (whole and table.num_rows):
            self._write(table.slice(0, _GROUP_ROWS))
            table = table.slice(_GROUP_ROWS)
        self._rows = table.to_batches()
        self._pending = table.num_rows

    def _write(self, table: pa.Table) -> None:
        assert self._files is not None, "rows belong to an open part"
        captions = _captions(table)
        self._files.pairs.write_table(table.select(PAIRS.names).cast(PAIRS))
        self._files.captions.write_table(captions)
        self.pairs += table.num_rows
        self.captions += captions.num_rows

    def _close_part(self) -> None:
        if self._files is not None:
            if self._pending:
                self._flush(whole=True)
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
        writer = pq.ParquetWriter(temporary, schema, compression="zstd", use_dictionary=dictionaries)
        return self.enter_context(writer)


def _captions(table: pa.Table) -> pa.Table:
    """Rows of CAPTIONS, in the order of the pairs and of rank."""
    lists = table["captions"].combine_chunks()
    lists = lists.chunk(0) if isinstance(lists, pa.ChunkedArray) else lists
    parents = pc.list_parent_indices(lists)
    structs = lists.flatten()
    parent = parents.to_numpy(zero_copy_only=False)
    starts = np.flatnonzero(np.diff(parent, prepend=-1))
    counts = np.diff(np.append(starts, len(parent)))
    rank = np.arange(len(parent)) - np.repeat(starts, counts)
    columns = {
        "row_id": table["row_id"].combine_chunks().take(parents),
        "rank": pa.array(rank, pa.int32()),
        "kind": structs.field("kind"),
        "text": structs.field("text"),
    }
    return pa.table(columns).cast(CAPTIONS)
