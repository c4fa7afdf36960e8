"""What a user's own Keras classifier takes and gives, found out by looking, and refused where it cannot be known.

Two things about a model cannot be seen from outside and ruin every answer where they are guessed wrong: the range of
the pixels that it was trained on, and whether its output is probabilities or logits. Where layers of the model scale
the pixels, or its last activation names what it gives, that decides; otherwise the user must say. Sigmoids become
probabilities of classes that exclude each other on demand only, by `normalised`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy import float32, uint8
from numpy.typing import NDArray

from mribatch.core.errors import MribatchError
from mribatch.core.model_spec import MAX_SIDE
from mribatch.core.synthetic import golden_slices
from mribatch.training.export.bundle import Convertible
from mribatch.training.frameworks import load_keras

_BATCH = 8  # slices at once where Keras answers; a large network at a large size takes a gigabyte for these
SMALLEST = np.float32(2.0**-126)  # the smallest float32 that keeps all its digits
_SUM_TOLERANCE = 1e-3  # how far the sum of a row of probabilities may be from one
_PASSING = ("Dropout", "Flatten", "Reshape", "Identity")  # layers that leave values as they are
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, red green blue, 0..1
_CAFFE_MEAN = (103.939, 116.779, 123.68)  # of ImageNet, blue green red, 0..255


class Scale(StrEnum):
    """What is done to pixels 0..255 before the model sees them; the modes of keras.applications' preprocess_input."""

    NONE = "none"
    UNIT = "1/255"  # 0..1
    SYMMETRIC = "-1..1"  # "tf": MobileNet, Inception, Xception, ResNetV2
    IMAGENET = "imagenet"  # "torch": 0..1, less ImageNet's mean, by its deviation: DenseNet
    CAFFE = "caffe"  # "caffe": blue green red, less ImageNet's mean: VGG, ResNet

    def constants(self, channels: int) -> tuple[NDArray[float32], NDArray[float32]]:
        """(shift, divisor), float32 (channels,): the model sees (pixel - shift) / divisor.

        Raises:
            MribatchError: The mode is for three channels and the model has one.
        """
        if channels == 1 and self in (Scale.IMAGENET, Scale.CAFFE):
            problem = f"--scale {self} is for three channels, the model takes one"
            raise MribatchError(problem, "say how its training scaled the pixels: --scale none, 1/255 or -1..1")
        shift, divisor = {
            Scale.NONE: ((0.0,), (1.0,)),
            Scale.UNIT: ((0.0,), (255.0,)),
            Scale.SYMMETRIC: ((127.5,), (127.5,)),
            Scale.IMAGENET: (tuple(255 * mean for mean in _MEAN), tuple(255 * share for share in _DEVIATION)),
            Scale.CAFFE: (_CAFFE_MEAN, (1.0,)),
        }[self]
        given = (np.asarray(values, dtype=float32) for values in (shift, divisor))
        first, second = (np.broadcast_to(values, (channels,)) for values in given)
        return first, second


class End(StrEnum):
    """What the model's output is."""

    PROBABILITIES = "probabilities"  # nothing is left to do
    LOGITS = "logits"  # the graph adds a softmax
    SIGMOID = "sigmoid"  # the graph divides each by their sum


DECLARABLE = (End.LOGITS, End.SIGMOID)  # what a user may say with --outputs


@dataclass(frozen=True)
class PixelInput:
    """How grey slices enter a model: grey repeated to its channels, then scaled."""

    height: int  # pixels
    width: int
    channels: int  # 1 or 3
    scale: Scale
    inside: tuple[str, ...]  # layers of the model that scale, in order
    notes: tuple[str, ...] = ()  # what the user should know

    def array(self, images: NDArray[uint8]) -> NDArray[float32]:
        """uint8 (n, height, width, 1) -> float32 (n, height, width, channels), by NumPy."""
        shift, divisor = self.scale.constants(self.channels)
        return (np.repeat(images.astype(float32), self.channels, axis=3) - shift) / divisor

    def tensor(self, images: Any) -> Any:
        """The same in TensorFlow, for the graph."""
        tensorflow, _ = load_keras()
        shift, divisor = self.scale.constants(self.channels)
        grey = tensorflow.cast(images, tensorflow.float32)
        return (tensorflow.concat([grey] * self.channels, axis=-1) - shift) / divisor


