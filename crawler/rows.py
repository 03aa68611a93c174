"""Candidates as columns: the rows of an extracted unit, with identities and hosts, many at a time.

A row costs a few microseconds here: hashes are taken over slices of one buffer, and an authority is parsed once per
scheme://host and not once per row. The results are those of warehouse.schema.row_id, url_id and authority_of.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from crawler.address import authority_of
from warehouse.schema import PAIRS

if TYPE_CHECKING:
    from crawler.sources.base import Candidate

_ID_BYTES = 16  # as warehouse.schema.content_id, whose results these are
_HEX_DIGITS = 2 * _ID_BYTES
MAX_CAPTIONS = 64  # of a pair, the best: a picture that comes a thousand times on a page has no thousand captions
_MAX_HOSTS = 500_000  # authorities remembered

CAPTION = pa.struct([pa.field("kind", pa.string(), nullable=False), pa.field("text", pa.string(), nullable=False)])
_CAPTIONS_FIELD = pa.field("captions", pa.list_(CAPTION), nullable=False)

# What a source finds: captions in rank order, each text once.
FOUND = pa.schema(
    [
        pa.field("page_url", pa.string(), nullable=False),
        pa.field("image_url", pa.string(), nullable=False),
        pa.field("page_directives", pa.string(), nullable=False),
        _CAPTIONS_FIELD,
    ]
)
# The rows of extract/*.pairs.parquet.
EXTRACTED = pa.schema([*PAIRS, _CAPTIONS_FIELD])

# Plain ASCII addresses, whose authority depends on scheme, host and port alone: all others are parsed one by one.
_PLAIN_HEAD = r"^(?P<head>https?://[A-Za-z0-9.-]+(?::[0-9]+)?)(?:[/?#][!-~]*)?$"
_MAX_PLAIN_CHARS = 8000


def found_batch(candidates: Sequence[Candidate]) -> pa.RecordBatch:
    """Candidates as a batch of FOUND; a text that comes twice with a picture counts once, in its better rank."""
    kinds: list[str] = []
    texts: list[str] = []
    offsets = [0]
    for candidate in candidates:
        unique = {caption.text: caption.kind for caption in reversed(candidate.captions)}
        for text in list(dict.fromkeys(caption.text for caption in candidate.captions))[:MAX_CAPTIONS]:
            kinds.append(str(unique[text]))
            texts.append(text)
        offsets.append(len(texts))
    return pa.RecordBatch.from_arrays(
        [
            strings([candidate.page_url for candidate in candidates]),
            strings([candidate.image_url for candidate in candidates]),
            strings([candidate.page_directives for candidate in candidates]),
            caption_lists(pa.array(offsets, pa.int32()), strings(kinds), strings(texts)),
        ],
        schema=FOUND,
    )


def strings(values: Sequence[str]) -> pa.StringArray:
    """An Arrow array of `values`; lone surrogates, which UTF-8 cannot hold, become question marks."""
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        return pa.array([value.encode("utf-8", "replace").decode("utf-8") for value in values], pa.string())


def caption_lists(offsets: pa.Array, kinds: pa.Array, texts: pa.Array) -> pa.ListArray:
    """Captions of many pairs from flat arrays; `offsets` (int32) has one more entry than there are pairs."""
    structs = pa.StructArray.from_arrays([kinds, texts], fields=list(CAPTION))
    return pa.ListArray.from_arrays(offsets, structs, type=_CAPTIONS_FIELD.type)


def content_ids(values: pa.StringArray) -> pa.StringArray:
    """`warehouse.schema.content_id` of each value (parts joined by NUL); no value may be null."""
    offsets = np.frombuffer(values.buffers()[1], np.int32)[values.offset : values.offset + len(values) + 1].tolist()
    data = values.buffers()[2].to_pybytes() if values.buffers()[2] is not None else b""
    pieces = pairwise(offsets)
    digests = b"".join([blake2b(data[start:end], digest_size=_ID_BYTES).digest() for start, end in pieces])
    hex_offsets = np.arange(0, _HEX_DIGITS * len(values) + 1, _HEX_DIGITS, dtype=np.int32)
    return pa.StringArray.from_buffers(
        len(values), pa.py_buffer(hex_offsets), pa.py_buffer(digests.hex().encode("ascii"))
    )


def leading_digits(ids: pa.StringArray) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """The first 8 hex digits of each id as numbers that sort alike, without a copy."""
    data = np.frombuffer(ids.buffers()[2], dtype=">u8", count=4 * (ids.offset + len(ids)))
    return data[4 * ids.offset :: 4]


class Identifier:
    """Turns batches of FOUND into batches of EXTRACTED, remembering the hosts that it has seen."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._authorities: dict[str, str] = {}

    def extracted(self, found: pa.RecordBatch) -> pa.RecordBatch:
        """Rows of EXTRACTED for rows of FOUND, in the same order."""
        import pyarrow.compute as pc

        pages, images = found.column("page_url"), found.column("image_url")
        image_hosts = self._hosts(images)
        columns = {
            "row_id": content_ids(pc.binary_join_element_wise(pages, images, "\0")),
            "url_id": content_ids(images),
            "page_url": pages,
            "image_url": images,
            "page_host": image_hosts if pages.equals(images) else self._hosts(pages),
            "image_host": image_hosts,
            "source": pa.repeat(pa.scalar(self._source, pa.string()), found.num_rows),
            "page_directives": found.column("page_directives"),
            "captions": found.column("captions"),
        }
        return pa.RecordBatch.from_arrays([columns[name] for name in EXTRACTED.names], schema=EXTRACTED)

    def _hosts(self, urls: pa.StringArray) -> pa.Array:
        """`authority_of` of each address."""
        import pyarrow.compute as pc

        plain = pc.less(pc.binary_length(urls), _MAX_PLAIN_CHARS)
        heads = pc.struct_field(pc.extract_regex(urls, _PLAIN_HEAD), "head")
        heads = pc.if_else(plain, heads, pa.scalar(None, pa.string()))
        encoded = heads.dictionary_encode()
        hosts = pa.array([self._authority(head) for head in encoded.dictionary.to_pylist()], pa.string())
        hosts = hosts.take(encoded.indices)
        if not hosts.null_count:
            return hosts
        odd = urls.filter(hosts.is_null())
        return pc.replace_with_mask(hosts, hosts.is_null(), pa.array([authority_of(u) for u in odd.to_pylist()]))

    def _authority(self, head: str) -> str:
        found = self._authorities.get(head)
        if found is None:
            if len(self._authorities) >= _MAX_HOSTS:
                self._authorities.clear()
            found = self._authorities[head] = authority_of(f"{head}/")
        return found
