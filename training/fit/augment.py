"""Small random changes to training slices: new ones in every epoch, the same ones for the same seed."""

import numpy as np
from numpy import float64, int64, uint8
from numpy.typing import NDArray

from mribatch.training.recipes.augmentation import Augmentation


def augment(
    pixels: NDArray[uint8], indices: NDArray[int64], augmentation: Augmentation, *, seed: int, epoch: int
) -> NDArray[uint8]:
    """Change every slice; the change depends on (seed, epoch, index) alone, never on the other slices of the batch.

    Interpolation is linear; pixels from outside the slice repeat its edge.

    Args:
        pixels: uint8 (n, height, width, 1).
        indices: int64 (n,): position of each slice in the training part.
        augmentation: The largest amounts.
        seed: Seed of the fit.
        epoch: Epoch of the fit, from 1.

    Returns:
        uint8, the shape of `pixels`; `pixels` itself if nothing is to be changed.
    """
    if augmentation.is_none():
        return pixels
    import cv2

    height, width = pixels.shape[1:3]
    changed = np.empty_like(pixels)
    for position, index in enumerate(indices):
        random = np.random.default_rng((seed, epoch, int(index)))
        matrix = _draw_matrix(random, augmentation, height, width)
        changed[position, :, :, 0] = cv2.warpAffine(
            pixels[position, :, :, 0], matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        if augmentation.brightness or augmentation.contrast:
            changed[position] = _draw_tones(random, augmentation)[changed[position]]
    return changed


def _draw_tones(random: np.random.Generator, augmentation: Augmentation) -> NDArray[uint8]:
    """Draw brightness and contrast: a table from grey value to changed grey value, uint8 (256,)."""
    brighter, harder = random.uniform(-1, 1, 2)
    grey = np.arange(256) - 127.5
    changed = grey * (1 + harder * augmentation.contrast) + 127.5 + 255 * brighter * augmentation.brightness
    table: NDArray[uint8] = np.rint(changed.clip(0, 255)).astype(uint8)
    return table


def _draw_matrix(random: np.random.Generator, augmentation: Augmentation, height: int, width: int) -> NDArray[float64]:
    """Draw the 2 x 3 map from (x, y) in the slice to (x, y) in its changed copy, about the centre of the pixels."""
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
