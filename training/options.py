"""What every training command does first: its options, the images with their units, and what identifies a fit."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy import int64
from numpy.typing import NDArray

from mribatch.core.errors import MribatchError
from mribatch.core.files import sha256_of_file
from mribatch.training.data.classes import BRAIN_TUMORS, ClassList
from mribatch.training.data.data_sheets import UNKNOWN, DataSheet
from mribatch.training.data.images import DataSet, load
from mribatch.training.data.protocols import HOLDOUT
from mribatch.training.data.split import PARTS, Grouping, group, read_groups
from mribatch.training.fit.loop import Echo, Images
from mribatch.training.frameworks import versions
from mribatch.training.networks.build import weights_file
from mribatch.training.recipes.catalog import Recipe


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What `mribatch train` was asked for."""

    recipe: Recipe
    data: Path
    out: Path
    groups: Path | None = None
    split: str = HOLDOUT  # one of protocols.SPLITS
    folds: int = 5  # of the split grouped
    final: bool = False  # after the folds of the split grouped: train on all images and write a bundle
    classes: ClassList = BRAIN_TUMORS
    sheet: DataSheet = UNKNOWN
    weights_licence: str = "not stated"
    cite: tuple[Path, ...] = ()  # folders with the metrics.parquet of other runs, for the model card
    name: str | None = None  # of the bundle; its folder's name where not given
    epochs: int | None = None  # instead of the recipe's
    seed: int = 0  # of weights, order, augmentation and dropout
    split_seed: int = 0  # of the parts, apart, so that fits with other seeds share their test part
    work: Path | None = None  # OUT-work beside OUT where not given
    keep_work: bool = False
    overwrite: bool = False
    quiet: bool = False

    @property
    def work_folder(self) -> Path:
        """Where the fit is kept while it runs, and its tables and figures for good."""
        out = Path(os.path.abspath(self.out))  # "." has a name, too
        return self.work if self.work is not None else out.with_name(f"{out.name}-work")

    @property
    def bundle_name(self) -> str:
        """The name that the bundle gets."""
        return self.name or Path(os.path.abspath(self.out)).name

    @property
    def chosen_recipe(self) -> Recipe:
        """The recipe with `epochs` in the place of its own."""
        return replace(self.recipe, epochs=self.epochs) if self.epochs else self.recipe


@dataclass(frozen=True)
class TrainResult:
    """What came out; `facts` is the content of training.json."""

    out: Path
    work: Path
    facts: Mapping[str, Any]


def read_images(options: TrainOptions, echo: Echo) -> tuple[DataSet, Grouping]:
    """All images in memory and their units; tells what was left out.

    Raises:
        MribatchError: Bad data or a groups file that does not fit them.
    """
    table = read_groups(options.groups) if options.groups is not None else None
    data = load(options.data, options.classes, options.recipe.size, options.quiet)
    _tell_left_out(data, echo)
    grouping = group(data.paths, data.pixel_sha256, table, options.data)
    if table is not None and grouping.listed < len(data.paths):
        echo(
            f"{len(data.paths) - grouping.listed} of {len(data.paths)} images are not in the groups file; "
            "each is a unit of its own"
        )
    return data, grouping


def images_of(data: DataSet, parts: NDArray[int64], part: str) -> Images:
    """The images of one part."""
    chosen = parts == PARTS.index(part)
    return Images(data.pixels[chosen], data.labels[chosen], part)


def watched_images(data: DataSet, parts: NDArray[int64]) -> Images:
    """What is scored while the fit runs: the validation part, or without one the test part, which chooses nothing."""
    validation = images_of(data, parts, "validation")
    return validation if len(validation.labels) else images_of(data, parts, "test")


def fit_fingerprint(options: TrainOptions, recipe: Recipe, data: DataSet, parts: NDArray[int64]) -> dict[str, Any]:
    """Everything that decides the weights after any epoch.

    Raises:
        MribatchError: The weights to start from are not there.
    """
    weights = weights_file(recipe)
    return {
        **recipe.facts(),
        **({"weights_sha256": _sha256(weights)} if weights is not None else {}),
        "classes": list(data.classes.names),
        "data_sha256": data.fingerprint,
        "parts_sha256": sha256(parts.astype("<i8").tobytes()).hexdigest(),
        "seed": options.seed,
        **{f"version.{name}": version for name, version in versions().items()},
    }


def digest(fingerprint: Mapping[str, Any]) -> str:
    """sha256 of a fingerprint, hex."""
    return sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()


def make_folder(folder: Path) -> None:
    """Make a work folder.

    Raises:
        MribatchError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"cannot make the work folder {folder}: {error.strerror}"
        raise MribatchError(problem, "choose another --work") from error


def part_counts(parts: NDArray[int64]) -> str:
    """For people: "train 70, validation 15, test 15"."""
    counts = [(part, int(np.count_nonzero(parts == index))) for index, part in enumerate(PARTS)]
    return ", ".join(f"{part} {count}" for part, count in counts if count)


def _sha256(path: Path) -> str:
    try:
        return sha256_of_file(path)
    except OSError as error:
        raise MribatchError(f"cannot read the weights {path}: {error.strerror}", "check --weights") from error


def _tell_left_out(data: DataSet, echo: Echo) -> None:
    for item in data.left_out[:20]:
        echo(f"left out: {item.path}: {item.status.value}: {item.error}")
    if len(data.left_out) > 20:
        echo(f"left out: {len(data.left_out) - 20} more; parts.parquet lists all")
    if data.other_folders:
        names = ", ".join(f"{name} ({count})" for name, count in sorted(data.other_folders.items())[:20])
        echo(f"not used, because their folders are no class: {names}")
