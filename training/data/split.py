"""Units of near-duplicates and neighbouring slices, and their division into parts.

A unit is a connected component of files that share a group, a series, a patient or their very pixels. Units are never
divided. Parts depend on the content of the images and the seed alone, not on names, order or any library's version.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy import int64
from numpy.typing import NDArray

from mribatch.core.errors import MribatchError
from mribatch.report.groups import COLUMN_NAMES, NEAR_DUPLICATES, GroupsTable, find_kinds, read_groups_table

PARTS = ("train", "validation", "test")
FRACTIONS = (0.70, 0.15, 0.15)

_FIX = "give a CSV file with the columns path and group_id (and series_id, patient_id where known)"
_PATH_FIX = "write its column path relative to the folder of the images"


@dataclass(frozen=True)
class Grouping:
    """Units of a data set, file by file in its order. Numbers are arbitrary; equal means together."""

    units: NDArray[int64]  # (n,): what must stay in one part
    near_duplicates: NDArray[int64]  # (n,): files that show nearly the same picture
    basis: str  # for people: what units are made of
    duplicates_basis: str  # for people: what near-duplicates are made of
    listed: int  # files that the groups file names; 0 without one


@dataclass(frozen=True)
class Leak:
    """How much of a test part has a near-duplicate among the images that were used before."""

    tested: int  # files
    leaked: int  # of these, with a near-duplicate in the training or the validation part
    basis: str  # for people: what near-duplicates are made of

    @property
    def rate(self) -> float:
        """Leaked files over tested files; 0 if nothing is tested."""
        return self.leaked / self.tested if self.tested else 0.0

    def __str__(self) -> str:
        return f"{self.rate:.1%} ({self.leaked} of {self.tested} test images; {self.basis})"


def read_groups(path: Path) -> GroupsTable:
    """Read every kind of group that a groups table has, see `report.groups`; near-duplicates first.

    Raises:
        MribatchError: Not readable as UTF-8 CSV, a column is missing, or a path has two groups.
    """
    name = f"--groups {path}"
    kinds = find_kinds(path, name=name, fix=_FIX)
    columns = {kind: COLUMN_NAMES[kind] for kind in reversed(kinds)}
    return read_groups_table(path, columns, name=name, fix=_FIX, path_fix=_PATH_FIX)


def group(
    paths: Sequence[str], content_sha256: Sequence[str], table: GroupsTable | None, root: Path = Path()
) -> Grouping:
    """Find the units of a data set.

    Args:
        paths: Of the files, relative to the data folder, with "/".
        content_sha256: Of the decoded pixels at one fixed size, in the same order; equal pixels always make one unit.
        table: The groups table, or None: equal pixels alone.
        root: The data folder; the table may name files with folders of it before their paths.

    Raises:
        MribatchError: The groups table names none of the paths, or one of its lines fits two.
    """
    pixels = [("pixels", digest) for digest in content_sha256]
    if table is None:
        exact = _components([[key] for key in pixels])
        return Grouping(exact, exact, "equal pixels", "equal pixels only: near-duplicates are not known", 0)
    ids_of_files = table.find_ids(paths, [os.path.abspath(root)] * len(paths))
    keys, close = [], []
    for ids, key in zip(ids_of_files, pixels, strict=True):
        found = zip(table.columns, ids or (), strict=False)
        named = [(column, identity) for column, identity in found if identity]
        keys.append([key, *named])
        close.append([key, *(pair for pair in named if pair[0] == NEAR_DUPLICATES)])
    has_groups = NEAR_DUPLICATES in table.columns
    basis = ", ".join(table.columns) + " and equal pixels"
    return Grouping(
        _components(keys),
        _components(close),
        basis,
        "group_id and equal pixels" if has_groups else "equal pixels only: near-duplicates are not known",
        sum(ids is not None for ids in ids_of_files),
    )


def grouped_split(
    labels: NDArray[int64],
    grouping: Grouping,
    content_sha256: Sequence[str],
    *,
    seed: int,
    fractions: Sequence[float] = FRACTIONS,
) -> NDArray[int64]:
    """Deal units out to parts, class by class in proportion to `fractions`.

    The largest units are dealt first, those of equal size in an order drawn by hashing the seed with their content;
    each goes where it disturbs the proportions least (the Sainte-Laguë rule of apportionment, summed over its classes).

    Returns:
        int64 (n,): the part of each file, an index into `fractions`.
    """
    classes = int(labels.max(initial=0)) + 1
    members = _members(grouping.units)
    totals = np.bincount(labels, minlength=classes).clip(min=1)
    have = np.zeros((len(fractions), classes))
    share = np.asarray(fractions, dtype=np.float64)[:, None] * totals
    parts = np.empty(len(labels), dtype=int64)
    for unit in sorted(members, key=lambda files: _deal_order(files, content_sha256, seed)):
        counts = np.bincount(labels[unit], minlength=classes)
        cost = (counts * (2 * have + counts) / share).sum(axis=1)
        part = int(np.argmin(cost))
        have[part] += counts
        parts[unit] = part
    return parts


def check_parts(labels: NDArray[int64], parts: NDArray[int64], classes: Sequence[str]) -> None:
    """Refuse a split in which a part lacks a class; the whole validation part may be empty.

    Raises:
        MribatchError: Names the class, the part and the counts.
    """
    needed = [part for part in range(len(PARTS)) if PARTS[part] != "validation" or (parts == part).any()]
    for index, name in enumerate(classes):
        counts = {PARTS[part]: int(((labels == index) & (parts == part)).sum()) for part in needed}
        for part, count in counts.items():
            if count == 0:
                raise MribatchError(
                    f"class '{name}' has {sum(counts.values())} images, none of them in the {part} part",
                    "add images of that class, in at least six groups that share no near-duplicates",
                )


def leak(near_duplicates: NDArray[int64], trained: NDArray[np.bool_], tested: NDArray[np.bool_], basis: str) -> Leak:
    """Count test files that have a near-duplicate among those that were used before, for any split.

    Args:
        near_duplicates: (n,), from `Grouping`.
        trained: (n,), which files were used for training or for choosing.
        tested: (n,), which files are tested.
        basis: What near-duplicates are made of.
    """
    seen = np.isin(near_duplicates[tested], near_duplicates[trained])
    return Leak(int(tested.sum()), int(seen.sum()), basis)


def _components(keys_of_files: Sequence[Iterable[tuple[str, str]]]) -> NDArray[int64]:
    """Number the connected components of files that share a key (union-find with path halving)."""
    parent = list(range(len(keys_of_files)))

    def root(file: int) -> int:
        while parent[file] != file:
            parent[file] = parent[parent[file]]
            file = parent[file]
        return file

    first: dict[tuple[str, str], int] = {}
    for file, keys in enumerate(keys_of_files):
        for key in keys:
            parent[root(file)] = root(first.setdefault(key, file))
    return np.unique([root(file) for file in range(len(parent))], return_inverse=True)[1].astype(int64)


def _members(units: NDArray[int64]) -> list[NDArray[int64]]:
    order = np.argsort(units, kind="stable")
    edges = np.flatnonzero(np.diff(units[order])) + 1
    return [files.astype(int64) for files in np.split(order, edges)] if len(units) else []


def _deal_order(files: NDArray[int64], content_sha256: Sequence[str], seed: int) -> tuple[int, str]:
    content = min(content_sha256[file] for file in files)
    return -len(files), sha256(f"{seed} {content}".encode()).hexdigest()
