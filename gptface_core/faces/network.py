"""SCRFD (Guo et al. 2021) as a plain function from canvases to candidate faces, one by one or in batches.

InsightFace's own class takes one picture at a time, decodes every anchor and takes three seconds to import; here only
the anchors over the threshold are decoded. Outputs are those of InsightFace's models with key points.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptface_core.errors import InputError
from gptface_core.faces.graph import faster_model

STRIDE_PX = 32  # the coarsest of the feature maps: sides of a canvas are multiples of it
_STRIDES = (8, 16, 32)
_ANCHORS = 2  # per position
_NMS_IOU = 0.4  # as in InsightFace
CPU = "CPUExecutionProvider"


@dataclass(frozen=True, eq=False)
class Finds:
    """Candidates of one canvas, best first: boxes float32 (N, 4), points (N, 5, 2), scores (N,), in its pixels."""

    boxes: NDArray[np.float32]
    points: NDArray[np.float32]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, chosen: NDArray[Any]) -> Finds:
        return Finds(self.boxes[chosen], self.points[chosen], self.scores[chosen])


def no_finds() -> Finds:
    return Finds(np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32), np.zeros(0, np.float32))


def joined(finds: list[Finds]) -> Finds:
    """All of them without doubles: of two boxes that overlap, the one with the higher score.

    Each of them is without doubles and in order by itself, as networks find them and `take` leaves them.
    """
    some = [f for f in finds if len(f)]
    if len(some) <= 1:
        return some[0] if some else no_finds()
    every = Finds(
        *(np.concatenate(parts) for parts in zip(*((f.boxes, f.points, f.scores) for f in some), strict=True))
    )
    return every.take(suppressed(every.boxes, every.scores))


def open_session(model: os.PathLike[str] | str | bytes, provider: str = CPU) -> Any:
    """An onnxruntime session on one thread that does not spin: several workers share the cores without a fight.

    `model` is a path or the serialised model itself.

    Raises:
        InputError: the provider is not the one that runs (onnxruntime falls back to the CPU without a word), or the
            file is no ONNX model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # the pack declares output shapes for 640 px and warns at every other size
    source = model if isinstance(model, bytes) else os.fspath(model)
    name = "the model" if isinstance(source, bytes) else source
    try:
        session = onnxruntime.InferenceSession(source, options, providers=[provider])
    except (ValueError, RuntimeError) as error:
        raise InputError(f"onnxruntime cannot open {name} with {provider}: {str(error)[:200]}") from error
    if session.get_providers()[0] != provider:
        raise InputError(f"onnxruntime has no {provider} here, it would run on {session.get_providers()[0]}")
    return session


class ScrfdNetwork:
    """One session of an SCRFD model. `batch` canvases run at once: 1 on a CPU (more gains nothing), more on a GPU."""

    def __init__(self, path: Path, provider: str = CPU, batch: int = 1) -> None:
        if batch < 1:
            raise InputError(f"batch {batch}: choose 1 or more pictures at once")
        self._batch = batch
        self._session = open_session(faster_model(path), provider)
        self._input = self._session.get_inputs()[0].name
        if len(self._session.get_outputs()) != 3 * len(_STRIDES):
            raise InputError(f"{path} gives no key points, alignment needs them: use another pack")

    def find(self, canvases: list[NDArray[np.uint8]], min_score: float) -> list[Finds]:
        """Candidates of uint8 (H, W, 3) RGB canvases, all of one size with sides that are multiples of 32 px."""
        import cv2

        found: list[Finds] = []
        for start in range(0, len(canvases), self._batch):
            chunk = canvases[start : start + self._batch]
            height, width = chunk[0].shape[:2]
            blob = cv2.dnn.blobFromImages(chunk, 1 / 128, None, (127.5, 127.5, 127.5))
            outputs = self._session.run(None, {self._input: blob})
            maps = [
                _as_map(out, len(chunk), height // stride, width // stride)
                for out, stride in zip(outputs, _STRIDES * 3, strict=True)
            ]
            found += [_decode([out[i] for out in maps], min_score) for i in range(len(chunk))]
        return found


def _as_map(out: NDArray[np.float32], count: int, height: int, width: int) -> NDArray[np.float32]:
    """An output as (pictures, anchors x values, height, width), which it is unless its model flattens it.

    InsightFace's exports move the picture's axis behind the two of the map before they flatten: rows go by position.
    """
    return out if out.ndim == 4 else out.reshape(height, width, count, -1).transpose(2, 3, 0, 1)


def _decode(maps: list[NDArray[np.float32]], min_score: float) -> Finds:
    """Scores, distances to the box's sides and offsets of points, per stride, as candidates without doubles."""
    boxes, points, scores = [], [], []
    levels = len(_STRIDES)
    for level, stride in enumerate(_STRIDES):
        score = maps[level].transpose(1, 2, 0)  # by position, then by anchor
        rows = np.flatnonzero(score >= min_score)
        if not len(rows):
            continue
        place, anchor = np.divmod(rows, _ANCHORS)
        y, x = np.divmod(place, score.shape[1])
        centres = np.stack([x, y], axis=1).astype(np.float32) * stride
        sides, offsets = (
            maps[level + step].reshape(_ANCHORS, -1, *score.shape[:2])[anchor, :, y, x] * stride
            for step in (levels, 2 * levels)
        )
        boxes.append(np.concatenate([centres - sides[:, :2], centres + sides[:, 2:]], axis=1))
        points.append(centres[:, None] + offsets.reshape(-1, 5, 2))
        scores.append(score[y, x, anchor])
    if not boxes:
        return no_finds()
    every = Finds(np.concatenate(boxes), np.concatenate(points), np.concatenate(scores))
    return every.take(suppressed(every.boxes, every.scores))


def suppressed(boxes: NDArray[np.float32], scores: NDArray[np.float32], iou: float = _NMS_IOU) -> NDArray[np.int64]:
    """Indices that greedy non-maximum suppression keeps, best score first; ties by order."""
    order = np.argsort(-scores, kind="stable")
    ordered = boxes[order]
    near = overlaps(ordered[:, None], ordered[None]) > iou
    keep, free = [], np.ones(len(order), dtype=bool)
    for place in range(len(order)):
        if free[place]:
            keep.append(order[place])
            free &= ~near[place]
    return np.array(keep, dtype=np.int64)


def overlaps(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union of boxes (..., 4) and (..., 4), whose leading axes broadcast."""
    across = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    down = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    common = np.maximum(across, 0) * np.maximum(down, 0)
    union = _areas(a) + _areas(b) - common
    return np.asarray(common / np.maximum(union, 1e-9), dtype=np.float32)


def _areas(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return np.asarray(sides[..., 0] * sides[..., 1])
