"""Models in bfloat16 on a CPU by Intel's OpenVINO: faster than float32 where the processor multiplies such numbers.

Other arithmetic gives other numbers: a recogniser's vectors turn a little. So nothing is computed like this unasked.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptface_core.errors import InputError

_TELEMETRY = "openvino_telemetry"
# One thread that does the work at once, as `network.open_session` has it: workers share the cores. Left to itself,
# OpenVINO binds the thread of every worker to the first core while it works, where they wait for each other.
_SETTINGS = {
    "INFERENCE_NUM_THREADS": 1,
    "NUM_STREAMS": 1,
    "PERFORMANCE_HINT": "LATENCY",
    "ENABLE_CPU_PINNING": False,
}


def open_core() -> Any:
    """OpenVINO's core on a machine that has bfloat16.

    Raises:
        InputError: OpenVINO is not installed, or has no bfloat16 on this processor.
    """
    core = _openvino().Core()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise InputError("precision bfloat16: this processor has no bfloat16, choose float32")
    return core


def _openvino() -> Any:
    """The package, which would tell Google Analytics of every import if `openvino_telemetry` were there to be found."""
    others = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # the documented way to make an import fail
    try:
        import openvino
    except ImportError as error:
        raise InputError(
            f"precision bfloat16 needs the package openvino ({error}): install it, or choose float32"
        ) from error
    finally:
        del sys.modules[_TELEMETRY]
        if others is not None:
            sys.modules[_TELEMETRY] = others
    return openvino


class Bfloat16Model:
    """An ONNX model with one input and one output, for so many rows at once: with a fixed shape it runs fastest."""

    def __init__(self, path: Path, batch: int) -> None:
        core = open_core()
        model = core.read_model(os.fspath(path))
        shape = model.inputs[0].partial_shape
        shape[0] = batch
        model.reshape(shape)
        compiled = core.compile_model(model, "CPU", {**_SETTINGS, "INFERENCE_PRECISION_HINT": "bf16"})
        taken = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if taken != "bf16":
            raise InputError(f"precision bfloat16: OpenVINO takes {taken} here, choose float32")
        self._batch = batch
        self._request = compiled.create_infer_request()

    def run(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Output for float32 (N, ...), N up to the batch: what is missing is filled with zeros and not told."""
        spare = [(0, self._batch - len(rows)), *[(0, 0)] * (rows.ndim - 1)]
        answer = self._request.infer([np.pad(rows, spare) if spare[0][1] else rows], share_inputs=True)
        return np.asarray(answer[0][: len(rows)], dtype=np.float32)
