"""Slices aggregated to patients."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy import float32, float64, int64
from numpy.typing import NDArray

from mribatch.report.metrics_file import MixedPatient, MixedPatients, PatientCounts
from mribatch.report.row_groups import RowGroups
from mribatch.report.rows import RunRows

_MOST_NAMED = 20  # patients with several labels that are named; the rest is counted


@dataclass(frozen=True)
class Patients:
    """The patients whose readable and labelled slices have one label.

    labels: int64 (patients,). mean, worst: float32 (patients, classes).
    """

    labels: NDArray[int64]
    mean: NDArray[float32]
    worst: NDArray[float32]
    counts: PatientCounts


def aggregate_slices(rows: RunRows, patients: RowGroups, classes: Sequence[str]) -> Patients:
    """Aggregate slices to patients in two ways: the mean probability, and the worst slice.

    Worst slice: of every class the highest probability in any slice of the patient, divided by their sum. For a finding
    it is the most suspicious slice, for any list of classes; it is the maximum operator of multiple-instance learning
    (Ilse, Tomczak and Welling 2018, section 2). The mean is their mean operator.
    """
    used = rows.scored & (patients.codes >= 0)
    order = np.argsort(patients.codes[used], kind="stable")
    codes, labels = patients.codes[used][order], rows.labels[used][order]
    slices = rows.probabilities[used][order]
    present, starts = np.unique(codes, return_index=True)
    mixed = np.zeros(0, dtype=np.bool_)
    mean = worst = np.zeros((0, len(classes)))
    if len(present):
        lowest, highest = np.minimum.reduceat(labels, starts), np.maximum.reduceat(labels, starts)
        mixed = lowest != highest
        mean = np.add.reduceat(slices.astype(float64), starts, axis=0)[~mixed]
        worst = np.maximum.reduceat(slices, starts, axis=0).astype(float64)[~mixed]
        labels = lowest[~mixed]
    damaged = np.unique(patients.codes[~rows.readable & (patients.codes >= 0)])
    counts = PatientCounts(
        source=patients.source,
        patients=len(patients.names),
        scored=len(labels),
        several_labels=_name_mixed(present[mixed].tolist(), rows, patients, classes),
        nothing_to_score=len(patients.names) - len(present),
        with_unreadable_slices=len(damaged),
        slices_without_patient=int((patients.codes < 0).sum()),
    )
    return Patients(labels, normalize(mean), normalize(worst), counts)


def _name_mixed(mixed: Sequence[int], rows: RunRows, patients: RowGroups, classes: Sequence[str]) -> MixedPatients:
    named = [
        MixedPatient(
            patient=patients.names[code],
            labels=tuple(classes[k] for k in np.unique(rows.labels[rows.scored & (patients.codes == code)])),
        )
        for code in mixed[:_MOST_NAMED]
    ]
    return MixedPatients(count=len(mixed), named=tuple(named))


def normalize(sums: NDArray[float64]) -> NDArray[float32]:
    """Divide each row, float64 (n, classes), by its sum."""
    normalized: NDArray[float32] = (sums / sums.sum(axis=1, keepdims=True)).astype(float32)
    return normalized
