"""FP16 as a GPU stores it, on a CPU: every FP16 tensor of a graph is really rounded to FP16, and overflows.

ONNX Runtime has no FP16 kernels on x86: it computes an FP16 graph in FP32 and leaves out the casts between two nodes,
so that neither rounding nor overflow shows. Here each FP16 tensor becomes float32 that has gone through an explicit
cast to FP16 and back, which ONNX Runtime keeps. What a GPU does inside one kernel (wider or narrower sums, fused nodes
that round less often) is not imitated.
"""

from functools import partial
from typing import TYPE_CHECKING

from numpy import float32

from mribatch.core.bundle import Bundle
from mribatch.core.gate import CPU_EMULATED, GateReport, gate
from mribatch.trt.graph.cpu_session import CpuClassifier
from mribatch.trt.graph.typed import FLOAT, HALF, TypedGraph, read_graph

if TYPE_CHECKING:
    from onnx import NodeProto

EMULATED_BATCH_SIZES = (1, 7)


def make_rounding_model(model: bytes) -> bytes:
    """An FP32 ONNX graph that gives what `model`, an FP16 one, gives with every FP16 tensor rounded in memory.

    Raises:
        MribatchError: `model` is none that `to_fp16` gives.
    """
    import onnx

    graph = read_graph(model)
    proto = graph.model.graph
    _widen_constants(graph)
    nodes: list[NodeProto] = []
    for node in graph.nodes:
        if node.op_type == "Cast" and graph.types[node.output[0]] == HALF:
            nodes += _make_casts_to_half_and_back(node.input[0], node.output[0])
        else:
            nodes += _round_outputs(graph, node)
    del proto.node[:]
    proto.node.extend(nodes)
    onnx.checker.check_model(graph.model, full_check=True)
    content: bytes = graph.model.SerializeToString(deterministic=True)
    return content


def _widen_constants(graph: TypedGraph) -> None:
    from onnx import numpy_helper

    for tensor in graph.model.graph.initializer:
        if tensor.data_type == HALF:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(float32), tensor.name))


def _round_outputs(graph: TypedGraph, node: "NodeProto") -> "list[NodeProto]":
    """The node, and two casts after each FP16 output."""
    casts: list[NodeProto] = []
    for position, tensor in enumerate(node.output):
        if graph.types.get(tensor) == HALF:
            node.output[position] = f"{tensor}/exact"
            casts += _make_casts_to_half_and_back(node.output[position], tensor)
    return [node, *casts]


def _make_casts_to_half_and_back(source: str, result: str) -> "list[NodeProto]":
    from onnx import helper

    there = helper.make_node("Cast", [source], [f"{result}/half"], to=HALF)
    return [there, helper.make_node("Cast", [f"{result}/half"], [result], to=FLOAT)]


class RoundingClassifier(CpuClassifier):
    """A Classifier that stands in for an FP16 engine where there is no GPU.

    Args:
        model: ONNX bytes of a bundle's graph in FP16.
    """

    def __init__(self, model: bytes) -> None:
        super().__init__(partial(make_rounding_model, model), precision="fp16")


def gate_emulated(bundle: Bundle, model: bytes) -> GateReport:
    """The gate without a GPU: the bundle's FP16 graph on the CPU, every FP16 tensor rounded.

    Raises:
        MribatchError: ONNX Runtime does not accept the graph.
    """
    with RoundingClassifier(model) as classifier:
        return gate(classifier, bundle, batch_sizes=EMULATED_BATCH_SIZES, verified=CPU_EMULATED)
