"""Frozen encoders of faces, ours and the baselines', behind one call: a set in, features (R, F) out."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from gptface_core.datasets import FaceSet, load_pictures
from gptface_core.errors import InputError
from gptface_core.faces.align import arcface_crop
from gptface_core.faces.decode import Undecodable, decode_upright
from gptface_core.files import replacing
from gptface_core.heads import pool
from gptface_core.image_tokenizer import PictureTokenizer, batches
from gptface_core.model import GPTFace
from gptface_core.shards import Pictures
from gptface_core.tokens import encode_pictures

logger = logging.getLogger(__name__)
Features = npt.NDArray[np.float32]
HOG_PX = 64


class FaceEncoder(Protocol):
    """`name` for tables; `key` names everything that decides the features, for the cache."""

    @property
    def name(self) -> str: ...

    @property
    def key(self) -> str: ...

    def encode(self, faces: FaceSet) -> Features: ...


class ModelEncoder:
    """The transformer's last hidden states over 4 x 4 cells of a picture seen alone (`heads.pool`)."""

    def __init__(self, name: str, model: GPTFace, tokenizer: PictureTokenizer, pictures: Path | None = None) -> None:
        self.name, self._model, self._tokenizer, self._pictures = name, model.eval(), tokenizer, pictures
        state = hashlib.blake2b(digest_size=16)
        for weight, tensor in sorted(model.state_dict().items()):
            state.update(weight.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        self.key = f"gptface {model.config.pooling} {state.hexdigest()} {tokenizer.digest()}"

    @torch.no_grad()
    def encode(self, faces: FaceSet) -> Features:
        pictures = load_pictures(faces, self._tokenizer.config.image_px, self._pictures)
        codes = torch.from_numpy(encode_pictures(self._tokenizer, pictures)) + self._model.first_code
        parts = []
        for rows in batches(len(codes), 100):
            parts.append(pool(self._model.encode(image_ids=codes[rows]), self._model.config).float().numpy())
            if rows.start % 5000 == 0:
                logger.info("features of %s by %s: %d of %d", faces.name, self.name, rows.start, len(codes))
        return np.concatenate(parts)


class HogEncoder:
    """Histograms of oriented gradients (Dalal, Triggs 2005) of the grey face at 64 px: 9 bins, 8 px cells, 2 x 2."""

    name = "HOG"
    key = f"hog {HOG_PX} 16 8 8 9"

    def __init__(self, pictures: Path | None = None) -> None:
        self._pictures = pictures

    def encode(self, faces: FaceSet) -> Features:
        import cv2

        hog = cv2.HOGDescriptor((HOG_PX, HOG_PX), (16, 16), (8, 8), (8, 8), 9)
        grey = (cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) for rgb in load_pictures(faces, HOG_PX, self._pictures))
        return np.stack([np.asarray(hog.compute(picture), np.float32).reshape(-1) for picture in grey])


class EmbeddingEncoder:
    """An InsightFace recogniser on faces aligned for it by the five points found in each picture.

    `points` maps files to points of the pictures of `source` (the set before framing). A picture without points is
    aligned by the median of `usual`: for sets of tight faces, which are all framed alike.
    """

    def __init__(
        self,
        embedder: Any,
        source: FaceSet,
        points: Mapping[str, Sequence[float] | None],
        usual: Mapping[str, Sequence[float] | None],
    ) -> None:
        self.name, self._embedder, self._source, self._points = "InsightFace embedding", embedder, source, points
        found = [value for value in usual.values() if value is not None]
        self._fallback = np.median(np.array(found, np.float64), 0) if found else None
        everything = [sorted(points.items()), None if self._fallback is None else self._fallback.tolist()]
        noted = hashlib.blake2b(json.dumps(everything).encode(), digest_size=16).hexdigest()
        self.key = f"{embedder.describe()} {source.name} {noted}"

    def encode(self, faces: FaceSet) -> Features:
        crops: list[Pictures] = []
        parts: list[npt.NDArray[np.float32]] = []
        for place, item in enumerate(faces.items):
            crops.append(self._crop(item.file))
            if len(crops) == 64 or place + 1 == len(faces):
                parts.append(self._embedder.embed(np.stack(crops)))
                crops = []
            if (place + 1) % 3200 == 0:
                logger.info("embeddings of %s: %d of %d", faces.name, place + 1, len(faces))
        return np.concatenate(parts)

    def _crop(self, file: str) -> Pictures:
        picture = decode_upright(self._source.store.read(file))
        points = self._points.get(file)
        marks = self._fallback if points is None else points
        if isinstance(picture, Undecodable) or marks is None:
            raise InputError(f"{self._source.name}: no face to embed in {file}")
        return arcface_crop(picture.rgb, np.asarray(marks))


def cached_features(encoder: FaceEncoder, faces: FaceSet, folder: Path | None) -> Features:
    """`encoder.encode(faces)`, from the folder's file for this encoder and these items where there is one."""
    if folder is None:
        return encoder.encode(faces)
    name = json.dumps([encoder.key, faces.name, [item.id for item in faces.items]])
    path = folder / f"{hashlib.blake2b(name.encode(), digest_size=16).hexdigest()}.npy"
    if not path.is_file():
        features = encoder.encode(faces)
        with replacing(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, features)
    return np.asarray(np.load(path), np.float32)
