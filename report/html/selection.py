"""Which images the page shows, and in which order: what to look at first, and a sample of every class."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy import float64, int64
from numpy.typing import NDArray

from mribatch.core.model_spec import find_no_tumor_class
from mribatch.report.rows import RunRows

MAX_TRIAGE = 60
MAX_OF_A_CLASS = 16
MAX_CLASSES = 12  # that get a row of pictures
MAX_FAILURES = 200
MAX_UNLIKE = 15  # in the list of what to look at first


class Concern(StrEnum):
    """Why an image is among those to look at first; the order is that of the page."""

    MISSED_TUMOR = "tumor called no tumor"
    WRONG = "differs from its label"
    UNLIKE = "unlike training"
    DOUBTFUL = "small margin"


@dataclass(frozen=True, slots=True)
class Chosen:
    """One image of the page. row: its position in the predictions."""

    row: int
    concern: Concern | None = None


def choose_triage(rows: RunRows, classes: Sequence[str], limit: int = MAX_TRIAGE) -> list[Chosen]:
    """What to look at first: missed tumors, other errors, images unlike those of training, then the smallest margins.

    Within a concern the smallest margin comes first. Without labels, errors are not known.
    """
    margins = measure_margins(rows)
    predicted = rows.probabilities.argmax(axis=1)
    wrong = rows.scored & (rows.labels != predicted)
    without = find_no_tumor_class(classes)
    missed = np.zeros(len(rows), np.bool_)
    if without is not None:
        missed = wrong & (predicted == list(classes).index(without))
    unlike = rows.readable & ~wrong & rows.unlike
    groups = (
        (Concern.MISSED_TUMOR, missed, limit),
        (Concern.WRONG, wrong & ~missed, limit),
        (Concern.UNLIKE, unlike, MAX_UNLIKE),
        (Concern.DOUBTFUL, rows.readable & ~wrong & ~unlike, limit),
    )
    chosen: list[Chosen] = []
    for concern, members, most in groups:
        positions = np.flatnonzero(members)
        order = positions[np.argsort(margins[positions], kind="stable")]
        chosen += [Chosen(row, concern) for row in order[: min(most, limit - len(chosen))].tolist()]
    return chosen


def choose_unlike(rows: RunRows, limit: int = MAX_OF_A_CLASS) -> list[Chosen]:
    """Images that look like none of training, spread evenly over the run."""
    return _spread(np.flatnonzero(rows.readable & rows.unlike), limit)


def choose_grid(rows: RunRows, classes: Sequence[str], limit: int = MAX_OF_A_CLASS) -> dict[str, list[Chosen]]:
    """Class -> images that were predicted so, spread evenly over the run, in the order of the listing."""
    predicted: NDArray[int64] = rows.probabilities.argmax(axis=1)
    grid: dict[str, list[Chosen]] = {}
    for position, name in enumerate(classes[:MAX_CLASSES]):
        members = np.flatnonzero(rows.readable & (predicted == position))
        if len(members):
            grid[name] = _spread(members, limit)
    return grid


def _spread(members: NDArray[np.intp], limit: int) -> list[Chosen]:
    steps = np.linspace(0, len(members) - 1, min(limit, len(members))).round().astype(np.intp)
    return [Chosen(row) for row in members[steps].tolist()]


def measure_margins(rows: RunRows) -> NDArray[float64]:
    """Best minus second probability of each row, (rows,); 0 where a row has none."""
    top = np.sort(rows.probabilities, axis=1)[:, -2:].astype(float64)
    return np.asarray(top[:, 1] - top[:, 0])
