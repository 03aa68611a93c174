"""Tokens on disk: every shard tokenised once into an Arrow file that is memory-mapped afterwards.

The name holds the shard's sha256 and the tokenizers' digest, so a changed shard or tokenizer never meets old tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from gptface_core.files import replacing
from gptface_core.image_tokenizer import ImageTokenizer, batches
from gptface_core.model import PAD, SPECIALS
from gptface_core.shards import Pictures, Shard, ShardIndex, decode_jpeg, read_shard
from gptface_core.text_tokenizer import TextTokenizer

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TokenSet:
    """A split as arrays, one row per face.

    `text` (R, L) ids of the model's table, padded with PAD; `lengths` (R,); `codes` (R, N) image codes from 0;
    `caption_keys` (R,) equal where captions are.
    """

    row_ids: list[str]
    captions: list[str]
    text: Ids
    lengths: Ids
    codes: Ids
    caption_keys: Ids

    def __len__(self) -> int:
        return len(self.row_ids)


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
    return (tensor.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def encode_pictures(tokenizer: ImageTokenizer, pictures: Pictures, batch: int = 64) -> Ids:
    """Codes (R, N) of uint8 pictures (R, P, P, 3)."""
    parts = [tokenizer.encode(to_tensor(pictures[rows])).numpy() for rows in batches(len(pictures), batch)]
    return np.concatenate(parts) if parts else np.zeros((0, tokenizer.config.grid**2), np.int64)


def tokenise_split(
    index: ShardIndex,
    split: str,
    image: ImageTokenizer,
    text: TextTokenizer,
    folder: Path,
    on_shard: Callable[[], None] | None = None,
) -> None:
    """Write the token file of every shard of a split that has none yet."""
    folder.mkdir(parents=True, exist_ok=True)
    key = image.digest()[:16] + text.digest()[:16]
    for shard in index.splits.get(split, ()):
        path = _path(folder, shard, key)
        if not path.is_file():
            _write(path, shard, image, text)
        if on_shard:
            on_shard()


def _path(folder: Path, shard: Shard, key: str) -> Path:
    return folder / f"{shard.sha256[:16]}-{key}.arrow"


def _write(path: Path, shard: Shard, image: ImageTokenizer, text: TextTokenizer) -> None:
    import pyarrow as pa

    samples = list(read_shard(shard))
    pictures = decode_split((shard,), image.config.image_px)
    codes = encode_pictures(image, pictures)
    table = pa.table(
        {
            "row_id": pa.array([s.row_id for s in samples], pa.string()),
            "caption": pa.array([s.caption for s in samples], pa.string()),
            "text": pa.array([text.encode(s.caption) for s in samples], pa.list_(pa.int32())),
            "codes": pa.FixedSizeListArray.from_arrays(pa.array(codes.reshape(-1), pa.int32()), image.config.grid**2),
        }
    )
    with (
        replacing(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)


def load_split(
    index: ShardIndex, split: str, image: ImageTokenizer, text: TextTokenizer, folder: Path, text_slots: int
) -> TokenSet:
    """The token files of a split, memory-mapped and joined; `tokenise_split` must have run."""
    import pyarrow as pa

    key = image.digest()[:16] + text.digest()[:16]
    row_ids: list[str] = []
    captions: list[str] = []
    texts: list[list[int]] = []
    codes: list[Ids] = [np.zeros((0, image.config.grid**2), np.int64)]
    for shard in index.splits.get(split, ()):
        with pa.memory_map(str(_path(folder, shard, key))) as source:
            table = pa.ipc.open_file(source).read_all()
            if shard.refused.hashes:  # the file may be older than a takedown
                table = table.filter(pa.array([row_id not in shard.refused for row_id in table["row_id"].to_pylist()]))
            row_ids += table["row_id"].to_pylist()
            captions += table["caption"].to_pylist()
            texts += table["text"].to_pylist()
            flat = table["codes"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            codes.append(flat.astype(np.int64).reshape(table.num_rows, -1))
    padded, lengths = pad_text(texts, text_slots)
    numbers = {caption: number for number, caption in enumerate(dict.fromkeys(captions))}
    keys = np.array([numbers[caption] for caption in captions], np.int64)
    return TokenSet(row_ids, captions, padded, lengths, np.concatenate(codes), keys)
