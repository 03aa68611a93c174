"""What a picture looks like, for takedowns: its perceptual hash, and pictures of the same person by embeddings."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows.steps.config import ConfigError
from flows.steps.layout import Layout
from warehouse.selection import Look

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)


def look_of(path: Path, detector: str = "auto", pack: str = "buffalo_sc") -> tuple[str, Look]:
    """sha256 and looks of a picture file, as detection tells them. Raises ConfigError where it does not decode."""
    from flows.steps.examine import examine
    from gptface_core.faces.detector import load_detector

    data = _bytes(path)
    picture, faces = examine("", data, load_detector(detector, pack))
    if picture["phash"] is None:
        raise ConfigError(f"{path} is not a picture that can be read ({picture['reason']})")
    face = faces[0] if faces else {}
    look = Look(picture["phash"], face.get("face_phash"), face.get("face_thumb"))
    return hashlib.sha256(data).hexdigest(), look


def phash_of(data: bytes) -> str | None:
    """The perceptual hash of a picture's bytes as detection tells it, None where they do not decode."""
    from flows.steps.examine import ENOUGH_PX
    from gptface_core.faces.decode import Undecodable, decode_upright
    from gptface_core.faces.phash import perceptual_hash

    picture = decode_upright(data, enough_px=ENOUGH_PX)
    return None if isinstance(picture, Undecodable) else perceptual_hash(picture.rgb)


def face_phash_at(data: bytes, points_px: Sequence[float]) -> str | None:
    """The hash of the face with these five points (of the upright picture), None where the bytes do not decode."""
    from gptface_core.faces.decode import Undecodable, decode_upright
    from gptface_core.faces.facehash import face_fingerprint

    picture = decode_upright(data)
    return None if isinstance(picture, Undecodable) else face_fingerprint(picture.rgb, points_px)[0]


def pictures_of_person(layout: Layout, path: Path, similarity: float, detector: str, pack: str) -> list[str]:
    """image_ids of pictures with a face whose embedding has at least this cosine with that of `path`'s one face.

    Stored embeddings are taken where they are fresh; the faces of other parts are embedded for this search alone, and
    nothing of that is kept. Raises ConfigError where nobody's face was ever looked for, stored embeddings were made by
    another model, or there is not one face in `path`.
    """
    import numpy as np

    stored = set(layout.raw.glob("*/g*/faces/*.embeddings.parquet"))
    detected = set(layout.raw.glob("*/g*/faces/*.faces.parquet"))
    parts = sorted({(file.parents[1], int(file.name[:5])) for file in stored | detected})
    if not parts:
        raise ConfigError(
            f"no faces and no face embeddings under {layout.raw} (embeddings are biometric data, made only when asked "
            "for, and expire): build first, or use --like, --url or --sha256"
        )
    vector, model = _embedded(path, detector, pack)
    found: set[str] = set()
    for crawl, part in parts:
        image_ids, vectors = _stored_vectors(crawl, part, model) or _vectors_now(crawl, part, pack)
        if image_ids:
            found.update(image_ids[index] for index in np.flatnonzero(vectors @ vector >= similarity))
    return sorted(found)


def _stored_vectors(crawl: Path, part: int, model: str) -> tuple[list[str], NDArray[np.float32]] | None:
    """Image ids and vectors of a part's faces as they were stored; None where they are not, or not fresh."""
    from datetime import UTC, datetime

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from flows.steps.embeddings import embeddings_path
    from gptface_core.faces.embed import weights_of

    try:
        path = embeddings_path(crawl, part)
        table = pq.read_table(path, columns=["image_id", "embedding", "model", "expires_at"])
    except (pa.ArrowInvalid, OSError):
        return None
    made_by = set(table["model"].to_pylist())
    if {weights_of(name) for name in made_by} - {weights_of(model)}:
        named = ", ".join(sorted(made_by))
        raise ConfigError(f"embeddings were made by {named}, not by {model}: give the same pack with --pack")
    if any(expires <= datetime.now(UTC) for expires in table["expires_at"].to_pylist()):
        return None
    return table["image_id"].to_pylist(), np.asarray(table["embedding"].to_pylist(), dtype=np.float32)


def _vectors_now(crawl: Path, part: int, pack: str) -> tuple[list[str], NDArray[np.float32]]:
    """The same, made now from the raw shard and kept nowhere."""
    import numpy as np

    from flows.steps.detect import embed_stored_faces
    from flows.steps.embeddings import EmbeddingRows
    from gptface_core.faces.embed import Embedder

    logger.info("part %d of %s has no fresh embeddings: its faces are embedded for this search", part, crawl)
    rows = embed_stored_faces(part, crawl, EmbeddingRows(Embedder(pack), days=1)).finish()
    return [row["image_id"] for row in rows], np.asarray([row["embedding"] for row in rows], dtype=np.float32)


def _embedded(path: Path, detector: str, pack: str) -> tuple[NDArray[np.float32], str]:
    import numpy as np

    from gptface_core.faces.align import arcface_crop
    from gptface_core.faces.detector import load_detector
    from gptface_core.faces.embed import Embedder

    rgb = _pixels(path)
    faces = load_detector(detector, pack).detect(rgb)
    if len(faces) != 1:
        raise ConfigError(f"{path}: found {len(faces) or 'no'} faces, a person needs exactly one; crop the picture")
    embedder = Embedder(pack)
    vectors = embedder.embed(np.stack([arcface_crop(rgb, faces[0].points)]))
    return vectors[0], embedder.describe()


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise ConfigError(f"no such picture: {path}")
    return path.read_bytes()


def _pixels(path: Path) -> NDArray[np.uint8]:
    from gptface_core.faces.decode import Undecodable, decode_upright

    picture = decode_upright(_bytes(path))
    if isinstance(picture, Undecodable):
        raise ConfigError(f"{path} is not a picture that can be read ({picture.reason}): {picture.detail}")
    return picture.rgb