@dataclass(frozen=True)
class KerasClassifier:
    """A model with all that is needed to ask it about grey slices."""

    model: Any  # keras.Model
    pixels: PixelInput
    end: End
    classes: int  # columns of the output

    def convertible(self) -> Convertible:
        """For `export.publish`: the graph in TensorFlow; the answers from Keras, layer by layer, scaled by NumPy."""
        tensorflow, _ = load_keras()

        def graph(images: Any) -> Any:
            output = tensorflow.cast(self.model(self.pixels.tensor(images), training=False), tensorflow.float32)
            if self.end is End.SIGMOID:
                floored = tensorflow.maximum(output, SMALLEST)
                return floored / tensorflow.reduce_sum(floored, axis=1, keepdims=True)
            return tensorflow.nn.softmax(output) if self.end is End.LOGITS else tensorflow.identity(output)

        def answers(images: NDArray[uint8]) -> NDArray[float32]:
            output = outputs(self.model, self.pixels, images)
            if self.end is End.SIGMOID:
                return normalised(output)
            return np.asarray(tensorflow.nn.softmax(output), dtype=float32) if self.end is End.LOGITS else output

        return Convertible(height=self.pixels.height, width=self.pixels.width, graph=graph, answers=answers)


def normalised(sigmoids: NDArray[float32]) -> NDArray[float32]:
    """Each sigmoid divided by the sum of its row: p_i / (p_1 + … + p_k), float32 (n, classes).

    What Keras' categorical cross-entropy does to outputs before it takes their logarithm
    (`keras.ops.categorical_crossentropy`), so these are the probabilities that such a fit was about. The largest stays
    the largest. A sigmoid under 2^-126 counts as 2^-126: a row of zeros becomes 1 / k everywhere, never 0 / 0.
    """
    floored = np.maximum(sigmoids, SMALLEST)
    return np.asarray(floored / floored.sum(axis=1, keepdims=True), dtype=float32)


def understand(
    model: Any, classes: int, scale: Scale | None, declared: End | None, size: int | None
) -> KerasClassifier:
    """Find out what the model takes and gives.

    Args:
        model: keras.Model, loaded.
        classes: How many the user named.
        scale: What the user declared; None: nothing.
        declared: What the user said that the outputs are, one of DECLARABLE; None: nothing.
        size: Height and width for a model that takes any; None: the model's own.

    Raises:
        MribatchError: It is no classifier of single images with so many classes, or range or output are not known,
            contradict what was declared, or are not finite.
    """
    pixels = understand_input(model, scale, size)
    shape = tuple(model.outputs[0].shape)
    if len(model.outputs) != 1 or len(shape) != 2:
        given = f"{len(model.outputs)} outputs, the first of shape {_shape(shape)}"
        raise MribatchError(f"the model gives {given}", "export a model with one output, (batch, classes)")
    if shape[1] != classes:
        fix = "name every class once, in the order of the model's outputs (image_dataset_from_directory: alphabetical)"
        if shape[1] == 1:
            fix = "end the model in one output per class and a softmax, in place of a single sigmoid"
        raise MribatchError(f"the model gives {shape[1]} numbers per image, --classes names {classes}", fix)
    sample = outputs(model, pixels, golden_slices(_BATCH, pixels.height, pixels.width))
    return KerasClassifier(model, pixels, _end(model, sample, declared), classes)


