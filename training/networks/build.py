"""The Keras networks. Each takes float RGB 0..255 and ends in a Dense layer "logits" and its softmax.

Input: float32 (batch, size, size, 3), values 0..255: scaling is a layer of the network, so it is
neither forgotten nor applied twice. Output: float32 (batch, classes), the softmax of the layer "logits".
Grey slices enter through `grey_to_rgb`, both in training and in the exported graph.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy import float32, uint8
from numpy.typing import NDArray

from mribatch.core.errors import MribatchError
from mribatch.training.frameworks import load_keras
from mribatch.training.networks.efficientnet import B_NAMES, build_maps
from mribatch.training.networks.efficientnet_lite import LITES, build_features, find_imagenet_weights, freeze, load_lite
from mribatch.training.networks.frame import FRAMED, add_frame
from mribatch.training.recipes.recipe import IMAGENET, NO_WEIGHTS, Recipe

LOGITS = "logits"
_BATCH_SIZE = 64

NetworkBody = Callable[[Any, Recipe], Any]  # keras tensor of pixels 0..255 -> keras tensor of features


def build(recipe: Recipe, classes: int, seed: int) -> Any:
    """Build a keras.Model with the recipe's initial weights; the others are drawn, the same ones for the same seed.

    Raises:
        MribatchError: The recipe's weights are missing, or belong to another network.
    """
    _, keras = load_keras()
    keras.utils.set_random_seed(seed)
    pixels = keras.Input((recipe.size, recipe.size, 3), name="pixels")
    seen = add_frame(pixels, recipe.frame) if recipe.frame else pixels
    features = NETWORKS[recipe.network](seen, recipe)
    logits = keras.layers.Dense(classes, kernel_initializer="glorot_normal", name=LOGITS)(features)
    probabilities = keras.layers.Activation("softmax", name="probabilities")(logits)
    network = keras.Model(pixels, probabilities, name=recipe.name)
    if recipe.network in LITES:
        path = find_weights(recipe)
        if path is not None:
            load_lite(network, LITES[recipe.network], path)
        freeze(network, recipe.frozen_blocks)
    return network


def find_weights(recipe: Recipe) -> Path | None:
    """Return the file of the recipe's initial weights; None if they are drawn or Keras' own.

    Raises:
        MribatchError: It is missing, or the network takes none.
    """
    if recipe.weights == NO_WEIGHTS:
        return None
    if recipe.network not in (*LITES, *B_NAMES):
        raise MribatchError(
            f"'{recipe.name}' is trained from scratch and takes no initial weights", "give --weights none"
        )
    if recipe.weights != IMAGENET:
        return Path(recipe.weights)
    return find_imagenet_weights(LITES[recipe.network]) if recipe.network in LITES else None


def logits_model(network: Any) -> Any:
    """Return the same layers and weights up to the logits, on which loss and temperature work."""
    _, keras = load_keras()
    return keras.Model(network.input, network.get_layer(LOGITS).output, name=network.name)


def learning_model(network: Any) -> Any:
    """Return the layers that learn, up to the logits: without the frame, which training does once for all epochs."""
    _, keras = load_keras()
    if not any(layer.name == FRAMED for layer in network.layers):
        return logits_model(network)
    return keras.Model(network.get_layer(FRAMED).output, network.get_layer(LOGITS).output, name=network.name)


def learning_model_of_any_size(network: Any) -> Any:
    """Return the layers that `learning_model` has, weights included, for slices that are framed to whatever size.

    The layers must be those of a network that averages over the image, as EfficientNet's do.
    """
    _, keras = load_keras()
    inputs = keras.Input((None, None, 3), name="slices")
    return keras.models.clone_model(learning_model(network), inputs, clone_function=lambda layer: layer)


def grey_to_rgb(images: Any) -> Any:
    """Repeat each grey value three times: uint8 (batch, height, width, 1) -> float32 (batch, height, width, 3)."""
    tensorflow, _ = load_keras()
    grey = tensorflow.cast(images, tensorflow.float32)
    return tensorflow.concat([grey, grey, grey], axis=-1)


def compile_prediction(network: Any) -> Callable[[NDArray[uint8]], NDArray[float32]]:
    """Compile the network as it is used after training: no dropout, running statistics.

    Returns:
        A function from uint8 (n, size, size, 1) to logits, float32 (n, classes), in the same order; it sees later
        changes of the weights.
    """
    tensorflow, _ = load_keras()
    inner = logits_model(network)
    size = int(network.input.shape[1])
    images = tensorflow.TensorSpec((None, size, size, 1), tensorflow.uint8)

    @tensorflow.function(input_signature=[images], autograph=False)  # type: ignore[untyped-decorator]
    def forward(batch: Any) -> Any:
        return inner(grey_to_rgb(batch), training=False)

    def logits(pixels: NDArray[uint8]) -> NDArray[float32]:
        starts = range(0, len(pixels), _BATCH_SIZE)
        return np.concatenate([forward(pixels[start : start + _BATCH_SIZE]).numpy() for start in starts])

    return logits


def predict_logits(network: Any, images: NDArray[uint8]) -> NDArray[float32]:
    """Return `compile_prediction(network)(images)`, for a single use."""
    return compile_prediction(network)(images)


def calibrate(logits: NDArray[float32], temperature: float) -> NDArray[float32]:
    """Return softmax(logits / temperature) as Keras computes it, float32 (n, classes)."""
    _, keras = load_keras()
    scaled = np.asarray(logits, dtype=float32) / float32(temperature)
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.softmax(scaled)), dtype=float32)


def _build_cnn(pixels: Any, recipe: Recipe) -> Any:
    """Build the reference's small network: 330,062 weights for four classes."""
    _, keras = load_keras()
    layers, dropout = keras.layers, recipe.options["dropout"]

    def convolution(features: Any, filters: int, activation: str = "elu", after: tuple[Any, ...] = ()) -> Any:
        features = layers.Conv2D(filters, 3, activation=activation, kernel_initializer="glorot_normal")(features)
        for layer in after:
            features = layer(features)
        return layers.MaxPooling2D(2)(features)

    features = layers.Rescaling(1 / 255)(pixels)
    features = convolution(features, 16, after=(layers.BatchNormalization(),))
    features = convolution(features, 32, activation="linear")
    features = convolution(features, 64, after=(layers.BatchNormalization(),))
    features = convolution(features, 128, after=(layers.BatchNormalization(),))
    features = convolution(features, 128, after=(layers.BatchNormalization(), layers.Dropout(dropout)))
    features = layers.GlobalAveragePooling2D()(features)
    for units in (500, 38):
        features = layers.Dense(units, activation="elu", kernel_initializer="glorot_normal")(features)
        features = layers.Dropout(dropout)(features)
    return features


def _build_efficientnet_lite(pixels: Any, recipe: Recipe) -> Any:
    return build_features(LITES[recipe.network], pixels, recipe.options)


def _build_efficientnet(pixels: Any, recipe: Recipe) -> Any:
    """Average the maps over the image, then apply the reference's head: dropout, or dropout, Dense, dropout."""
    _, keras = load_keras()
    weights = None if recipe.weights == NO_WEIGHTS else recipe.weights
    features = keras.layers.GlobalAveragePooling2D(name="pool")(build_maps(recipe.network, pixels, weights))
    features = keras.layers.Dropout(recipe.options["dropout"], name="dropout")(features)
    units = int(recipe.options.get("dense", 0))
    if units:
        features = keras.layers.Dense(units, activation="elu", kernel_initializer="glorot_normal", name="dense")(
            features
        )
        features = keras.layers.Dropout(recipe.options["dense_dropout"], name="dense_dropout")(features)
    return features


NETWORKS: Mapping[str, NetworkBody] = {
    "cnn": _build_cnn,
    **dict.fromkeys(B_NAMES, _build_efficientnet),
    **dict.fromkeys(LITES, _build_efficientnet_lite),
}
