"""Small random changes to training slices: new ones in every epoch, the same ones for the same seed."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy import float64, int64, uint8
from numpy.typing import NDArray

from mribatch.training.fit.appearance import (
    AFTER_TONES,
    BEFORE_MOVING,
    FILL,
    GAMMA,
    MATCH,
    SHAPE,
    SharedChange,
    draw_colour,
    match_levels,
)
from mribatch.training.recipes.augmentation import Augmentation


def augment(
    pixels: NDArray[uint8],
    indices: NDArray[int64],
    augmentation: Augmentation,
    *,
    seed: int,
    epoch: int,
    pool: NDArray[uint8] | None = None,
) -> NDArray[uint8]:
    """Change every slice; the change depends on (seed, epoch, index) alone, never on the other slices of the batch.

    Interpolation is linear; pixels from outside the slice repeat its edge, unless `fill_share` gives them a colour.

    Args:
        pixels: uint8 (n, height, width, 1).
        indices: int64 (n,): position of each slice in the training part.
        augmentation: The largest amounts, and the shares of slices that are changed.
        seed: Seed of the fit.
        epoch: Epoch of the fit, from 1.
        pool: uint8 (m, height, width, 1), the slices whose grey levels `match_share` may take; None: not taken.

    Returns:
        uint8, the shape of `pixels`; `pixels` itself if nothing is to be changed.
    """
    if augmentation.is_none():
        return pixels
    changed = np.empty_like(pixels)
    for position, index in enumerate(indices):
        draws = _Draws(seed, epoch, int(index))
        changed[position, :, :, 0] = _change(pixels[position, :, :, 0], augmentation, draws, pool)
    return changed


@dataclass(frozen=True)
class _Draws:
    """The random numbers of one slice in one epoch."""

    seed: int
    epoch: int
    index: int

    def of_movement(self) -> np.random.Generator:
        """Those of the movement and then the tones."""
        return np.random.default_rng((self.seed, self.epoch, self.index))

    def of_change(self, number: int) -> np.random.Generator:
        """Those of any other change, which no other change moves on."""
        return np.random.default_rng((self.seed, self.epoch, self.index, number))


def _change(
    image: NDArray[uint8], augmentation: Augmentation, draws: _Draws, pool: NDArray[uint8] | None
) -> NDArray[uint8]:
    """Change one slice, uint8 (height, width)."""
    if augmentation.match_share and pool is not None:
        random = draws.of_change(MATCH)
        if random.random() < augmentation.match_share:
            image = match_levels(image, random, pool[random.integers(len(pool)), :, :, 0])
    image = _apply(BEFORE_MOVING, image, augmentation, draws)
    random = draws.of_movement()
    image = _move(image, augmentation, random, draws)
    if augmentation.brightness or augmentation.contrast or augmentation.gamma:
        image = _draw_tones(random, augmentation, draws)[image]
    return _apply(AFTER_TONES, image, augmentation, draws)


def _apply(
    changes: Iterable[SharedChange], image: NDArray[uint8], augmentation: Augmentation, draws: _Draws
) -> NDArray[uint8]:
    for each in changes:
        share = getattr(augmentation, each.share)
        if share:
            random = draws.of_change(each.number)
            if random.random() < share:
                image = each.change(image, random, augmentation)
    return image


def _move(
    image: NDArray[uint8], augmentation: Augmentation, random: np.random.Generator, draws: _Draws
) -> NDArray[uint8]:
    import cv2

    height, width = image.shape
    matrix = _draw_matrix(random, augmentation, height, width, _draw_shape(augmentation, draws))
    border, colour = cv2.BORDER_REPLICATE, 0
    if augmentation.fill_share:
        fill = draws.of_change(FILL)
        if fill.random() < augmentation.fill_share:
            border, colour = cv2.BORDER_CONSTANT, draw_colour(fill)
    moved = cv2.warpAffine(
        image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=border, borderValue=(colour,)
    )
    return np.asarray(moved, uint8)


def _draw_tones(random: np.random.Generator, augmentation: Augmentation, draws: _Draws) -> NDArray[uint8]:
    """Draw brightness, contrast and gamma: a table from grey value to changed grey value, uint8 (256,)."""
    brighter, harder = random.uniform(-1, 1, 2)
    grey = np.arange(256).astype(float64)
    if augmentation.gamma:
        exponent = np.exp(draws.of_change(GAMMA).uniform(-1, 1) * augmentation.gamma)
        grey = 255 * (grey / 255) ** exponent
    changed = (grey - 127.5) * (1 + harder * augmentation.contrast) + 127.5 + 255 * brighter * augmentation.brightness
    table: NDArray[uint8] = np.rint(changed.clip(0, 255)).astype(uint8)
    return table


def _draw_shape(augmentation: Augmentation, draws: _Draws) -> NDArray[float64]:
    """Draw scale, aspect and shear: a 2 x 2 map, the identity without them."""
    if not (augmentation.scale or augmentation.aspect or augmentation.shear):
        return np.eye(2)
    larger, wider, sheared = draws.of_change(SHAPE).uniform(-1, 1, 3)
    size, half = np.exp(larger * augmentation.scale), np.exp(wider * augmentation.aspect / 2)
    shape: NDArray[float64] = np.array([[size * half, 0], [0, size / half]])
    shape[0, 1] = shape[0, 0] * sheared * augmentation.shear
    return shape


def _draw_matrix(
    random: np.random.Generator, augmentation: Augmentation, height: int, width: int, shape: NDArray[float64]
) -> NDArray[float64]:
    """Draw the 2 x 3 map from (x, y) in the slice to (x, y) in its changed copy, about the centre of the pixels."""
    turn, down, across, zoom_down, zoom_across = random.uniform(-1, 1, 5)
    mirrored = augmentation.flip and random.random() < 0.5
    angle = np.deg2rad(turn * augmentation.rotation_degrees)
    sine, cosine = np.sin(angle), np.cos(angle)
    scale_x = (1 + zoom_across * augmentation.zoom) * (-1 if mirrored else 1)
    scale_y = 1 + zoom_down * augmentation.zoom
    linear = np.array([[cosine * scale_x, sine * scale_y], [-sine * scale_x, cosine * scale_y]]) @ shape
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    shift = np.array([across * width, down * height]) * augmentation.shift
    return np.column_stack([linear, centre + shift - linear @ centre])
