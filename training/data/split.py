"""Which images may be in one part together: units of near-duplicates and neighbouring slices, and their parts.

A unit is a connected component of files that share a group, a series, a patient or their very pixels. Units are never
divided. Parts depend on the content of the images and the seed alone, not on names, order or any library's version.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy import int64
from numpy.typing import NDArray

from mribatch.core.errors import MribatchError

PARTS = ("train", "validation", "test")
FRACTIONS = (0.70, 0.15, 0.15)
NEAR_DUPLICATES = "group_id"

_COLUMNS = ("group_id", "series_id", "patient_id")
_FIX = "give a CSV with the columns path and group_id (and series_id, patient_id where known); path is relative to DIR"


@dataclass(frozen=True)
class GroupsTable:
    """A groups file: what each listed path belongs to."""

    columns: tuple[str, ...]  # those of group_id, series_id, patient_id that the file has
    ids: Mapping[str, tuple[str, ...]]  # path -> one id per column, "" where not known


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
    """How much of a test part was seen before it was tested."""

    tested: int  # files
    leaked: int  # of these, with a near-duplicate in the training part, or in the validation part that chose
    basis: str

    @property
    def rate(self) -> float:
        """Leaked files over tested files; 0 where nothing is tested."""
        return self.leaked / self.tested if self.tested else 0.0

    def __str__(self) -> str:
        return f"{self.rate:.1%} ({self.leaked} of {self.tested} test images; {self.basis})"


def read_groups(path: Path) -> GroupsTable:
    """Read a groups file.

    Raises:
        MribatchError: Not readable as UTF-8 CSV, or a column is missing, or a path stands in it twice.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            names = reader.fieldnames or []
            columns = tuple(name for name in _COLUMNS if name in names)
            if "path" not in names or not columns:
                raise MribatchError(f"{path} has the columns {', '.join(names) or '(none)'}", _FIX)
            rows = [(row["path"] or "", tuple(row[name] or "" for name in columns)) for row in reader]
    except OSError as error:
        raise MribatchError(f"cannot read {path}: {error.strerror or error}", _FIX) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise MribatchError(f"{path} is not a UTF-8 CSV file: {error}", _FIX) from error
    ids = dict(rows)
    if len(ids) != len(rows):
        raise MribatchError(f"{path} names {len(rows) - len(ids)} paths more than once", _FIX)
    return GroupsTable(columns, ids)


def group(paths: Sequence[str], pixel_sha256: Sequence[str], table: GroupsTable | None) -> Grouping:
    """Find the units of a data set.

    Args:
        paths: Of the files, relative to the data folder, with "/".
        pixel_sha256: Of the decoded pixels, in the same order; equal pixels always make one unit.
        table: The groups file, or None: equal pixels alone.

    Raises:
        MribatchError: The groups file names none of the paths.
    """
    pixels = [("pixels", digest) for digest in pixel_sha256]
    if table is None:
        exact = _components([[key] for key in pixels])
        return Grouping(exact, exact, "equal pixels", "equal pixels only: near-duplicates are not known", 0)
    listed = sum(path in table.ids for path in paths)
    if not listed:
        raise MribatchError(f"the groups file names none of the {len(paths)} images", _FIX)
    keys, close = [], []
    for path, key in zip(paths, pixels, strict=True):
        found = zip(table.columns, table.ids.get(path, ()), strict=False)
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
        listed,
    )


def grouped_split(
    labels: NDArray[int64],
    grouping: Grouping,
    pixel_sha256: Sequence[str],
    seed: int,
    fractions: Sequence[float] = FRACTIONS,
) -> NDArray[int64]:
    """Deal units out to parts, class by class in proportion to `fractions`.

    Largest units first, those of one size in an order drawn by hashing the seed with their content; each goes where it
    disturbs the proportions least (the Sainte-Laguë rule of apportionment, summed over the unit's classes).

    Returns:
        int64 (n,): the part of each file, an index into `fractions`.
    """
    classes = int(labels.max(initial=0)) + 1
    members = _members(grouping.units)
    totals = np.bincount(labels, minlength=classes).clip(min=1)
    have = np.zeros((len(fractions), classes))
    share = np.asarray(fractions, dtype=np.float64)[:, None] * totals
    parts = np.empty(len(labels), dtype=int64)
    for unit in sorted(members, key=lambda files: _deal_order(files, pixel_sha256, seed)):
        counts = np.bincount(labels[unit], minlength=classes)
        cost = (counts * (2 * have + counts) / share).sum(axis=1)
        part = int(np.argmin(cost))
        have[part] += counts
        parts[unit] = part
    return parts


def check_parts(labels: NDArray[int64], parts: NDArray[int64], classes: Sequence[str]) -> None:
    """Refuse a split in which a part lacks a class; the validation part may be empty as a whole.

    Raises:
        MribatchError: Names the class, the part and the counts.
    """
    needed = [part for part in range(len(PARTS)) if PARTS[part] != "validation" or (parts == part).any()]
    for index, name in enumerate(classes):
        counts = {PARTS[part]: int(((labels == index) & (parts == part)).sum()) for part in needed}
        for part, count in counts.items():
            if count == 0:
                raise MribatchError(
                    f"class '{name}' has {sum(counts.values())} images, and none falls into the {part} part",
                    "add images of that class, in at least six groups that share no near-duplicates",
                )


def leak(near_duplicates: NDArray[int64], trained: NDArray[np.bool_], tested: NDArray[np.bool_], basis: str) -> Leak:
    """Count test files that have a near-duplicate among those that were used before, for any split at all.

    Args:
        near_duplicates: (n,), from `Grouping`.
        trained, tested: (n,), which files were learned or chosen from, and which are tested.
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


def _deal_order(files: NDArray[int64], pixel_sha256: Sequence[str], seed: int) -> tuple[int, str]:
    content = min(pixel_sha256[file] for file in files)
    return -len(files), sha256(f"{seed} {content}".encode()).hexdigest()
