"""Framing: the box of what is not background, see core/frame.py, stretched to a fixed size, as layers of the network.

Every shape is constant, so that it can be a graph of standard operators: linear interpolation is a product with two
matrices of weights, which depend on the box of each slice.
"""

from typing import Any

import numpy as np
from numpy import uint8
from numpy.typing import NDArray

from mribatch.core.frame import BRIGHT, FEWEST, LEAST, MARGIN, find_box
from mribatch.training.frameworks import load_keras

FRAMED = "framed"  # name of the layer whose outputs are framed slices


def add_frame(pixels: Any, side: int) -> Any:
    """Frame pixels 0..255, (batch, height, width, channels), of which the first is taken as grey.

    Returns:
        Keras tensor (batch, side, side, channels), the channels equal.
    """
    _, keras = load_keras()
    height, width, channels = pixels.shape[1:]
    grey = pixels[..., 0]
    lit = keras.ops.cast(grey > BRIGHT, "float32")
    rows, columns = (keras.ops.cast(keras.ops.mean(lit, axis=axis) >= LEAST, "float32") for axis in (2, 1))
    found = _is_found(rows, height) * _is_found(columns, width)
    down, across = _interpolate(rows, found, side), _interpolate(columns, found, side)
    framed = keras.ops.matmul(keras.ops.matmul(down, grey), keras.ops.transpose(across, (0, 2, 1)))
    return keras.layers.Concatenate(name=FRAMED)([keras.ops.expand_dims(framed, -1)] * channels)


def frame_slices(pixels: NDArray[uint8], side: int) -> NDArray[uint8]:
    """Frame slices, uint8 (n, height, width, 1), as the layers do up to rounding: uint8 (n, side, side, 1)."""
    import cv2

    framed = np.empty((len(pixels), side, side, 1), uint8)
    for place, image in enumerate(pixels[..., 0]):
        top, bottom, left, right = find_box(image)
        inside = np.ascontiguousarray(image[top:bottom, left:right])
        framed[place, :, :, 0] = cv2.resize(inside, (side, side), interpolation=cv2.INTER_LINEAR)
    return framed


def _is_found(belongs: Any, side: int) -> Any:
    """Return (batch, 1): 1 where enough rows or columns belong to the content, else 0."""
    _, keras = load_keras()
    return keras.ops.cast(keras.ops.sum(belongs, axis=1, keepdims=True) >= FEWEST * side, "float32")


def _interpolate(belongs: Any, found: Any, side: int) -> Any:
    """Return the weights of linear interpolation along one axis, (batch, side, length).

    Args:
        belongs: (batch, length), 1 where the row or column belongs to the content.
        found: (batch, 1), 0 where the whole slice is taken.
        side: Of the result, pixels.
    """
    _, keras = load_keras()
    length = int(belongs.shape[1])
    margin, places = round(MARGIN * length), np.arange(length, dtype=np.float32)
    before = keras.ops.max(belongs * (length - places), axis=1, keepdims=True)  # length - first
    after = keras.ops.max(belongs * (places + 1), axis=1, keepdims=True)  # last + 1
    start = keras.ops.relu(length - before - margin) * found
    end = (keras.ops.minimum(after + margin, float(length)) - length) * found + length
    steps = ((np.arange(side, dtype=np.float32) + 0.5) / side)[None]
    positions = keras.ops.minimum(keras.ops.maximum((end - start) * steps + start - 0.5, start), end - 1.0)
    distances = keras.ops.abs(keras.ops.expand_dims(positions, -1) - places[None, None])
    return keras.ops.relu(1.0 - distances)
