"""What a user's own ONNX classifier takes and gives: inspected, and refused if it cannot be known.

The reference for the golden answers is the user's graph alone in ONNX Runtime, fed by NumPy, and not the graph that the
bundle gets.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy import float32, uint8
from numpy.typing import NDArray

from mribatch.core.agreement import compare
from mribatch.core.errors import MribatchError
from mribatch.core.model_spec import INPUT_NAME, OUTPUT_NAME, Tolerance
from mribatch.core.synthetic import golden_slices
from mribatch.core.text import one_line
from mribatch.training.export.declarations import OutputKind
from mribatch.training.export.onnx_wrapper import iterate_versions, widen, wrap
from mribatch.training.export.outputs import Ending, check_width, find_ending
from mribatch.training.export.pixels import PixelInput, Scaling, choose_scale, choose_sides, scale_constants

_BATCH_SIZE = 8
_PASSING = {"Identity", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Cast", "Dropout"}
_ARITHMETIC = {"Sub", "Add", "Mul", "Div"}
_MOVING = _PASSING | {"Transpose", "Pad", "Resize", "Slice", "Concat", "Clip", "Shape", "Gather", "Split", "Expand"}
_LAST = {"Softmax": "softmax", "LogSoftmax": "log_softmax", "Sigmoid": "sigmoid"} | dict.fromkeys(
    ("Gemm", "MatMul", "Conv"), "linear"
)
_REDO = "export it again with a dynamic batch, as torch.onnx.export(…, dynamic_axes={'input': {0: 'batch'}}) does"


@dataclass(frozen=True)
class OnnxClassifier:
    """A model with everything needed to classify grey slices; also the `Source` of its bundle."""

    model: Any  # onnx.ModelProto
    pixels: PixelInput
    ending: Ending
    classes: int
    channels_first: bool
    predict: Callable[[NDArray[uint8]], NDArray[float32]]  # the user's graph alone
    reference: str = "the ONNX model alone"

    @property
    def height(self) -> int:
        """Pixels."""
        return self.pixels.height

    @property
    def width(self) -> int:
        """Pixels."""
        return self.pixels.width

    @property
    def answers(self) -> Callable[[NDArray[uint8]], NDArray[float32]]:
        """What the user's graph alone gives for uint8 (n, height, width, 1)."""
        return lambda images: self.ending.to_probabilities(self.predict(images))

    def _check_widened(self, half: NDArray[float32]) -> Self:
        """Check that the model in float32 is the one in float16, and tell that it is used."""
        expected = self.ending.to_probabilities(half)
        agreement = compare(
            self.answers(golden_slices(len(half), self.height, self.width)), expected, Tolerance(), "fp16"
        )
        if not agreement.holds:
            problem = f"the model in float32 does not give its probabilities in float16: {agreement}"
            raise MribatchError(problem, "export it in float32")
        note = f"computed in float32, which moves the probabilities by up to {agreement.max_difference:.1g}"
        return replace(self, pixels=replace(self.pixels, notes=(*self.pixels.notes, note)))

    def to_onnx(self) -> bytes:
        """Return the bundle's model.onnx, in the bundles' opset if that agrees with the model.

        Raises:
            ValueError: No version of it takes several images and agrees; says why.
        """
        images = golden_slices(_BATCH_SIZE - 1, self.height, self.width)
        expected, reason = self.answers(images), "its opset cannot be converted"
        for version in iterate_versions(self.model):
            try:
                wrapped = wrap(version, self.pixels, self.ending, self.classes, channels_first=self.channels_first)
                content = bytes(wrapped.SerializeToString(deterministic=True))
                got = open_session(content).run([OUTPUT_NAME], {INPUT_NAME: images})[0]
                if got.shape == expected.shape and compare(got, expected, Tolerance()).holds:
                    return content
                reason = "several images at once give other answers than one by one"
            except Exception as error:  # the checker and ONNX Runtime raise kinds of their own
                reason = _first_line(error)
        raise ValueError(reason)


