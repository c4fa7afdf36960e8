"""How images are divided for training and test, by the names in split_names.py.

- holdout: units of near-duplicates and neighbouring slices dealt out 70/15/15.
- reference: the reference project's random, pooled 85/15 split; of the whole set, its test part image for image.
- official: what the data set's authors put into Training and Testing.
- folder: top folders train, validation (optional) and test.
- grouped: k folds of units; every image is tested once (see workflow/cross_validation.py).
- sources: one fold per source, see sources.py; the nearest thing to slices from another hospital.

Only holdout, grouped and sources keep units in one part; for the others, the leak rate beside every figure says how
much leaks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy import int64
from numpy.typing import NDArray

from mribatch.core.data_sets import PART_FOLDERS
from mribatch.core.errors import MribatchError
from mribatch.training.data.classes import BRAIN_TUMORS
from mribatch.training.data.images import DataSet
from mribatch.training.data.sources import check_sources, find_sources
from mribatch.training.data.split import FRACTIONS, PARTS, Grouping, grouped_split
from mribatch.training.data.split_names import FOLDER, GROUPED, HOLDOUT, OFFICIAL, REFERENCE, SOURCES, SPLITS

REFERENCE_SEED, REFERENCE_TEST, REFERENCE_IMAGES = 42, 0.15, 3264
_TRAIN, _VALIDATION, _TEST = range(3)
_FOLDER_NAMES: Mapping[str, int] = {name: PARTS.index(part) for name, part in PART_FOLDERS.items()}


@dataclass(frozen=True)
class Division:
    """A data set in parts, and its description."""

    parts: NDArray[int64]  # (n,), indices into PARTS
    protocol: str  # one sentence for people
    keeps_units: bool  # True if no unit is in two parts


@dataclass(frozen=True)
class Folds:
    """A data set in folds, of which no unit is in two, and its description."""

    dealt: NDArray[int64]  # (n,), the fold of each image, from 0
    names: tuple[str, ...]  # of the folds, for people and for tables
    protocol: str  # one sentence for people


def divide(split: str, data: DataSet, grouping: Grouping, seed: int, *, chooses: bool) -> Division:
    """Divide the data set under a protocol of one fit.

    Args:
        split: A name in SPLITS that is not in folds.
        data: All images.
        grouping: Their units.
        seed: Of our own draws; the reference's split has its own.
        chooses: True if the recipe chooses its epoch and needs a validation part. If the protocol has none, it is
            taken from the training part by units; the test part is never used to choose.

    Raises:
        MribatchError: The folders are not those of the protocol.
    """
    if split == HOLDOUT:
        parts = grouped_split(data.labels, grouping, data.content_sha256, seed=seed)
        shares = "/".join(f"{fraction:.0%}".rstrip("%") for fraction in FRACTIONS)
        protocol = f"grouped holdout {shares} (units share {grouping.basis}), split seed {seed}"
        return Division(parts, protocol, keeps_units=True)
    if split == REFERENCE:
        tested = find_reference_test(data.paths, data.labels)
        parts = np.where(tested, _TEST, _TRAIN).astype(int64)
        protocol = (
            "reference split: pooled, random, 85/15, stratified by class, seed 42; near-duplicates on both sides"
            + _describe_difference(data)
        )
    elif split in (OFFICIAL, FOLDER):
        parts = parts_by_folder(data.paths, official=split == OFFICIAL)
        protocol = "official split: Training and Testing as published" if split == OFFICIAL else "split by folders"
    else:
        raise MribatchError(f"'{split}' is not a split into parts", f"choose one of: {', '.join(SPLITS)}")
    if not chooses or (parts == _VALIDATION).any():
        return Division(parts, protocol, keeps_units=False)
    parts = with_validation(parts, data, grouping, seed)
    return Division(parts, f"{protocol}; epoch chosen on 15 % of the training part, by units", keeps_units=False)


def with_validation(parts: NDArray[int64], data: DataSet, grouping: Grouping, seed: int) -> NDArray[int64]:
    """Move 15 % of the training part, in whole units, into the validation part."""
    trained = np.flatnonzero(parts == _TRAIN)
    inside = Grouping(
        grouping.units[trained],
        grouping.near_duplicates[trained],
        grouping.basis,
        grouping.duplicates_basis,
        grouping.listed,
    )
    digests = [data.content_sha256[position] for position in trained]
    chosen = grouped_split(data.labels[trained], inside, digests, seed=seed, fractions=(0.85, 0.15))
    changed = parts.copy()
    changed[trained[chosen == 1]] = _VALIDATION
    return changed


def find_reference_test(paths: Sequence[str], labels: NDArray[int64]) -> NDArray[np.bool_]:
    """Return which images the reference notebooks test on, (n,).

    They list class by class, Training before Testing, names in case-insensitive order, shuffle with seed 42, and split
    85/15 with seed 42, stratified; the draws are scikit-learn's.

    Args:
        paths: Relative to the data folder, with "/".
        labels: (n,), the reference's classes in its order: glioma, meningioma, none, pituitary.
    """
    from sklearn.model_selection import train_test_split
    from sklearn.utils import shuffle

    order = sorted(
        range(len(paths)), key=lambda file: (labels[file], _is_testing(paths[file]), *_name_key(paths[file]))
    )
    files, classes = shuffle(np.array(order), labels[order], random_state=REFERENCE_SEED)
    try:
        _, tested = train_test_split(files, test_size=REFERENCE_TEST, random_state=REFERENCE_SEED, stratify=classes)
    except ValueError as error:
        raise MribatchError(f"the reference's split is not possible: {error}", "add images of every class") from error
    return np.isin(np.arange(len(paths)), tested)


def parts_by_folder(paths: Sequence[str], *, official: bool) -> NDArray[int64]:
    """Return the part that the first folder of each path names; official knows Training and Testing only.

    Raises:
        MribatchError: A path is in no such folder, or the training or test part is empty.
    """
    names = {name: part for name, part in _FOLDER_NAMES.items() if not official or name in ("training", "testing")}
    fix = "use top folders Training and Testing" if official else "use top folders train, validation and test"
    parts = np.array([names.get(path.split("/")[0].lower(), -1) for path in paths], dtype=int64)
    if (parts < 0).any():
        raise MribatchError(f"'{paths[int(np.argmin(parts))]}' is in no folder that names a part", fix)
    for part in (_TRAIN, _TEST):
        if not (parts == part).any():
            raise MribatchError(f"no image is in a {PARTS[part]} folder", fix)
    return parts


def deal_folds(data: DataSet, grouping: Grouping, folds: int, seed: int) -> NDArray[int64]:
    """Return the fold of each image, 0 to folds - 1: units are never divided, classes are spread evenly.

    Raises:
        MribatchError: A fold lacks a class.
    """
    dealt = grouped_split(data.labels, grouping, data.content_sha256, seed=seed, fractions=(1 / folds,) * folds)
    for index, name in enumerate(data.classes.names):
        counts = np.bincount(dealt[data.labels == index], minlength=folds)
        if (counts == 0).any():
            raise MribatchError(
                f"class '{name}' has {counts.sum()} images, none of them in fold {int(np.argmin(counts)) + 1}",
                "give fewer --folds, or add images of that class",
            )
    return dealt


def divide_in_folds(split: str, data: DataSet, grouping: Grouping, folds: int, seed: int) -> Folds:
    """Divide the data set into folds.

    Args:
        split: One of IN_FOLDS.
        data: All images.
        grouping: Their units.
        folds: Number of folds of the split grouped; as many as there are sources for sources.
        seed: Of the dealing; sources are not drawn.

    Raises:
        MribatchError: A fold lacks a class, or its training part would.
    """
    if split == GROUPED:
        dealt, names = deal_folds(data, grouping, folds, seed), tuple(f"fold {fold + 1}" for fold in range(folds))
        how = f"grouped {folds}-fold cross-validation"
    elif split == SOURCES:
        sources = find_sources(data.paths, data.stored_sizes, grouping.units)
        check_sources(sources, data.labels, data.classes.names)
        dealt, names = sources.of_slices, sources.names
        how = f"each source held out once ({', '.join(names)})"
    else:
        raise MribatchError(f"'{split}' is not a split into folds", f"choose one of: {', '.join(SPLITS)}")
    drawn = f", split seed {seed}" if split == GROUPED else ""
    protocol = f"{how} (units share {grouping.basis}), out-of-fold predictions pooled{drawn}"
    return Folds(dealt, names, protocol)


def divide_fold(
    split: str, folds: Folds, fold: int, data: DataSet, grouping: Grouping, *, seed: int, chooses: bool
) -> NDArray[int64]:
    """Return the parts for one held-out fold, which is tested; see `fold_parts`.

    The epoch for a held-out source is chosen on 15 % of the other sources' images, by units: holding out a second
    source would leave too little to learn from.
    """
    if split == GROUPED or not chooses:
        return fold_parts(folds.dealt, fold, chooses=chooses)
    return with_validation(fold_parts(folds.dealt, fold, chooses=False), data, grouping, seed)


def fold_parts(dealt: NDArray[int64], fold: int, *, chooses: bool) -> NDArray[int64]:
    """Return the parts for one held-out fold: it is tested, the next is for validation if an epoch is chosen."""
    parts = np.full(len(dealt), _TRAIN, dtype=int64)
    if chooses:
        parts[dealt == (fold + 1) % (int(dealt.max()) + 1)] = _VALIDATION
    parts[dealt == fold] = _TEST
    return parts


def _describe_difference(data: DataSet) -> str:
    """Say so if the draw is from other images than the reference's, so that the test part is another one."""
    count = len(data.paths)
    if count == REFERENCE_IMAGES and data.classes.names == BRAIN_TUMORS.names:
        return ""
    return f"; drawn from {count:,} images instead of the reference's {REFERENCE_IMAGES:,}, so the test images differ"


def _is_testing(path: str) -> bool:
    return path.split("/")[0].lower().startswith("test")


def _name_key(path: str) -> tuple[str, str]:
    name = path.rsplit("/", 1)[-1]
    return name.lower(), path
