"""The options of `mribatch train`."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from mribatch.core.bundle import Bundle
from mribatch.core.classifier import Classifier
from mribatch.training.data.classes import BRAIN_TUMORS, ClassList
from mribatch.training.data.data_sheets import UNKNOWN, DataSheet
from mribatch.training.data.split_names import HOLDOUT
from mribatch.training.recipes.recipe import Recipe


@dataclass(frozen=True)
class Teaching:
    """A teacher, and how to ask it: the caller knows the backends, training does not."""

    model: str  # name or folder of a bundle, or folder of a bundle for each fold
    open: Callable[[Bundle], Classifier]


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What `mribatch train` was asked to do."""

    recipe: Recipe
    data: Path
    out: Path
    groups: Path | None = None
    split: str = HOLDOUT  # a name in split_names.SPLITS
    folds: int = 5  # number of folds of the split grouped
    fitted: Path | None = None  # folder of networks that were fitted elsewhere, measured in place of own fits
    teaching: Teaching | None = None  # for a recipe that learns from a teacher
    fold_bundles: Path | None = None  # folder for a bundle of each fold's network, to be teachers
    final: bool = False  # after the folds: train on all images and write a bundle
    classes: ClassList = BRAIN_TUMORS
    sheet: DataSheet = UNKNOWN
    weights_licence: str = "not stated"
    cite: tuple[Path, ...] = ()  # folders with the figures of other runs, for the model card
    name: str | None = None  # of the bundle; None: the name of its folder
    epochs: int | None = None  # maximum number; None: the recipe's
    seed: int = 0  # of weights, order, augmentation and dropout
    split_seed: int = 0  # of the division into parts, separate so that fits with other seeds share their test part
    work: Path | None = None  # work folder; None: OUT-work beside OUT
    keep_work: bool = False  # keep the checkpoints
    overwrite: bool = False
    int8: bool = False  # add an INT8 graph to the bundle
    quiet: bool = False
    draw_figures: bool = True

    @property
    def work_folder(self) -> Path:
        """The folder of the checkpoints while the fit runs, and of its tables and figures."""
        out = Path(os.path.abspath(self.out))  # "." has a name, too
        return self.work if self.work is not None else out.with_name(f"{out.name}-work")

    @property
    def bundle_name(self) -> str:
        """The name of the bundle."""
        return self.name or Path(os.path.abspath(self.out)).name

    @property
    def chosen_recipe(self) -> Recipe:
        """The recipe with `epochs` in place of its own."""
        return replace(self.recipe, epochs=self.epochs) if self.epochs else self.recipe
