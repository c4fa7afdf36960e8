"""Where slices come from, as far as a data set shows it: its folder Testing, and the sizes of its files.

A network that has learned a source instead of a disease fails on slices from another hospital. Folds that hold out one
source at a time are the nearest thing to such slices in a data set of one folder.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy import int64
from numpy.typing import NDArray

from mribatch.core.errors import MribatchError

TESTING, OTHER_SIZES = "Testing", "other sizes"
_FIX = "give --split grouped, whose folds hold out units of any source"

Size = tuple[int, int]  # width, height


@dataclass(frozen=True)
class Sources:
    """The source of each slice; all slices of a unit have one."""

    of_slices: NDArray[int64]  # (n,), positions in names
    names: tuple[str, ...]  # as people read them


def find_sources(paths: Sequence[str], stored_sizes: Sequence[Size], units: NDArray[int64]) -> Sources:
    """Infer the source of each slice.

    The three sources are what the authors put into the folder Testing, the slices elsewhere of the most frequent stored
    size, and those of all other sizes. A unit with slices of several sources counts as Testing if it has one of that
    folder, else as other sizes: so no series and no near-duplicate is in two sources.

    Args:
        paths: Relative to the data folder, with "/".
        stored_sizes: (width, height) in the file, before resizing.
        units: (n,), what must stay together.

    Raises:
        MribatchError: All slices are of one source.
    """
    testing = [path.split("/")[0].lower().startswith("test") for path in paths]
    common = _find_commonest([size for size, tested in zip(stored_sizes, testing, strict=True) if not tested])
    ranks = [2 if tested else int(size != common) for size, tested in zip(stored_sizes, testing, strict=True)]
    _, places = np.unique(units, return_inverse=True)
    highest = np.zeros(int(places.max(initial=-1)) + 1, dtype=int64)
    np.maximum.at(highest, places, np.array(ranks, dtype=int64))
    names = (f"{common[0]} x {common[1]}", OTHER_SIZES, TESTING)
    present, numbered = np.unique(highest[places], return_inverse=True)
    if len(present) < 2:
        raise MribatchError("all images are of one source: one folder, and one size or one unit", _FIX)
    return Sources(numbered.astype(int64), tuple(names[rank] for rank in present))


def check_sources(sources: Sources, labels: NDArray[int64], classes: Sequence[str]) -> None:
    """Refuse sources of which one has all images of a class, so that it cannot be held out.

    Raises:
        MribatchError: Names the source and the class.
    """
    for source, name in enumerate(sources.names):
        left = set(labels[sources.of_slices != source].tolist())
        missing = [title for index, title in enumerate(classes) if index not in left]
        if missing:
            problem = f"all images of '{missing[0]}' are of one source ({name}), so it cannot be held out"
            raise MribatchError(problem, _FIX)


def _find_commonest(sizes: Sequence[Size]) -> Size:
    """Return the most frequent size, of equally frequent ones the largest; (0, 0) without any."""
    counts = Counter(sizes)
    return max(counts, key=lambda size: (counts[size], size), default=(0, 0))
