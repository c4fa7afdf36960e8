"""The stand-in for FP16 hardware rounds and overflows exactly where FP16 tensors are stored."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy import float16, float32

from mribatch.core.bundle import load_bundle
from mribatch.core.gate import CPU_EMULATED
from mribatch.core.model_spec import OUTPUT_NAME
from mribatch.core.onnx_graph import read_graph_facts
from mribatch.core.synthetic import golden_slices
from mribatch.trt.graph.conversion import to_fp16
from mribatch.trt.graph.cpu_session import CpuSession
from mribatch.trt.graph.emulation import RoundingClassifier, gate_emulated, make_rounding_model
from mribatch.trt.graph.fp16 import convert_bundle
from tests.trt.graph.graphs import SIDE, Graph, efficientnet_like, run_fp32

IMAGES = golden_slices(3, 8, 8)


def chain(steps: list[tuple[str, float]]) -> Graph:
    """Pixels, then one operator with one number after the other; the last tensor is `end`."""
    graph = Graph()
    x = graph.add("Transpose", graph.add("Cast", "images", to=1), perm=[0, 3, 1, 2])
    for operator, number in steps:
        x = graph.add(operator, x, graph.weight(number))
    x = graph.add("Relu", x, name="end")
    graph.softmax(graph.dense(graph.add("Flatten", graph.add("GlobalAveragePool", x)), 1))
    return graph


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["Mul", "Add", "Sub"]), st.floats(2**-7, 900, width=16)), max_size=5))
def test_every_step_is_rounded_as_numpy_rounds(steps: list[tuple[str, float]]) -> None:
    """Sums and products of two halves are exact in float64, so one rounding gives what FP16 arithmetic gives."""
    model = onnx.load_model_from_string(make_rounding_model(to_fp16(chain(steps).model(8)).model))
    model.graph.output.append(onnx.helper.make_tensor_value_info("end", onnx.TensorProto.FLOAT, None))
    got = CpuSession(model.SerializeToString()).run(["end"], IMAGES)[0]
    x = IMAGES.astype(float16)
    with np.errstate(over="ignore"):
        for operator, number in steps:
            function = {"Mul": np.multiply, "Add": np.add, "Sub": np.subtract}[operator]
            x = function(x, float16(number))
    np.testing.assert_array_equal(got.transpose(0, 2, 3, 1), np.maximum(x, 0).astype(float32))


def test_an_overflow_shows() -> None:
    graph = to_fp16(chain([("Mul", 300), ("Mul", 1 / 300)]).model(8))
    white = np.full((1, 8, 8, 1), 255, dtype=np.uint8)
    assert np.isfinite(run_fp32(graph.model, white)).all()  # ONNX Runtime hides it
    with RoundingClassifier(graph.model) as classifier:
        assert np.isnan(classifier(white)).any()


def test_kept_nodes_are_not_rounded() -> None:
    steps = [("Mul", 300.0), ("Mul", 1 / 300)]
    model = chain(steps).model(8)
    names = [node.name for node in chain(steps).nodes if node.op_type == "Mul"]
    with RoundingClassifier(to_fp16(model, keep_fp32=names).model) as classifier:
        np.testing.assert_allclose(classifier(IMAGES), run_fp32(model, IMAGES), atol=1e-3)


def test_it_is_a_classifier_with_the_contract_of_the_bundle() -> None:
    graph = to_fp16(efficientnet_like().model())
    facts = read_graph_facts(make_rounding_model(graph.model))
    assert (facts.inputs, facts.outputs) == (
        read_graph_facts(graph.model).inputs,
        read_graph_facts(graph.model).outputs,
    )
    images = golden_slices(5, SIDE, SIDE)
    with RoundingClassifier(graph.model) as classifier:
        got = classifier(images)
        assert (classifier.name, classifier.precision, got.shape) == ("onnxruntime", "fp16", (5, 4))
        assert got.dtype == float32
        assert classifier.library_version
    assert 0 < np.abs(got - run_fp32(efficientnet_like().model(), images)).max() < 0.01
    with pytest.raises(AssertionError, match="enter first"):
        classifier(images)


def test_half_is_stored_nowhere_but_between_two_casts() -> None:
    model = onnx.load_model_from_string(make_rounding_model(to_fp16(efficientnet_like().model()).model))
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    halves = {entry.name for entry in graph.value_info if entry.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16}
    assert halves and all(name.endswith("/half") for name in halves)
    assert not any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in graph.initializer)
    assert {entry.name for entry in graph.output} == {OUTPUT_NAME}


def test_the_shipped_model_holds_in_emulated_fp16() -> None:
    bundle = load_bundle("cnn")
    report = gate_emulated(bundle, convert_bundle(bundle).model)
    assert report.holds and report.verified == CPU_EMULATED == "cpu-emulated" and report.precision == "fp16"
    assert 1e-4 < report.max_difference < bundle.spec.tolerance.fp16  # it is rounded, and stays within
