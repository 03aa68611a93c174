"""Face embeddings of a part: in a file of their own that expires, never in shards, made only when asked for.

Every build, training, takedown and rebuild of a root deletes what has expired there (`expire_embeddings`); nothing else
runs by itself, so a root that nobody opens keeps its files until somebody does. No reader takes an expired row.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crawler.files import write_table
from gptface_core.errors import InputError
from warehouse.schema import EMBEDDINGS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gptface_core.faces.embed import Embedder

_LOG = logging.getLogger(__name__)

EMBED_DAYS = 30


def embeddings_path(crawl_dir: Path, part: int) -> Path:
    return crawl_dir / "faces" / f"{part:05d}.embeddings.parquet"


class EmbeddingRows:
    """Collects crops over pictures, so that the embedder works in full batches whatever a picture holds."""

    def __init__(self, embedder: Embedder, days: int, now: datetime | None = None) -> None:
        if days < 1:
            raise InputError(f"embed_days {days}: choose 1 or more, embeddings are biometric data and must expire")
        self._embedder = embedder
        self._expires_at = (now or datetime.now(UTC)) + timedelta(days=days)
        self._waiting: list[tuple[str, int, Any]] = []
        self._rows: list[dict[str, Any]] = []

    def add(self, image_id: str, crops: NDArray[np.uint8]) -> None:
        """The faces of a picture in their order, uint8 (faces, 112, 112, 3) RGB."""
        self._waiting += [(image_id, index, crop) for index, crop in enumerate(crops)]
        while len(self._waiting) >= self._embedder.batch:
            self._embed(self._embedder.batch)

    def finish(self) -> list[dict[str, Any]]:
        """All rows (schema EMBEDDINGS), sorted by picture and face."""
        self._embed(len(self._waiting))
        return sorted(self._rows, key=lambda row: (row["image_id"], row["face_index"]))

    def write(self, path: Path) -> None:
        write_table(path, self.finish(), EMBEDDINGS)

    def _embed(self, count: int) -> None:
        import numpy as np

        chunk, self._waiting = self._waiting[:count], self._waiting[count:]
        if not chunk:
            return
        vectors = self._embedder.embed(np.stack([crop for _, _, crop in chunk]))
        model = self._embedder.describe()
        self._rows += [
            {
                "image_id": image_id,
                "face_index": index,
                "embedding": vector.tolist(),
                "model": model,
                "expires_at": self._expires_at,
            }
            for (image_id, index, _), vector in zip(chunk, vectors, strict=True)
        ]


def embedded(path: Path, model: str, faces: int, now: datetime | None = None) -> bool:
    """Whether the file holds an unexpired embedding by this model for every face of its part."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        return False
    try:
        table = pq.read_table(path, columns=["model", "expires_at"])
    except (pa.ArrowInvalid, OSError):
        return False
    alive = all(expires > (now or datetime.now(UTC)) for expires in table["expires_at"].to_pylist())
    return table.num_rows == faces and set(table["model"].to_pylist()) <= {model} and alive


def expire_embeddings(root: Path, now: datetime | None = None) -> int:
    """Delete the files of embeddings of a root (or of one crawl) whose time is over; how many went.

    What cannot be read goes as well, and what a killed run left half-written. The caller holds the root.
    """
    gone = 0
    for path in _files(root):
        over = _expires_at(path) <= (now or datetime.now(UTC))
        if over or path.suffix == ".tmp":
            path.unlink()
            _LOG.info("%s: embeddings expired and deleted", path.name)
            gone += 1
    return gone


def expiry_times(root: Path) -> list[datetime]:
    """When each file of embeddings of a root expires; what cannot be read has expired long ago."""
    return [_expires_at(path) for path in _files(root)]


def _files(root: Path) -> list[Path]:
    """Half-written ones included: pathlib's * takes hidden names as well."""
    folders = (root / "faces", *root.glob("raw/*/g[0-9][0-9][0-9]/faces"))
    return sorted(path for folder in folders for path in folder.glob("*.embeddings.parquet*"))


def _expires_at(path: Path) -> datetime:
    """The first of its rows; never, where it has none."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        first = pc.min(pq.read_table(path, columns=["expires_at"])["expires_at"]).as_py()
    except (pa.ArrowInvalid, KeyError, OSError):
        return datetime.min.replace(tzinfo=UTC)  # what nobody can read is kept for nobody
    return first or datetime.max.replace(tzinfo=UTC)
