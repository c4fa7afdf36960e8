from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from mribatch.core.bundle import MODEL_FILE, shipped_models
from mribatch.core.onnx_graph import GraphFacts, TensorDeclaration, read_graph_facts
from tests.make_models import BAD_BUNDLES, make_bad, tiny_model

# --- the same facts by way of the onnx package ---------------------------------------------------------


def _facts_of_package(model: onnx.ModelProto) -> GraphFacts:
    facts = GraphFacts(functions=len(model.functions))
    initializers = {tensor.name for tensor in model.graph.initializer}
    facts.inputs = [_declared(value) for value in model.graph.input if value.name not in initializers]
    facts.outputs = [_declared(value) for value in model.graph.output]
    nodes = [*_nodes(model.graph), *(inner for f in model.functions for node in f.node for inner in _with_inner(node))]
    facts.nodes = len(nodes)
    facts.domains = {node.domain for node in nodes}
    facts.external_tensors = sum(map(_external, _tensors(model.graph, nodes)))
    return facts


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield from _with_inner(node)


def _with_inner(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    yield node
    for attribute in node.attribute:
        for graph in _graphs(attribute):
            yield from _nodes(graph)


def _graphs(attribute: onnx.AttributeProto) -> list[onnx.GraphProto]:
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _tensors(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    graphs = [graph] + [inner for node in nodes for attribute in node.attribute for inner in _graphs(attribute)]
    sparse = [tensor for graph in graphs for tensor in graph.sparse_initializer]
    for graph in graphs:
        yield from graph.initializer
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        yield from [attribute.t] if attribute.HasField("t") else []
        yield from attribute.tensors
        sparse += [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
        sparse += attribute.sparse_tensors
    for tensor in sparse:
        yield from (tensor.values, tensor.indices)


def _external(tensor: onnx.TensorProto) -> bool:
    return tensor.data_location == TensorProto.EXTERNAL or len(tensor.external_data) > 0


def _declared(value: onnx.ValueInfoProto) -> TensorDeclaration:
    kind = value.type.tensor_type
    shape = tuple(size.dim_value if size.HasField("dim_value") else None for size in kind.shape.dim)
    name: str | bytes = value.name  # bytes where it is not UTF-8
    shown = name if isinstance(name, str) else name.decode("utf-8", "backslashreplace")
    return TensorDeclaration(shown, kind.elem_type, shape)


# --- real models ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(shipped_models()))
def test_shipped_models_are_read_as_the_package_reads_them(name: str) -> None:
    content = (shipped_models()[name] / MODEL_FILE).read_bytes()
    facts = read_graph_facts(content)
    assert facts == _facts_of_package(onnx.load_model_from_string(content))
    assert facts.nodes > 10


@pytest.mark.parametrize("kind", sorted(kind for kind in BAD_BUNDLES if "golden" not in kind))
def test_broken_models_are_read_as_the_package_reads_them(tmp_path: Path, kind: str) -> None:
    path = make_bad(tmp_path, kind) / MODEL_FILE
    content = path.read_bytes() if path.exists() else tiny_model(4)
    try:
        expected = _facts_of_package(onnx.load_model_from_string(content))
    except DecodeError:
        expected = None
    if expected is None or not content:
        with pytest.raises(ValueError, match=r"wire type|0 graphs"):
            read_graph_facts(content)
    else:
        assert read_graph_facts(content) == expected


# --- models drawn at random ----------------------------------------------------------------------------

texts = st.text("ab.é", max_size=4)


@st.composite
def tensors(draw: st.DrawFn) -> onnx.TensorProto:
    tensor = TensorProto(name=draw(texts), data_type=TensorProto.FLOAT, dims=[1], raw_data=b"\0\0\0\0")
    if draw(st.integers(0, 3)) == 0:
        tensor.data_location = draw(st.sampled_from([TensorProto.EXTERNAL, TensorProto.DEFAULT]))
    if draw(st.integers(0, 5)) == 0:
        tensor.external_data.add(key="location", value="weights.bin")
    return tensor


@st.composite
def attributes(draw: st.DrawFn, depth: int) -> onnx.AttributeProto:
    attribute = AttributeProto(name=draw(texts))
    kind = draw(st.sampled_from(["none", "t", "tensors", "sparse", "sparse_list", "g", "graphs"]))
    if kind == "t":
        attribute.t.CopyFrom(draw(tensors()))
    elif kind == "tensors":
        attribute.tensors.extend(draw(st.lists(tensors(), max_size=2)))
    elif kind == "sparse":
        attribute.sparse_tensor.values.CopyFrom(draw(tensors()))
    elif kind == "sparse_list":
        attribute.sparse_tensors.add().indices.CopyFrom(draw(tensors()))
    elif kind == "g" and depth:
        attribute.g.CopyFrom(draw(graphs(depth - 1)))
    elif kind == "graphs" and depth:
        attribute.graphs.extend([draw(graphs(depth - 1))])
    return attribute


@st.composite
def graphs(draw: st.DrawFn, depth: int) -> onnx.GraphProto:
    graph = onnx.GraphProto(initializer=draw(st.lists(tensors(), max_size=2)))
    for _ in range(draw(st.integers(0, 2))):
        node = graph.node.add(op_type=draw(texts), domain=draw(texts))
        node.attribute.extend(draw(st.lists(attributes(depth), max_size=2)))
    for values in (graph.input, graph.output):
        for _ in range(draw(st.integers(0, 2))):
            shape = draw(st.lists(st.none() | texts | st.integers(0, 2**40), max_size=3))
            values.add().CopyFrom(helper.make_tensor_value_info(draw(texts), draw(st.integers(1, 16)), shape))
    if draw(st.integers(0, 4)) == 0:
        graph.sparse_initializer.add().values.CopyFrom(draw(tensors()))
    return graph


@st.composite
def models(draw: st.DrawFn) -> onnx.ModelProto:
    model = onnx.ModelProto(ir_version=8, graph=draw(graphs(2)))
    if draw(st.integers(0, 4)) == 0:
        node = model.functions.add(name="f").node.add(domain=draw(texts))
        node.attribute.extend(draw(st.lists(attributes(1), max_size=1)))
    return model


@settings(max_examples=150, deadline=None)
@given(models())
def test_random_models_are_read_as_the_package_reads_them(model: onnx.ModelProto) -> None:
    assert read_graph_facts(model.SerializeToString()) == _facts_of_package(model)


# --- hostile bytes -------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_with_a_value_error_or_read(content: bytes) -> None:
    try:
        read_graph_facts(content)
    except ValueError as error:
        assert str(error)


def _hostile_model() -> bytes:
    model = onnx.load_model_from_string(tiny_model(4))
    weight = numpy_helper.from_array(numpy_helper.to_array(model.graph.initializer[0]), "outside")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="/etc/passwd")
    model.graph.node[0].attribute.add(name="value", type=AttributeProto.TENSOR).t.CopyFrom(weight)
    model.graph.node[1].domain = "com.example"
    content: bytes = model.SerializeToString()
    return content


HOSTILE = _hostile_model()
edits = st.lists(
    st.tuples(st.integers(0, len(HOSTILE) - 1), st.integers(0, 3), st.binary(max_size=3)), min_size=1, max_size=4
)


@settings(max_examples=400, deadline=None)
@given(edits)
def test_nothing_that_the_package_finds_in_damaged_bytes_stays_unseen(changes: list[tuple[int, int, bytes]]) -> None:
    content = bytearray(HOSTILE)
    for position, removed, inserted in changes:
        content[position : position + removed] = inserted
    try:
        facts = read_graph_facts(bytes(content))
    except ValueError:
        return
    try:
        expected = _facts_of_package(onnx.load_model_from_string(bytes(content)))
    except (DecodeError, UnicodeDecodeError):
        return
    assert bool(expected.external_tensors) <= bool(facts.external_tensors)
    assert expected.functions <= facts.functions
    assert not Counter(expected.inputs) - Counter(facts.inputs)
    assert {domain for domain in expected.domains if domain.isascii()} <= facts.domains


def test_cut_anywhere_it_is_refused_or_read_without_another_error() -> None:
    refused = 0
    for size in range(len(HOSTILE)):
        try:
            read_graph_facts(HOSTILE[:size])
        except ValueError:
            refused += 1
    assert refused > len(HOSTILE) * 0.9


def test_deep_nesting_is_refused_before_the_stack_ends() -> None:
    content = b""
    for _ in range(2000):  # a graph in the attribute of a node of a graph …; the package itself cannot write this
        content = _field(1, _field(5, _field(6, content)))
    with pytest.raises(ValueError, match="nested more than 32 deep"):
        read_graph_facts(_field(7, content))


def _field(number: int, content: bytes) -> bytes:
    size, length = b"", len(content)
    while length >= 0x80:
        size += bytes([length & 0x7F | 0x80])
        length >>= 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + content


def test_parts_of_one_message_are_merged_as_protobuf_merges_them() -> None:
    part = helper.make_tensor_value_info("x", TensorProto.UINT8, ["N", 8]).SerializeToString()
    content = _field(7, _field(11, part + part))
    expected = _facts_of_package(onnx.load_model_from_string(content))
    assert expected.inputs == [TensorDeclaration("x", TensorProto.UINT8, (None, 8, None, 8))]
    assert read_graph_facts(content) == expected


def test_two_graphs_in_one_model_are_refused() -> None:
    content = tiny_model(4)
    with pytest.raises(ValueError, match="the file holds 2 graphs"):
        read_graph_facts(content + content)
