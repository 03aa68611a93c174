"""What a picture looks like, for takedowns: its perceptual hash, and pictures of the same person by embeddings."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from flows.steps.config import ConfigError
from flows.steps.layout import Layout
from warehouse.removal import Look

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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


def pictures_of_person(layout: Layout, path: Path, similarity: float, detector: str, pack: str) -> list[str]:
    """image_ids of pictures with a face whose embedding has at least this cosine with that of `path`'s one face.

    Raises ConfigError where no embeddings are kept, or they were made by another model, or there is not one face.
    """
    import numpy as np
    import pyarrow.parquet as pq

    files = sorted(layout.raw.glob("*/g*/faces/*.embeddings.parquet"))
    if not files:
        raise ConfigError(
            f"no face embeddings under {layout.raw}: they are biometric data, made only when asked for, and expire; "
            "build with embeddings first, or use --like, --url or --sha256"
        )
    vector, model = _embedded(path, detector, pack)
    found: set[str] = set()
    for file in files:
        table = pq.read_table(file, columns=["image_id", "embedding", "model"])
        if not table.num_rows:
            continue
        if set(table["model"].to_pylist()) != {model}:
            made_by = ", ".join(sorted(set(table["model"].to_pylist())))
            raise ConfigError(f"embeddings were made by {made_by}, not by {model}: give the same pack with --pack")
        vectors = np.asarray(table["embedding"].to_pylist(), dtype=np.float32)
        near = np.flatnonzero(vectors @ vector >= similarity)
        found.update(table["image_id"].take(near).to_pylist())
    return sorted(found)


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
