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


class Concern(StrEnum):
    """Why an image is among those to look at first; the order is that of the page."""

    MISSED_TUMOR = "tumor called no tumor"
    WRONG = "differs from its label"
    DOUBTFUL = "small margin"


@dataclass(frozen=True, slots=True)
class Chosen:
    """One image of the page. row: its position in the predictions."""

    row: int
    concern: Concern | None = None


def choose_triage(rows: RunRows, classes: Sequence[str], limit: int = MAX_TRIAGE) -> list[Chosen]:
    """What to look at first: missed tumors, then other errors, then the smallest margins.

    Within a concern the smallest margin comes first. Without labels, everything is there for its margin.
    """
    margins = measure_margins(rows)
    predicted = rows.probabilities.argmax(axis=1)
    wrong = rows.scored & (rows.labels != predicted)
    without = find_no_tumor_class(classes)
    missed = np.zeros(len(rows), np.bool_)
    if without is not None:
        missed = wrong & (predicted == list(classes).index(without))
    others = rows.readable & ~wrong
    groups = ((Concern.MISSED_TUMOR, missed), (Concern.WRONG, wrong & ~missed), (Concern.DOUBTFUL, others))
    chosen: list[Chosen] = []
    for concern, members in groups:
        positions = np.flatnonzero(members)
        order = positions[np.argsort(margins[positions], kind="stable")]
        chosen += [Chosen(row, concern) for row in order[: limit - len(chosen)].tolist()]
    return chosen


def choose_grid(rows: RunRows, classes: Sequence[str], limit: int = MAX_OF_A_CLASS) -> dict[str, list[Chosen]]:
    """Class -> images that were predicted so, spread evenly over the run, in the order of the listing."""
    predicted: NDArray[int64] = rows.probabilities.argmax(axis=1)
    grid: dict[str, list[Chosen]] = {}
    for position, name in enumerate(classes[:MAX_CLASSES]):
        members = np.flatnonzero(rows.readable & (predicted == position))
        if len(members):
            steps = np.linspace(0, len(members) - 1, min(limit, len(members))).round().astype(np.intp)
            grid[name] = [Chosen(row) for row in members[steps].tolist()]
    return grid


def measure_margins(rows: RunRows) -> NDArray[float64]:
    """Best minus second probability of each row, (rows,); 0 where a row has none."""
    top = np.sort(rows.probabilities, axis=1)[:, -2:].astype(float64)
    return np.asarray(top[:, 1] - top[:, 0])
