"""list:PATTERN - pairs from Parquet, CSV, TSV or JSONL files (LAION style) of any size, local or remote."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crawler.extract import Caption, absolute, collapse
from crawler.rows import FOUND, caption_lists, strings
from crawler.sources.base import Candidate, Damage, Found, Unit
from crawler.sources.listfile import format_of, parquet_row_groups, text_batches
from crawler.streams import expand
from warehouse.schema import CaptionKind

_SPLIT_BYTES = 32 << 20  # a Parquet file from here on is several units
_UNIT_ROWS = 500_000
_GROUPS = "#row-groups="
_MAX_URL_CHARS = 10_000  # what is longer is no address anyway

# What `absolute` and `collapse` leave as it is (tests hold them to it): most rows, which then cost next to nothing.
_PLAIN_URL = r"^https?://[a-z0-9.-]+(?::[0-9]+)?/[!\"$-:<->@-~]*(?:\?[!\"$-:<-~]+)?$"
_MAX_PLAIN_CHARS = 4000
_PLAIN_TEXT = r"^[!-~]+(?: [!-~]+)*$"
_MAX_PLAIN_TEXT_CHARS = 500


@dataclass(frozen=True)
class ListSource:
    """Pairs of list files. A pair without page address belongs to the picture's own address.

    Addresses get the form that pages give them (`crawler.extract.absolute`); what is none stays as it is, and gets its
    reason later.
    """

    pattern: str

    def units(self) -> Sequence[Unit]:
        """One per file; large Parquet files are cut between row groups. Raises InputError where there is no file."""
        return [unit for file in expand(self.pattern) for unit in _cut(file)]

    def batches(self, unit: Unit) -> Iterator[Found | pa.RecordBatch]:
        """The rows of a unit as batches of rows.FOUND; rows without an address are left out."""
        address, mark, groups = unit.name.rpartition(_GROUPS)
        if not mark:
            address, groups = unit.name, ""
        found = 0
        for item in text_batches(address, _range(groups) if groups else None):
            if isinstance(item, Damage):
                yield item
            else:
                batch = _found(item)
                found += batch.num_rows
                if batch.num_rows:
                    yield batch
        if not found and not groups:
            yield Damage(address, -1, "holds no picture address")

    def read(self, unit: Unit) -> Iterator[Found]:
        """The rows of a unit one by one; raises InputError where it cannot be opened or has no column of addresses."""
        for item in self.batches(unit):
            if not isinstance(item, pa.RecordBatch):
                yield item
                continue
            for row in item.to_pylist():
                captions = tuple(Caption(CaptionKind(c["kind"]), c["text"]) for c in row["captions"])
                yield Candidate(row["page_url"], row["image_url"], captions, row["page_directives"])


def _cut(file: Unit) -> Iterator[Unit]:
    size = file.fingerprint.partition("-")[0]
    if format_of(file.name) != "parquet" or not size.isdigit() or int(size) < _SPLIT_BYTES:
        yield file
        return
    rows = parquet_row_groups(file.name)
    before = [0, *accumulate(rows)]
    start = 0
    for end in range(1, len(rows) + 1):
        if end == len(rows) or before[end + 1] - before[start] > _UNIT_ROWS:
            yield Unit(f"{file.name}{_GROUPS}{start}-{end}", file.fingerprint)
            start = end


def _range(groups: str) -> range:
    start, _, end = groups.partition("-")
    return range(int(start), int(end))


def _found(rows: pa.Table) -> pa.RecordBatch:
    """FOUND of the rows that have an address."""
    url = pc.utf8_trim_whitespace(rows["url"])
    rows = rows.set_column(rows.schema.get_field_index("url"), "url", url)
    rows = rows.filter(pc.fill_null(pc.not_equal(url, ""), False))
    images = _addresses(_array(rows["url"]))
    pages = pc.utf8_trim_whitespace(_array(rows["page"]))
    given = pc.fill_null(pc.not_equal(pages, ""), False)
    pages = pc.replace_with_mask(images, given, _addresses(pages.filter(given)))
    directives = pa.repeat(pa.scalar("", pa.string()), len(images))
    captions = _captions(_array(rows["caption"]))
    return pa.RecordBatch.from_arrays([pages, images, directives, captions], schema=FOUND)


def _array(column: pa.ChunkedArray) -> pa.Array:
    """One array, beginning at its buffers' start."""
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _addresses(urls: pa.Array) -> pa.Array:
    """Addresses as `absolute` gives them, what is none without NUL and cut to a bound."""
    short = pc.less(pc.binary_length(urls), _MAX_PLAIN_CHARS)
    odd = pc.invert(pc.and_(pc.match_substring_regex(urls, _PLAIN_URL), short))
    mended = [absolute(url, url) or url.replace("\0", "")[:_MAX_URL_CHARS] for url in urls.filter(odd).to_pylist()]
    return pc.replace_with_mask(urls, odd, strings(mended))


def _captions(texts: pa.Array) -> pa.Array:
    """One caption per non-empty text, white space collapsed."""
    texts = pc.fill_null(texts, "")
    short = pc.less(pc.binary_length(texts), _MAX_PLAIN_TEXT_CHARS)
    odd = pc.invert(pc.and_(pc.match_substring_regex(texts, _PLAIN_TEXT), short))
    collapsed = strings([collapse(text) for text in texts.filter(odd).to_pylist()])
    texts = pc.replace_with_mask(texts, odd, collapsed)
    present = pc.not_equal(texts, "")
    offsets = np.concatenate(([0], np.cumsum(present.to_numpy(zero_copy_only=False)))).astype(np.int32)
    kept = texts.filter(present)
    kinds = pa.repeat(pa.scalar(CaptionKind.LIST.value, pa.string()), len(kept))
    return caption_lists(pa.array(offsets), kinds, kept)