def inspect_graph(
    model: Any,
    classes: int,
    *,
    scale: Scaling | None,
    declared: OutputKind | None,
    size: int | None,
    scale_twice: bool = False,
) -> OnnxClassifier:
    """Find out what the model takes and gives; the arguments are those of `inspect_classifier`.

    Raises:
        MribatchError: It is not a classifier of single images with that many classes, or range or output are unknown,
            contradict what was declared, or are not finite; or ONNX Runtime cannot run it.
    """
    taken = _find_input(model)
    shape, channels_first = _read_layout(taken)
    channels, *sides = shape[1:] if channels_first else (shape[3], *shape[1:3])
    height, width = choose_sides(sides[0], sides[1], size, _format_shape(shape))
    kind = _read_kind(taken)
    names = ("uint8 input",) if kind == uint8 else tuple(_find_scaling(model, taken.name))
    chosen, notes = choose_scale(names, scale, scale_twice=scale_twice)
    if kind == uint8 and scale_twice:
        raise MribatchError("the model takes uint8 pixels, which cannot be scaled outside", "omit --scale-twice")
    scale_constants(chosen, channels or 0)
    pixels = PixelInput(height, width, channels or 0, chosen, names, tuple(notes))
    if len(model.graph.output) != 1:
        given = ", ".join(one_line(value.name)[:40] for value in model.graph.output[:5])
        problem = f"the model gives {len(model.graph.output)} outputs: {given}"
        raise MribatchError(problem, "export a model with one output, (batch, classes)")
    predict = _make_predict(model, pixels, kind, shape[0], channels_first=channels_first)
    sample = predict(golden_slices(_BATCH_SIZE, height, width))
    if (wide := widen(model)) is not None:
        return inspect_graph(
            wide, classes, scale=scale, declared=declared, size=size, scale_twice=scale_twice
        )._check_widened(sample)
    check_width(sample.shape[1], classes)
    ending = find_ending(_find_last_activation(model), sample, declared)
    return OnnxClassifier(model, pixels, ending, classes, channels_first, predict)


def open_session(content: bytes) -> Any:
    """Return a session on the CPU that tells its errors by exceptions alone."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _find_input(model: Any) -> Any:
    weights = {tensor.name for tensor in model.graph.initializer}
    for listed in [value for value in model.graph.input if value.name in weights]:  # as files before ONNX 1.4 have it
        model.graph.input.remove(listed)
    used = {name for node in model.graph.node for name in node.input}
    for unused in [value for value in model.graph.input if value.name not in used]:
        model.graph.input.remove(unused)
    if len(model.graph.input) != 1:
        raise MribatchError(f"the model takes {len(model.graph.input)} inputs", "use a model that takes one image")
    return model.graph.input[0]


def _read_kind(taken: Any) -> Any:
    import onnx

    kinds = {onnx.TensorProto.FLOAT: float32, onnx.TensorProto.FLOAT16: np.float16, onnx.TensorProto.UINT8: uint8}
    kind = kinds.get(taken.type.tensor_type.elem_type)
    if kind is None:
        number = taken.type.tensor_type.elem_type
        name = onnx.TensorProto.DataType.Name(number) if number in onnx.TensorProto.DataType.values() else str(number)
        problem = f"the model takes {name.lower()}, not float32, float16 or uint8"
        raise MribatchError(problem, "export it with an input of float32")
    return kind


def _read_layout(taken: Any) -> tuple[tuple[int | None, ...], bool]:
    """Return the input's shape, None where it is dynamic, and whether channels come first."""
    shape = tuple(side.dim_value or None for side in taken.type.tensor_type.shape.dim)
    if len(shape) != 4:
        fix = "use a model of (batch, channels, height, width) or (batch, height, width, channels)"
        raise MribatchError(f"the model takes {_format_shape(shape)}, not images", fix)
    first, last = shape[1] in (1, 3), shape[3] in (1, 3)
    if first == last:
        problem = f"the model takes {_format_shape(shape)}: which side counts 1 or 3 channels cannot be seen"
        raise MribatchError(problem, "export it with a fixed number of channels, 1 or 3, and sides of 4 pixels or more")
    return shape, first


