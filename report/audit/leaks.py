"""How much of a test folder is known from the training folder, and what a random split would leak."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy import float64, int64
from numpy.typing import NDArray

from mribatch.core.data_sets import PART_FOLDERS
from mribatch.core.text import decode_name
from mribatch.pipeline.listing.discover import Input
from mribatch.report.audit.images import AuditedImages

PARTS = ("train", "validation", "test")
RANDOM_TEST_SHARE = 0.15


@dataclass(frozen=True, kw_only=True)
class PartLeak:
    """How many images of one part are known from the parts before it."""

    part: str
    known_from: tuple[str, ...]
    images: int  # readable images of the part
    same_pixels: int  # of these, with an image of equal pixels in the parts before
    duplicates: int  # with an equal or nearly equal one
    series: int  # with an image of the same series, known or estimated, or a duplicate
    patients: int | None  # with an image of the same patient; None where no header names one

    @property
    def rate(self) -> float | None:
        """Share of images with a duplicate in the parts before; None for an empty part."""
        return self.duplicates / self.images if self.images else None


def find_parts(images: AuditedImages, inputs: Sequence[Input], *, hidden: bool) -> list[str | None]:
    """The part of the data set that each image's folders name: the first such folder of its path, else its input.

    Args:
        images: All images.
        inputs: Of the listing.
        hidden: Paths are pseudonyms, so the files' own names are asked.
    """
    roots = [decode_name(os.path.basename(one.root))[0] for one in inputs]
    known: dict[tuple[int, str], str | None] = {}
    found = []
    for file in images.files:
        path = file.path
        if hidden:
            path = decode_name(os.path.relpath(file.file, inputs[file.input].root))[0]
        key = file.input, path.rpartition("/")[0]
        if key not in known:
            names = (*key[1].split("/"), roots[file.input])
            known[key] = next((PART_FOLDERS[name.lower()] for name in names if name.lower() in PART_FOLDERS), None)
        found.append(known[key])
    return found


@dataclass(frozen=True)
class Ties:
    """What images may have in common: (n,) numbers, equal means together, -1 means nothing is known."""

    pixels: NDArray[int64]
    duplicates: NDArray[int64]
    series: NDArray[int64]
    patients: NDArray[int64]


def measure_leaks(parts: Sequence[str | None], readable: NDArray[np.bool_], ties: Ties) -> tuple[PartLeak, ...]:
    """The leaks of the validation and the test part, where both they and a part before them have images."""
    of_part = {part: np.array([each == part for each in parts], np.bool_) & readable for part in PARTS}
    leaks = []
    for position, part in enumerate(PARTS[1:], start=1):
        before = [name for name in PARTS[:position] if of_part[name].any()]
        tested = of_part[part]
        if not before or not tested.any():
            continue
        trained = np.logical_or.reduce([of_part[name] for name in before])
        duplicates = _shared(ties.duplicates, tested, trained)
        leaks.append(
            PartLeak(
                part=part,
                known_from=tuple(before),
                images=int(tested.sum()),
                same_pixels=int(_shared(ties.pixels, tested, trained).sum()),
                duplicates=int(duplicates.sum()),
                series=int((_shared(ties.series, tested, trained) | duplicates).sum()),
                patients=int(_shared(ties.patients, tested, trained).sum()) if (ties.patients >= 0).any() else None,
            )
        )
    return tuple(leaks)


def find_leaked(parts: Sequence[str | None], readable: NDArray[np.bool_], ties: Ties) -> NDArray[np.bool_]:
    """(n,): images of a later part with a duplicate in an earlier one."""
    ranks = np.array([-1 if part is None else PARTS.index(part) for part in parts], int64)
    earliest = np.full(int(ties.duplicates.max(initial=-1)) + 1, len(PARTS), int64)
    judged = readable & (ranks >= 0)
    np.minimum.at(earliest, ties.duplicates[judged], ranks[judged])
    leaked = np.zeros(len(ranks), np.bool_)
    leaked[judged] = earliest[ties.duplicates[judged]] < ranks[judged]
    return leaked


def expect_random_leak(groups: NDArray[int64], share: float = RANDOM_TEST_SHARE) -> float | None:
    """The share of test images with a duplicate in training that a random split leads to, on average; no draw is made.

    A test image of a group of g leaks unless all others of its group are drawn into the test part, too:
    1 - C(m - 1, g - 1) / C(n - 1, g - 1), for m test images of n.

    Args:
        groups: (n,), -1 for images that are left out.
        share: Of the images that are tested.

    Returns:
        None where the test or the training part would be empty.
    """
    sizes = np.bincount(groups[groups >= 0])
    total = int(sizes.sum())
    tested = round(share * total)
    if not 0 < tested < total:
        return None
    leaking = 0.0
    for size in np.unique(sizes).tolist():
        others = np.arange(size - 1, dtype=float64)
        apart = float(np.prod(np.maximum(tested - 1 - others, 0) / (total - 1 - others)))
        leaking += (1 - apart) * size * int((sizes == size).sum())
    return leaking / total


def _shared(ties: NDArray[int64], tested: NDArray[np.bool_], trained: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of the tested images have a tie to a trained one, (tested images,)."""
    known = ties[trained]
    return np.asarray(np.isin(ties[tested], known[known >= 0]), np.bool_)
