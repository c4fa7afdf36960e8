"""TensorFlow operators that tf2onnx does not know, written with those that ONNX has.

Each function is a handler of tf2onnx (`custom_op_handlers`): it replaces one node of tf2onnx's graph.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from mribatch.training.frameworks import load_keras

_RESIZE_ATTRIBUTES = {
    "ResizeArea": ("align_corners",),
    "ResizeBicubic": ("align_corners", "half_pixel_centers"),
    "ResizeNearestNeighbor": ("align_corners", "half_pixel_centers"),
    "ScaleAndTranslate": ("kernel_type", "antialias"),
}
Handler = Callable[[Any, Any, str, list[Any]], None]


def make_handlers() -> dict[str, tuple[Handler, list[Any]]]:
    """Return the handlers by the name of the TensorFlow operator, as tf2onnx takes them."""
    return {
        "Erfc": (_decompose_erfc, []),
        "Expm1": (_decompose_expm1, []),
        "Log1p": (_decompose_log1p, []),
        "Rint": (_decompose_rint, []),
        "Cbrt": (_decompose_cbrt, []),
        "Bucketize": (_count_boundaries, []),
        "ResizeArea": (_multiply_by_weights, []),
        "ResizeBicubic": (_multiply_by_weights, []),
        "ScaleAndTranslate": (_multiply_by_weights, []),
        "ResizeNearestNeighbor": (_pick_neighbours, []),
    }


def _decompose_erfc(graph: Any, node: Any, name: str, _: list[Any]) -> None:
    """erfc(x) = 1 - erf(x); Keras' exact GELU."""
    erf = graph.make_node("Erf", [node.input[0]], name=f"{name}_erf")
    _replace(graph, node, "Sub", [_one(graph, node, name), erf.output[0]])


def _decompose_expm1(graph: Any, node: Any, name: str, _: list[Any]) -> None:
    exp = graph.make_node("Exp", [node.input[0]], name=f"{name}_exp")
    _replace(graph, node, "Sub", [exp.output[0], _one(graph, node, name)])


def _decompose_log1p(graph: Any, node: Any, name: str, _: list[Any]) -> None:
    more = graph.make_node("Add", [node.input[0], _one(graph, node, name)], name=f"{name}_more")
    _replace(graph, node, "Log", [more.output[0]])


def _decompose_rint(graph: Any, node: Any, *_: Any) -> None:
    """Both round halves to even."""
    _replace(graph, node, "Round", [node.input[0]])


def _decompose_cbrt(graph: Any, node: Any, name: str, _: list[Any]) -> None:
    sign = graph.make_node("Sign", [node.input[0]], name=f"{name}_sign")
    size = graph.make_node("Abs", [node.input[0]], name=f"{name}_abs")
    third = graph.make_const(f"{name}_third", np.array(1 / 3, dtype=np.float32))
    root = graph.make_node("Pow", [size.output[0], third.output[0]], name=f"{name}_root")
    _replace(graph, node, "Mul", [sign.output[0], root.output[0]])


def _count_boundaries(graph: Any, node: Any, name: str, _: list[Any]) -> None:
    """The bucket of a value is the number of boundaries that it has reached."""
    from tf2onnx import utils

    kind = utils.map_onnx_to_numpy_type(graph.get_dtype(node.input[0]))
    boundaries = graph.make_const(f"{name}_boundaries", np.asarray(node.get_attr_value("boundaries"), dtype=kind))
    last = graph.make_const(f"{name}_last", np.array([-1], dtype=np.int64)).output[0]
    value = graph.make_node("Unsqueeze", [node.input[0], last], name=f"{name}_value")
    reached = graph.make_node("GreaterOrEqual", [value.output[0], boundaries.output[0]], name=f"{name}_reached")
    counted = graph.make_node("Cast", reached.output, attr={"to": node.output_dtypes[0]}, name=f"{name}_counted")
    shapes, kinds, outputs = node.output_shapes, node.output_dtypes, node.output
    graph.remove_node(node.name)
    inputs, attributes = [counted.output[0], last], {"keepdims": 0}
    graph.make_node("ReduceSum", inputs, attr=attributes, outputs=outputs, shapes=shapes, dtypes=kinds, name=name)