def _make_predict(
    model: Any, pixels: PixelInput, kind: Any, batch: int | None, *, channels_first: bool
) -> Callable[[NDArray[uint8]], NDArray[float32]]:
    """Return a function that asks the user's graph alone, fed by NumPy; it keeps the graph's own batch."""
    try:
        session = open_session(model.SerializeToString())
    except Exception as error:
        problem = f"ONNX Runtime cannot load the model: {_first_line(error)}"
        raise MribatchError(problem, "export it again, and run it in onnxruntime before") from error
    name, size = model.graph.input[0].name, batch or _BATCH_SIZE

    def predict(images: NDArray[uint8]) -> NDArray[float32]:
        given = []
        for start in range(0, len(images), size):
            part = images[start : start + size]
            if batch:
                part = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
            array = np.repeat(part, pixels.channels, axis=3) if kind == uint8 else pixels.to_array(part).astype(kind)
            array = np.ascontiguousarray(array.transpose(0, 3, 1, 2) if channels_first else array)
            given.append(_to_rows(_run(session, {name: array}), len(part))[: len(images) - start])
        return np.concatenate(given)

    return predict


def _run(session: Any, feed: Mapping[str, Any]) -> NDArray[Any]:
    try:
        return np.asarray(session.run(None, dict(feed))[0])
    except Exception as error:
        problem = f"ONNX Runtime cannot run the model on {', '.join(str(value.shape) for value in feed.values())}"
        raise MribatchError(f"{problem}: {_first_line(error)}", "check --size; or " + _REDO) from error


def _to_rows(given: NDArray[Any], count: int) -> NDArray[float32]:
    """Return (n, outputs) of an output (n, outputs), (n, outputs, 1, 1) or (n,)."""
    if (
        given.dtype not in (np.float32, np.float16)
        or given.shape[:1] != (count,)
        or max(given.shape[2:], default=1) > 1
    ):
        problem = f"the model gives {given.dtype} {_format_shape(given.shape)} for {count} images"
        raise MribatchError(problem, "export a model with one output, float (batch, classes)")
    return np.asarray(given.reshape(count, -1), dtype=float32)


def _find_scaling(model: Any, taken: str) -> Iterator[str]:
    """Yield the names of the operators that scale the pixels before the first layer with weights."""
    from onnx import numpy_helper

    values = {tensor.name: tensor for tensor in model.graph.initializer}
    values |= {n.output[0]: n.attribute[0].t for n in model.graph.node if n.op_type == "Constant" and n.attribute}
    reached = {taken}
    for node in model.graph.node:
        if not reached.intersection(node.input):
            continue
        constants = [values[name] for name in node.input if name in values]
        if node.op_type in _ARITHMETIC and all(int(np.prod(tensor.dims)) <= 3 for tensor in constants):
            if any((numpy_helper.to_array(tensor) != (node.op_type in ("Mul", "Div"))).any() for tensor in constants):
                yield one_line(node.name or node.op_type)[:60]
        elif node.op_type not in _MOVING:
            return
        reached.update(node.output)


def _find_last_activation(model: Any) -> str | None:
    """Return the name of the function that gave the output its values, in Keras' spelling; None if it is unknown."""
    makers = {name: node for node in model.graph.node for name in node.output}
    weights = {tensor.name for tensor in model.graph.initializer}
    node = makers.get(model.graph.output[0].name)
    while node is not None and node.op_type in _PASSING:
        node = makers.get(node.input[0])
    if node is not None and node.op_type == "Add":  # a bias
        node = next((makers[name] for name in node.input if name in makers and name not in weights), None)
        return "linear" if node is not None and node.op_type in ("MatMul", "Conv", "Gemm") else None
    if node is None:
        return None
    if node.op_type in ("Relu", "Tanh", "Elu", "LeakyRelu", "Clip", "HardSigmoid"):
        return str(node.op_type.lower())
    return _LAST.get(node.op_type)


def _first_line(error: BaseException) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return one_line(text)[:200]


def _format_shape(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('any' if side is None else str(side) for side in shape)})"
