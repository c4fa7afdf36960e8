"""An FP32 ONNX graph -> the same graph in FP16, for a strongly typed TensorRT network.

TensorRT 11 takes the precision of every layer from the graph; its FP16 builder flag is gone, so the types are set here.
What a node may compute in FP16 is read from ONNX's operator schemas, not from a list of operators. FP32 stay:

- the head, from the last global pooling to the softmax: a few nodes on one vector per image, where rounding would reach
  the probabilities at once;
- what does not depend on the pixels: shape arithmetic, where 2049 is not 2048;
- the nodes that the caller names, because the range audit (`graph.range_audit`) saw them near FP16's limit;
- inputs that an operator takes in FP32 only, such as the scales of Resize.

FP16 is IEEE 754 binary16: 11 bits of precision, at most 65504. ONNX: https://onnx.ai/onnx/intro/concepts.html
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import float16
from numpy.typing import NDArray

from mribatch.trt.graph.typed import FLOAT, HALF, TypedGraph, make_conversion_error, node_name, read_graph

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

HALF_MAX = 65504.0
_FLOAT_ONLY = frozenset({("Resize", 1)})  # roi: ONNX allows FP16, but it belongs to the scales, which are FP32
_SUFFIX = {FLOAT: "float", HALF: "half"}


@dataclass(frozen=True)
class Fp16Graph:
    """An ONNX graph that computes in FP16.

    model: ONNX bytes, the same for the same input on every machine. sha256: hex, of `model`. fp32_nodes: names of the
    nodes that give FP32, in graph order, without casts. half_nodes: how many nodes give FP16, without casts.
    """

    model: bytes
    sha256: str
    fp32_nodes: tuple[str, ...]
    half_nodes: int


def to_fp16(model: bytes, *, keep_fp32: Collection[str] = ()) -> Fp16Graph:
    """Convert a graph. Inputs and outputs keep their names, shapes and types; converting twice changes nothing more.

    Args:
        model: ONNX bytes, of one or more outputs. A float input stays float32 and is cast after it.
        keep_fp32: Names of nodes (`mribatch.trt.graph.typed.node_name`) that must not compute in FP16.

    Raises:
        MribatchError: The graph has subgraphs, custom operators or external data, or a constant of a node that is to
            compute in FP16 overflows or vanishes in it.
        ValueError: `keep_fp32` names a node that the graph does not have.
    """
    graph = read_graph(model)
    half = find_half_candidates(graph) - set(keep_fp32)
    unknown = set(keep_fp32) - {node_name(node) for node in graph.nodes}
    if unknown:
        raise ValueError(f"the graph has no node {', '.join(sorted(unknown))}")
    conversion = _Conversion(graph, half)
    conversion.run()
    content: bytes = graph.model.SerializeToString(deterministic=True)
    return _check_result(content, conversion.produced)


def find_half_candidates(graph: TypedGraph) -> frozenset[str]:
    """Names of the nodes that are not kept in FP32 by rule: neither the head nor free of pixels."""
    depend = {node_name(node) for node in graph.nodes if not graph.from_image.isdisjoint(node.output)}
    return frozenset(depend) - graph.head()


def list_half_inputs(graph: TypedGraph, node: "NodeProto") -> list[int]:
    """Positions of the float32 inputs that ONNX's schema of the operator also allows in FP16. A cast has none."""
    if node.op_type == "Cast":  # takes any type as it comes
        return []
    schema = _get_schema(graph, node)
    return [
        position
        for position, tensor in enumerate(node.input)
        if graph.types.get(tensor) == FLOAT
        and "tensor(float16)" in _get_parameter(schema.inputs, position).types
        and (node.op_type, position) not in _FLOAT_ONLY
    ]


def convert_values(values: NDArray[Any]) -> NDArray[float16] | None:
    """The values in FP16, or None where a finite one would become infinite or all of them zero."""
    with np.errstate(over="ignore"):
        half = values.astype(float16)
    overflows = bool((np.isfinite(values) & ~np.isfinite(half)).any())
    vanishes = bool(values.any()) and not half.any()
    return None if overflows or vanishes else half


def _list_half_outputs(graph: TypedGraph, node: "NodeProto") -> list[str]:
    """The float32 outputs whose type follows the inputs that become FP16."""
    schema = _get_schema(graph, node)
    variables = {_get_parameter(schema.inputs, position).type_str for position in list_half_inputs(graph, node)}
    return [
        tensor
        for position, tensor in enumerate(node.output)
        if graph.types.get(tensor) == FLOAT and _get_parameter(schema.outputs, position).type_str in variables
    ]


def _get_schema(graph: TypedGraph, node: "NodeProto") -> Any:
    from onnx import defs

    return defs.get_schema(node.op_type, graph.opset, "")


def _get_parameter(parameters: Any, position: int) -> Any:
    """The formal parameter at a position; the last one is repeated where the operator takes any number."""
    return parameters[min(position, len(parameters) - 1)]


