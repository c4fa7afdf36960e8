"""A teacher's answers about the very slices that a student learns from (Hinton et al. 2015, arXiv:1503.02531)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy import float32, int64, uint8
from numpy.typing import NDArray

from mribatch.training.fit.augment import augment
from mribatch.training.recipes.phases import augmentation_in
from mribatch.training.recipes.recipe import Recipe

_SMALLEST = 1e-7  # of a probability, so that its logarithm is finite


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A finished model that answers for the training part of one fit.

    It sees the slices at its own size, changed as the student's are: the same seed, epoch and position mean the same
    change.
    """

    name: str  # for people
    answer: Callable[[NDArray[uint8]], NDArray[float32]]  # (n, height, width, 1) -> probabilities (n, classes)
    pixels: NDArray[uint8]  # (n, height, width, 1), the training part at the teacher's size

    def teach(self, chosen: NDArray[int64], recipe: Recipe, *, seed: int, epoch: int) -> NDArray[float32]:
        """Return softened answers, float32 (chosen, classes), about slices of the training part by position."""
        changes = augmentation_in(recipe, epoch)
        seen = augment(self.pixels[chosen], chosen, changes, seed=seed, epoch=epoch, pool=self.pixels)
        return soften(self.answer(seen), recipe.teacher_temperature)


def soften(probabilities: NDArray[float32], temperature: float) -> NDArray[float32]:
    """Return softmax(log p / temperature), float32 (n, classes)."""
    logarithms = np.log(np.maximum(probabilities.astype(np.float64), _SMALLEST)) / temperature
    powers = np.exp(logarithms - logarithms.max(axis=1, keepdims=True))
    softened: NDArray[float32] = (powers / powers.sum(axis=1, keepdims=True)).astype(float32)
    return softened
