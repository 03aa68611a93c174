"""Reader of WebDataset shards through their `index.json`: plain tar files, nothing pickled, every shard checked.

A `tombstones.json` beside the index names samples that were taken down, as keyed hashes: who has an older copy of the
shards lays the newer file there, and these samples are not read any more.
"""

from __future__ import annotations

import hashlib
import hmac
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
class Refused:
    """Samples that must not be read: the first 32 hex digits of HMAC-SHA256 over "sample", NUL and the row_id."""

    key: bytes = b""
    hashes: frozenset[str] = frozenset()

    def __contains__(self, row_id: str) -> bool:
        if not self.hashes:
            return False
        return hmac.digest(self.key, f"sample\0{row_id}".encode(), "sha256").hex()[:32] in self.hashes


_NOTHING = Refused()


@dataclass(frozen=True)
class Shard:
    path: Path
    sha256: str
    samples: int
    refused: Refused = _NOTHING


@dataclass(frozen=True)
class Sample:
    row_id: str
    caption: str
    jpeg: bytes
    metadata: bytes = b"{}"  # JSON


@dataclass(frozen=True)
class ShardIndex:
    """What `index.json` says: the release it was cut from, and the shards of each split."""

    release: int
    crop_px: int
    splits: dict[str, tuple[Shard, ...]]
    refused: Refused = _NOTHING

    def samples(self, split: str) -> int:
        return sum(shard.samples for shard in self.splits.get(split, ()))

    def digest(self) -> str:
        """32 hex digits over the shards' hashes: the same for the same data, wherever it lies."""
        parts = [[split, shard.sha256] for split in sorted(self.splits) for shard in self.splits[split]]
        if self.refused.hashes:
            parts.append(["refused", *sorted(self.refused.hashes)])
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def open_index(shards_dir: Path | str) -> ShardIndex:
    """Raises InputError where the folder or its index is missing, damaged or empty, or a shard is gone."""
    folder = Path(shards_dir)
    path = folder / "index.json"
    if not path.is_file():
        raise InputError(f"{folder} holds no shards (no index.json): run `gptface shard` first, or name their folder")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        refused = _refused(folder / "tombstones.json")
        splits = {name: _shards(folder, value, refused) for name, value in document["splits"].items()}
        index = ShardIndex(int(document["release"]), int(document["crop_px"]), splits, refused)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is damaged ({error}): delete the folder and shard the release again") from error
    if index.samples("train") == 0:
        raise InputError(f"{folder} holds no training samples: build a larger corpus first")
    return index


def _refused(path: Path) -> Refused:
    if not path.is_file():
        return _NOTHING
    document = json.loads(path.read_text(encoding="utf-8"))
    return Refused(bytes.fromhex(document["key"]), frozenset(document["samples"]))


def _shards(folder: Path, split: dict[str, Any], refused: Refused) -> tuple[Shard, ...]:
    shards = tuple(Shard(folder / s["file"], s["sha256"], int(s["samples"]), refused) for s in split["shards"])
    for shard in shards:
        if shard.path.parent != folder or not shard.path.is_file():
            raise InputError(f"shard {shard.path} is missing: delete the folder and shard the release again")
    return shards


def shards_for_rank(index: ShardIndex, split: str, rank: int, world: int) -> tuple[Shard, ...]:
    """The whole shards that process `rank` of `world` reads: disjoint, all of them together, and none empty-handed.

    Raises InputError where a rank would get none, and for a rank or a split that cannot be.
    """
    if world < 1 or not 0 <= rank < world:
        raise InputError(f"rank {rank} of {world}: choose a rank from 0 to {max(world - 1, 0)} of at least one")
    if split not in SPLITS:
        raise InputError(f"no split {split!r}: choose from {', '.join(SPLITS)}")
    shards = tuple(shard for shard in index.splits.get(split, ()) if shard.samples)
    if len(shards) < world:
        each = index.samples(split) // world
        way_out = f"`gptface shard --samples-per-shard {each}`" if each else "build a larger corpus"
        raise InputError(
            f"{split} has {len(shards)} shards for {world} processes: start at most {len(shards)}, or {way_out}"
        )
    return shards[rank::world]


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
        if key in shard.refused:
            continue
        yield Sample(key, files["txt"].decode("utf-8"), files["jpg"], files.get("json", b"{}"))


def decode_jpeg(jpeg: bytes, size_px: int) -> Pictures:
    """A crop as uint8 (size_px, size_px, 3) RGB. Large steps down are taken inside the JPEG decoder."""
    from PIL import Image

    with Image.open(io.BytesIO(jpeg)) as picture:
        picture.draft("RGB", (2 * size_px, 2 * size_px))
        return shrink(np.asarray(picture.convert("RGB")), size_px)


def shrink(rgb: Pictures, size_px: int) -> Pictures:
    """uint8 (H, W, 3) -> (size_px, size_px, 3), by area when it gets smaller."""
    if rgb.shape[:2] == (size_px, size_px):
        return rgb
    from PIL import Image

    method = Image.Resampling.BOX if rgb.shape[0] >= size_px else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(rgb).resize((size_px, size_px), method))