@dataclass
class _Conversion:
    """One conversion: who wants which type, who gives which, and the casts between.

    half: names of the nodes that are to compute in FP16. wants: float tensor -> the types that its readers want.
    produced: tensor -> its type afterwards.
    """

    graph: TypedGraph
    half: frozenset[str]
    wants: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    produced: dict[str, int] = field(default_factory=dict)

    def run(self) -> None:
        """Change the graph's model in place."""
        nodes = self.graph.nodes
        wanted = [self._choose_input_types(node) for node in nodes]
        for node, types in zip(nodes, wanted, strict=True):
            for position, kind in types.items():
                self.wants[node.input[position]].add(kind)
        for output in self.graph.model.graph.output:
            self.wants[output.name].add(self.graph.types[output.name])
        self.produced = dict(self.graph.types)
        for node in nodes:
            self._produce(node)
        names = self._choose_names()
        self._write_constants(names)
        self._write_nodes(nodes, wanted, names)

    def _choose_input_types(self, node: "NodeProto") -> dict[int, int]:
        """Position of an input -> the type that the node reads it in; for float32 inputs of all nodes but casts."""
        if node.op_type == "Cast":
            return {}
        as_half = set(list_half_inputs(self.graph, node)) if node_name(node) in self.half else set()
        floats = (i for i, tensor in enumerate(node.input) if self.graph.types.get(tensor) == FLOAT)
        return {position: HALF if position in as_half else FLOAT for position in floats}

    def _produce(self, node: "NodeProto") -> None:
        """Note what the node gives. A cast to float32 becomes one to FP16 where a reader wants that."""
        if node_name(node) not in self.half:
            return
        if node.op_type != "Cast":
            self.produced.update(dict.fromkeys(_list_half_outputs(self.graph, node), HALF))
        elif self.graph.types[node.output[0]] == FLOAT and HALF in self.wants[node.output[0]]:
            self.produced[node.output[0]] = HALF
            (to,) = (attribute for attribute in node.attribute if attribute.name == "to")
            to.i = HALF

    def _choose_names(self) -> dict[tuple[str, int], str]:
        """(tensor, type) -> name, for every tensor that is read in another type than it is given in."""
        taken = set(self.graph.types)
        constants = self.graph.constants
        names: dict[tuple[str, int], str] = {}
        for tensor, kinds in self.wants.items():
            if tensor in constants and kinds == {HALF} and not self._is_read_by_cast(tensor):
                self.produced[tensor] = HALF  # the weight itself changes
            for kind in sorted(kinds - {self.produced[tensor]}):
                name = f"{tensor}_{_SUFFIX[kind]}"
                while name in taken:
                    name += "_"
                taken.add(name)
                names[tensor, kind] = name
                self.produced[name] = kind
        return names

    def _is_read_by_cast(self, tensor: str) -> bool:
        return any(node.op_type == "Cast" and tensor in node.input for node in self.graph.nodes)

    def _write_constants(self, names: Mapping[tuple[str, int], str]) -> None:
        weights = self.graph.model.graph.initializer
        written: list[TensorProto] = []
        for tensor in weights:
            if self.graph.types[tensor.name] != FLOAT:
                written.append(tensor)
                continue
            if self.produced[tensor.name] == HALF:
                written.append(self._halve(tensor, tensor.name))
            elif FLOAT in self.wants[tensor.name] or self._is_read_by_cast(tensor.name):
                written.append(tensor)
            if (tensor.name, HALF) in names:
                written.append(self._halve(tensor, names[tensor.name, HALF]))
        del weights[:]
        weights.extend(written)

    def _halve(self, tensor: "TensorProto", name: str) -> "TensorProto":
        from onnx import numpy_helper

        values = numpy_helper.to_array(tensor)
        half = convert_values(values)
        if half is None:
            raise make_conversion_error(
                f"constant '{tensor.name}' (largest {np.abs(values).max():.4g}) does not fit into FP16"
            )
        return numpy_helper.from_array(half, name)

    def _write_nodes(
        self, nodes: "list[NodeProto]", wanted: list[dict[int, int]], names: Mapping[tuple[str, int], str]
    ) -> None:
        graph = self.graph.model.graph
        constants = self.graph.constants
        written = [cast for entry in graph.input for cast in self._make_casts(entry.name, names)]
        for node, types in zip(nodes, wanted, strict=True):
            outputs = list(node.output)
            for position, kind in types.items():
                tensor = node.input[position]
                node.input[position] = names.get((tensor, kind), tensor)
            written.append(node)
            written += [
                cast for tensor in outputs if tensor not in constants for cast in self._make_casts(tensor, names)
            ]
        del graph.node[:]
        graph.node.extend(written)

    def _make_casts(self, tensor: str, names: Mapping[tuple[str, int], str]) -> "list[NodeProto]":
        from onnx import helper

        found = [(kind, names[tensor, kind]) for kind in (FLOAT, HALF) if (tensor, kind) in names]
        return [helper.make_node("Cast", [tensor], [name], name=f"{name}_cast", to=kind) for kind, name in found]


def _check_result(model: bytes, expected: Mapping[str, int]) -> Fp16Graph:
    """The result, after ONNX's own checker and its type inference have come to the same types."""
    import onnx

    graph = read_graph(model)
    onnx.checker.check_model(graph.model, full_check=True)
    wrong = [tensor for tensor, kind in graph.types.items() if expected[tensor] != kind]
    if wrong:
        raise make_conversion_error(f"ONNX infers another type than planned for '{wrong[0]}'")
    computing = [node for node in graph.nodes if node.op_type != "Cast"]
    kinds = [(node_name(node), {graph.types[tensor] for tensor in node.output if tensor}) for node in computing]
    return Fp16Graph(
        model=model,
        sha256=sha256(model).hexdigest(),
        fp32_nodes=tuple(name for name, types in kinds if FLOAT in types),
        half_nodes=sum(HALF in types for _, types in kinds),
    )
