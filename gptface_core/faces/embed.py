"""Face embeddings: a unit vector per face, near for the same person. Biometric data: nothing here runs unasked.

ArcFace (Deng et al., CVPR 2019) as InsightFace's recognisers take it: 112 px crops, aligned by five points. The width
of the vector is the model's own.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gptface_core.errors import InputError
from gptface_core.faces.align import ARCFACE_PX
from gptface_core.faces.network import CPU, open_session
from gptface_core.faces.packs import DEFAULT_PACK, find_embedder

_CPU_BATCH, _GPU_BATCH = 4, 64  # on a CPU more crops at once fall out of its cache and take longer each


class Embedder:
    """The recogniser of an InsightFace pack, on one thread. Not shared between threads."""

    def __init__(self, pack: str = DEFAULT_PACK, root: Path | None = None, provider: str = CPU) -> None:
        path, _ = find_embedder(pack, root)
        self._session = open_session(path, provider)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(outputs) != 1 or list(inputs[0].shape[1:]) != [3, ARCFACE_PX, ARCFACE_PX]:
            raise InputError(f"{path} is no recogniser of {ARCFACE_PX} px crops (input {inputs[0].shape})")
        self._input = inputs[0].name
        wanted = _CPU_BATCH if provider == CPU else _GPU_BATCH
        self.batch = int(inputs[0].shape[0]) if isinstance(inputs[0].shape[0], int) else wanted
        self._mean, self._std = input_range(path)
        self._description = describe_embedder(pack, root)

    def describe(self) -> str:
        return self._description

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Unit vectors float32 (N, D) of aligned crops, uint8 (N, 112, 112, 3) RGB (`align.arcface_crop`)."""
        import cv2

        vectors = []
        for start in range(0, len(crops), self.batch):
            chunk = list(crops[start : start + self.batch])
            blob = cv2.dnn.blobFromImages(chunk, 1 / self._std, None, (self._mean,) * 3)
            vectors.append(self._session.run(None, {self._input: blob})[0])
        if not vectors:
            return np.zeros((0, 0), dtype=np.float32)
        every = np.concatenate(vectors)
        norms = np.linalg.norm(every, axis=1, keepdims=True)
        return np.asarray(every / np.maximum(norms, 1e-12), dtype=np.float32)


def describe_embedder(pack: str = DEFAULT_PACK, root: Path | None = None) -> str:
    """Pack, model and its sha256, without loading it: `insightface:buffalo_sc/w600k_mbf:9cc6e4a7`."""
    path, sha256 = find_embedder(pack, root)
    return f"insightface:{pack}/{path.stem}:{sha256[:8]}"


def input_range(path: Path) -> tuple[float, float]:
    """Mean and deviation that the model wants taken off its input: none where its own first nodes do so.

    InsightFace tells the two kinds of its recognisers apart in this way (models that came from MXNet normalise).
    """
    import onnx

    first = onnx.load(os.fspath(path), load_external_data=False).graph.node[:8]
    subtracts = any(node.name.startswith(("Sub", "_minus")) for node in first)
    multiplies = any(node.name.startswith(("Mul", "_mul")) for node in first)
    return (0.0, 1.0) if subtracts and multiplies else (127.5, 127.5)
