"""What a user's own Keras classifier takes and gives: inspected, and refused if it cannot be known.

Two things about a model cannot be seen from outside, and a wrong guess ruins every answer: the range of the pixels that
it was trained on, and whether its outputs are probabilities or logits. If layers of the model scale the pixels, or its
last activation says what it gives, that decides; otherwise the user must say. Sigmoids become probabilities of
exclusive classes only on demand; one sigmoid for two classes is the second one's probability.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy import float32, uint8
from numpy.typing import NDArray

from mribatch.core.errors import MribatchError
from mribatch.core.synthetic import golden_slices
from mribatch.training.export.declarations import OutputKind
from mribatch.training.export.onnx_conversion import Convertible
from mribatch.training.export.outputs import SMALLEST, Ending, check_width, find_ending
from mribatch.training.export.pixels import PixelInput, Scaling, choose_scale, choose_sides, scale_constants
from mribatch.training.frameworks import load_keras

_BATCH_SIZE = 8  # slices that Keras predicts at once; a large network at a large size needs a gigabyte for them
_PASSING = ("Dropout", "Flatten", "Reshape", "Identity")  # layers that do not change values


@dataclass(frozen=True)
class KerasClassifier:
    """A model with everything needed to classify grey slices."""

    model: Any  # keras.Model
    pixels: PixelInput
    ending: Ending
    classes: int

    def to_source(self) -> Convertible:
        """Return the graph in TensorFlow, and the answers from Keras, layer by layer, scaled by NumPy."""
        tensorflow, keras = load_keras()

        def graph(images: Any) -> Any:
            with keras.StatelessScope():  # layers that draw random numbers count them, also where none is used
                output = self.model(_to_tensor(self.pixels, images), training=False)
            return _add_ending(self.ending, tensorflow.cast(output, tensorflow.float32))

        def answers(images: NDArray[uint8]) -> NDArray[float32]:
            return self.ending.to_probabilities(predict_outputs(self.model, self.pixels, images))

        return Convertible(height=self.pixels.height, width=self.pixels.width, graph=graph, answers=answers)


def _to_tensor(pixels: PixelInput, images: Any) -> Any:
    """Do as `PixelInput.to_array` in TensorFlow, for the graph."""
    tensorflow, _ = load_keras()
    shift, divisor = scale_constants(pixels.scale, pixels.channels)
    grey = tensorflow.cast(images, tensorflow.float32)
    return (tensorflow.concat([grey] * pixels.channels, axis=-1) - shift) / divisor


def _add_ending(ending: Ending, output: Any) -> Any:
    """Do as `Ending.to_probabilities` in TensorFlow, for the graph."""
    tensorflow, _ = load_keras()
    if ending.kind is OutputKind.PROBABILITIES:
        return tensorflow.identity(output)
    if ending.kind is OutputKind.LOGITS:
        return tensorflow.nn.softmax(tensorflow.concat([0 * output, output], axis=1) if ending.single else output)
    if ending.single:
        return tensorflow.concat([1 - output, output], axis=1)
    floored = tensorflow.maximum(output, SMALLEST)
    return floored / tensorflow.reduce_sum(floored, axis=1, keepdims=True)


def inspect_classifier(
    model: Any,
    classes: int,
    *,
    scale: Scaling | None,
    declared: OutputKind | None,
    size: int | None,
    scale_twice: bool = False,
) -> KerasClassifier:
    """Find out what the model takes and gives.

    Args:
        model: keras.Model, loaded.
        classes: Number of classes that the user named.
        scale: As declared by the user; None: not declared.
        declared: Kind of the outputs as declared by the user, one of DECLARABLE; None: not declared.
        size: Height and width for a model that takes any; None: the model's own.
        scale_twice: The user says that the model was trained on images scaled outside as well as by its own layers.

    Raises:
        MribatchError: It is not a classifier of single images with that many classes, or range or output are unknown,
            contradict what was declared, or are not finite.
    """
    pixels = inspect_input(model, scale, size, scale_twice=scale_twice)
    shape = tuple(model.outputs[0].shape)
    if len(model.outputs) != 1 or len(shape) != 2:
        given = f"{len(model.outputs)} outputs, the first of shape {_format_shape(shape)}"
        raise MribatchError(f"the model gives {given}", "export a model with one output, (batch, classes)")
    check_width(int(shape[1]), classes)
    sample = predict_outputs(model, pixels, golden_slices(_BATCH_SIZE, pixels.height, pixels.width))
    return KerasClassifier(
        model, pixels, find_ending(_find_last_activation(model.outputs[0]), sample, declared), classes
    )


def inspect_input(model: Any, scale: Scaling | None, size: int | None, *, scale_twice: bool = False) -> PixelInput:
    """Find out which pixels the model takes.

    Raises:
        MribatchError: It does not take a single image, or the range of the pixels is unknown or would be scaled twice.
    """
    if len(model.inputs) != 1:
        raise MribatchError(f"the model takes {len(model.inputs)} inputs", "use a model that takes one image")
    height, width, channels = _read_image_shape(tuple(model.inputs[0].shape), size)
    _check_precision(model)
    scaling = tuple(_find_scaling_layers(model))
    names = tuple(name for name, _ in scaling)
    chosen, notes = choose_scale(names, scale, scale_twice=scale_twice)
    scale_constants(chosen, channels)
    return PixelInput(height, width, channels, chosen, names, (*_warn_of_double_scaling(scaling), *notes))


def predict_outputs(model: Any, pixels: PixelInput, images: NDArray[uint8]) -> NDArray[float32]:
    """Return what Keras gives for grey slices, float32 (n, classes), without tracing or compiling anything."""
    starts = range(0, len(images), _BATCH_SIZE)
    batches = (model(pixels.to_array(images[start : start + _BATCH_SIZE]), training=False) for start in starts)
    return np.concatenate([np.asarray(batch, dtype=float32) for batch in batches])


def iterate_operations(model: Any) -> Iterator[Any]:
    """Yield the model's operations in order, including those of models inside it."""
    _, keras = load_keras()
    for operation in model.layers if isinstance(model, keras.Sequential) else model.operations:
        if isinstance(operation, keras.Model):
            yield from iterate_operations(operation)
        else:
            yield operation


