"""Channels that are copies of one grey channel: what cuts the first of them out reads the original in its place.

Networks with ImageNet weights want three channels, so a slice is copied to three, of which the frame needs one. Cutting
it out again costs 5 % of the time of a graph of 192 px; probabilities stay the same to the last bit. (A first
convolution over one channel with the sums of its weights, in place of three equal ones, is slower in ONNX Runtime.)
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_grey_directly(model: Any) -> None:
    """Rewrite the graph in place."""
    from onnx import numpy_helper, shape_inference

    graph = model.graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    values = shape_inference.infer_shapes(model).graph
    sides = {
        value.name: [side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in (*values.value_info, *values.input)
    }
    for concat in [node for node in graph.node if node.op_type == "Concat" and len(set(node.input)) == 1]:
        shape = sides.get(concat.input[0], [])
        axis = concat.attribute[0].i % max(len(shape), 1)
        if not shape or shape[axis] != 1:
            continue
        for cut in [node for node in graph.node if concat.output[0] in node.input]:
            if _takes_first(cut, axis, len(shape), weights):
                _replace(graph, cut, concat.input[0])
        if not any(concat.output[0] in node.input for node in graph.node):
            graph.node.remove(concat)


def _takes_first(node: Any, axis: int, rank: int, weights: Mapping[str, NDArray[np.generic]]) -> bool:
    """Whether a node cuts the first channel out, and nothing else."""
    if node.op_type != "Slice" or not 4 <= len(node.input) <= 5 or any(name not in weights for name in node.input[1:]):
        return False
    begin, end, along, *steps = (weights[name].tolist() for name in node.input[1:])
    return (begin, end) == ([0], [1]) and along in ([axis], [axis - rank]) and steps in ([], [[1]])


def _replace(graph: Any, cut: Any, grey: str) -> None:
    for reader in graph.node:
        for place, name in enumerate(reader.input):
            if name == cut.output[0]:
                reader.input[place] = grey
    graph.node.remove(cut)
