"""The head of a network, read from the bytes of real ONNX files."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy import float32
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mribatch.core.onnx_head import add_output, find_pooling_head

CHANNELS, CLASSES = 6, 4
WEIGHTS = np.random.default_rng(0).normal(size=(CHANNELS, CLASSES)).astype(float32)
BIAS = np.array([0.5, -0.25, 0, 1], float32)


def model(nodes: list[Any], constants: dict[str, NDArray[Any]], shape: tuple[int, ...] = (2, CHANNELS, 3, 5)) -> bytes:
    """A graph from a feature map, doubled, to its probabilities."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["features", "features"], ["map"]), *nodes],
        "head",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, (2, CLASSES))],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(made.SerializeToString())


def node(operator: str, inputs: str, output: str, **attributes: Any) -> Any:
    return helper.make_node(operator, inputs.split(), [output], **attributes)


POOL = [node("GlobalAveragePool", "map", "pool"), node("Flatten", "pool", "flat")]
DENSE = [node("MatMul", "flat w", "product"), node("Add", "product b", "logits")]
SOFTMAX = node("Softmax", "logits", "probabilities")
AXES = {"axes": np.array([-2, -1], np.int64)}
Head = tuple[list[Any], dict[str, NDArray[Any]]]
HEADS: dict[str, Head] = {
    "matmul": ([*POOL, *DENSE, SOFTMAX], {"w": WEIGHTS, "b": BIAS}),
    "bias first": ([*POOL, DENSE[0], node("Add", "b product", "logits"), SOFTMAX], {"w": WEIGHTS, "b": BIAS}),
    "gemm": ([*POOL, node("Gemm", "flat w b", "logits"), SOFTMAX], {"w": WEIGHTS, "b": BIAS}),
    "gemm, transposed": (
        [*POOL, node("Gemm", "flat w b", "logits", transB=1), SOFTMAX],
        {"w": WEIGHTS.T.copy(), "b": BIAS},
    ),
    "mean over axes": (
        [node("ReduceMean", "map axes", "flat", keepdims=0), *DENSE, SOFTMAX],
        {"w": WEIGHTS, "b": BIAS, **AXES},
    ),
    "temperature": (
        [*POOL, *DENSE, node("Div", "logits t", "cold"), node("Softmax", "cold", "probabilities")],
        {"w": WEIGHTS, "b": BIAS, "t": np.array(2.5, float32)},
    ),
    "temperature before the bias": (
        [*POOL, DENSE[0], node("Mul", "product t", "hot"), node("Add", "hot b", "logits"), SOFTMAX],
        {"w": WEIGHTS, "b": BIAS, "t": np.array([0.5], float32)},
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_the_weighted_mean_of_the_feature_map_is_the_logit(name: str) -> None:
    content = model(*HEADS[name])
    head = find_pooling_head(content, "probabilities")
    assert head is not None
    assert head.layout == "NCHW"
    session = onnxruntime.InferenceSession(add_output(content, head.feature_map))
    features = np.random.default_rng(1).normal(size=(2, CHANNELS, 3, 5)).astype(float32)
    probabilities, feature_map = session.run(["probabilities", head.feature_map], {"features": features})
    np.testing.assert_array_equal(feature_map, features * 2)
    logits = head.scale * (feature_map.mean(axis=(2, 3)) @ head.weights) + head.bias
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(probabilities, exponents / exponents.sum(axis=1, keepdims=True), atol=1e-6)


def test_channels_last_is_told_from_channels_first() -> None:
    nodes = [node("ReduceMean", "map", "flat", keepdims=0, axes=[1, 2]), *DENSE, SOFTMAX]
    constants = {"w": WEIGHTS, "b": BIAS}
    graph = helper.make_graph(
        [helper.make_node("Add", ["features", "features"], ["map"]), *nodes],
        "head",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, (2, 3, 5, CHANNELS))],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, (2, CLASSES))],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)  # axes as an attribute
    head = find_pooling_head(made.SerializeToString(), "probabilities")
    assert head is not None
    assert head.layout == "NHWC"


NO_HEADS: dict[str, Head] = {
    "two dense layers": (
        [
            *POOL,
            node("MatMul", "flat v", "hidden"),
            node("Relu", "hidden", "active"),
            node("MatMul", "active w", "logits"),
            SOFTMAX,
        ],
        {"v": np.eye(CHANNELS, dtype=float32), "w": WEIGHTS},
    ),
    "maximum pooling": (
        [node("GlobalMaxPool", "map", "pool"), POOL[1], *DENSE, SOFTMAX],
        {"w": WEIGHTS, "b": BIAS},
    ),
    "mean over channels": (
        [node("ReduceMean", "map axes", "flat", keepdims=0), *DENSE, SOFTMAX],
        {"w": np.ones((5, CLASSES), float32), "b": BIAS, "axes": np.array([1, 2], np.int64)[:1]},
    ),
    "weights that are computed": (
        [*POOL, node("Abs", "w", "weights"), node("MatMul", "flat weights", "logits"), SOFTMAX],
        {"w": WEIGHTS},
    ),
}


@pytest.mark.parametrize("name", NO_HEADS)
def test_another_head_is_none(name: str) -> None:
    assert find_pooling_head(model(*NO_HEADS[name]), "probabilities") is None


def test_shipped_models() -> None:
    """The default pools and has one dense layer; the reference's small network has three."""
    models = Path(__file__).parents[2] / "models"
    assert find_pooling_head((models / "efficientnet-lite2" / "model.onnx").read_bytes(), "probabilities") is not None
    assert find_pooling_head((models / "cnn" / "model.onnx").read_bytes(), "probabilities") is None
