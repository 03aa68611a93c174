"""Reader of WebDataset shards through their `index.json`: plain tar files, nothing pickled, every shard checked."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gptface_core.errors import InputError

Pictures = npt.NDArray[np.uint8]
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Shard:
    path: Path
    sha256: str
    samples: int


@dataclass(frozen=True)
class Sample:
    row_id: str
    caption: str
    jpeg: bytes


@dataclass(frozen=True)
class ShardIndex:
    """What `index.json` says: the release it was cut from, and the shards of each split."""

    release: int
    crop_px: int
    splits: dict[str, tuple[Shard, ...]]

    def samples(self, split: str) -> int:
        return sum(shard.samples for shard in self.splits.get(split, ()))

    def digest(self) -> str:
        """32 hex digits over the shards' hashes: the same for the same data, wherever it lies."""
        parts = [[split, shard.sha256] for split in sorted(self.splits) for shard in self.splits[split]]
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def open_index(shards_dir: Path | str) -> ShardIndex:
    """Raises InputError where the folder or its index is missing, damaged or empty, or a shard is gone."""
    folder = Path(shards_dir)
    path = folder / "index.json"
    if not path.is_file():
        raise InputError(f"{folder} holds no shards (no index.json): run `gptface shard` first, or name their folder")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        splits = {name: _shards(folder, value) for name, value in document["splits"].items()}
        index = ShardIndex(int(document["release"]), int(document["crop_px"]), splits)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is damaged ({error}): delete the folder and shard the release again") from error
    if index.samples("train") == 0:
        raise InputError(f"{folder} holds no training samples: build a larger corpus first")
    return index


def _shards(folder: Path, split: dict[str, Any]) -> tuple[Shard, ...]:
    shards = tuple(Shard(folder / s["file"], s["sha256"], int(s["samples"])) for s in split["shards"])
    for shard in shards:
        if shard.path.parent != folder or not shard.path.is_file():
            raise InputError(f"shard {shard.path} is missing: delete the folder and shard the release again")
    return shards


def read_shard(shard: Shard) -> Iterator[Sample]:
    """The samples of a shard in its order. Raises InputError where its bytes are not those of the index."""
    data = shard.path.read_bytes()
    if hashlib.sha256(data).hexdigest() != shard.sha256:
        raise InputError(f"shard {shard.path} is not what index.json names (sha256): shard the release again")
    parts: dict[str, dict[str, bytes]] = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        for member in tar:
            key, _, extension = member.name.partition(".")
            content = tar.extractfile(member)
            if content is not None:
                parts.setdefault(key, {})[extension] = content.read()
    for key, files in parts.items():
        yield Sample(key, files["txt"].decode("utf-8"), files["jpg"])


def decode_jpeg(jpeg: bytes, size_px: int) -> Pictures:
    """A crop as uint8 (size_px, size_px, 3) RGB. Large steps down are taken inside the JPEG decoder."""
    from PIL import Image

    with Image.open(io.BytesIO(jpeg)) as picture:
        picture.draft("RGB", (2 * size_px, 2 * size_px))
        return shrink(np.asarray(picture.convert("RGB")), size_px)


def shrink(rgb: Pictures, size_px: int) -> Pictures:
    """uint8 (H, W, 3) -> (size_px, size_px, 3), by area when it gets smaller."""
    from PIL import Image

    if rgb.shape[:2] == (size_px, size_px):
        return rgb
    method = Image.Resampling.BOX if rgb.shape[0] >= size_px else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(rgb).resize((size_px, size_px), method))
