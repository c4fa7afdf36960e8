"""Where rounding the first layers would show in the answers, they stay in FP32."""

import pytest

from mribatch.core.bundle import DEFAULT_MODEL, load_bundle
from mribatch.trt.graph.conversion import to_fp16
from mribatch.trt.graph.emulation import gate_emulated
from mribatch.trt.graph.fp16 import convert_bundle
from tests.trt.graph.graphs import Graph, bundle_of, efficientnet_like


def amplifier(nodes_behind: int) -> Graph:
    """Two nearly equal maps, subtracted and scaled up: what FP16 rounds of them is as large as their difference."""
    graph = Graph()
    x = graph.pixels()
    nearly = graph.add("Mul", x, graph.weight(1.003), name="nearly")
    x = graph.add("Mul", graph.add("Sub", nearly, x, name="difference"), graph.weight(300.0), name="up")
    for _ in range(nodes_behind):
        x = graph.add("Abs", x)  # exact in any type
    x = graph.add("Relu", graph.conv(x, 3, 8))
    pooled = graph.add("Flatten", graph.add("GlobalAveragePool", x))
    graph.softmax(graph.dense(pooled, 8))
    return graph


def test_as_many_of_the_first_nodes_as_it_takes_stay_in_fp32() -> None:
    bundle = bundle_of(amplifier(nodes_behind=30).model())
    everything = to_fp16(bundle.model)
    assert not gate_emulated(bundle, everything.model).holds
    careful = convert_bundle(bundle)
    assert gate_emulated(bundle, careful.model).holds
    assert {"nearly", "difference"} <= set(careful.fp32_nodes) - set(everything.fp32_nodes)
    assert "abs_34" not in careful.fp32_nodes, "what comes later computes in FP16"


def test_a_network_that_rounds_well_keeps_none() -> None:
    bundle = bundle_of(efficientnet_like().model())
    assert convert_bundle(bundle) == to_fp16(bundle.model)


def test_where_it_is_no_use_the_gate_says_so() -> None:
    """The trouble lies deep inside the network, behind the first quarter."""
    graph = Graph()
    x = graph.conv(graph.pixels(), 3, 3)
    for _ in range(30):
        x = graph.add("Abs", x)
    x = graph.add("Sub", graph.add("Mul", x, graph.weight(1.0005)), x)
    x = graph.add("Relu", graph.conv(graph.add("Mul", x, graph.weight(1000.0)), 3, 8))
    graph.softmax(graph.dense(graph.add("Flatten", graph.add("GlobalAveragePool", x)), 8))
    bundle = bundle_of(graph.model())
    assert not gate_emulated(bundle, convert_bundle(bundle).model).holds


def test_a_long_frame_does_not_use_up_the_nodes_of_the_network() -> None:
    """Twenty exact nodes before the first convolution are more than a quarter; what rounds badly comes after them."""
    graph = Graph()
    x = graph.pixels()
    for _ in range(20):
        x = graph.add("Abs", x)
    x = graph.conv(x, 3, 3)
    nearly = graph.add("Mul", x, graph.weight(1.003), name="nearly")
    x = graph.add("Mul", graph.add("Sub", nearly, x, name="difference"), graph.weight(300.0), name="up")
    for _ in range(16):
        x = graph.add("Abs", x)
    pooled = graph.add("Flatten", graph.add("GlobalAveragePool", graph.add("Relu", graph.conv(x, 3, 8))))
    graph.softmax(graph.dense(pooled, 8))
    bundle = bundle_of(graph.model())
    careful = convert_bundle(bundle)
    assert {"nearly", "difference"} <= set(careful.fp32_nodes) and gate_emulated(bundle, careful.model).holds


@pytest.mark.parametrize(
    "name", ["cnn", *(pytest.param(name, marks=pytest.mark.slow) for name in ("efficientnet-lite2", DEFAULT_MODEL))]
)
def test_the_shipped_ones_meet_their_golden_answers(name: str) -> None:
    bundle = load_bundle(name)
    assert gate_emulated(bundle, convert_bundle(bundle).model).holds
