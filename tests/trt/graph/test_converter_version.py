"""CONVERTER_VERSION says which graph comes of a bundle: a converter that gives another one needs another number."""

from collections.abc import Callable
from hashlib import sha256

import onnx
import pytest
from onnx import numpy_helper

from mribatch.trt.graph import CONVERTER_VERSION
from mribatch.trt.graph.fp16 import convert_bundle
from mribatch.trt.graph.turing import without_fp32_dense
from tests.trt.graph.graphs import bundle_of, efficientnet_like, scaled_up_and_down

MODELS: dict[str, Callable[[], bytes]] = {
    "efficientnet_like": lambda: efficientnet_like().model(),
    "scaled_up_and_down": lambda: scaled_up_and_down(100.0).model(),
}
# After an intended change of the converters: increase CONVERTER_VERSION and put the new hashes here.
PINNED = {
    1: {
        "efficientnet_like": ("4943094676cac233", "4aff72b4f11caada"),
        "scaled_up_and_down": ("e516fe4b16cdd9b6", "fb4a689c17fe53d3"),
    }
}


def hash_graph(content: bytes) -> str:
    """Hash what a graph computes: nodes with their attributes, and weights; not how the package onnx writes it down."""
    graph = onnx.load_model_from_string(content).graph
    digest = sha256()
    for node in graph.node:
        attributes = sorted((one.name, str(onnx.helper.get_attribute_value(one))) for one in node.attribute)
        digest.update(repr((node.op_type, node.name, list(node.input), list(node.output), attributes)).encode())
    for tensor in sorted(graph.initializer, key=lambda one: one.name):
        values = numpy_helper.to_array(tensor)
        digest.update(repr((tensor.name, str(values.dtype), values.shape)).encode() + values.tobytes())
    return digest.hexdigest()[:16]


@pytest.mark.parametrize("name", MODELS)
def test_another_graph_needs_another_version(name: str) -> None:
    half = convert_bundle(bundle_of(MODELS[name]())).model
    found = hash_graph(half), hash_graph(without_fp32_dense(half)[0])
    assert found == PINNED[CONVERTER_VERSION][name], (
        "the converters give another graph: increase mribatch.trt.graph.CONVERTER_VERSION, or cached engines of the old "
        "graph are used"
    )
