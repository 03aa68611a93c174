"""Face embeddings: a unit vector per face, near for the same person. Biometric data: nothing here runs unasked.

ArcFace (Deng et al., CVPR 2019) as InsightFace's recognisers take it: 112 px crops, aligned by five points. The width
of the vector is the model's own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gptface_core.errors import InputError
from gptface_core.faces.align import ARCFACE_PX
from gptface_core.faces.network import CPU, open_session
from gptface_core.faces.packs import DEFAULT_PACK, find_embedder

FLOAT32, BFLOAT16 = PRECISIONS = ("float32", "bfloat16")
# On a CPU more crops at once fall out of its cache and take longer each; numbers of half the size take half the room.
_CPU_BATCHES, _GPU_BATCH = {FLOAT32: 4, BFLOAT16: 8}, 64
_BFLOAT16_MARK = ":openvino-bfloat16"  # in a description


class Embedder:
    """The recogniser of an InsightFace pack, on one thread. Not shared between threads.

    `precision`: bfloat16 takes a third of the time of float32 on a processor with AMX, and its vectors have a cosine of
    0.99 and more with those of float32.
    """

    def __init__(
        self, pack: str = DEFAULT_PACK, root: Path | None = None, provider: str = CPU, precision: str = FLOAT32
    ) -> None:
        check_precision(precision, provider)
        path, _ = find_embedder(pack, root)
        session = open_session(path, provider)
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if len(outputs) != 1 or list(inputs[0].shape[1:]) != [3, ARCFACE_PX, ARCFACE_PX]:
            raise InputError(f"{path} is no recogniser of {ARCFACE_PX} px crops (input {inputs[0].shape})")
        name = inputs[0].name
        wanted = _CPU_BATCHES[precision] if provider == CPU else _GPU_BATCH
        self.batch = int(inputs[0].shape[0]) if isinstance(inputs[0].shape[0], int) else wanted
        self._mean, self._std = input_range(path)
        self._description = describe_embedder(pack, root, precision)
        self._run: Callable[[NDArray[np.float32]], NDArray[np.float32]]
        if precision == BFLOAT16:
            from gptface_core.faces.bfloat16 import Bfloat16Model

            self._run = Bfloat16Model(path, self.batch).run
        else:
            self._run = lambda blob: session.run(None, {name: blob})[0]

    def describe(self) -> str:
        return self._description

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Unit vectors float32 (N, D) of aligned crops, uint8 (N, 112, 112, 3) RGB (`align.arcface_crop`)."""
        import cv2

        vectors = []
        for start in range(0, len(crops), self.batch):
            chunk = list(crops[start : start + self.batch])
            blob = cv2.dnn.blobFromImages(chunk, 1 / self._std, None, (self._mean,) * 3)
            vectors.append(self._run(blob))
        if not vectors:
            return np.zeros((0, 0), dtype=np.float32)
        every = np.concatenate(vectors)
        norms = np.linalg.norm(every, axis=1, keepdims=True)
        return np.asarray(every / np.maximum(norms, 1e-12), dtype=np.float32)


def describe_embedder(pack: str = DEFAULT_PACK, root: Path | None = None, precision: str = FLOAT32) -> str:
    """Pack, model, its sha256 and what computes it, if not onnxruntime, without loading it:
    `insightface:buffalo_sc/w600k_mbf:9cc6e4a7`, `insightface:buffalo_sc/w600k_mbf:9cc6e4a7:openvino-bfloat16`."""
    path, sha256 = find_embedder(pack, root)
    mark = _BFLOAT16_MARK if precision == BFLOAT16 else ""
    return f"insightface:{pack}/{path.stem}:{sha256[:8]}{mark}"


def weights_of(description: str) -> str:
    """The description of an embedder, whatever its precision."""
    return description.removesuffix(_BFLOAT16_MARK)


def check_precision(precision: str, provider: str = CPU) -> None:
    """Raises InputError where embeddings cannot be computed like this here."""
    if precision not in PRECISIONS:
        raise InputError(f"no precision '{precision}': choose {' or '.join(PRECISIONS)}")
    if precision == BFLOAT16:
        if provider != CPU:
            raise InputError(f"precision bfloat16 is for {CPU}, not for {provider}: choose float32")
        from gptface_core.faces.bfloat16 import open_core

        open_core()


def input_range(path: Path) -> tuple[float, float]:
    """Mean and deviation that the model wants taken off its input: none where its own first nodes do so.

    InsightFace tells the two kinds of its recognisers apart in this way (models that came from MXNet normalise).
    """
    import onnx

    first = onnx.load(os.fspath(path), load_external_data=False).graph.node[:8]
    subtracts = any(node.name.startswith(("Sub", "_minus")) for node in first)
    multiplies = any(node.name.startswith(("Mul", "_mul")) for node in first)
    return (0.0, 1.0) if subtracts and multiplies else (127.5, 127.5)
