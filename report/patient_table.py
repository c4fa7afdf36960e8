"""One row per patient: its images, mean probabilities, predicted class, and label where one is known.

With labels or without; patients.parquet and patients.csv hold it, docs/reference/metrics.md describes the columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy import bool_, float32, float64, int64
from numpy.typing import NDArray

from mribatch.report.patients import normalize
from mribatch.report.row_groups import RowGroups
from mribatch.report.rows import RunRows

SEVERAL = -2  # in PatientTable.labels: the patient's images have different labels
UNKNOWN = -1


@dataclass(frozen=True, kw_only=True)
class PatientTable:
    """The patients of a run, in the order of their first image; arrays have one entry per patient.

    mean: float32 (patients, classes), the mean probability over the readable images. shares: float32 (patients,
    classes), the share of these images that were given each class. Both are zero where no image is readable.
    """

    classes: tuple[str, ...]
    names: tuple[str, ...]
    images: NDArray[int64]
    readable: NDArray[int64]
    seen: NDArray[int64]  # readable images that the model was trained on
    mean: NDArray[float32]
    shares: NDArray[float32]
    labels: NDArray[int64]  # positions in the classes, UNKNOWN or SEVERAL

    def __len__(self) -> int:
        return len(self.names)

    @property
    def predicted(self) -> NDArray[int64]:
        """int64 (patients,): the class with the highest mean probability, ties the first; -1 without one."""
        return np.where(self.readable > 0, self.mean.argmax(axis=1), -1)

    @property
    def judged(self) -> NDArray[bool_]:
        """bool (patients,): with a prediction and one label, so that it can be called correct or wrong."""
        return (self.readable > 0) & (self.labels >= 0)


def tabulate_patients(rows: RunRows, patients: RowGroups, classes: Sequence[str]) -> PatientTable:
    """Count and average the images of each patient; every readable image counts, labelled or not."""
    number = len(patients.names)
    known = patients.codes >= 0
    used = known & rows.readable
    codes, slices = patients.codes[used], rows.probabilities[used]
    sums, votes = np.zeros((number, len(classes)), float64), np.zeros((number, len(classes)), int64)
    np.add.at(sums, codes, slices)
    np.add.at(votes, (codes, slices.argmax(axis=1)), 1)
    readable = np.bincount(codes, minlength=number)
    some = readable > 0
    mean, shares = np.zeros(sums.shape, float32), np.zeros(sums.shape, float32)
    mean[some] = normalize(sums[some])
    shares[some] = votes[some] / readable[some, np.newaxis]
    return PatientTable(
        classes=tuple(classes),
        names=patients.names,
        images=np.bincount(patients.codes[known], minlength=number),
        readable=readable,
        seen=np.bincount(patients.codes[used & rows.seen], minlength=number),
        mean=mean,
        shares=shares,
        labels=_find_labels(patients.codes[known], rows.labels[known], number),
    )


def _find_labels(codes: NDArray[int64], labels: NDArray[int64], number: int) -> NDArray[int64]:
    labelled = labels >= 0
    lowest, highest = np.full(number, np.iinfo(int64).max), np.full(number, UNKNOWN)
    np.minimum.at(lowest, codes[labelled], labels[labelled])
    np.maximum.at(highest, codes[labelled], labels[labelled])
    return np.where((highest >= 0) & (lowest != highest), SEVERAL, highest)
