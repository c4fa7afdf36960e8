"""What a user's own Keras classifier takes and gives: inspected, and refused if it cannot be known.

Two things about a model cannot be seen from outside, and a wrong guess ruins every answer: the range of the pixels that
it was trained on, and whether its outputs are probabilities or logits. If layers of the model scale the pixels, or its
last activation says what it gives, that decides; otherwise the user must say. Sigmoids become probabilities of
exclusive classes only on demand, by `normalise_sigmoids`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy import float32, uint8
from numpy.typing import NDArray

from mribatch.core.errors import MribatchError
from mribatch.core.model_spec import MAX_SIDE
from mribatch.core.synthetic import golden_slices
from mribatch.training.export.declarations import OutputKind, Scale
from mribatch.training.export.onnx_conversion import Convertible
from mribatch.training.frameworks import load_keras

_BATCH_SIZE = 8  # slices that Keras predicts at once; a large network at a large size needs a gigabyte for them
SMALLEST = np.float32(2.0**-126)  # the smallest float32 that keeps all its digits
_SUM_TOLERANCE = 1e-3  # how far the sum of a row of probabilities may be from one
_PASSING = ("Dropout", "Flatten", "Reshape", "Identity")  # layers that do not change values
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, red green blue, 0..1
_CAFFE_MEAN = (103.939, 116.779, 123.68)  # of ImageNet, blue green red, 0..255


def scale_constants(scale: Scale, channels: int) -> tuple[NDArray[float32], NDArray[float32]]:
    """Return (shift, divisor), float32 (channels,): the model sees (pixel - shift) / divisor.

    Raises:
        MribatchError: The scale is for three channels and the model takes one.
    """
    if channels == 1 and scale in (Scale.IMAGENET, Scale.CAFFE):
        problem = f"--scale {scale} is for three channels, the model takes one"
        raise MribatchError(problem, "give the scaling of its training: --scale none, 1/255 or -1..1")
    shift, divisor = {
        Scale.NONE: ((0.0,), (1.0,)),
        Scale.UNIT: ((0.0,), (255.0,)),
        Scale.SYMMETRIC: ((127.5,), (127.5,)),
        Scale.IMAGENET: (tuple(255 * mean for mean in _MEAN), tuple(255 * share for share in _DEVIATION)),
        Scale.CAFFE: (_CAFFE_MEAN, (1.0,)),
    }[scale]
    given = (np.asarray(values, dtype=float32) for values in (shift, divisor))
    first, second = (np.broadcast_to(values, (channels,)) for values in given)
    return first, second


@dataclass(frozen=True)
class PixelInput:
    """How grey slices enter a model: grey repeated to its channels, then scaled."""

    height: int  # pixels
    width: int
    channels: int  # 1 or 3
    scale: Scale
    scaling_layers: tuple[str, ...]  # layers of the model that scale, in order
    notes: tuple[str, ...] = ()  # what the user should know

    def to_array(self, images: NDArray[uint8]) -> NDArray[float32]:
        """Convert uint8 (n, height, width, 1) to float32 (n, height, width, channels) in NumPy."""
        shift, divisor = scale_constants(self.scale, self.channels)
        return (np.repeat(images.astype(float32), self.channels, axis=3) - shift) / divisor

    def to_tensor(self, images: Any) -> Any:
        """Do the same in TensorFlow, for the graph."""
        tensorflow, _ = load_keras()
        shift, divisor = scale_constants(self.scale, self.channels)
        grey = tensorflow.cast(images, tensorflow.float32)
        return (tensorflow.concat([grey] * self.channels, axis=-1) - shift) / divisor


@dataclass(frozen=True)
class KerasClassifier:
    """A model with everything needed to classify grey slices."""

    model: Any  # keras.Model
    pixels: PixelInput
    output: OutputKind
    classes: int  # columns of the output

    def to_convertible(self) -> Convertible:
        """Return the graph in TensorFlow, and the answers from Keras, layer by layer, scaled by NumPy."""
        tensorflow, _ = load_keras()

        def graph(images: Any) -> Any:
            output = tensorflow.cast(self.model(self.pixels.to_tensor(images), training=False), tensorflow.float32)
            if self.output is OutputKind.SIGMOID:
                floored = tensorflow.maximum(output, SMALLEST)
                return floored / tensorflow.reduce_sum(floored, axis=1, keepdims=True)
            return tensorflow.nn.softmax(output) if self.output is OutputKind.LOGITS else tensorflow.identity(output)

        def answers(images: NDArray[uint8]) -> NDArray[float32]:
            output = predict_outputs(self.model, self.pixels, images)
            if self.output is OutputKind.SIGMOID:
                return normalise_sigmoids(output)
            if self.output is OutputKind.LOGITS:
                return np.asarray(tensorflow.nn.softmax(output), dtype=float32)
            return output

        return Convertible(height=self.pixels.height, width=self.pixels.width, graph=graph, answers=answers)


def normalise_sigmoids(sigmoids: NDArray[float32]) -> NDArray[float32]:
    """Divide each sigmoid by the sum of its row: p_i / (p_1 + … + p_k), float32 (n, classes).

    Keras' categorical cross-entropy does the same to outputs before it takes their logarithm
    (`keras.ops.categorical_crossentropy`), so these are the probabilities that such a fit optimizes. The largest stays
    the largest. A sigmoid under 2^-126 counts as 2^-126: a row of zeros becomes 1 / k everywhere, never 0 / 0.
    """
    floored = np.maximum(sigmoids, SMALLEST)
    return np.asarray(floored / floored.sum(axis=1, keepdims=True), dtype=float32)


def inspect_classifier(
    model: Any, classes: int, *, scale: Scale | None, declared: OutputKind | None, size: int | None
) -> KerasClassifier:
    """Find out what the model takes and gives.

    Args:
        model: keras.Model, loaded.
        classes: Number of classes that the user named.
        scale: As declared by the user; None: not declared.
        declared: Kind of the outputs as declared by the user, one of DECLARABLE; None: not declared.
        size: Height and width for a model that takes any; None: the model's own.

    Raises:
        MribatchError: It is not a classifier of single images with that many classes, or range or output are unknown,
            contradict what was declared, or are not finite.
    """
    pixels = inspect_input(model, scale, size)
    shape = tuple(model.outputs[0].shape)
    if len(model.outputs) != 1 or len(shape) != 2:
        given = f"{len(model.outputs)} outputs, the first of shape {_format_shape(shape)}"
        raise MribatchError(f"the model gives {given}", "export a model with one output, (batch, classes)")
    if shape[1] != classes:
        fix = "name every class once, in the order of the model's outputs (image_dataset_from_directory: alphabetical)"
        if shape[1] == 1:
            fix = "end the model in one output per class and a softmax, in place of a single sigmoid"
        raise MribatchError(f"the model gives {shape[1]} numbers per image, --classes names {classes}", fix)
    sample = predict_outputs(model, pixels, golden_slices(_BATCH_SIZE, pixels.height, pixels.width))
    return KerasClassifier(model, pixels, _find_output(model, sample, declared), classes)


def inspect_input(model: Any, scale: Scale | None, size: int | None) -> PixelInput:
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
    if scaling and scale not in (None, Scale.NONE):
        raise MribatchError(
            f"the model's own layer '{names[0]}' scales the pixels; --scale {scale} would scale them twice",
            "omit --scale: the model takes pixels 0..255 (keras.applications' EfficientNet always does)",
        )
    if not scaling and scale is None:
        raise MribatchError(
            "nothing in the model scales the pixels, so the range that it was trained on is unknown",
            "give the scaling of pixels 0..255 in its training: --scale 1/255, -1..1, imagenet, caffe, or none",
        )
    chosen = scale or Scale.NONE
    scale_constants(chosen, channels)
    return PixelInput(height, width, channels, chosen, names, tuple(_warn_of_double_scaling(scaling)))


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
    if size is not None and {height, width} - {None, size}:
        raise MribatchError(f"the model takes {_format_shape(shape)}, --size says {size}", "omit --size")
    height, width = height or size, width or size
    if height is None or width is None:
        raise MribatchError(
            f"the model takes images of any size, {_format_shape(shape)}", "give the --size of its training"
        )
    if max(height, width) > MAX_SIDE:
        raise MribatchError(
            f"the model takes {height} x {width} pixels; the maximum is {MAX_SIDE}", "use a smaller model"
        )
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


def _find_output(model: Any, sample: NDArray[float32], declared: OutputKind | None) -> OutputKind:
    if not np.isfinite(sample).all():
        raise MribatchError("the model gives NaN or infinity for synthetic slices", "check its weights and --scale")
    activation = _find_last_activation(model.outputs[0])
    adds_up = bool((sample >= 0).all() and (np.abs(sample.sum(axis=1) - 1) <= _SUM_TOLERANCE).all())
    if declared is OutputKind.SIGMOID:
        return _check_sigmoid(activation, sample, adds_up)
    if activation == "softmax" or (activation is None and adds_up):
        return _check_probabilities(sample, declared, adds_up)
    if activation in ("linear", "log_softmax") or (activation is None and declared is OutputKind.LOGITS):
        return OutputKind.LOGITS  # the softmax of log probabilities is the probabilities
    if activation is None:
        raise MribatchError(
            "whether the model gives probabilities or logits cannot be seen in its last layer",
            "give --outputs logits if it was trained with from_logits=True; otherwise end the model in a softmax",
        )
    fix = "end its last layer in a softmax, train that layer again and save the model"
    if activation == "sigmoid":
        fix += "; or give --outputs sigmoid: each output is then divided by their sum"
    raise MribatchError(
        f"the model ends in '{activation}', so its outputs are not probabilities of exclusive classes", fix
    )


def _check_probabilities(sample: NDArray[float32], declared: OutputKind | None, adds_up: bool) -> OutputKind:
    """Refuse a softmax that is declared as something else, or that is not over the classes."""
    if declared is OutputKind.LOGITS:
        problem = "the model's outputs are probabilities; --outputs logits would add a second softmax"
        raise MribatchError(problem, "omit --outputs")
    if not adds_up:
        low, high = float(sample.sum(axis=1).min()), float(sample.sum(axis=1).max())
        problem = f"the model ends in a softmax, but its outputs add up to {low:.4g} to {high:.4g}, not to 1"
        raise MribatchError(problem, "apply the softmax over the classes (axis -1), as the last step")
    return OutputKind.PROBABILITIES


def _check_sigmoid(activation: str | None, sample: NDArray[float32], adds_up: bool) -> OutputKind:
    """Refuse --outputs sigmoid for a model that has other outputs."""
    if activation not in ("sigmoid", None):
        raise MribatchError(f"the model ends in '{activation}', --outputs says sigmoid", "omit --outputs")
    if adds_up:
        problem = "the model's outputs add up to 1 already, --outputs says sigmoid"
        raise MribatchError(problem, "omit --outputs")
    if sample.min() < 0 or sample.max() > 1:
        problem = f"the model gives {sample.min():.4g} to {sample.max():.4g}, --outputs says sigmoid, which is 0 to 1"
        raise MribatchError(problem, "give --outputs logits if no activation follows the last layer")
    return OutputKind.SIGMOID


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
