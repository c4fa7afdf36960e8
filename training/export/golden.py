"""The slices that a user's model is compared on, and whether its answers to them vary enough to prove anything.

A graph that gives every image the same answer agrees with its reference whatever has become of the layers in between.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy import float32, uint8
from numpy.typing import NDArray

from mribatch.core.bundle import Golden
from mribatch.core.synthetic import golden_slices

COUNT = 64
LEAST_SPREAD = 0.01  # a hundred times the limit on |Δp|: an error of one per cent of what varies is noticed


@dataclass(frozen=True)
class ChosenGolden:
    """Golden slices and how much the answers vary: the largest range of a class over them."""

    golden: Golden
    spread: float

    @property
    def varies(self) -> bool:
        """True where some class moves by LEAST_SPREAD or more."""
        return self.spread >= LEAST_SPREAD


def choose_golden(height: int, width: int, answers: Callable[[NDArray[uint8]], NDArray[float32]]) -> ChosenGolden:
    """Answer the usual golden slices; if a model gives all of them one answer, put patterns in the place of half.

    A trained model may be sure of one class for every drawing of a head, and give another to noise or to a plain area.
    """
    images = golden_slices(COUNT, height, width)
    drawn = _measure(images, answers(images))
    if drawn.varies:
        return drawn
    mixed = np.concatenate([images[: COUNT // 2], draw_patterns(COUNT // 2, height, width)])
    patterned = _measure(mixed, answers(mixed))
    return patterned if patterned.varies else drawn


def draw_patterns(count: int, height: int, width: int) -> NDArray[uint8]:
    """Draw plain areas, ramps, stripes, discs and noise, the same on every machine; uint8 (count, height, width, 1)."""
    random = np.random.Generator(np.random.PCG64(7))
    rows, columns = np.mgrid[0:height, 0:width].astype(np.int64)
    patterns = [_draw_pattern(place, rows, columns, random) for place in range(count)]
    return np.stack(patterns).astype(uint8)[..., None]


def _draw_pattern(
    place: int, rows: NDArray[np.int64], columns: NDArray[np.int64], random: np.random.Generator
) -> NDArray[np.int64]:
    height, width = rows.shape
    level = int(random.integers(0, 256))
    match place % 5:
        case 0:
            return np.full(rows.shape, (0, 255, 32, 64, 96, 160, 224)[place // 5 % 7], dtype=np.int64)
        case 1:
            return np.asarray((rows * 255 // height + level) % 256, dtype=np.int64)
        case 2:
            period = int(random.integers(2, max(3, width // 2)))
            return np.asarray((columns // period % 2) * level, dtype=np.int64)
        case 3:
            centre = (2 * rows - height) ** 2 + (2 * columns - width) ** 2
            inside = centre < int(random.integers(1, height * width))
            return np.asarray(np.where(inside, level, 255 - level), dtype=np.int64)
        case _:
            return random.integers(0, level + 1, rows.shape)


def _measure(images: NDArray[uint8], probabilities: NDArray[float32]) -> ChosenGolden:
    spread = float((probabilities.max(axis=0) - probabilities.min(axis=0)).max())
    return ChosenGolden(Golden(images, probabilities), spread)
