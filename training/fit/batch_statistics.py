"""BatchNormalization's running statistics, measured on clean images instead of averaged during training.

The moving averages that Keras keeps describe augmented images under dropout, and they lag behind the weights. At
nine images per step they vary so much that the validation loss doubles from one epoch to the next and the wrong epoch
is chosen.
They are not used in training, so replacing them after an epoch changes the evaluation only.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy import uint8
from numpy.typing import NDArray

from mribatch.training.frameworks import load_keras
from mribatch.training.networks.build import grey_to_rgb, logits_model

BATCHES, BATCH_SIZE = 20, 64


def compile_measurement(network: Any) -> Callable[[NDArray[uint8], np.random.Generator], None]:
    """Compile the measurement once.

    Returns:
        A function of (training images, random numbers). It draws up to 20 batches of about 64 images, runs them without
        augmentation and dropout, and sets every running mean and variance to the mean over the batches.
    """
    _, keras = load_keras()
    layers = list(_find_layers(network))
    kinds = keras.layers.BatchNormalization
    normalisations = [layer for layer in layers if isinstance(layer, kinds) and layer.trainable]  # not the frozen ones
    dropouts = [layer for layer in layers if isinstance(layer, keras.layers.Dropout)]
    with (
        _set_temporarily(normalisations, "momentum", 0.0),
        _set_temporarily(dropouts, "rate", 0.0),
    ):
        forward = _trace(network)
    statistics = [variable for layer in normalisations for variable in (layer.moving_mean, layer.moving_variance)]

    def measure(pixels: NDArray[uint8], random: np.random.Generator) -> None:
        if not statistics:
            return
        chosen = random.permutation(len(pixels))[: BATCHES * BATCH_SIZE]
        batches = np.array_split(chosen, max(1, round(len(chosen) / BATCH_SIZE)))
        sums = [np.zeros(variable.shape, dtype=np.float64) for variable in statistics]
        for batch in batches:
            forward(pixels[batch])  # a momentum of zero leaves this batch's own mean and variance in the variables
            for total, variable in zip(sums, statistics, strict=True):
                total += variable.numpy()
        for total, variable in zip(sums, statistics, strict=True):
            variable.assign((total / len(batches)).astype(np.float32))

    return measure


def _trace(network: Any) -> Any:
    tensorflow, _ = load_keras()
    inner = logits_model(network)
    size = int(network.input.shape[1])
    images = tensorflow.TensorSpec((None, size, size, 1), tensorflow.uint8)

    def forward(batch: Any) -> Any:
        return inner(grey_to_rgb(batch), training=True)

    return tensorflow.function(forward, input_signature=[images], autograph=False).get_concrete_function()


def _find_layers(model: Any) -> Iterator[Any]:
    """Yield every layer, including those of models inside the model."""
    for layer in model.layers:
        yield layer
        if hasattr(layer, "layers"):
            yield from _find_layers(layer)


@contextlib.contextmanager
def _set_temporarily(layers: Sequence[Any], attribute: str, value: float) -> Iterator[None]:
    before = [getattr(layer, attribute) for layer in layers]
    for layer in layers:
        setattr(layer, attribute, value)
    try:
        yield
    finally:
        for layer, former in zip(layers, before, strict=True):
            setattr(layer, attribute, former)
