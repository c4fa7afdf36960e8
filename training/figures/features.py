"""`mribatch features`: one image file and one model file -> the pictures of feature_maps.py."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy import uint8
from numpy.typing import NDArray

from mribatch.core.errors import MribatchError
from mribatch.pipeline.decode.file import decode_file
from mribatch.training.export.declarations import Scale
from mribatch.training.export.keras_classifier import inspect_input
from mribatch.training.export.keras_file import load_network
from mribatch.training.figures.feature_maps import draw_overview, draw_sheets, record_maps

_KERAS_DEFAULT_NAMES = ("functional", "sequential", "model")
_PROGRESS_DELAY_S = 2.0


@dataclass(frozen=True, kw_only=True)
class FeatureOptions:
    """What `mribatch features` was asked to do."""

    image: Path
    model: Path  # a .keras file
    out: Path
    scale: Scale | None = None  # None: layers of the model scale the pixels
    size: int | None = None  # height and width, pixels, for a model that takes any
    quiet: bool = False  # show no progress bar


def draw_features(options: FeatureOptions, echo: Callable[[str], None]) -> int:
    """Draw a sheet per convolutional layer, layer_<place>_<name>, and features_overview.

    Returns:
        The number of layers.

    Raises:
        MribatchError: The image or the model cannot be used, or the folder cannot be written.
    """
    from tqdm import tqdm

    out, image, model = options.out, options.image, options.model
    network = load_network(model)
    taken = inspect_input(network, options.scale, options.size)
    pixels = read_slice(image, taken.height, taken.width)
    recorded = record_maps(network, taken.to_array(pixels[None]))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MribatchError(f"cannot make the folder {out}: {error.strerror}", "choose another --out") from error
    name = model.stem if network.name.split("_")[0] in _KERAS_DEFAULT_NAMES else network.name
    echo(f"{image.name} through '{name}': {len(recorded)} convolutional layers with maps")
    draw_overview(recorded, pixels[:, :, 0], f"Feature maps of {name}: {image.name}", out)
    look: dict[str, Any] = {"unit": "layer", "delay": _PROGRESS_DELAY_S, "leave": False}
    sheets = draw_sheets(recorded, f"{name}, {image.name}", out)
    # disable=None: unless stderr is a terminal
    for _ in tqdm(sheets, "drawing", len(recorded), disable=True if options.quiet else None, **look):
        pass
    return len(recorded)


def read_slice(image: Path, height: int, width: int) -> NDArray[uint8]:
    """The pixels that `mribatch classify` would see, uint8 (height, width, 1).

    Raises:
        MribatchError: The file is not a whole image; gives the same reason as `classify`.
    """
    grey = decode_file(os.fsencode(image), height, width)
    if grey.pixels is None:
        reason = (grey.verdict.error or "").rstrip(".")
        raise MribatchError(f"{image} cannot be used: {grey.verdict.status.value}: {reason}", "name another image")
    return grey.pixels
