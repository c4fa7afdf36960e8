"""What a model.onnx declares, read from its bytes before any library loads it.

ONNX Runtime resolves external tensor data against the file system while it loads a graph, so a stranger's model must
be looked at first. The base install has no `onnx` package; the few protobuf fields needed here are walked by number
(field numbers: onnx/onnx.proto, stable since ONNX 1.0). The wire format: https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

STANDARD_DOMAINS = frozenset({"", "ai.onnx"})

# message -> field number -> message that lies in the field; only what leads to tensors, nodes, inputs and outputs
_CHILDREN = {
    "Model": {7: "Graph", 25: "Function"},
    "Graph": {1: "Node", 5: "Tensor", 11: "Input", 12: "Output", 15: "SparseTensor"},
    "Function": {7: "Node"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Subgraph", 10: "Tensor", 11: "Subgraph", 22: "SparseTensor", 23: "SparseTensor"},
    "Subgraph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Input": {2: "Type"},
    "Output": {2: "Type"},
    "Type": {1: "TensorType"},
    "TensorType": {2: "Shape"},
    "Shape": {1: "Dimension"},
}
_MAX_DEPTH = 32
_MAX_MESSAGES = 500_000  # nodes, tensors and the like; a graph of 2,000 nodes has 20,000
_EXTERNAL = 1  # TensorProto.DataLocation.EXTERNAL


@dataclass(frozen=True)
class TensorDeclaration:
    """A graph input or output: element type as in TensorProto.DataType (1 float32, 2 uint8); None: dynamic."""

    name: str
    element_type: int
    shape: tuple[int | None, ...]


@dataclass
class GraphFacts:
    """Everything that the bundle's rules ask of a graph."""

    inputs: list[TensorDeclaration] = field(default_factory=list)  # without initializers
    outputs: list[TensorDeclaration] = field(default_factory=list)
    domains: set[str] = field(default_factory=set)  # of every node, also in functions and subgraphs
    external_tensors: int = 0
    functions: int = 0
    nodes: int = 0
    messages: int = field(default=0, compare=False)  # that were looked into


def read_graph_facts(model: bytes) -> GraphFacts:
    """Walk the protobuf bytes of an ONNX model.

    Raises:
        ValueError: The bytes are not a well-formed protobuf message or hold no graph.
    """
    facts = GraphFacts()
    initializers: set[str] = set()
    graphs = [value for number, value in read_fields(memoryview(model)) if number == 7]
    if len(graphs) != 1 or not isinstance(graphs[0], memoryview):
        raise ValueError(f"the file holds {len(graphs)} graphs")
    _walk(memoryview(model), "Model", facts, initializers, 0)
    facts.inputs = [tensor for tensor in facts.inputs if tensor.name not in initializers]
    return facts


def _walk(message: memoryview, kind: str, facts: GraphFacts, initializers: set[str], depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError(f"messages are nested more than {_MAX_DEPTH} deep")
    facts.messages += 1
    if facts.messages > _MAX_MESSAGES:
        raise ValueError(f"it has more than {_MAX_MESSAGES:,} nodes and tensors")
    children = _CHILDREN.get(kind, {})
    if kind in ("Input", "Output"):
        (facts.inputs if kind == "Input" else facts.outputs).append(_declaration(message))
        return
    facts.functions += kind == "Function"
    if kind == "Node":
        facts.nodes += 1
        facts.domains.add(read_text(message, 7))
    if kind == "Tensor":
        facts.external_tensors += any(n == 13 or (n == 14 and value == _EXTERNAL) for n, value in read_fields(message))
    for number, value in read_fields(message):
        if number in children and isinstance(value, memoryview):
            if kind == "Graph" and number == 5:
                initializers.add(read_text(value, 8))
            _walk(value, children[number], facts, initializers, depth + 1)


def _declaration(message: memoryview) -> TensorDeclaration:
    element_type, shape = 0, []
    for tensor_type in _inside(_inside([message], 2), 1):
        for number, value in read_fields(tensor_type):
            if number == 1 and isinstance(value, int):
                element_type = value
            elif number == 2 and isinstance(value, memoryview):
                shape += [_dimension(dimension) for dimension in _inside([value], 1)]
    return TensorDeclaration(read_text(message, 1), element_type, tuple(shape))


def _dimension(message: memoryview) -> int | None:
    sizes = [value for number, value in read_fields(message) if number == 1 and isinstance(value, int)]
    return sizes[-1] if sizes else None


def _inside(messages: list[memoryview], number: int) -> list[memoryview]:
    return [
        value
        for message in messages
        for found, value in read_fields(message)
        if found == number and isinstance(value, memoryview)
    ]


def read_text(message: memoryview, number: int) -> str:
    """The last string in a field; "" where the message has none."""
    texts = [bytes(value) for found, value in read_fields(message) if found == number and isinstance(value, memoryview)]
    return texts[-1].decode("utf-8", "backslashreplace") if texts else ""


def read_fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The (field number, value) pairs of one message: an int for a varint, the bytes for everything else.

    Raises:
        ValueError: The bytes are not a well-formed message.
    """
    position = 0
    while position < len(message):
        key, position = read_varint(message, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            value, position = read_varint(message, position)
            yield number, value
            continue
        if wire_type == 2:
            size, position = read_varint(message, position)
        elif wire_type in (1, 5):
            size = 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"wire type {wire_type} at byte {position}")
        if position + size > len(message):
            raise ValueError(f"a field of {size} bytes at byte {position} runs past the end")
        yield number, message[position : position + size]
        position += size


def read_varint(message: memoryview, position: int) -> tuple[int, int]:
    """A number of seven bits a byte, and the position after it.

    Raises:
        ValueError: The message ends inside it, or it has more than ten bytes.
    """
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise ValueError("the message ends inside a number")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError(f"a number of more than ten bytes at byte {position}")
