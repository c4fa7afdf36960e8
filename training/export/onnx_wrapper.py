"""A user's ONNX graph -> a bundle's graph: grey uint8 slices before it, probabilities behind it."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from mribatch.core.model_spec import INPUT_NAME, OUTPUT_NAME
from mribatch.training.export.declarations import OutputKind
from mribatch.training.export.onnx_conversion import OPSET, clean
from mribatch.training.export.onnx_file import opset_of
from mribatch.training.export.outputs import SMALLEST, Ending
from mribatch.training.export.pixels import PixelInput, scale_constants

_PREFIX, _OWN = "model/", "mribatch/"
_IR_VERSION = 8  # ONNX 1.12, which came with opset 17


def iterate_versions(model: Any) -> Iterator[Any]:
    """Yield the model in the bundles' opset if it can be converted, then as it is."""
    import onnx

    if opset_of(model) != OPSET:
        with contextlib.suppress(Exception):  # the converter raises kinds of its own; the model as it is comes next
            yield onnx.version_converter.convert_version(model, OPSET)
    if opset_of(model) >= 13:  # below, the wrapper's operators are written in another way
        yield model


def wrap(model: Any, pixels: PixelInput, ending: Ending, classes: int, *, channels_first: bool) -> Any:
    """Return a copy of the model with the bundle's input and output, any number of slices at once."""
    import onnx

    wrapped = onnx.ModelProto()
    wrapped.CopyFrom(model)
    _forget_origin(wrapped)
    graph = wrapped.graph
    _prefix_names(graph)
    taken, given = graph.input[0], graph.output[0]
    _free_batch(graph, taken.name)
    before = _make_input_nodes(taken, pixels, channels_first=channels_first)
    after = _make_output_nodes(given, ending, classes)
    own = [*graph.node]
    del graph.node[:]
    graph.node.extend([*before.nodes, *own, *after.nodes])
    graph.initializer.extend([*before.constants, *after.constants])
    del graph.input[:], graph.output[:]
    sides = ["N", pixels.height, pixels.width, 1]
    graph.input.append(onnx.helper.make_tensor_value_info(INPUT_NAME, onnx.TensorProto.UINT8, sides))
    graph.output.append(onnx.helper.make_tensor_value_info(OUTPUT_NAME, onnx.TensorProto.FLOAT, ["N", classes]))
    if opset_of(wrapped) == OPSET:
        wrapped.ir_version = _IR_VERSION
    clean(wrapped)
    onnx.checker.check_model(wrapped, full_check=True)
    return wrapped


def widen(model: Any) -> Any | None:
    """Return a copy that computes in float32 what the model computes in float16; None if that is nothing.

    ONNX Runtime keeps some of the numbers between two nodes of half precision in float32, which ones depends on the
    nodes around them, so that the same nodes in another graph give other probabilities.
    """
    import onnx

    half, full = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    graph, found = wide.graph, False
    attributes = [item for node in graph.node for item in node.attribute]
    for tensor in (*graph.initializer, *(item.t for item in attributes if item.HasField("t"))):
        if tensor.data_type == half:
            values = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
            found = True
    for item in attributes:
        if item.name in ("to", "dtype") and item.i == half:
            item.i, found = full, True
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == half:
            value.type.tensor_type.elem_type, found = full, True
    del graph.value_info[:]
    return wide if found else None


class _Nodes:
    """Nodes of the wrapper, one after the other."""

    def __init__(self, tensor: str, place: str) -> None:
        self.tensor, self.nodes, self.constants = tensor, list[Any](), list[Any]()
        self._place = f"{_OWN}{place}"

    def add(self, operator: str, *others: Any, first: bool = True, output: str | None = None, **attributes: Any) -> str:
        """Add an operator on the last tensor and on names or arrays; return its output."""
        import onnx

        names = [other if isinstance(other, str) else self._constant(other) for other in others]
        inputs = [self.tensor, *names] if first else [*names, self.tensor]
        self.tensor = output or f"{self._place}/{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(operator, inputs, [self.tensor], **attributes))
        return self.tensor

    def _constant(self, values: Any) -> str:
        import onnx

        name = f"{self._place}/constant_{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(np.asarray(values), name))
        return name


