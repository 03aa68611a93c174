"""Tokens on disk: every shard tokenised once into an Arrow file, uncompressed, that is memory-mapped afterwards.

The name holds the shard's sha256 and the tokenizers' digest, so a changed shard or tokenizer never meets old tokens.
Training decodes no pictures: image codes are read from the map, a batch at a time. A file holds one or more views of
each picture (`gptface_core.augment`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gptface_core.augment import VERSION, views_of
from gptface_core.files import replacing
from gptface_core.image_tokenizer import PictureTokenizer, batches
from gptface_core.model import PAD, SPECIALS
from gptface_core.shards import Pictures, Shard, ShardIndex, decode_jpeg, read_shard
from gptface_core.text_tokenizer import TextTokenizer

Ids = npt.NDArray[np.int64]


class MappedCodes:
    """Image codes of several files as one array (R, N), read from disk where they are asked for.

    `parts` are memory-mapped arrays (r, V, N), one per shard. Indexing by rows gives int64 of the first view.
    """

    def __init__(self, parts: list[npt.NDArray[Any]], slots: int, views: int = 1) -> None:
        self.parts = [part for part in parts if len(part)]
        self.views = views
        self._starts = np.cumsum([0, *(len(part) for part in self.parts)])
        self.shape = (int(self._starts[-1]), slots)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Ids:
        numbers = np.arange(len(self))[rows]
        codes = self.take(numbers.reshape(-1), np.zeros(numbers.size, np.int64))
        return codes.reshape(*numbers.shape, self.shape[1])

    def take(self, rows: Ids, views: Ids) -> Ids:
        """(B, N) codes of the given view of each row."""
        codes = np.empty((len(rows), self.shape[1]), np.int64)
        homes = np.searchsorted(self._starts, rows, side="right") - 1
        for home in np.unique(homes):
            here = homes == home
            codes[here] = self.parts[home][rows[here] - self._starts[home], views[here]]
        return codes


@dataclass(frozen=True)
class TokenSet:
    """A split as arrays, one row per face.

    `text` (R, L) ids of the model's table, padded with PAD; `lengths` (R,); `codes` (R, N) image codes from 0, of the
    picture as it is; `caption_keys` (R,) equal where captions are.
    """

    row_ids: list[str]
    captions: list[str]
    text: Ids
    lengths: Ids
    codes: Ids | MappedCodes
    caption_keys: Ids

    def __len__(self) -> int:
        return len(self.row_ids)

    @cached_property
    def views(self) -> int:
        return self.codes.views if isinstance(self.codes, MappedCodes) else 1

    def codes_of(self, rows: Ids, rng: np.random.Generator) -> Ids:
        """(B, N) codes of one view of each row, drawn from `rng`; where there is one view, nothing is drawn."""
        if self.views == 1:
            return self.codes[rows]
        assert isinstance(self.codes, MappedCodes)
        return self.codes.take(rows, rng.integers(self.views, size=len(rows)))


def pad_text(rows: list[list[int]], slots: int) -> tuple[Ids, Ids]:
    """Text token ids -> (R, slots) ids of the model's table, and lengths."""
    text = np.full((len(rows), slots), PAD, np.int64)
    lengths = np.array([min(len(row), slots) for row in rows], np.int64)
    for index, row in enumerate(rows):
        text[index, : lengths[index]] = np.asarray(row[:slots], np.int64) + SPECIALS
    return text, lengths


def decode_split(shards: tuple[Shard, ...], size_px: int) -> Pictures:
    """All crops of a split as uint8 (R, size_px, size_px, 3), in shard order."""
    pictures = [decode_jpeg(sample.jpeg, size_px) for shard in shards for sample in read_shard(shard)]
    return np.stack(pictures) if pictures else np.zeros((0, size_px, size_px, 3), np.uint8)


def to_tensor(pictures: Pictures) -> torch.Tensor:
    """uint8 (B, P, P, 3) -> float (B, 3, P, P) in [0, 1]."""
    return torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float() / 255


