"""Which parts of a network are in 8 bits, and which stay exact: its frame, and the first layers of a deep one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

pytest.importorskip("tensorflow", reason="needs the extra 'train'")

from mribatch.core.bundle import load_bundle
from mribatch.core.synthetic import golden_slices
from mribatch.training.export.onnx_conversion import to_onnx
from mribatch.training.export.quantization import quantize
from mribatch.training.networks.build import build
from mribatch.training.recipes.catalog import find_recipe
from tests.make_models import make_convolutional

SIDE, FRAME = 48, 32


@pytest.fixture(scope="module")
def framed() -> bytes:
    recipe = replace(find_recipe("fast"), weights="none", size=SIDE, frame=FRAME)
    return to_onnx(build(recipe, 4, 0), 1.0)


def list_upstream(model: onnx.ModelProto, tensor: str) -> list[onnx.NodeProto]:
    """All nodes that a tensor is computed by."""
    makers = {name: node for node in model.graph.node for name in node.output}
    found: dict[str, onnx.NodeProto] = {}
    waiting = [tensor]
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.output[0] not in found:
            found[node.output[0]] = node
            waiting += node.input
    return list(found.values())


def find_first_convolution(model: onnx.ModelProto) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == "Conv")


def test_a_graph_for_grey_slices_makes_no_copies_of_them(framed: bytes) -> None:
    assert {"Concat", "Slice"}.isdisjoint(node.op_type for node in onnx.load_from_string(framed).graph.node)


def test_the_frame_and_the_first_convolutions_stay_exact_and_all_others_are_in_8_bits(framed: bytes) -> None:
    plain, graph = onnx.load_from_string(framed), onnx.load_from_string(quantize(framed, golden_slices(24, SIDE, SIDE)))
    makers = {name: node for node in graph.graph.node for name in node.output}
    convolutions = [node for node in graph.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == sum(node.op_type == "Conv" for node in plain.graph.node) > 30
    quantized = [
        makers[node.input[0]].op_type == makers[node.input[1]].op_type == "DequantizeLinear"
        for node in convolutions
        if node.input[1] in makers
    ]
    assert sum(quantized) == len(convolutions) - 3 and not any(node.input[1] in makers for node in convolutions[:3])
    before = list_upstream(graph, convolutions[0].input[0])
    assert {"MatMul", "Relu"} <= {node.op_type for node in before}, "the frame is there"
    assert not {"QuantizeLinear", "DequantizeLinear"} & {node.op_type for node in before}


def test_a_shallow_network_is_quantized_from_its_first_convolution(tmp_path: Path) -> None:
    shallow = load_bundle(str(make_convolutional(tmp_path / "model"))).model
    graph = onnx.load_from_string(quantize(shallow, golden_slices(24, 16, 16)))
    makers = {name: node for node in graph.graph.node for name in node.output}
    assert makers[find_first_convolution(graph).input[0]].op_type == "DequantizeLinear"


def test_the_frame_is_the_same_to_the_bit(framed: bytes) -> None:
    images = golden_slices(24, SIDE, SIDE)
    seen = []
    for model in (framed, quantize(framed, images)):
        graph = onnx.load_from_string(model)
        source = find_first_convolution(graph).input[0]
        matched = [node for node in list_upstream(graph, source) if node.op_type == "MatMul"]
        graph.graph.output.extend([onnx.ValueInfoProto(name=node.output[0]) for node in matched[:1]])
        session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
        seen.append(session.run([matched[0].output[0]], {"images": images})[0])
    assert seen[0].shape == (24, FRAME, FRAME) and np.array_equal(*seen)
