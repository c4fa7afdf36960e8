"""The output of every convolutional layer of a network for one image, as pictures."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy import float32, uint8
from numpy.typing import NDArray

from mribatch.core.errors import MribatchError
from mribatch.training.figures.page import GREY, MARGIN, WIDTH, draw_image, escape, lay_out_tiles, make_page, shorten
from mribatch.training.frameworks import load_keras

CHANNELS_AT_MOST = 60  # on one sheet
LAYERS_AT_MOST = 35  # in the overview, beside the image itself
_ACROSS = WIDTH - 2 * MARGIN


@dataclass(frozen=True)
class LayerMaps:
    """The output of one convolutional layer for one image, after its own activation if it has one."""

    name: str  # with the names of the models around it, e.g. "efficientnetb3/stem_conv"
    kind: str  # e.g. "Conv2D 3x3"
    shape: tuple[int, int, int]  # height, width, channels
    channels: tuple[int, ...]  # which channels `maps` holds: all, or evenly spaced ones
    maps: NDArray[float32]  # (height, width, len(channels))
    strength: NDArray[float32]  # (height, width): mean over all channels of the absolute value
    constant: int  # channels, of all, that have one value everywhere


def record_maps(model: Any, inputs: NDArray[float32]) -> list[LayerMaps]:
    """Run one image through the network and record the outputs of its convolutional layers, in the order of their use.

    Args:
        model: keras.Model; layers of models inside it count, too.
        inputs: float32 (1, height, width, channels), as the model takes it.

    Returns:
        One entry per call of a layer. Layers whose output is one pixel (squeeze-and-excitation) are left out: they
        have no map.

    Raises:
        MribatchError: The model has no convolutional layer over images.
    """
    layers = list(_find_convolutions(model))
    if not layers:
        problem = f"the model '{model.name}' has no two-dimensional convolutional layer"
        raise MribatchError(problem, "give --model a convolutional network")
    recorded: list[LayerMaps] = []
    with ExitStack() as stack:
        for name, layer in layers:
            stack.enter_context(_recording(name, layer, recorded))
        model(inputs, training=False)
    return recorded


def draw_sheets(recorded: Sequence[LayerMaps], title: str, folder: Path) -> Iterator[list[Path]]:
    """Draw one sheet per layer, its channels in a grid; yield the two files of each when they are written."""
    digits = len(str(len(recorded)))
    for place, layer in enumerate(recorded, start=1):
        letters = "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in layer.name)[:80]
        yield draw_layer(layer, f"{title}: {layer.name}", folder, f"layer_{place:0{digits}}_{letters}")


def draw_layer(layer: LayerMaps, title: str, folder: Path, name: str) -> list[Path]:
    """Draw the channels of one layer, each on its own scale from its smallest value (dark) to its largest (bright)."""
    height, width, channels = layer.shape
    which = (
        f"All {channels} channels"
        if len(layer.channels) == channels
        else (f"{len(layer.channels)} of {channels} channels, evenly spaced")
    )
    constant = f" {layer.constant} of all channels are constant (flat grey)." if layer.constant else ""
    lines = (
        f"{layer.kind}, output {height} x {width} x {channels}. {which}, for one image (n = 1). Each map has its own "
        f"scale, from its smallest value (dark) to its largest (bright).{constant}",
    )
    page = make_page(title, lines)
    axes = page.canvas()
    grid = lay_out_tiles(len(layer.channels), _ACROSS, page.body_height, caption=0.17, gap=0.09)
    for place, channel in enumerate(layer.channels):
        x, y = grid.corner(place)
        _draw_map(axes, layer.maps[:, :, place], (x, y), grid.side)
        axes.text(x + grid.side / 2, y + grid.side + 0.02, str(channel), size=8, color=GREY, ha="center", va="top")
    return page.save(folder, name)


def draw_overview(recorded: Sequence[LayerMaps], image: NDArray[uint8], title: str, folder: Path) -> list[Path]:
    """Draw the image and, for each layer, the mean over channels of the absolute value.

    Args:
        recorded: From `record_maps`.
        image: uint8 (height, width), the image that went in.
        title: Of the picture.
        folder: Of the files.
    """
    picked = (
        recorded
        if len(recorded) <= LAYERS_AT_MOST
        else [recorded[place] for place in _space_evenly(len(recorded), LAYERS_AT_MOST)]
    )
    which = f"all {len(recorded)}"
    if len(picked) < len(recorded):
        which = f"{len(picked)} of {len(recorded)}, evenly spaced,"
    lines = (
        f"One image (n = 1) and {which} convolutional layers in the order of their use: mean of the absolute output "
        "over channels, each on its own scale, dark to bright.",
    )
    page = make_page(title, lines)
    axes = page.canvas()
    grid = lay_out_tiles(len(picked) + 1, _ACROSS, page.body_height, caption=0.36, gap=0.12, words=1.22)
    for place in range(len(picked) + 1):
        x, y = grid.corner(place)
        if place == 0:
            draw_image(axes, image, (x, y), grid.side, cmap="gray", vmin=0, vmax=255)
            first, second = "the image", f"{image.shape[0]} x {image.shape[1]}"
        else:
            layer = picked[place - 1]
            _draw_map(axes, layer.strength, (x, y), grid.side)
            first, second = layer.name.rsplit("/", 1)[-1], " x ".join(map(str, layer.shape))
        under = y + grid.side + 0.03
        axes.text(x, under, escape(shorten(first, 20)), size=8, va="top")
        axes.text(x, under + 0.15, second, size=8, color=GREY, va="top")
    return page.save(folder, "features_overview")


def _find_convolutions(model: Any, inside: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every convolutional layer over images with its full name, each once, in the order of the layers."""
    _, keras = load_keras()
    names = ("Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose")
    kinds = tuple(getattr(keras.layers, name) for name in names)
    seen: set[int] = set()

    def walk(layers: Sequence[Any], inside: str) -> Iterator[tuple[str, Any]]:
        for layer in layers:
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            if isinstance(layer, kinds):
                yield f"{inside}{layer.name}", layer
            elif isinstance(layer, keras.Model):
                yield from walk(layer.layers, f"{inside}{layer.name}/")
            elif isinstance(layer, keras.layers.Wrapper):
                yield from walk([layer.layer], inside)

    yield from walk(model.layers, inside)


