"""An ONNX graph with the type and shape of every tensor, and which of its nodes belong to the classifier's head."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mribatch.core.errors import MribatchError
from mribatch.core.onnx_graph import STANDARD_DOMAINS, read_graph_facts

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

FLOAT, HALF = 1, 10  # TensorProto.DataType of float32 and float16

FIX = "build the engine in FP32, or classify with --backend onnxruntime"
_DENSE = ("Gemm", "MatMul", "Conv")


def node_name(node: "NodeProto") -> str:
    """What a node is called here: its name, or its first output where it has none."""
    return str(node.name or node.output[0])


@dataclass(frozen=True)
class TypedGraph:
    """A graph without subgraphs whose Constant nodes have become initializers and whose nodes all have names.

    model: Without value_info; belongs to the holder, who may change it. types: tensor -> TensorProto.DataType, of
    every tensor. shapes: tensor -> sizes, None for a dynamic one; a tensor of unknown rank is missing. from_image:
    the tensors whose values depend on the pixels, not on shapes or weights alone.
    """

    model: "ModelProto"
    types: Mapping[str, int]
    shapes: Mapping[str, tuple[int | None, ...]]
    from_image: frozenset[str]

    @property
    def nodes(self) -> "list[NodeProto]":
        """In topological order."""
        return list(self.model.graph.node)

    @property
    def constants(self) -> "dict[str, TensorProto]":
        """The weights: initializers by name."""
        return {tensor.name: tensor for tensor in self.model.graph.initializer}

    @property
    def opset(self) -> int:
        """Version of ONNX's own operators."""
        return max(int(entry.version) for entry in self.model.opset_import if entry.domain in STANDARD_DOMAINS)

    def is_vector(self, tensor: str) -> bool:
        """True for one vector per image: at most one axis beside the batch's is longer than 1."""
        shape = self.shapes.get(tensor)
        return shape is not None and sum(size != 1 for size in shape[1:]) <= 1

    def head(self) -> frozenset[str]:
        """Names of the nodes from the last global pooling to the outputs; without one, from the last dense layer.

        The pooling inside a squeeze-and-excitation block is not the last: after it comes a feature map again, and the
        way back from the outputs ends at feature maps.
        """
        found, pooled_everywhere = self._walk_back(self._is_global_pooling)
        if pooled_everywhere:
            return found
        return self._walk_back(lambda node: node.op_type in _DENSE)[0]

    def _walk_back(self, is_last: "Callable[[NodeProto], bool]") -> tuple[frozenset[str], bool]:
        """The nodes between the outputs and the nearest `is_last`, inclusive; and whether every way met one."""
        producers = {tensor: node for node in self.nodes for tensor in node.output}
        found: set[str] = set()
        complete = True
        waiting = [output.name for output in self.model.graph.output]
        while waiting:
            node = producers.get(waiting.pop())
            if node is None:
                complete = False
            elif node_name(node) not in found:
                found.add(node_name(node))
                for tensor in () if is_last(node) else self._list_float_inputs(node):
                    complete &= self.is_vector(tensor)
                    waiting += [tensor] if self.is_vector(tensor) else []
        return frozenset(found), complete

    def _list_float_inputs(self, node: "NodeProto") -> Iterator[str]:
        return (x for x in node.input if x in self.from_image and self.types[x] in (FLOAT, HALF))

    def _is_global_pooling(self, node: "NodeProto") -> bool:
        if node.op_type in ("AveragePool", "MaxPool"):
            return self.is_vector(node.output[0])
        return str(node.op_type).startswith(("Global", "Reduce"))


def read_graph(model: bytes) -> TypedGraph:
    """Parse an ONNX model and infer every tensor's type and shape.

    Raises:
        MribatchError: No ONNX model, one with external data, subgraphs, functions or operators that are not ONNX's
            own, or one whose types cannot be inferred.
    """
    import onnx

    _refuse_by_facts(model)
    try:
        proto = onnx.load_model_from_string(model)
        _refuse_by_structure(proto)
        _turn_constants_into_initializers(proto)
        _name_nodes(proto)
        del proto.graph.value_info[:]
        types, shapes = _infer(proto)
    except MribatchError:
        raise
    except Exception as error:  # protobuf's DecodeError and onnx's InferenceError share no base class
        raise make_conversion_error(f"its types cannot be inferred: {_take_first_line(error)}") from error
    return TypedGraph(proto, types, shapes, _find_image_tensors(proto))


