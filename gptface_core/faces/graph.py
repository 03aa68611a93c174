"""An SCRFD model rewritten: the same numbers, bit for bit, from fewer and larger steps.

InsightFace's exports leave a fifth of a CPU's time on the table: a level's three heads, of 2, 8 and 20 channels, are
convolutions of one input that each take a register's width of channels; what is no work at all (shapes of shapes,
transposed and flattened outputs) takes some fifty steps.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

_NEAREST = {"mode": b"nearest", "nearest_mode": b"floor", "coordinate_transformation_mode": b"asymmetric"}
_PLACES_FIRST = [2, 3, 0, 1]  # how InsightFace's exports transpose (picture, channel, y, x) before they flatten it


def faster_model(path: Path) -> bytes:
    """The model at `path` with merged heads and plain maps as outputs, (pictures, channels, height, width) each, for
    any number of pictures; outputs of another form than InsightFace's stay as they are.

    Its sides must be multiples of 32 px, so that each map has twice the sides of the next.
    """
    import onnx

    model = onnx.load(os.fspath(path))
    graph = model.graph
    _free_outputs(graph)
    _double_maps(graph)
    _merge_convolutions(graph)
    _drop_unused(graph)
    graph.input[0].type.tensor_type.shape.dim[0].dim_param = "pictures"
    del graph.value_info[:]
    return bytes(model.SerializeToString())


def _free_outputs(graph: GraphProto) -> None:
    """Outputs before they are transposed and flattened; where there is a sigmoid after that, it is put there."""
    from onnx import TensorProto, helper

    made_by = {name: node for node in graph.node for name in node.output}
    for index, output in enumerate(list(graph.output)):
        last = made_by[output.name]
        sigmoid = last.op_type == "Sigmoid"
        reshape = made_by.get(last.input[0]) if sigmoid else last
        transpose = made_by.get(reshape.input[0]) if reshape is not None and reshape.op_type == "Reshape" else None
        if transpose is None or transpose.op_type != "Transpose" or _ints(transpose, "perm") != _PLACES_FIRST:
            output.type.tensor_type.shape.dim[0].dim_param = f"anchors{index}"
            continue
        if sigmoid:
            last.input[0] = transpose.input[0]
        name = last.output[0] if sigmoid else transpose.input[0]
        output.CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))


def _double_maps(graph: GraphProto) -> None:
    """Maps enlarged to the size of the next one are simply doubled, without asking for that size.

    Of other factors than 2 the sum that follows would be an error, not another number.
    """
    from onnx import numpy_helper

    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], dtype=np.float32), "scales_of_a_level")
    for node in graph.node:
        how = {a.name: a.s for a in node.attribute}
        if node.op_type == "Resize" and len(node.input) == 4 and how.items() >= _NEAREST.items():
            node.input[:] = [*node.input[:2], scales.name]
    graph.initializer.append(scales)  # dropped again where nothing asks for it


def _merge_convolutions(graph: GraphProto) -> None:
    """Convolutions of one input that differ in their filters alone become one, whose channels are then split."""
    from onnx import helper, numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    alike: dict[Any, list[NodeProto]] = defaultdict(list)
    for node in graph.node:
        if node.op_type == "Conv" and len(node.input) == 3 and set(node.input[1:]) <= set(constants):
            how = tuple(sorted((a.name, a.SerializeToString()) for a in node.attribute))
            if _ints(node, "group") in ([], [1]):
                alike[node.input[0], how].append(node)
    for nodes in (some for some in alike.values() if len(some) > 1):
        first, name = nodes[0], f"{nodes[0].output[0]}_merged"
        filters, biases = ([numpy_helper.to_array(constants[node.input[place]]) for node in nodes] for place in (1, 2))
        sizes = [len(bias) for bias in biases]
        names = [f"{name}_filters", f"{name}_biases"]
        for tensor, parts in zip(names, (filters, biases), strict=True):
            graph.initializer.append(numpy_helper.from_array(np.concatenate(parts), tensor))
        split = helper.make_node("Split", [name], [node.output[0] for node in nodes], axis=1, split=sizes)
        first.input[1:] = names
        first.output[0] = name
        for node in nodes[1:]:
            graph.node.remove(node)
        graph.node.insert(list(graph.node).index(first) + 1, split)


def _drop_unused(graph: GraphProto) -> None:
    """Without the nodes and constants that no output needs any more."""
    needed = {output.name for output in graph.output}
    for node in reversed(list(graph.node)):
        if needed.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            needed.update(node.input)
    for tensor in list(graph.initializer):
        if tensor.name not in needed:
            graph.initializer.remove(tensor)


def _ints(node: NodeProto, name: str) -> list[int]:
    """An attribute of whole numbers; none where it is not there."""
    return next((list(a.ints) or [a.i] for a in node.attribute if a.name == name), [])