@contextmanager
def _recording(name: str, layer: Any, recorded: list[LayerMaps]) -> Iterator[None]:
    """While entered, every call of the layer adds its output to `recorded`.

    A model of the inner outputs would need a new graph for every model inside a model; the layer's own `call` is used
    however models are nested.
    """
    original = layer.call

    def call(*arguments: Any, **options: Any) -> Any:
        output = original(*arguments, **options)
        values = np.asarray(output, dtype=float32)[0]
        if layer.data_format == "channels_first":
            values = values.transpose(1, 2, 0)
        if values.shape[0] * values.shape[1] > 1:
            recorded.append(_reduce(name, f"{type(layer).__name__} {'x'.join(map(str, layer.kernel_size))}", values))
        return output

    layer.call = call
    try:
        yield
    finally:
        del layer.call


def _reduce(name: str, kind: str, values: NDArray[float32]) -> LayerMaps:
    """Keep only what is drawn: all outputs of a large network are gigabytes."""
    height, width, channels = values.shape
    kept = _space_evenly(channels, min(channels, CHANNELS_AT_MOST))
    constant = int((values.min(axis=(0, 1)) == values.max(axis=(0, 1))).sum())
    strength = np.abs(values).mean(axis=2)
    return LayerMaps(name, kind, (height, width, channels), tuple(kept), values[:, :, kept].copy(), strength, constant)


def _space_evenly(count: int, wanted: int) -> list[int]:
    """Return `wanted` different positions out of `count`, including the first and the last."""
    return [int(place) for place in np.linspace(0, count - 1, wanted).round()]


def _draw_map(axes: Any, values: NDArray[float32], corner: tuple[float, float], side: float) -> None:
    low, high = float(values.min()), float(values.max())
    if low == high:
        draw_image(axes, np.full(values.shape, 0.5), corner, side, cmap="gray", vmin=0, vmax=1)
    else:
        draw_image(axes, (values - low) / (high - low), corner, side, cmap="viridis", vmin=0, vmax=1)
