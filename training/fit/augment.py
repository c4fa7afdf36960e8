"""Small random changes to training slices, drawn afresh every epoch and the same again for the same seed."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy import float64, int64, uint8
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How far a slice may be moved. Every amount is drawn uniformly from -amount to +amount."""

    rotation_degrees: float = 0.0
    shift: float = 0.0  # of the side, down and across separately
    zoom: float = 0.0  # of the size, down and across separately
    flip: bool = False  # left and right, every other slice
    brightness: float = 0.0  # added, of 255
    contrast: float = 0.0  # of the distance from middle grey

    def is_none(self) -> bool:
        """True where nothing is changed."""
        return self == Augmentation()


REFERENCE = Augmentation(rotation_degrees=7, shift=0.05, zoom=0.10, flip=True)
"""The reference project's, which it built and did not use."""
LIGHT = Augmentation(rotation_degrees=12, shift=0.06, zoom=0.10, flip=True, brightness=0.08, contrast=0.10)
AUGMENTATIONS: Mapping[str, Augmentation] = {"none": Augmentation(), "reference": REFERENCE, "light": LIGHT}


def augment(
    pixels: NDArray[uint8], indices: NDArray[int64], augmentation: Augmentation, seed: int, epoch: int
) -> NDArray[uint8]:
    """Change every slice in its own way; the change depends on (seed, epoch, index) alone, never on the batch.

    Interpolation is linear; what comes in from outside repeats the slice's edge.

    Args:
        pixels: uint8 (n, height, width, 1).
        indices: int64 (n,): each slice's place in the training part.
        augmentation: The largest amounts.
        seed, epoch: Of the fit.

    Returns:
        uint8, the shape of `pixels`; `pixels` itself where nothing is to be changed.
    """
    if augmentation.is_none():
        return pixels
    import cv2

    height, width = pixels.shape[1:3]
    changed = np.empty_like(pixels)
    for position, index in enumerate(indices):
        random = np.random.default_rng((seed, epoch, int(index)))
        matrix = _matrix(random, augmentation, height, width)
        changed[position, :, :, 0] = cv2.warpAffine(
            pixels[position, :, :, 0], matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        if augmentation.brightness or augmentation.contrast:
            changed[position] = _toned(random, augmentation)[changed[position]]
    return changed


def _toned(random: np.random.Generator, augmentation: Augmentation) -> NDArray[uint8]:
    """Grey value -> changed grey value, uint8 (256,)."""
    brighter, harder = random.uniform(-1, 1, 2)
    grey = np.arange(256) - 127.5
    changed = grey * (1 + harder * augmentation.contrast) + 127.5 + 255 * brighter * augmentation.brightness
    table: NDArray[uint8] = np.rint(changed.clip(0, 255)).astype(uint8)
    return table


def _matrix(random: np.random.Generator, augmentation: Augmentation, height: int, width: int) -> NDArray[float64]:
    """The 2 x 3 map from (x, y) in the slice to (x, y) in its changed copy, about the centre of the pixels."""
    turn, down, across, zoom_down, zoom_across = random.uniform(-1, 1, 5)
    mirrored = augmentation.flip and random.random() < 0.5
    angle = np.deg2rad(turn * augmentation.rotation_degrees)
    sine, cosine = np.sin(angle), np.cos(angle)
    scale_x = (1 + zoom_across * augmentation.zoom) * (-1 if mirrored else 1)
    scale_y = 1 + zoom_down * augmentation.zoom
    linear = np.array([[cosine * scale_x, sine * scale_y], [-sine * scale_x, cosine * scale_y]])
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    shift = np.array([across * width, down * height]) * augmentation.shift
    return np.column_stack([linear, centre + shift - linear @ centre])