def make_conversion_error(reason: str) -> MribatchError:
    """The error for a graph that cannot become FP16."""
    return MribatchError(f"the model cannot be converted to FP16: {reason}", FIX)


def _refuse_by_facts(model: bytes) -> None:
    try:
        facts = read_graph_facts(model)
    except ValueError as error:
        raise make_conversion_error(f"it is not an ONNX model: {error}") from error
    foreign = sorted(facts.domains - STANDARD_DOMAINS)
    if facts.external_tensors:
        raise make_conversion_error(f"it keeps {facts.external_tensors} tensors in external files")
    if foreign or facts.functions:
        raise make_conversion_error(f"it has custom operators of {', '.join(foreign) or 'its own functions'}")


def _refuse_by_structure(proto: "ModelProto") -> None:
    import onnx

    nested = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
    for node in proto.graph.node:
        if any(attribute.type in nested for attribute in node.attribute):
            raise make_conversion_error(f"node '{node_name(node)}' ({node.op_type}) has a subgraph")
    if proto.graph.sparse_initializer:
        raise make_conversion_error(f"it has {len(proto.graph.sparse_initializer)} sparse weights")


def _turn_constants_into_initializers(proto: "ModelProto") -> None:
    """One kind of constant instead of two. An initializer that is also an input (ONNX IR 3) becomes a constant."""
    from onnx import numpy_helper

    graph = proto.graph
    nodes = []
    for node in graph.node:
        values = _read_constant(node) if node.op_type == "Constant" else None
        if values is None:
            nodes.append(node)
        else:
            graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
    _replace(graph.node, nodes)
    constants = {tensor.name for tensor in graph.initializer}
    _replace(graph.input, [entry for entry in graph.input if entry.name not in constants])


def _name_nodes(proto: "ModelProto") -> None:
    """A name may be missing; then every parser makes one up, and a layer could not be identified by its node's name."""
    for node in proto.graph.node:
        node.name = node_name(node)


def _read_constant(node: "NodeProto") -> Any:
    """The array of a Constant node, or None where it holds text or a sparse tensor."""
    from onnx import helper, numpy_helper

    (attribute,) = node.attribute
    value = helper.get_attribute_value(attribute)
    match attribute.name:
        case "value":
            return numpy_helper.to_array(value)
        case "value_float" | "value_floats":
            return np.asarray(value, dtype=np.float32)
        case "value_int" | "value_ints":
            return np.asarray(value, dtype=np.int64)
    return None


def _replace(field: Any, entries: list[Any]) -> None:
    del field[:]
    field.extend(entries)


def _infer(proto: "ModelProto") -> tuple[dict[str, int], dict[str, tuple[int | None, ...]]]:
    import onnx

    graph = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True).graph
    types = {tensor.name: int(tensor.data_type) for tensor in graph.initializer}
    shapes: dict[str, tuple[int | None, ...]] = {t.name: tuple(t.dims) for t in graph.initializer}
    for entry in [*graph.input, *graph.value_info, *graph.output]:
        if not entry.type.HasField("tensor_type"):
            raise make_conversion_error(f"'{entry.name}' is not a tensor")
        tensor = entry.type.tensor_type
        types[entry.name] = int(tensor.elem_type)
        if tensor.HasField("shape"):
            sizes = tensor.shape.dim
            shapes[entry.name] = tuple(size.dim_value if size.HasField("dim_value") else None for size in sizes)
    for node in graph.node:
        for tensor_name in node.output:
            if tensor_name and tensor_name not in types:
                raise make_conversion_error(f"the type of '{tensor_name}' ({node.op_type}) is unknown")
    return types, shapes


def _find_image_tensors(proto: "ModelProto") -> frozenset[str]:
    reached = {entry.name for entry in proto.graph.input}
    for node in proto.graph.node:
        if node.op_type not in ("Shape", "Size") and not reached.isdisjoint(node.input):
            reached.update(node.output)
    return frozenset(reached - {""})


def _take_first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
