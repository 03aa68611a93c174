"""InsightFace's SCRFD detector, used directly: one thread, our own session, a size that fits the picture."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gptface_core.errors import InputError
from gptface_core.faces.detector import DEFAULT_MIN_SCORE, Face, make_faces

if TYPE_CHECKING:
    from gptface_core.faces.packs import Pack

_STRIDE_PX = 32  # the coarsest of SCRFD's feature maps
_SMALL_PX, _LARGE_PX = 320, 640
# Up to this longer side a face of 64 px is at least 32 px in the small input, well above SCRFD's smallest anchor (16).
_SMALL_UP_TO_PX = 640
# Second look, only where the first finds nothing: the picture at half the small input, framed in black. A face that
# fills the picture (or goes beyond it) is then as large as SCRFD's larger anchors.
_SECOND_FILL = 0.5


def open_session(path: os.PathLike[str] | str, provider: str = "CPUExecutionProvider") -> Any:
    """An onnxruntime session on one thread that does not spin: several workers share the cores without a fight.

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
    try:
        session = onnxruntime.InferenceSession(os.fspath(path), options, providers=[provider])
    except (ValueError, RuntimeError) as error:
        raise InputError(f"onnxruntime cannot open {os.fspath(path)} with {provider}: {str(error)[:200]}") from error
    if session.get_providers()[0] != provider:
        raise InputError(f"onnxruntime has no {provider} here, it would run on {session.get_providers()[0]}")
    return session


def describe(pack: Pack, det_size: int | None, min_score: float) -> str:
    """Pack, model, its sha256 and parameters: `insightface:buffalo_sc/det_500m:5e4447f5:size=auto:score=0.5`."""
    size = "auto" if det_size is None else str(det_size)
    return f"insightface:{pack.name}/{pack.detector.stem}:{pack.sha256[:8]}:size={size}:score={min_score:g}"


class ScrfdDetector:
    """SCRFD (Guo et al. 2021) of an InsightFace pack, through insightface's own class.

    Pictures up to 640 px are looked at in 320 x 320, larger ones in 640 x 640, unless `det_size` fixes it.
    """

    def __init__(self, pack: Pack, det_size: int | None = None, min_score: float = DEFAULT_MIN_SCORE) -> None:
        if det_size is not None and (det_size < _STRIDE_PX or det_size % _STRIDE_PX):
            raise InputError(f"det_size {det_size}: choose a multiple of {_STRIDE_PX}, e.g. 320 or 640")
        if not 0.0 < min_score < 1.0:
            raise InputError(f"min_score {min_score}: choose a number between 0 and 1, e.g. 0.5")
        # insightface imports albumentations, which asks the network for updates unless told not to.
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        from insightface.model_zoo.scrfd import SCRFD

        self._pack = pack
        self._det_size = det_size
        self._min_score = min_score
        # Given the session alone, the class shares it between input sizes and never loads a model of its own.
        self._scrfd = SCRFD(session=open_session(pack.detector))
        if not self._scrfd.use_kps:
            raise InputError(f"{pack.detector} gives no key points, alignment needs them: use another pack")

    def describe(self) -> str:
        return describe(self._pack, self._det_size, self._min_score)

    def detect(self, rgb: NDArray[np.uint8]) -> list[Face]:
        """Faces of a uint8 (H, W, 3) RGB picture, the largest first."""
        first_px = self._det_size or (_SMALL_PX if max(rgb.shape[:2]) <= _SMALL_UP_TO_PX else _LARGE_PX)
        return self._look(rgb, first_px, 1.0) or self._look(rgb, min(first_px, _SMALL_PX), _SECOND_FILL)

    def _look(self, rgb: NDArray[np.uint8], side_px: int, fill: float) -> list[Face]:
        canvas, scale, offset = letterbox(rgb, side_px, fill)
        boxes, points = self._scrfd.detect(canvas, input_size=(side_px, side_px), det_thresh=self._min_score)
        boxes_px = (boxes[:, :4] - np.tile(offset, 2)) / np.tile(scale, 2)
        return make_faces(boxes_px, (points - offset) / scale, boxes[:, 4], rgb.shape)


def letterbox(
    rgb: NDArray[np.uint8], side_px: int, fill: float
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
    """The picture centred on a black square, its longer side `fill` times `side_px`, as BGR (what insightface takes).

    Returns:
        canvas uint8 (side, side, 3); scale and offset, each float32 (x, y): canvas = picture * scale + offset.
    """
    import cv2

    height, width = rgb.shape[:2]
    ratio = side_px * fill / max(height, width)
    size = max(1, round(width * ratio)), max(1, round(height * ratio))
    resized = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR)
    left, top = (side_px - size[0]) // 2, (side_px - size[1]) // 2
    canvas = np.zeros((side_px, side_px, 3), dtype=np.uint8)
    canvas[top : top + size[1], left : left + size[0]] = resized[:, :, ::-1]
    scale = np.array([size[0] / width, size[1] / height], dtype=np.float32)
    return canvas, scale, np.array([left, top], dtype=np.float32)
