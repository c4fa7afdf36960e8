"""Pairs of slices mixed into one, with labels to match: mixup (Zhang et al. 2018, 1710.09412) and CutMix.

CutMix (Yun et al. 2019, arXiv:1905.04899) replaces a square by that of the partner instead of averaging.
"""

from dataclasses import dataclass

import numpy as np
from numpy import float32, int64, uint8
from numpy.typing import NDArray

from mribatch.training.recipes.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class SoftBatch:
    """Slices with distributions over the classes in place of labels. Arrays have one row per slice."""

    pixels: NDArray[uint8]  # (n, height, width, 1)
    truth: NDArray[float32]  # (n, classes), rows sum to one
    answers: NDArray[float32]  # (n, classes), a teacher's; the truth where there is none


def mixes(recipe: Recipe) -> bool:
    """Tell whether a recipe mixes any slices."""
    return recipe.mixup_share > 0 or recipe.cutmix_share > 0


def mix(batch: SoftBatch, recipe: Recipe, random: np.random.Generator) -> SoftBatch:
    """Mix each slice of the batch with another one of it, by the same share, or leave all as they are.

    The share is drawn from a Beta distribution with both parameters `recipe.mixup` or `recipe.cutmix`.
    """
    kind, order = random.random(), random.permutation(len(batch.pixels))
    if kind < recipe.mixup_share:
        return _mix_up(batch, order, random.beta(recipe.mixup, recipe.mixup))
    if kind < recipe.mixup_share + recipe.cutmix_share:
        return _cut_in(batch, order, random.beta(recipe.cutmix, recipe.cutmix), random)
    return batch


def _mix_up(batch: SoftBatch, order: NDArray[int64], share: float) -> SoftBatch:
    own, other = (batch.pixels.astype(float32), batch.pixels[order].astype(float32))
    pixels = np.rint(share * own + (1 - share) * other).astype(uint8)
    return _mix_answers(batch, pixels, order, share)


def _cut_in(batch: SoftBatch, order: NDArray[int64], share: float, random: np.random.Generator) -> SoftBatch:
    height, width = batch.pixels.shape[1:3]
    rows, columns = (max(1, round(side * np.sqrt(1 - share))) for side in (height, width))
    row, column = int(random.integers(height - rows + 1)), int(random.integers(width - columns + 1))
    inside = np.s_[:, row : row + rows, column : column + columns]
    pixels = batch.pixels.copy()
    pixels[inside] = batch.pixels[order][inside]
    return _mix_answers(batch, pixels, order, 1 - rows * columns / (height * width))


def _mix_answers(batch: SoftBatch, pixels: NDArray[uint8], order: NDArray[int64], share: float) -> SoftBatch:
    truth, answers = (
        (share * each + (1 - share) * each[order]).astype(float32) for each in (batch.truth, batch.answers)
    )
    return SoftBatch(pixels=pixels, truth=truth, answers=answers)
