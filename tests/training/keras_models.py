"""Small Keras classifiers as users have them, and `.keras` files as nobody should send them."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SIDE = 24
CLASSES = 3


def small(
    *before: Any,
    channels: int = 3,
    side: int | None = SIDE,
    activation: str | None = "softmax",
    after: Any = (),
    seed: int = 1,
    spread: float = 2.0,
) -> Any:
    """before -> convolution -> mean -> Dense -> after, with weights large enough that slices are told apart."""
    import keras

    keras.utils.set_random_seed(seed)
    pixels = keras.Input((side, side, channels))
    features = pixels
    for layer in before:
        features = layer(features)
    features = keras.layers.Conv2D(6, 3, strides=2, activation="relu", name="convolution")(features)
    features = keras.layers.GlobalAveragePooling2D()(features)
    wide = keras.initializers.RandomNormal(stddev=spread)
    features = keras.layers.Dense(CLASSES, activation=activation, kernel_initializer=wide, name="last")(features)
    for layer in after:
        features = layer(features)
    return keras.Model(pixels, features, name="small")


def rescaling() -> Any:
    import keras

    return keras.layers.Rescaling(1 / 255, name="rescaling")


def saved(model: Any, path: Path) -> Path:
    model.save(path)
    return path


def rewritten(source: Path, path: Path, change: Callable[[dict[str, bytes]], None], **how: Any) -> Path:
    """A copy of a .keras file whose parts, name -> content, `change` has changed."""
    with zipfile.ZipFile(source) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    change(parts)
    with zipfile.ZipFile(path, "w", **how) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def with_config(source: Path, path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy whose config.json `change` has changed."""

    def apply(parts: dict[str, bytes]) -> None:
        config = json.loads(parts["config.json"])
        change(config)
        parts["config.json"] = json.dumps(config).encode()

    return rewritten(source, path, apply)


def layer_named(config: dict[str, Any], name: str) -> dict[str, Any]:
    layer: dict[str, Any]
    (layer,) = [layer for layer in config["config"]["layers"] if layer["config"]["name"] == name]
    return layer


def lambda_model(touched: Path) -> Any:
    """A model whose Lambda layer writes a file when it runs."""
    import keras

    code = f"open({str(touched)!r}, 'w').close()"
    run = keras.layers.Lambda(lambda x, code=code: eval(code) or x, output_shape=(SIDE, SIDE, 3), name="innocent")
    return small(run)


def speckled(seed: int = 0, count: int = 5, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 1), dtype=np.uint8)
