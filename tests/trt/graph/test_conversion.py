"""FP32 graphs become FP16 graphs: half everywhere but where the rules say otherwise, and the contract stays."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from mribatch.core.bundle import MODEL_FILE, load_bundle, shipped_models
from mribatch.core.errors import MribatchError
from mribatch.core.model_spec import INPUT_NAME, OUTPUT_NAME
from mribatch.core.onnx_graph import read_graph_facts
from mribatch.core.synthetic import golden_slices
from mribatch.trt.graph.conversion import convert_values, to_fp16
from mribatch.trt.graph.cpu_session import CpuSession
from mribatch.trt.graph.fp16 import convert_bundle
from mribatch.trt.graph.typed import read_graph
from tests.make_models import BAD_BUNDLES, make_bad, tiny_model
from tests.trt.graph.graphs import EFFICIENTNET_HEAD, SIDE, Graph, efficientnet_like, run_fp32

PLACEHOLDER = Path(__file__).parents[2] / "models/placeholder"
BUNDLES = [*map(str, shipped_models().values()), str(PLACEHOLDER)]
FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def tensor_types(model: bytes) -> dict[str, int]:
    """The type of every tensor, as ONNX infers them."""
    graph = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(model), strict_mode=True).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    return types | {
        entry.name: entry.type.tensor_type.elem_type for entry in [*graph.input, *graph.value_info, *graph.output]
    }


def output_types(model: bytes) -> dict[str, int]:
    """Name of each node but casts -> type of its first output."""
    types = tensor_types(model)
    nodes = onnx.load_model_from_string(model).graph.node
    return {node.name: types[node.output[0]] for node in nodes if node.op_type != "Cast"}


def of_type(model: bytes, kind: int) -> set[str]:
    return {name for name, found in output_types(model).items() if found == kind}


def test_an_efficientnet_is_half_everywhere_but_in_the_head() -> None:
    graph = to_fp16(efficientnet_like().model())
    names = {node.name for node in efficientnet_like().nodes if node.op_type not in ("Cast", "Constant")}
    assert of_type(graph.model, FLOAT) == EFFICIENTNET_HEAD == set(graph.fp32_nodes)
    assert of_type(graph.model, HALF) == names - EFFICIENTNET_HEAD
    assert graph.half_nodes == len(names - EFFICIENTNET_HEAD)
    casts = [node for node in onnx.load_model_from_string(graph.model).graph.node if node.op_type == "Cast"]
    assert len(casts) == 2  # uint8 to half, and half to float in front of the head


def test_weights_are_half_but_those_of_the_head_and_the_scales() -> None:
    model = onnx.load_model_from_string(to_fp16(efficientnet_like().model()).model)
    readers = {name: node.name for node in model.graph.node for name in node.input}
    floats = {readers[tensor.name] for tensor in model.graph.initializer if tensor.data_type == FLOAT}
    assert floats == {"logits", "resize"}
    assert all(tensor.data_type in (FLOAT, HALF) for tensor in model.graph.initializer)


_NEEDS_EXACT_NODES = {"efficientnet-lite2-framed", "efficientnet-lite0-framed"}


@pytest.mark.parametrize("folder", BUNDLES, ids=lambda folder: Path(folder).name)
def test_a_bundle_in_fp16_keeps_its_contract_and_its_answers(folder: str) -> None:
    bundle = load_bundle(folder)
    graph = to_fp16(bundle.model)
    before, after = read_graph_facts(bundle.model), read_graph_facts(graph.model)
    assert (after.inputs, after.outputs, after.domains) == (before.inputs, before.outputs, before.domains)
    assert len(graph.model) < 0.66 * len(bundle.model)
    onnx.checker.check_model(onnx.load_model_from_string(graph.model), full_check=True)
    # A network with a frame keeps its answers only where some nodes stay exact; as users get it, it is within 1 x.
    keeps, answering = (1.0, convert_bundle(bundle)) if bundle.spec.name in _NEEDS_EXACT_NODES else (1.5, graph)
    got = run_fp32(answering.model, bundle.golden.images[:12])
    assert 0 < np.abs(got - bundle.golden.probabilities[:12]).max() <= keeps * bundle.spec.tolerance.fp16
    kept = {OUTPUT_NAME, *(name for name in graph.fp32_nodes if name.startswith("softmax_"))}
    assert kept & set(graph.fp32_nodes)


def test_an_efficientnet_in_fp16_keeps_its_answers() -> None:
    model, images = efficientnet_like().model(), golden_slices(16, SIDE, SIDE)
    difference = np.abs(run_fp32(to_fp16(model).model, images) - run_fp32(model, images)).max()
    assert 0 < difference <= 0.01


def test_a_converted_graph_stays_as_it_is() -> None:
    model = efficientnet_like().model()
    for keep in ((), ("excite", "residual"), ("resize", "relu6", "squeeze")):
        once = to_fp16(model, keep_fp32=keep)
        assert to_fp16(once.model, keep_fp32=keep) == once
        assert to_fp16(model, keep_fp32=keep) == once  # and the bytes are the same each time


def test_named_nodes_stay_in_fp32() -> None:
    model = efficientnet_like().model()
    graph = to_fp16(model, keep_fp32=("excite", "resize"))
    assert of_type(graph.model, FLOAT) == EFFICIENTNET_HEAD | {"excite", "resize"}
    assert graph.half_nodes == to_fp16(model).half_nodes - 2
    run_fp32(graph.model, golden_slices(2, SIDE, SIDE))  # ONNX Runtime checks the types of every node
    with pytest.raises(ValueError, match="no node nobody"):
        to_fp16(model, keep_fp32=("nobody",))


def test_a_node_without_a_name_goes_by_its_output() -> None:
    proto = efficientnet_like().proto()
    for node in proto.graph.node:
        node.name = ""
    graph = to_fp16(proto.SerializeToString(), keep_fp32=("excite",))
    assert set(graph.fp32_nodes) == EFFICIENTNET_HEAD | {"excite"}


def test_without_a_global_pooling_the_head_begins_at_the_last_dense_layer() -> None:
    assert set(to_fp16(tiny_model(4)).fp32_nodes) == {"gemm_5", OUTPUT_NAME}
    graph = Graph()
    x = graph.conv(graph.pixels(), 3, 4)
    x = graph.add("Mul", x, graph.add("GlobalAveragePool", x, name="squeeze"))  # excites, and is not the last
    x = graph.add("Flatten", x)
    x = graph.add("Relu", graph.add("MatMul", x, graph.normal((4 * SIDE * SIDE, 8), 4 * SIDE * SIDE), name="wide"))
    graph.softmax(graph.dense(x, 8, name="logits"))
    assert set(to_fp16(graph.model()).fp32_nodes) == {"logits", OUTPUT_NAME}


def test_two_poolings_side_by_side_both_belong_to_the_head() -> None:
    graph = Graph()
    x = graph.conv(graph.pixels(), 3, 4)
    mean = graph.add("ReduceMean", x, name="mean", axes=[2, 3], keepdims=0)
    largest = graph.add("Flatten", graph.add("MaxPool", x, name="max", kernel_shape=[SIDE, SIDE]), name="flat")
    graph.softmax(graph.dense(graph.add("Concat", mean, largest, name="both", axis=1), 8, name="logits"))
    assert set(to_fp16(graph.model()).fp32_nodes) == {"mean", "max", "flat", "both", "logits", OUTPUT_NAME}


def test_a_weight_of_half_and_float_nodes_exists_in_both_types() -> None:
    graph = Graph()
    two = graph.weight(2.0, name="two")
    x = graph.add("Mul", graph.conv(graph.pixels(), 3, 4), two, name="early")
    x = graph.add("Flatten", graph.add("GlobalAveragePool", x))
    graph.softmax(graph.add("Div", graph.dense(x, 4), two, name="temperature"))
    model = to_fp16(graph.model()).model
    types = tensor_types(model)
    inputs = {node.name: list(node.input) for node in onnx.load_model_from_string(model).graph.node}
    assert [types[inputs["early"][1]], types[inputs["temperature"][1]]] == [HALF, FLOAT]
    assert inputs["temperature"][1] == "two" and inputs["early"][1] == "two_half"
    run_fp32(model, golden_slices(1, SIDE, SIDE))


def test_what_does_not_depend_on_pixels_stays_in_fp32() -> None:
    """3 x 33 x 33 is 3267, which FP16 does not have."""
    graph = Graph()
    x = graph.add("Flatten", graph.pixels())
    size = graph.add("Gather", graph.add("Shape", x), graph.weight(1, dtype=np.int64))
    count = graph.add("Mul", graph.add("Cast", size, to=FLOAT, name="size"), graph.weight(1.0), name="count")
    x = graph.add("ReduceSum", x, graph.weight([1], dtype=np.int64), keepdims=1)
    x = graph.add("Div", x, count, name="mean")
    x = graph.add("Relu", graph.add("MatMul", x, graph.normal((1, 8), 1)))
    graph.softmax(graph.dense(x, 8))
    model = to_fp16(graph.model(33)).model
    types = tensor_types(model)
    assert types["size"] == types["count"] == FLOAT
    values = onnx.load_model_from_string(model)
    values.graph.output.append(helper.make_tensor_value_info("count", FLOAT, None))
    assert CpuSession(values.SerializeToString()).run(["count"], golden_slices(1, 33, 33))[0] == 3267


def test_a_float_input_stays_and_is_cast_behind() -> None:
    proto = efficientnet_like().proto()
    proto.graph.input[0].type.tensor_type.elem_type = FLOAT
    graph = to_fp16(proto.SerializeToString())
    assert tensor_types(graph.model)[INPUT_NAME] == FLOAT
    assert of_type(graph.model, FLOAT) == EFFICIENTNET_HEAD
    assert to_fp16(graph.model) == graph


def test_an_initializer_that_is_also_an_input_becomes_a_weight() -> None:
    proto = efficientnet_like().proto()
    weight = proto.graph.initializer[0]
    proto.graph.input.append(helper.make_tensor_value_info(weight.name, FLOAT, list(weight.dims)))
    graph = to_fp16(proto.SerializeToString())
    assert [entry.name for entry in onnx.load_model_from_string(graph.model).graph.input] == [INPUT_NAME]
    assert graph == to_fp16(efficientnet_like().model())


@pytest.mark.parametrize("attribute", [{"value_float": 2.0}, {"value_floats": [2.0]}])
def test_constant_nodes_of_any_kind_become_half_weights(attribute: dict[str, object]) -> None:
    graph = Graph()
    x = graph.conv(graph.pixels(), 3, 4)
    graph.nodes.append(helper.make_node("Constant", [], ["two"], name="two", **attribute))
    x = graph.add("Flatten", graph.add("GlobalAveragePool", graph.add("Mul", x, "two")))
    graph.softmax(graph.dense(x, 4))
    assert tensor_types(to_fp16(graph.model()).model)["two"] == HALF


def refusal(model: bytes, **options: object) -> str:
    with pytest.raises(MribatchError) as caught:
        to_fp16(model, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return caught.value.problem


def with_constant(value: float) -> bytes:
    graph = Graph()
    x = graph.add("Min", graph.conv(graph.pixels(), 3, 4), graph.weight(value, name="most"), name="bounded")
    graph.softmax(graph.dense(graph.add("Flatten", graph.add("GlobalAveragePool", x)), 4))
    return graph.model()


def test_constants_that_fp16_does_not_have_are_refused_by_name() -> None:
    assert "'most' (largest 6.552e+04)" in refusal(with_constant(65520))
    assert "'most' (largest 1e-08)" in refusal(with_constant(1e-8))
    to_fp16(with_constant(65519))  # rounds to 65504
    to_fp16(with_constant(6e-8))  # the smallest subnormal
    to_fp16(with_constant(0))
    to_fp16(with_constant(float("inf")))  # is what it was
    assert "bounded" in to_fp16(with_constant(3.4e38), keep_fp32=("bounded",)).fp32_nodes


@given(st.floats(width=32))
def test_a_number_fits_into_half_or_is_told(value: float) -> None:
    got = convert_values(np.array([value], dtype=np.float32))
    if got is None:
        assert 65520 <= abs(value) < float("inf") or 0 < abs(value) <= 2**-25
    else:
        np.testing.assert_allclose(got.astype(float), value, rtol=2**-11, atol=2**-25)


def test_subgraphs_are_refused() -> None:
    graph = Graph()
    branch = helper.make_graph(
        [helper.make_node("Identity", ["weight_0"], ["chosen"])],
        "branch",
        [],
        [helper.make_tensor_value_info("chosen", FLOAT, [])],
    )
    x = graph.conv(graph.pixels(), 3, 4)
    condition = graph.weight(True, dtype=bool)
    factor = graph.add("If", condition, name="choice", then_branch=branch, else_branch=branch)
    graph.softmax(graph.dense(graph.add("Flatten", graph.add("GlobalAveragePool", graph.add("Mul", x, factor))), 4))
    assert "'choice' (If) has a subgraph" in refusal(graph.model())


@pytest.mark.parametrize(
    "kind", ["custom_operator", "local_function", "external_data", "external_data_in_subgraph", "model_not_onnx"]
)
def test_what_no_bundle_may_hold_is_refused_here_too(tmp_path: Path, kind: str) -> None:
    assert kind in BAD_BUNDLES
    folder = make_bad(tmp_path / kind, kind)
    assert refusal((folder / MODEL_FILE).read_bytes()).startswith("the model cannot be converted to FP16")


def test_a_graph_whose_types_do_not_fit_is_refused_in_one_line() -> None:
    proto = efficientnet_like().proto()
    proto.graph.node[4].op_type = "And"  # of floats
    assert "types" in refusal(proto.SerializeToString())
    proto = efficientnet_like().proto()
    proto.graph.node[4].op_type = "NoSuchOperator"
    assert "NoSuchOperator" in refusal(proto.SerializeToString())


Step = Callable[[Graph, list[str]], str]
STEPS: dict[str, Step] = {
    "conv": lambda graph, x: graph.conv(x[-1], 4, 4),
    "depthwise": lambda graph, x: graph.conv(x[-1], 4, 4, group=4),
    "swish": lambda graph, x: graph.swish(x[-1]),
    "clip": lambda graph, x: graph.add("Clip", x[-1], graph.weight(-1.0), graph.weight(6.0)),
    "residual": lambda graph, x: graph.add("Add", x[-1], x[len(x) // 2]),
    "excite": lambda graph, x: graph.add(
        "Mul", x[-1], graph.add("Sigmoid", graph.conv(graph.add("GlobalAveragePool", x[-1]), 4, 4, size=1))
    ),
    "constant": lambda graph, x: graph.add("Div", x[-1], graph.weight(1.5)),
    "mean": lambda graph, x: graph.add("Sub", x[-1], graph.add("ReduceMean", x[-1], axes=[1], keepdims=1)),
    "elsewhere": lambda graph, x: graph.add(  # leaves float for integers and comes back
        "Cast", graph.add("Cast", graph.add("Mul", x[-1], graph.weight(8.0)), to=TensorProto.INT32), to=FLOAT
    ),
}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=7), st.data())
def test_any_network_of_these_parts_is_converted(steps: list[str], data: st.DataObject) -> None:
    graph = Graph(len(steps))
    tensors = [graph.conv(graph.pixels(), 3, 4)]
    for step in steps:
        tensors.append(STEPS[step](graph, tensors))
    names = [node.name for node in graph.nodes]
    graph.softmax(graph.dense(graph.add("Flatten", graph.add("GlobalAveragePool", tensors[-1])), 4))
    keep = data.draw(st.sets(st.sampled_from(names), max_size=3))
    model = graph.model()
    once = to_fp16(model, keep_fp32=keep)
    assert to_fp16(once.model, keep_fp32=keep) == once
    head = read_graph(model).head()
    assert of_type(once.model, FLOAT) == {name for name in output_types(model) if name in head | keep}
    facts = read_graph_facts(once.model)
    assert (facts.inputs, facts.outputs) == (read_graph_facts(model).inputs, read_graph_facts(model).outputs)
    images = golden_slices(2, SIDE, SIDE)
    got, expected = run_fp32(once.model, images), run_fp32(model, images)
    limit = 0.3 if "elsewhere" in steps else 0.02  # an integer may be the next one
    assert np.abs(got - expected).max() <= limit
