"""Small ONNX classifiers as users of other frameworks have them, and files as nobody should send them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE, CLASSES = 16, 3
FLOAT = TensorProto.FLOAT


def classifier(
    *,
    channels: int = 3,
    layout: str = "NCHW",
    kind: int = FLOAT,
    batch: int | str = "batch",
    side: int | str = SIDE,
    outputs: int = CLASSES,
    end: str | None = None,
    scaled: bool = False,
    opset: int = 17,
    flatten: str = "Flatten",
    gain: float = 1.0,
    spread: float = 4.0,
    name: str = "images",
) -> Any:
    """[cast, scale] -> convolution -> ReLU -> mean -> Gemm -> end; onnx.ModelProto with random weights."""
    random = np.random.default_rng(3)
    element = np.float16 if kind == TensorProto.FLOAT16 else np.float32
    weights: list[Any] = []
    nodes: list[Any] = []
    x = name

    def constant(values: Any, kind: Any = element) -> str:
        weights.append(numpy_helper.from_array(np.asarray(values, dtype=kind), f"w{len(weights)}"))
        return str(weights[-1].name)

    def add(operator: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, list(inputs), [f"t{len(nodes)}"], name=f"n{len(nodes)}", **attributes))
        return str(nodes[-1].output[0])

    if kind == TensorProto.UINT8:
        x = add("Cast", x, to=FLOAT)
    if scaled or kind == TensorProto.UINT8:
        x = add("Div", x, constant(255))
    if layout == "NHWC":
        x = add("Transpose", x, perm=[0, 3, 1, 2])
    x = add("Conv", x, constant(gain * random.normal(size=(5, channels, 3, 3))), strides=[2, 2])
    x = add("GlobalAveragePool", add("Relu", x))
    x = add("Flatten", x) if flatten == "Flatten" else add("Reshape", x, constant([batch, 5], np.int64))
    x = add("Gemm", x, constant(spread * random.normal(size=(5, outputs))), constant(np.zeros(outputs)))
    if end:
        x = add(end, x, **({"axis": 1} if "Softmax" in end else {}))
    nodes[-1].output[0] = "given"
    sides = [channels, side, side] if layout == "NCHW" else [side, side, channels]
    taken = helper.make_tensor_value_info(name, kind, [batch, *sides])
    given = helper.make_tensor_value_info("given", kind if kind == TensorProto.FLOAT16 else FLOAT, [batch, outputs])
    graph = helper.make_graph(nodes, "exported", [taken], [given], weights, doc_string="/home/someone/secret.py")
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def saved(model: Any, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def saved_outside(model: Any, path: Path, location: str, **entries: object) -> Path:
    """Keep the model's first weights in another file, of which nothing is written here."""
    tensor = model.graph.initializer[0]
    content = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in ({"location": location, "offset": 0, "length": len(content)} | entries).items():
        tensor.external_data.add(key=key, value=str(value))
    saved(model, path)
    return path


def with_node(operator: str, domain: str = "", inputs: Sequence[str] = ("given",), **attributes: Any) -> Any:
    """A classifier behind which one more node follows."""
    model = classifier()
    model.graph.node.append(helper.make_node(operator, list(inputs), ["more"], domain=domain, **attributes))
    model.graph.output[0].name = "more"
    if domain:
        model.opset_import.append(helper.make_opsetid(domain, 1))
    return model


def branch() -> Any:
    """The attributes of an If whose branches are empty but for a constant."""
    given = helper.make_tensor_value_info("y", FLOAT, [1])
    constant = helper.make_node("Constant", [], ["y"], value=numpy_helper.from_array(np.zeros(1, np.float32)))
    body = helper.make_graph([constant], "body", [], [given])
    return {"then_branch": body, "else_branch": body}


__all__ = ["CLASSES", "SIDE", "branch", "classifier", "onnx", "saved", "saved_outside", "with_node"]