def _multiply_by_weights(graph: Any, node: Any, name: str, _: list[Any]) -> None:
    """Resize by two matrix products, over rows and then over columns: every resize of TensorFlow is separable.

    ONNX's Resize has neither the kernels nor the borders of these operators.
    """
    channels = graph.get_shape(node.input[0])[3]
    rows, columns = (_resize_weights(graph, node, axis) for axis in (0, 1))
    width = columns.shape[1]
    flat, wide = ([0, height, *rest] for height, rest in ((rows.shape[1], [-1]), (rows.shape[0], [width, channels])))
    x = node.input[0]
    for operator, kind, values in (
        ("Reshape", np.int64, flat),
        ("MatMul", np.float32, rows),
        ("Reshape", np.int64, wide),
    ):
        place = f"{name}_{operator}_{len(np.shape(values))}_{np.size(values)}"
        constant = graph.make_const(f"{place}_constant", np.asarray(values, dtype=kind)).output[0]
        inputs = [constant, x] if operator == "MatMul" else [x, constant]
        x = graph.make_node(operator, inputs, name=place, dtypes=[node.output_dtypes[0]]).output[0]
    matrix = graph.make_const(f"{name}_columns", columns).output[0]
    _replace(graph, node, "MatMul", [matrix, x])


def _pick_neighbours(graph: Any, node: Any, name: str, _: list[Any]) -> None:
    """Take the rows and columns that TensorFlow takes; ONNX's rounding differs at the middle between two pixels."""
    rows, columns = (_resize_weights(graph, node, axis).argmax(axis=1) for axis in (0, 1))
    first = graph.make_const(f"{name}_rows", rows.astype(np.int64)).output[0]
    second = graph.make_const(f"{name}_columns", columns.astype(np.int64)).output[0]
    kind = node.output_dtypes[0]
    picked = graph.make_node("Gather", [node.input[0], first], attr={"axis": 1}, name=f"{name}_picked", dtypes=[kind])
    shapes, outputs = node.output_shapes, node.output
    graph.remove_node(node.name)
    graph.make_node(
        "Gather", [picked.output[0], second], attr={"axis": 2}, outputs=outputs, shapes=shapes, dtypes=[kind], name=name
    )


def _resize_weights(graph: Any, node: Any, axis: int) -> Any:
    """Return the weights of a resize along one axis, float32 (out, in): what TensorFlow makes of unit images."""
    tensorflow, _ = load_keras()
    sides = graph.get_shape(node.input[0])[1:3]
    if min(sides) < 1:
        raise ValueError(f"{node.type} of an image whose size is not fixed")
    size = [1, 1]
    size[axis] = int(node.inputs[1].get_tensor_value(as_list=False)[axis])
    shape = [1, 1, 1, sides[axis]]
    shape[1 + axis] = sides[axis]
    images = np.eye(sides[axis], dtype=np.float32).reshape(shape)
    options = {key: _read_attribute(node, key) for key in _RESIZE_ATTRIBUTES[node.type]}
    if node.type == "ScaleAndTranslate":
        scale, shift = np.ones(2, np.float32), np.zeros(2, np.float32)
        scale[axis] = np.float32(size[axis]) / np.float32(sides[axis])  # as tf.image.resize; the gate finds any other
        options |= {"scale": scale, "translation": shift}
    with tensorflow.Graph().as_default() as own:  # tf2onnx calls its handlers while another graph is open
        resize = getattr(tensorflow.raw_ops, node.type)
        resized = resize(images=images, size=np.asarray(size, dtype=np.int32), **options)
    with tensorflow.compat.v1.Session(graph=own) as session:
        resized = session.run(resized)
    return np.asarray(resized, dtype=np.float32).reshape(size[axis], sides[axis])


def _read_attribute(node: Any, key: str) -> Any:
    value = node.get_attr_value(key)
    return value.decode() if isinstance(value, bytes) else bool(value)


def _one(graph: Any, node: Any, name: str) -> str:
    """Add the constant 1 in the type of the node's output."""
    from tf2onnx import utils

    kind = utils.map_onnx_to_numpy_type(graph.get_dtype(node.output[0]))
    return str(graph.make_const(f"{name}_one", np.array(1, dtype=kind)).output[0])


def _replace(graph: Any, node: Any, operator: str, inputs: list[str]) -> None:
    """Put one operator in the node's place, under its output's name."""
    shapes, types = node.output_shapes, node.output_dtypes
    graph.remove_node(node.name)
    graph.make_node(operator, inputs, outputs=node.output, shapes=shapes, dtypes=types, name=node.name)
