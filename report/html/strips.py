"""Which series the page shows as strips of their slices, and which slices of each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy import float64
from numpy.typing import NDArray

from mribatch.core.model_spec import find_no_tumor_class
from mribatch.report.rows import RunRows

MAX_STRIPS = 10
MAX_SLICES = 24  # of a series


@dataclass(frozen=True, slots=True)
class Strip:
    """One series of the page.

    rows: All of its rows in the order of its slices. shown: Those with a picture, spread evenly. mean: float64
    (classes,), mean probabilities of its classified slices; None where there are none.
    """

    series: str
    patient: str | None
    rows: tuple[int, ...]
    shown: tuple[int, ...]
    mean: NDArray[float64] | None


def choose_strips(rows: RunRows, classes: Sequence[str], limit: int = MAX_STRIPS) -> tuple[Strip, ...]:
    """The series with the most suspicious slice first; those of a patient stay together."""
    suspicion = measure_suspicion(rows, classes)
    members: dict[str, list[int]] = {}
    for row, name in enumerate(rows.series):
        if name is not None:
            members.setdefault(name, []).append(row)
    highest = {name: max(suspicion[row] for row in found) for name, found in members.items()}
    of_patient: dict[str, float] = {}
    for name, found in members.items():
        patient = rows.patients[found[0]] or name
        of_patient[patient] = max(of_patient.get(patient, 0.0), highest[name])

    def urgency(name: str) -> tuple[float, str, float]:
        patient = rows.patients[members[name][0]] or name
        return (-of_patient[patient], patient, -highest[name])

    return tuple(_make_strip(name, members[name], rows) for name in sorted(members, key=urgency)[:limit])


def count_series(rows: RunRows) -> int:
    """How many series there are."""
    return len(set(rows.series) - {None})


def measure_suspicion(rows: RunRows, classes: Sequence[str]) -> NDArray[float64]:
    """How much each row speaks for a tumor, (rows,): 1 minus the probability of none, or the highest; 0 where none."""
    without = find_no_tumor_class(classes)
    if without is None:
        return np.asarray(rows.probabilities.max(axis=1), float64)
    found = 1 - rows.probabilities[:, list(classes).index(without)].astype(float64)
    return np.where(rows.readable, found, 0.0)


def _make_strip(name: str, members: Sequence[int], rows: RunRows) -> Strip:
    def place(row: int) -> tuple[int, int, int]:
        return (rows.instances[row] or 0, rows.slices[row] or 0, row)

    ordered = sorted(members, key=place)
    steps = np.linspace(0, len(ordered) - 1, min(MAX_SLICES, len(ordered))).round().astype(np.intp)
    classified = [row for row in ordered if rows.readable[row]]
    mean = rows.probabilities[classified].mean(axis=0, dtype=float64) if classified else None
    patient = rows.patients[ordered[0]]
    return Strip(
        series=name,
        patient=None if patient == name else patient,
        rows=tuple(ordered),
        shown=tuple(ordered[step] for step in steps.tolist()),
        mean=mean,
    )
