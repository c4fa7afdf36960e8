"""The head of a classifier's graph, found in the bytes of an ONNX model: what is pooled, and the weights after it.

Where a network ends in a global average pooling and one dense layer, the logits are a weighted mean of its last feature
map. That map becomes a second output by appending to the file's bytes: protobuf merges repeated fields of one message
(https://protobuf.dev/programming-guides/encoding/#last-one-wins), so no `onnx` package is needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy import float32
from numpy.typing import NDArray

from mribatch.core.onnx_graph import read_fields, read_text, read_varint

_FLOAT, _INT64 = 1, 7  # TensorProto.DataType
_PASS_ON = ("Squeeze", "Flatten", "Reshape", "Identity", "Dropout")  # between pooling and dense layer
_BY_CONSTANT = ("Mul", "Div", "Add")  # between dense layer and softmax: temperature, bias
_SPATIAL = {(2, 3): "NCHW", (1, 2): "NHWC", (-2, -1): "NCHW"}


@dataclass(frozen=True)
class Node:
    """One operator of a graph."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, bytes]  # name -> AttributeProto


@dataclass(frozen=True)
class PoolingHead:
    """A head that pools a feature map and gives its means to one dense layer.

    weights: float32, shape (channels, classes). scale: what the weighted mean is multiplied by before the softmax.
    bias: float32, shape (classes,): logits = scale * (mean of the map @ weights) + bias.
    """

    feature_map: str  # name of the tensor
    layout: str  # "NCHW" or "NHWC"
    weights: NDArray[float32]
    scale: float
    bias: NDArray[float32]


def find_pooling_head(model: bytes, output: str) -> PoolingHead | None:
    """Follow a graph back from its softmax to the pooled feature map.

    Args:
        model: An ONNX file's bytes.
        output: Name of the graph's output.

    Returns:
        None where the network ends in another way, e.g. in two dense layers.
    """
    graph = _Graph(model)
    node = graph.maker(output)
    if node is None or node.operator != "Softmax":
        return None
    found = graph.follow_to_dense(node.inputs[0])
    if found is None:
        return None
    pooled, weights, scale, bias = found
    node = graph.maker(pooled)
    while node is not None and node.operator in _PASS_ON:
        node = graph.maker(node.inputs[0])
    layout = None if node is None else graph.find_layout(node)
    if node is None or layout is None:
        return None
    return PoolingHead(node.inputs[0], layout, weights, scale, bias)


def add_output(model: bytes, name: str) -> bytes:
    """The same model with one more output, a tensor that is inside its graph."""
    value_info = _field(1, name.encode())
    return model + _field(7, _field(12, value_info))  # ModelProto.graph, GraphProto.output


