"""EfficientNetB2, B3 and B6 as keras.applications builds them, without the classifier, for the reference's recipes.

Tan and Le 2019, arXiv:1905.11946. The ImageNet weights are keras.applications' own: files NAME_notop.h5 that Keras
downloads once into ~/.keras/models, or that are given.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy import float32

from mribatch.core.errors import MribatchError
from mribatch.training.frameworks import load_keras

B_NAMES: Mapping[str, str] = {f"efficientnetb{number}": f"EfficientNetB{number}" for number in (2, 3, 6)}
_URL = "https://storage.googleapis.com/keras-applications/"
_SCALE = tuple(1 / math.sqrt(constant) for constant in (0.229, 0.224, 0.225))


def build_maps(name: str, pixels: Any, weights: str | Path | None) -> Any:
    """Build the layers from pixels 0..255, (batch, size, size, 3), to the last convolution's maps. Scaling is inside.

    Args:
        name: A key of B_NAMES.
        pixels: Keras tensor.
        weights: "imagenet" to let Keras find or download its own, a NAME_notop.h5, or None to draw them.

    Raises:
        MribatchError: The weights cannot be downloaded or read, or belong to another network.
    """
    _, keras = load_keras()
    build = getattr(keras.applications, B_NAMES[name])
    if weights is None or weights == "imagenet":
        try:
            return build(include_top=False, weights=weights, input_tensor=pixels).output
        except Exception as error:  # Keras raises a plain Exception if a download fails
            if weights is None:
                raise
            file = f"{name}_notop.h5"
            raise MribatchError(
                f"the ImageNet weights of {name} cannot be downloaded ({_first_line(error)})",
                f"download {_URL}{file} elsewhere and give --weights {file}, or use an efficientnet_lite recipe",
            ) from error
    return _load_from_file(build, pixels, Path(weights))


def _load_from_file(build: Any, pixels: Any, path: Path) -> Any:
    """Do as keras.applications does with "imagenet", which adds a division before the first convolution.

    Here the division is folded into the weights of the convolution: the same arithmetic, up to rounding.
    """
    if path.suffix != ".h5" or not path.is_file():
        raise MribatchError(f"{path} is not a NAME_notop.h5", "give --weights a file of keras.applications' weights")
    try:
        model = build(include_top=False, weights=str(path), input_tensor=pixels)
    except (OSError, ValueError, KeyError) as error:
        problem = f"the weights in {path} do not fit: {_first_line(error)}"
        raise MribatchError(problem, "give --weights the NAME_notop.h5 of the network that the recipe names") from error
    stem = model.get_layer("stem_conv").weights[0]
    stem.assign(stem.numpy() * np.array(_SCALE, dtype=float32)[:, None])
    return model.output


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
