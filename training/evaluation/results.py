"""What a finished training is made of, whichever way it was divided; the model card and the figures read it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mribatch.training.data.images import DataSet
from mribatch.training.data.split import Grouping, Leak
from mribatch.training.evaluation.scores import Evaluation, Shortcut
from mribatch.training.fit.loop import FitResult
from mribatch.training.fit.outside import OutsideFits
from mribatch.training.recipes.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class DividedImages:
    """All images, their units, and the part or fold that each was assigned to."""

    data: DataSet
    grouping: Grouping
    part_names: tuple[str, ...]  # (n,)
    keeps_units: bool  # True if no unit is in two parts


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What was measured, on which images and how."""

    protocol: str  # one sentence
    tested: NDArray[np.bool_]  # (n,), of all images
    leak: Leak
    evaluation: Evaluation  # of the tested images
    temperature: float = 1.0
    conditions: str  # which images, which weights; ends a sentence
    notes: tuple[str, ...] = ()  # whole paragraphs
    shortcuts: tuple[Shortcut, ...]
    shortcuts_basis: str  # how they were measured


@dataclass(frozen=True, kw_only=True)
class FinalFit:
    """The fit whose weights are in the bundle."""

    recipe: Recipe
    result: FitResult
    outside: OutsideFits | None = None  # if it was fitted elsewhere
    last_epoch_reason: str = "no image was used to choose it"  # if the last epoch is kept; ends a sentence