class _Graph:
    """Nodes by what they make, and the weights."""

    def __init__(self, model: bytes) -> None:
        self._makers: dict[str, Node] = {}
        self._tensors: dict[str, memoryview] = {}
        for number, graph in read_fields(memoryview(model)):
            if number == 7 and isinstance(graph, memoryview):
                self._read(graph)

    def _read(self, graph: memoryview) -> None:
        for number, value in read_fields(graph):
            if number == 1 and isinstance(value, memoryview):
                node = _read_node(value)
                self._makers |= dict.fromkeys(node.outputs, node)
            elif number == 5 and isinstance(value, memoryview):
                self._tensors[read_text(value, 8)] = value

    def maker(self, name: str) -> Node | None:
        """The node that makes a tensor."""
        return self._makers.get(name)

    def constant(self, name: str) -> NDArray[np.generic] | None:
        """A float32 or int64 tensor of the file, by name; None where it is computed or of another type."""
        tensor = self._tensors.get(name)
        return None if tensor is None else _read_tensor(tensor)

    def follow_to_dense(self, name: str) -> tuple[str, NDArray[float32], float, NDArray[float32]] | None:
        """From the softmax's input to the dense layer's: that tensor, weights, scale, bias."""
        scale, bias = 1.0, np.zeros(1, float32)
        while (node := self.maker(name)) is not None:
            if node.operator in ("MatMul", "Gemm"):
                return self._dense(node, scale, bias)
            split = self._split_constant(node)
            if node.operator not in _BY_CONSTANT or split is None:
                return None
            name, value = split
            if node.operator == "Add":
                bias = bias + scale * value.reshape(-1)
            elif value.size == 1:
                scale *= float(value.reshape(-1)[0]) if node.operator == "Mul" else 1 / float(value.reshape(-1)[0])
            else:
                return None
        return None

    def _split_constant(self, node: Node) -> tuple[str, NDArray[float32]] | None:
        """The computed input of a binary operator, and its constant one."""
        if len(node.inputs) != 2:
            return None
        for computed, constant in (node.inputs, node.inputs[::-1]):
            value = self.constant(constant)
            if value is not None and not (node.operator == "Div" and constant == node.inputs[0]):
                return computed, value.astype(float32)
        return None

    def _dense(
        self, node: Node, scale: float, bias: NDArray[float32]
    ) -> tuple[str, NDArray[float32], float, NDArray[float32]] | None:
        weights = self.constant(node.inputs[1])
        if weights is None or weights.ndim != 2:
            return None
        if node.operator == "Gemm":
            if "transB" in node.attributes and _attribute_int(node.attributes["transB"]):
                weights = weights.T
            extra = self.constant(node.inputs[2]) if len(node.inputs) > 2 else None
            if any(name in node.attributes for name in ("alpha", "beta", "transA")):
                return None
            bias = bias if extra is None else bias + scale * extra.astype(float32).reshape(-1)
        matrix = np.ascontiguousarray(weights, float32)
        return node.inputs[0], matrix, scale, np.broadcast_to(bias, (matrix.shape[1],)).astype(float32)

    def find_layout(self, node: Node) -> str | None:
        """Where the channels of the tensor are that a node pools; None for a node that does not pool over a picture."""
        if node.operator == "GlobalAveragePool":
            return "NCHW"
        if node.operator != "ReduceMean":
            return None
        axes: Sequence[int] = ()
        if len(node.inputs) > 1:
            constant = self.constant(node.inputs[1])
            axes = () if constant is None else constant.reshape(-1).tolist()
        elif "axes" in node.attributes:
            axes = _attribute_ints(node.attributes["axes"])
        return _SPATIAL.get((axes[0], axes[1])) if len(axes) == 2 else None


def _read_node(message: memoryview) -> Node:
    inputs, outputs, attributes = [], [], {}
    for number, value in read_fields(message):
        if not isinstance(value, memoryview):
            continue
        if number == 1:
            inputs.append(bytes(value).decode("utf-8", "replace"))
        elif number == 2:
            outputs.append(bytes(value).decode("utf-8", "replace"))
        elif number == 5:
            attributes[read_text(value, 1)] = bytes(value)
    return Node(read_text(message, 4), tuple(inputs), tuple(outputs), attributes)


def _read_tensor(message: memoryview) -> NDArray[np.generic] | None:
    """TensorProto: dims 1, data_type 2, float_data 4, int64_data 7, raw_data 9."""
    shape: list[int] = []
    kind, raw, floats = 0, b"", b""
    for number, value in read_fields(message):
        if number == 1:
            shape += [value] if isinstance(value, int) else _varints(value)
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number == 9 and isinstance(value, memoryview):
            raw = bytes(value)
        elif number == 4 and isinstance(value, memoryview):
            floats += bytes(value)  # packed, or one value of four bytes
    if kind not in (_FLOAT, _INT64):
        return None
    data = np.frombuffer(raw or floats, "<f4" if kind == _FLOAT else "<i8")
    return data.reshape(shape) if data.size == int(np.prod(shape, dtype=np.int64)) else None


def _varints(message: memoryview) -> list[int]:
    """A packed field of whole numbers."""
    values, position = [], 0
    while position < len(message):
        value, position = read_varint(message, position)
        values.append(value)
    return values


def _attribute_int(message: bytes) -> int:
    """AttributeProto.i; 0 where it is not there."""
    return next(
        (value for number, value in read_fields(memoryview(message)) if number == 3 and isinstance(value, int)), 0
    )


def _attribute_ints(message: bytes) -> list[int]:
    """AttributeProto.ints; negative numbers are ten bytes long on the wire."""
    found: list[int] = []
    for number, value in read_fields(memoryview(message)):
        if number == 8:
            found += [value] if isinstance(value, int) else _varints(value)
    return [value - (1 << 64) if value >= 1 << 63 else value for value in found]


def _field(number: int, content: bytes) -> bytes:
    """A field of bytes: key, length, content."""
    size, length = len(content), b""
    while size >= 0x80:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content