def to_pictures(tensor: torch.Tensor) -> Pictures:
    """float (B, 3, P, P) in [0, 1] -> uint8 (B, P, P, 3)."""
    return (tensor.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def encode_pictures(tokenizer: PictureTokenizer, pictures: Pictures, batch: int = 64) -> Ids:
    """Codes (R, N) of uint8 pictures (R, P, P, 3), on the tokenizer's device."""
    parts = [
        tokenizer.encode(to_tensor(pictures[rows]).to(tokenizer.device)).cpu().numpy()
        for rows in batches(len(pictures), batch)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, tokenizer.config.grid**2), np.int64)


def tokenise_split(
    index: ShardIndex,
    split: str,
    image: PictureTokenizer,
    text: TextTokenizer,
    folder: Path,
    on_shard: Callable[[], None] | None = None,
    views: int = 1,
) -> None:
    """Write the token file of every shard of a split that has none yet, with so many views of each picture."""
    folder.mkdir(parents=True, exist_ok=True)
    key = _key(image, text, views)
    for shard in index.splits.get(split, ()):
        path = _path(folder, shard, key)
        if not path.is_file():
            _write(path, shard, image, text, views)
        if on_shard:
            on_shard()


def _key(image: PictureTokenizer, text: TextTokenizer, views: int) -> str:
    key = image.digest()[:16] + text.digest()[:16]
    return key if views == 1 else f"{key}-{views}views{VERSION}"


def _path(folder: Path, shard: Shard, key: str) -> Path:
    return folder / f"{shard.sha256[:16]}-{key}.arrow"


def _write(path: Path, shard: Shard, image: PictureTokenizer, text: TextTokenizer, views: int) -> None:
    import pyarrow as pa

    samples, size_px = list(read_shard(shard)), image.config.image_px
    parts = [np.zeros((0, image.config.grid**2), np.int64)]
    for rows in batches(len(samples), 64):
        pictures = [views_of(s.jpeg, s.caption, s.row_id, views, size_px) for s in samples[rows]]
        parts.append(encode_pictures(image, np.concatenate(pictures)))
    codes, width = pa.array(np.concatenate(parts).reshape(-1), pa.int32()), views * image.config.grid**2
    table = pa.table(
        {
            "row_id": pa.array([s.row_id for s in samples], pa.string()),
            "caption": pa.array([s.caption for s in samples], pa.string()),
            "text": pa.array([text.encode(s.caption) for s in samples], pa.list_(pa.int32())),
            "codes": pa.FixedSizeListArray.from_arrays(codes, width),
        }
    )
    with (
        replacing(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)


def load_split(
    index: ShardIndex,
    split: str,
    image: PictureTokenizer,
    text: TextTokenizer,
    folder: Path,
    text_slots: int,
    views: int = 1,
) -> TokenSet:
    """The token files of a split, image codes memory-mapped, texts joined; `tokenise_split` must have run."""
    import pyarrow as pa

    key, slots = _key(image, text, views), image.config.grid**2
    row_ids: list[str] = []
    captions: list[str] = []
    texts: list[list[int]] = []
    parts: list[npt.NDArray[Any]] = []
    for shard in index.splits.get(split, ()):
        with pa.memory_map(str(_path(folder, shard, key))) as source:
            table = pa.ipc.open_file(source).read_all()
            if shard.refused.hashes:  # the file may be older than a takedown
                table = table.filter(pa.array([row_id not in shard.refused for row_id in table["row_id"].to_pylist()]))
            row_ids += table["row_id"].to_pylist()
            captions += table["caption"].to_pylist()
            texts += table["text"].to_pylist()
            # Of an untouched file a view of the map itself, which the array keeps open.
            parts += [chunk.flatten().to_numpy().reshape(-1, views, slots) for chunk in table["codes"].chunks]
    padded, lengths = pad_text(texts, text_slots)
    numbers = {caption: number for number, caption in enumerate(dict.fromkeys(captions))}
    keys = np.array([numbers[caption] for caption in captions], np.int64)
    return TokenSet(row_ids, captions, padded, lengths, MappedCodes(parts, slots, views), keys)
