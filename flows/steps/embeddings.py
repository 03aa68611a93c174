"""Face embeddings of a part: in a file of their own that expires, never in shards, made only when asked for."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crawler.files import write_table
from gptface_core.errors import InputError
from warehouse.schema import EMBEDDINGS

if TYPE_CHECKING:
    from flows.steps.examine import Examined
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

    def add(self, examined: Examined) -> None:
        image_id = examined.picture["image_id"]
        self._waiting += [(image_id, index, crop) for index, crop in enumerate(examined.crops)]
        while len(self._waiting) >= self._embedder.batch:
            self._embed(self._embedder.batch)

    def write(self, path: Path) -> None:
        """All rows, sorted by picture and face, to `path`."""
        self._embed(len(self._waiting))
        self._rows.sort(key=lambda row: (row["image_id"], row["face_index"]))
        write_table(path, self._rows, EMBEDDINGS)

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


def expire_embeddings(crawl_dir: Path, now: datetime | None = None) -> int:
    """Delete the files of embeddings in a crawl whose time is over, or that cannot be read; how many went."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    gone = 0
    for path in sorted((crawl_dir / "faces").glob("*.embeddings.parquet")):
        try:
            first = pc.min(pq.read_table(path, columns=["expires_at"])["expires_at"]).as_py()
            over = first is not None and first <= (now or datetime.now(UTC))
        except (pa.ArrowInvalid, OSError):
            over = True  # what nobody can read is kept for nobody
        if over:
            path.unlink()
            _LOG.info("%s: embeddings expired and deleted", path.name)
            gone += 1
    return gone
