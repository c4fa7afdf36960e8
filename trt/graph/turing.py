"""FP32 dense layers as 1x1 convolutions, for engines that TensorRT for RTX builds for Turing (sm75).

TensorRT for RTX 1.7 refuses them there: "Cannot compile operation … for Turing (SM75): FP32 GEMM is not supported". A
1x1 convolution over one pixel is the same sum of the same products, and is compiled.
"""

from typing import TYPE_CHECKING

import numpy as np

from mribatch.trt.graph.typed import FLOAT, TypedGraph, node_name, read_graph

if TYPE_CHECKING:
    from onnx import NodeProto

_AXES = "turing_axes"


def without_fp32_dense(model: bytes) -> tuple[bytes, tuple[str, ...]]:
    """The graph with every FP32 MatMul and Gemm of a (batch, features) tensor and constant weights as a convolution.

    Input, output and all other nodes stay; the convolutions have the names of the nodes they replace.

    Returns:
        ONNX bytes, and the names of the FP32 nodes around the convolutions.

    Raises:
        MribatchError: The bytes are not a graph that can be converted.
    """
    import onnx
    from onnx import numpy_helper

    graph = read_graph(model)
    before = {node_name(node) for node in graph.nodes}
    nodes = [
        part
        for node in graph.nodes
        for part in (_make_convolution(graph, node) if _can_replace(graph, node) else [node])
    ]
    added = tuple(node_name(node) for node in nodes if node_name(node) not in before)
    if not added:
        return model, ()
    proto = graph.model.graph
    del proto.node[:]
    proto.node.extend(nodes)
    if graph.opset >= 13:  # before, the axes are an attribute
        proto.initializer.append(numpy_helper.from_array(np.array([2, 3], dtype=np.int64), _AXES))
    used = {tensor for node in nodes for tensor in node.input}
    kept = [tensor for tensor in proto.initializer if tensor.name in used]
    del proto.initializer[:]
    proto.initializer.extend(kept)
    onnx.checker.check_model(graph.model, full_check=True)
    content: bytes = graph.model.SerializeToString(deterministic=True)
    return content, added


def _can_replace(graph: TypedGraph, node: "NodeProto") -> bool:
    if node.op_type not in ("MatMul", "Gemm") or graph.types.get(node.output[0]) != FLOAT:
        return False
    attributes = {attribute.name: attribute for attribute in node.attribute}
    plain = all(attributes[name].f == 1 for name in ("alpha", "beta") if name in attributes)
    plain &= not ("transA" in attributes and attributes["transA"].i)
    if len(node.input) > 2 and node.input[2]:
        plain &= node.input[2] in graph.constants
    weights, rows = graph.constants.get(node.input[1]), graph.shapes.get(node.input[0])
    return plain and weights is not None and len(weights.dims) == 2 and rows is not None and len(rows) == 2


def _make_convolution(graph: TypedGraph, node: "NodeProto") -> "list[NodeProto]":
    """(batch, features) -> (batch, features, 1, 1) -> convolution -> (batch, outputs)."""
    from onnx import helper, numpy_helper

    name = node_name(node)
    weights = numpy_helper.to_array(graph.constants[node.input[1]])
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    kernel = weights if transposed else weights.T
    kernel = np.ascontiguousarray(kernel.reshape(*kernel.shape, 1, 1))
    inputs = [f"{name}_pixel", f"{name}_kernel"]
    graph.model.graph.initializer.append(numpy_helper.from_array(kernel, inputs[1]))
    if len(node.input) > 2 and node.input[2]:  # Gemm's C may be a scalar or a row; a convolution's bias is a vector
        row = numpy_helper.to_array(graph.constants[node.input[2]]).reshape(-1)
        inputs.append(f"{name}_bias")
        bias = np.ascontiguousarray(np.broadcast_to(row, kernel.shape[0]))
        graph.model.graph.initializer.append(numpy_helper.from_array(bias, inputs[2]))
    by_input = graph.opset >= 13
    axes, attributes = ([_AXES], {}) if by_input else ([], {"axes": [2, 3]})
    result = f"{name}_result"
    return [
        helper.make_node("Unsqueeze", [node.input[0], *axes], [inputs[0]], name=f"{name}_to_pixel", **attributes),
        helper.make_node("Conv", inputs, [result], name=name, kernel_shape=[1, 1]),
        helper.make_node("Squeeze", [result, *axes], list(node.output), name=f"{name}_to_row", **attributes),
    ]
