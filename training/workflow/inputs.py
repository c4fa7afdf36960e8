"""The images of a training with their units, the parts of them that a fit gets, and the fingerprint of that fit."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy import int64
from numpy.typing import NDArray

from mribatch.core.errors import MribatchError
from mribatch.core.files import sha256_of_file
from mribatch.training.data.images import DataSet, Images, load
from mribatch.training.data.split import PARTS, Grouping, group, read_groups
from mribatch.training.fit.fingerprint import FitFingerprint
from mribatch.training.fit.outside import read_outside_fits
from mribatch.training.frameworks import versions
from mribatch.training.networks.build import find_weights
from mribatch.training.recipes.recipe import Recipe
from mribatch.training.workflow.options import TrainOptions
from mribatch.training.workflow.teachers import Teachers

_LISTED = 20  # files and folders that are reported by name


def read_images(options: TrainOptions, echo: Callable[[str], None]) -> tuple[DataSet, Grouping]:
    """Read all images into memory and find their units; report what was left out.

    Raises:
        MribatchError: Bad data or a groups file that does not fit them.
    """
    table = read_groups(options.groups) if options.groups is not None else None
    data = load(options.data, options.classes, options.recipe.size, options.quiet)
    _report_left_out(data, echo)
    grouping = group(data.paths, data.content_sha256, table, options.data)
    if table is not None and grouping.listed < len(data.paths):
        missing = len(data.paths) - grouping.listed
        echo(f"{missing} of {len(data.paths)} images are not in the groups file; each is a unit of its own")
    return data, grouping


def select_part(data: DataSet, parts: NDArray[int64], part: str) -> Images:
    """Return the images of one part."""
    chosen = parts == PARTS.index(part)
    return Images(data.pixels[chosen], data.labels[chosen], part)


def select_watched(data: DataSet, parts: NDArray[int64]) -> Images:
    """Return what is scored while the fit runs: the validation part, or else the test part, which chooses nothing."""
    validation = select_part(data, parts, "validation")
    return validation if len(validation.labels) else select_part(data, parts, "test")


def make_fingerprint(
    options: TrainOptions, recipe: Recipe, data: DataSet, parts: NDArray[int64], teachers: Teachers | None = None
) -> FitFingerprint:
    """Return the fingerprint of the fit of a recipe on these images in these parts, by these teachers.

    Raises:
        MribatchError: The file of initial weights is missing.
    """
    outside = None if options.fitted is None else read_outside_fits(options.fitted)
    weights = find_weights(recipe) if outside is None else None
    return FitFingerprint(
        recipe=recipe.facts(),
        weights_sha256=None if weights is None else _hash_weights(weights),
        fitted_sha256=None if outside is None else outside.sha256,
        teacher_sha256=None if teachers is None else teachers.sha256,
        classes=data.classes.names,
        data_sha256=data.fingerprint,
        parts_sha256=sha256(parts.astype("<i8").tobytes()).hexdigest(),
        seed=options.seed,
        versions=versions() | (dict(outside.content.versions) if outside is not None else {}),
    )


def describe_parts(parts: NDArray[int64]) -> str:
    """Return the sizes for people: "train 70, validation 15, test 15"."""
    counts = [(part, int(np.count_nonzero(parts == index))) for index, part in enumerate(PARTS)]
    return ", ".join(f"{part} {count}" for part, count in counts if count)


def _hash_weights(path: Path) -> str:
    try:
        return sha256_of_file(path)
    except OSError as error:
        raise MribatchError(f"cannot read the weights {path}: {error.strerror}", "check --weights") from error


def _report_left_out(data: DataSet, echo: Callable[[str], None]) -> None:
    for item in data.left_out[:_LISTED]:
        echo(f"left out: {item.path}: {item.status.value}: {item.error}")
    if len(data.left_out) > _LISTED:
        echo(f"left out: {len(data.left_out) - _LISTED} more; parts.parquet lists all of them")
    if data.other_folders:
        names = ", ".join(f"{name} ({count})" for name, count in sorted(data.other_folders.items())[:_LISTED])
        echo(f"not used, because the folders are not named like a class: {names}")