def understand_input(model: Any, scale: Scale | None, size: int | None) -> PixelInput:
    """Find out which pixels the model takes.

    Raises:
        MribatchError: It takes no single image, or the range of the pixels is not known or would be scaled twice.
    """
    if len(model.inputs) != 1:
        raise MribatchError(f"the model takes {len(model.inputs)} inputs", "export a model that takes one image")
    height, width, channels = _image_shape(tuple(model.inputs[0].shape), size)
    _check_precision(model)
    inside = tuple(_scaling_layers(model))
    names = tuple(name for name, _ in inside)
    if inside and scale not in (None, Scale.NONE):
        raise MribatchError(
            f"the model's own layer '{names[0]}' scales the pixels; --scale {scale} would scale them twice",
            "leave --scale out: the model takes pixels 0..255 (keras.applications' EfficientNet always does)",
        )
    if not inside and scale is None:
        raise MribatchError(
            "nothing in the model scales the pixels, and which range it was trained on cannot be seen",
            "say what its training did to pixels 0..255: --scale 1/255, -1..1, imagenet, caffe, or none",
        )
    chosen = scale or Scale.NONE
    chosen.constants(channels)
    return PixelInput(height, width, channels, chosen, names, tuple(_warnings(inside)))


def outputs(model: Any, pixels: PixelInput, images: NDArray[uint8]) -> NDArray[float32]:
    """What Keras gives for grey slices, float32 (n, classes), without tracing or compiling anything."""
    starts = range(0, len(images), _BATCH)
    batches = (model(pixels.array(images[start : start + _BATCH]), training=False) for start in starts)
    return np.concatenate([np.asarray(batch, dtype=float32) for batch in batches])


def inner_models(model: Any) -> Iterator[Any]:
    """The model's operations in order, with those of models inside it in their place."""
    _, keras = load_keras()
    for operation in model.layers if isinstance(model, keras.Sequential) else model.operations:
        if isinstance(operation, keras.Model):
            yield from inner_models(operation)
        else:
            yield operation


def _image_shape(shape: tuple[int | None, ...], size: int | None) -> tuple[int, int, int]:
    if len(shape) != 4:
        fix = "export a model of (batch, height, width, channels)"
        raise MribatchError(f"the model takes {_shape(shape)}, not images", fix)
    _, height, width, channels = shape
    if channels not in (1, 3):
        first = " (channels first)" if shape[1] in (1, 3) else ""
        problem = f"the model takes {_shape(shape)}{first}, not 1 or 3 channels in the last place"
        raise MribatchError(problem, "export a model of (batch, height, width, 1 or 3)")
    if size is not None and {height, width} - {None, size}:
        raise MribatchError(f"the model takes {_shape(shape)}, --size says {size}", "leave --size out")
    height, width = height or size, width or size
    if height is None or width is None:
        raise MribatchError(f"the model takes images of any size, {_shape(shape)}", "give --size, as in its training")
    if max(height, width) > MAX_SIDE:
        raise MribatchError(
            f"the model takes {height} x {width} pixels; {MAX_SIDE} is the most", "export a smaller one"
        )
    return height, width, channels


def _check_precision(model: Any) -> None:
    for layer in inner_models(model):
        precision = getattr(layer, "compute_dtype", "float32")
        if precision in ("float16", "bfloat16", "float64"):
            raise MribatchError(
                f"the model's layer '{layer.name}' computes in {precision}; a bundle's graph is float32",
                "keras.config.set_dtype_policy('float32'), build the same model, load the weights and save it",
            )


def _scaling_layers(model: Any) -> Iterator[tuple[str, float]]:
    """(name, factor) of what scales the pixels before the first layer with weights; the factor is 1 where not known."""
    _, keras = load_keras()
    for operation in inner_models(model):
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


def _warnings(inside: tuple[tuple[str, float], ...]) -> Iterator[str]:
    factors = [(name, factor) for name, factor in inside if 0 < factor < 0.05]
    if len(factors) > 1:
        names = ", ".join(f"'{name}'" for name, _ in factors)
        yield f"the model divides its pixels {len(factors)} times ({names}); exported as it was trained"


