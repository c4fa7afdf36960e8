"""Pictures of where the model looked: an activation map in colour over the image."""

import numpy as np
from numpy import float32, uint8
from numpy.typing import NDArray

_STRONGEST = 0.6  # opacity of the map's maximum


def draw_overlay(grey: NDArray[uint8], values: NDArray[float32]) -> NDArray[uint8]:
    """Colour an image where a map is high; what speaks against the class or does not matter stays grey.

    Colour and opacity grow with the map from 0 to its own maximum, so that pictures of different images do not compare.

    Args:
        grey: uint8, shape (height, width).
        values: float32, shape (rows, columns), over the whole image.

    Returns:
        uint8, shape (height, width, 3), in the order blue, green, red, as OpenCV writes it.
    """
    import cv2

    height, width = grey.shape
    enlarged = cv2.resize(np.maximum(values, 0), (width, height), interpolation=cv2.INTER_CUBIC).clip(0)
    highest = float(enlarged.max())
    share = enlarged / highest if highest > 0 else enlarged
    colours = cv2.applyColorMap(np.rint(share * 255).astype(uint8), cv2.COLORMAP_INFERNO).astype(float32)
    opacity = (share * _STRONGEST)[..., None]
    mixed = np.repeat(grey[..., None], 3, axis=2) * (1 - opacity) + colours * opacity
    return np.asarray(np.rint(mixed), uint8)
