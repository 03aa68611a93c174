"""A rewritten SCRFD gives the same numbers, bit for bit, in fewer steps; other forms of outputs stay as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gptface_core.faces.graph import faster_model
from gptface_core.faces.network import ScrfdNetwork, _as_map, open_session

onnx = pytest.importorskip("onnx")

MODEL = "insightface/models/buffalo_sc/det_500m.onnx"
HEADS = {"box": 8, "score": 2}  # channels


def small_model(path: Path, perm: tuple[int, ...] = (2, 3, 0, 1)) -> Path:
    """Two levels, the coarse one doubled by way of its neighbour's shape, two heads, flattened as InsightFace does."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(7)
    constants: list[Any] = [numpy_helper.from_array(np.array([], dtype=np.float32), "none")]

    def conv(source: str, name: str, channels: int, before: int, stride: int = 1) -> Any:
        for what, shape in (("filters", (channels, before, 3, 3)), ("biases", (channels,))):
            constants.append(numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), f"{name}_{what}"))
        inputs = [source, f"{name}_filters", f"{name}_biases"]
        return helper.make_node("Conv", inputs, [name], kernel_shape=[3, 3], pads=[1] * 4, strides=[stride] * 2)

    nodes = [
        conv("picture", "fine", 16, 3),
        conv("fine", "coarse", 16, 16, 2),
        helper.make_node("Shape", ["fine"], ["n"]),
    ]
    how = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
    nodes.append(helper.make_node("Resize", ["coarse", "none", "none", "n"], ["large"], **how))
    nodes.append(helper.make_node("Add", ["fine", "large"], ["sum"]))
    for name, channels in HEADS.items():
        nodes.append(conv("sum", f"{name}_map", channels, 16))
        nodes.append(helper.make_node("Transpose", [f"{name}_map"], [f"{name}_turned"], perm=perm))
        constants.append(numpy_helper.from_array(np.array([-1, channels // 2]), f"{name}_shape"))
        flat = f"{name}_flat" if name == "score" else name
        nodes.append(helper.make_node("Reshape", [f"{name}_turned", f"{name}_shape"], [flat]))
    nodes.append(helper.make_node("Sigmoid", ["score_flat"], ["score"]))
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, HEADS[name] // 2]) for name in HEADS]
    picture = helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, 3, None, None])
    graph = helper.make_graph(nodes, "small", [picture], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)
    onnx.save(model, str(path))
    return path


def answers(model: Path | bytes, pictures: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Every output as maps: the number of pictures, channels, height, width."""
    session = open_session(model)
    outs = session.run(None, {session.get_inputs()[0].name: pictures})
    count, _, height, width = pictures.shape
    return [_as_map(out, count, height, width) for out in outs]


def steps(model: bytes) -> list[str]:
    return sorted(node.op_type for node in onnx.load_from_string(model).graph.node)


def test_the_rewritten_model_gives_the_same_numbers_in_fewer_steps(tmp_path: Path) -> None:
    path = small_model(tmp_path / "small.onnx")
    pictures = np.random.default_rng(1).normal(size=(2, 3, 32, 64)).astype(np.float32)
    faster = faster_model(path)
    assert steps(faster) == ["Add", "Conv", "Conv", "Conv", "Resize", "Sigmoid", "Split"]
    together = answers(faster, pictures)
    for index in range(2):
        for one, many in zip(answers(path, pictures[index : index + 1]), together, strict=True):
            np.testing.assert_array_equal(one[0], many[index])


def test_outputs_of_another_form_stay_as_they_are(tmp_path: Path) -> None:
    path = small_model(tmp_path / "other.onnx", perm=(0, 2, 3, 1))
    pictures = np.random.default_rng(2).normal(size=(1, 3, 32, 32)).astype(np.float32)
    faster = faster_model(path)
    assert {"Transpose", "Reshape"} <= set(steps(faster))
    for one, other in zip(answers(path, pictures), answers(faster, pictures), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.realdata
@pytest.mark.parametrize("sides", [(128, 128), (224, 224), (256, 192), (320, 256)])
def test_insightfaces_model_gives_the_same_numbers(sides: tuple[int, int], test_models: Path) -> None:
    path = test_models / MODEL
    height, width = sides
    picture = np.random.default_rng(sides).uniform(-1, 1, (1, 3, height, width)).astype(np.float32)
    plain, faster = open_session(path), open_session(faster_model(path))
    wanted, got = (session.run(None, {session.get_inputs()[0].name: picture}) for session in (plain, faster))
    for index, (flat, grid) in enumerate(zip(wanted, got, strict=True)):
        stride = (8, 16, 32)[index % 3]
        assert grid.ndim == 4  # so it is not flattened any more
        np.testing.assert_array_equal(_as_map(flat, 1, height // stride, width // stride), grid)


@pytest.mark.realdata
def test_a_flattened_model_finds_the_same(test_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canvas = np.random.default_rng(3).integers(0, 256, (128, 160, 3), dtype=np.uint8)
    (fast,) = ScrfdNetwork(test_models / MODEL).find([canvas], 0.001)
    monkeypatch.setattr("gptface_core.faces.network.faster_model", Path.read_bytes)
    (plain,) = ScrfdNetwork(test_models / MODEL).find([canvas], 0.001)
    assert len(plain) > 0
    for name in ("boxes", "points", "scores"):
        np.testing.assert_array_equal(getattr(fast, name), getattr(plain, name))