def _end(model: Any, sample: NDArray[float32], declared: End | None) -> End:
    if not np.isfinite(sample).all():
        raise MribatchError("the model gives NaN or infinity for synthetic slices", "check its weights and --scale")
    activation = _last_activation(model.outputs[0])
    adds_up = bool((sample >= 0).all() and (np.abs(sample.sum(axis=1) - 1) <= _SUM_TOLERANCE).all())
    if declared is End.SIGMOID:
        return _sigmoid_end(activation, sample, adds_up)
    if activation == "softmax" or (activation is None and adds_up):
        if declared is End.LOGITS:
            problem = "the model's output is probabilities; --outputs logits would add a second softmax"
            raise MribatchError(problem, "leave --outputs out")
        if not adds_up:
            low, high = float(sample.sum(axis=1).min()), float(sample.sum(axis=1).max())
            problem = f"the model ends in a softmax, but its outputs add up to {low:.4g} to {high:.4g}, not to 1"
            raise MribatchError(problem, "let the softmax be over the classes (axis -1) and the last step")
        return End.PROBABILITIES
    if activation in ("linear", "log_softmax") or (activation is None and declared is End.LOGITS):
        return End.LOGITS  # the softmax of log probabilities is the probabilities
    if activation is None:
        raise MribatchError(
            "whether the model gives probabilities or logits cannot be seen from its last layer",
            "give --outputs logits if it was trained with from_logits=True; otherwise let it end in a softmax",
        )
    fix = "let its last layer end in a softmax, fit that layer again and save the model"
    if activation == "sigmoid":
        fix += "; or give --outputs sigmoid: each output is then divided by their sum"
    raise MribatchError(
        f"the model ends in '{activation}', so its outputs are no probabilities of classes that exclude each other", fix
    )


def _sigmoid_end(activation: str | None, sample: NDArray[float32], adds_up: bool) -> End:
    """Refuse --outputs sigmoid for what is something else."""
    if activation not in ("sigmoid", None):
        raise MribatchError(f"the model ends in '{activation}', --outputs says sigmoid", "leave --outputs out")
    if adds_up:
        problem = "the model's outputs add up to 1 already, --outputs says sigmoid"
        raise MribatchError(problem, "leave --outputs out")
    if sample.min() < 0 or sample.max() > 1:
        problem = f"the model gives {sample.min():.4g} to {sample.max():.4g}, --outputs says sigmoid, which is 0 to 1"
        raise MribatchError(problem, "give --outputs logits if nothing follows the last layer's sums")
    return End.SIGMOID


def _last_activation(tensor: Any) -> str | None:
    """Name of the function that gave the tensor its values; None where the last step is not known."""
    _, keras = load_keras()
    operation, node, place = tensor._keras_history
    if isinstance(operation, keras.Model):
        return _last_activation(operation.outputs[place])
    kind = type(operation).__name__
    activation = getattr(operation, "activation", None)
    passes = isinstance(operation, tuple(getattr(keras.layers, name) for name in _PASSING))
    if passes or (isinstance(operation, keras.layers.Activation) and _named(activation) == "linear"):
        return _last_activation(operation._inbound_nodes[node].input_tensors[0])
    if kind in ("Softmax", "Sigmoid", "LogSoftmax"):  # a layer, or a function of keras.ops
        return {"Softmax": "softmax", "Sigmoid": "sigmoid", "LogSoftmax": "log_softmax"}[kind]
    if isinstance(operation, keras.layers.Dense | keras.layers.Conv2D | keras.layers.Activation):
        return _named(activation)
    return None


def _named(activation: Any) -> str:
    return "linear" if activation is None else str(getattr(activation, "__name__", activation))


def _shape(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('any' if side is None else str(side) for side in shape)})"