def _read_image_shape(shape: tuple[int | None, ...], size: int | None) -> tuple[int, int, int]:
    if len(shape) != 4:
        fix = "use a model of (batch, height, width, channels)"
        raise MribatchError(f"the model takes {_format_shape(shape)}, not images", fix)
    _, height, width, channels = shape
    if channels not in (1, 3):
        first = " (channels first)" if shape[1] in (1, 3) else ""
        problem = f"the model takes {_format_shape(shape)}{first}, not 1 or 3 channels in the last place"
        raise MribatchError(problem, "use a model of (batch, height, width, 1 or 3)")
    height, width = choose_sides(height, width, size, _format_shape(shape))
    return height, width, channels


def _check_precision(model: Any) -> None:
    for layer in iterate_operations(model):
        precision = getattr(layer, "compute_dtype", "float32")
        if precision in ("float16", "bfloat16", "float64"):
            raise MribatchError(
                f"the model's layer '{layer.name}' computes in {precision}; a bundle's graph is float32",
                "keras.config.set_dtype_policy('float32'), build the same model, load the weights and save it",
            )


def _find_scaling_layers(model: Any) -> Iterator[tuple[str, float]]:
    """Yield (name, factor) of what scales the pixels before the first layer with weights; 1 if unknown."""
    _, keras = load_keras()
    for operation in iterate_operations(model):
        kind = type(operation).__name__
        if isinstance(operation, keras.layers.Rescaling):
            factor = np.ravel(operation.scale)
            yield operation.name, float(np.abs(factor).max(initial=0))
        elif isinstance(operation, keras.layers.Normalization):
            yield operation.name, 1.0
        elif isinstance(operation, keras.Layer):
            if operation.weights:
                return
        elif kind in ("Divide", "TrueDivide", "Multiply", "Subtract", "Add"):  # keras.ops, or + - * / on a tensor
            yield operation.name, 1.0


def _warn_of_double_scaling(scaling: tuple[tuple[str, float], ...]) -> Iterator[str]:
    factors = [(name, factor) for name, factor in scaling if 0 < factor < 0.05]
    if len(factors) > 1:
        names = ", ".join(f"'{name}'" for name, _ in factors)
        yield f"the model divides its pixels {len(factors)} times ({names}); exported as it was trained"


def _find_last_activation(tensor: Any) -> str | None:
    """Return the name of the function that gave the tensor its values; None if it is unknown."""
    _, keras = load_keras()
    operation, node, place = tensor._keras_history
    if isinstance(operation, keras.Model):
        return _find_last_activation(operation.outputs[place])
    kind = type(operation).__name__
    activation = getattr(operation, "activation", None)
    passes = isinstance(operation, tuple(getattr(keras.layers, name) for name in _PASSING))
    if passes or (isinstance(operation, keras.layers.Activation) and _name_activation(activation) == "linear"):
        return _find_last_activation(operation._inbound_nodes[node].input_tensors[0])
    if kind in ("Softmax", "Sigmoid", "LogSoftmax"):  # a layer, or a function of keras.ops
        return {"Softmax": "softmax", "Sigmoid": "sigmoid", "LogSoftmax": "log_softmax"}[kind]
    if isinstance(operation, keras.layers.Dense | keras.layers.Conv2D | keras.layers.Activation):
        return _name_activation(activation)
    return None


def _name_activation(activation: Any) -> str:
    return "linear" if activation is None else str(getattr(activation, "__name__", activation))


def _format_shape(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('any' if side is None else str(side) for side in shape)})"
