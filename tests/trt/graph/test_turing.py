"""FP32 dense layers as 1x1 convolutions give the same answers, and TensorRT for RTX then builds for Turing."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy import float32
from onnx import TensorProto, helper, numpy_helper

from mribatch.core.bundle import load_bundle
from mribatch.trt.graph.cpu_session import CpuSession
from mribatch.trt.graph.turing import without_fp32_dense
from tests.make_models import CLASSES, tiny_model


def operators(model: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_model_from_string(model).graph.node]


def answers(model: bytes, size: int) -> np.ndarray:
    images = np.random.default_rng(3).integers(0, 256, (5, size, size, 1), dtype=np.uint8)
    return CpuSession(model).run(["probabilities"], images)[0]


def dense_model(opset: int, *, transposed: bool, bias: str) -> bytes:
    """uint8 (N, 2, 2, 1) -> Gemm -> MatMul -> softmax."""
    random = np.random.default_rng(1)
    first, second = random.normal(size=(4, 6)).astype(float32) / 99, random.normal(size=(6, 3)).astype(float32)
    weights = {"w": first.T if transposed else first, "v": second, "shape": np.array([0, 4])}
    weights |= {"scalar": {"b": np.array([0.5], float32)}, "row": {"b": np.arange(6, dtype=float32)}, "none": {}}[bias]
    nodes = [
        helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["x", "shape"], ["rows"]),
        helper.make_node(
            "Gemm", ["rows", "w", *(["b"] if bias != "none" else [])], ["y"], name="gemm", transB=int(transposed)
        ),
        helper.make_node("MatMul", ["y", "v"], ["z"]),
        helper.make_node("Softmax", ["z"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 2, 2, 1])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("opset", [12, 17])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("bias", ["none", "scalar", "row"])
def test_the_answers_stay(opset: int, transposed: bool, bias: str) -> None:
    model = dense_model(opset, transposed=transposed, bias=bias)
    changed, added = without_fp32_dense(model)
    assert not {"Gemm", "MatMul"} & set(operators(changed)) and operators(changed).count("Conv") == 2
    assert len(added) == 4 and all(name.startswith(("gemm_to_", "z_to_")) for name in added)
    np.testing.assert_allclose(answers(changed, 2), answers(model, 2), rtol=1e-5, atol=1e-7)


def test_the_shipped_model_stays_within_its_tolerance() -> None:
    bundle = load_bundle("cnn")
    changed, _ = without_fp32_dense(bundle.model)
    golden = bundle.golden
    got = CpuSession(changed).run(["probabilities"], golden.images[:8])[0]
    assert np.abs(got - golden.probabilities[:8]).max() <= bundle.spec.tolerance.fp32


def test_it_changes_nothing_more_when_done_twice() -> None:
    changed, _ = without_fp32_dense(tiny_model(len(CLASSES)))
    assert without_fp32_dense(changed) == (changed, ())


def test_a_product_of_two_computed_tensors_is_left_alone(tmp_path: Path) -> None:
    model = onnx.load_model_from_string(dense_model(17, transposed=False, bias="none"))
    model.graph.node[3].input[1] = "computed"
    model.graph.node.insert(0, helper.make_node("Identity", ["v"], ["computed"]))
    assert operators(without_fp32_dense(model.SerializeToString())[0]).count("MatMul") == 1