def _make_input_nodes(taken: Any, pixels: PixelInput, *, channels_first: bool) -> _Nodes:
    """Images, uint8 (N, height, width, 1) -> the tensor that the model takes, as `PixelInput.to_array` does."""
    import onnx

    kind = taken.type.tensor_type.elem_type
    nodes = _Nodes(INPUT_NAME, "input")
    if kind != onnx.TensorProto.UINT8:
        nodes.add("Cast", to=onnx.TensorProto.FLOAT)
    if pixels.channels > 1:
        nodes.add("Concat", *[nodes.tensor] * (pixels.channels - 1), axis=3)
    if kind != onnx.TensorProto.UINT8:
        shift, divisor = scale_constants(pixels.scale, pixels.channels)
        if shift.any():
            nodes.add("Sub", np.ascontiguousarray(shift))
        if (divisor != 1).any():
            nodes.add("Div", np.ascontiguousarray(divisor))
    if channels_first:
        nodes.add("Transpose", perm=[0, 3, 1, 2])
    nodes.add("Identity", output=taken.name)
    return nodes


def _make_output_nodes(given: Any, ending: Ending, classes: int) -> _Nodes:
    """What the model gives -> probabilities, float32 (N, classes), as `Ending.to_probabilities` does."""
    import onnx

    columns = 1 if ending.single else classes
    nodes = _Nodes(given.name, "output")
    if given.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        nodes.add("Cast", to=onnx.TensorProto.FLOAT)
    nodes.add("Reshape", np.array([-1, columns], dtype=np.int64))
    if ending.kind is OutputKind.LOGITS:
        if ending.single:
            logit = nodes.tensor
            nodes.add("Mul", np.float32(0))
            nodes.add("Concat", logit, axis=1)
        nodes.add("Softmax", axis=1, output=OUTPUT_NAME)
    elif ending.kind is OutputKind.SIGMOID and ending.single:
        second = nodes.tensor
        nodes.add("Sub", np.float32(1), first=False)
        nodes.add("Concat", second, axis=1, output=OUTPUT_NAME)
    elif ending.kind is OutputKind.SIGMOID:
        floored = nodes.add("Max", np.asarray(SMALLEST))
        total = nodes.add("ReduceSum", np.array([1], dtype=np.int64), keepdims=1)
        nodes.tensor = floored
        nodes.add("Div", total, output=OUTPUT_NAME)
    else:
        nodes.add("Identity", output=OUTPUT_NAME)
    return nodes


def _prefix_names(graph: Any) -> None:
    """Keep the model's names apart from the wrapper's and the bundle's."""
    for node in graph.node:
        for tensors in (node.input, node.output):
            for position, name in enumerate(tensors):
                tensors[position] = name and f"{_PREFIX}{name}"
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = f"{_PREFIX}{value.name}"


def _free_batch(graph: Any, taken: str) -> None:
    """Let a Reshape keep the number of images, where the exporter wrote down how many it saw."""
    from onnx import numpy_helper

    weights = {tensor.name: tensor for tensor in graph.initializer}
    constants = {node.output[0]: node.attribute[0] for node in graph.node if node.op_type == "Constant"}
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_value
    if not batch:
        return
    reached = {taken}
    for place, node in enumerate(graph.node):
        if not reached.intersection(node.input):
            continue
        reached.update(node.output)
        if node.op_type != "Reshape" or node.input[0] not in reached:
            continue
        name = node.input[1]
        tensor = weights.get(name) or (constants[name].t if name in constants else None)
        if tensor is None:
            continue
        sides = numpy_helper.to_array(tensor).copy()
        if sides.ndim != 1 or not sides.size or sides[0] != batch:
            continue
        sides[0] = 0 if -1 in sides else -1
        graph.initializer.append(numpy_helper.from_array(sides, f"{_OWN}reshape_{place}"))
        node.input[1] = graph.initializer[-1].name


def _forget_origin(model: Any) -> None:
    """Drop what exporters note about the machine and the sources of the user."""
    model.producer_name, model.producer_version, model.doc_string, model.domain = "", "", "", ""
    del model.metadata_props[:]
    graph = model.graph
    graph.doc_string = ""
    for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.doc_string = ""
        if hasattr(part, "metadata_props"):
            del part.metadata_props[:]
    del graph.quantization_annotation[:], graph.value_info[:]
