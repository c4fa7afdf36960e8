"""The figures of one set of images or patients."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy import float32, float64, int64
from numpy.typing import NDArray

from mribatch.report import metrics
from mribatch.report.metrics import Metric
from mribatch.report.metrics_file import (
    IMAGE,
    NEW_IMAGE,
    PATIENT_MEAN,
    PATIENT_WORST,
    ConfidenceCalibration,
    Intervals,
    Level,
    MetricRow,
)
from mribatch.report.patients import Patients
from mribatch.report.row_groups import RowGroups
from mribatch.report.rows import RunRows

PROTOCOL_UNKNOWN = "protocol not given"


@dataclass(frozen=True, kw_only=True)
class ScoredSet:
    """What one level is measured on: the images, or the patients by one way of aggregating their slices.

    labels: int64 (n,). probabilities: float32 (n, classes). groups: int64 (n,), or None where each row is its own.
    """

    level: str  # IMAGE, NEW_IMAGE, PATIENT_MEAN or PATIENT_WORST
    unit: str  # what a row is: "image" or "patient"
    title: str  # e.g. "per patient (mean probability)"
    labels: NDArray[int64]
    probabilities: NDArray[float32]
    groups: NDArray[int64] | None = None
    source: str | None = None  # of the groups
    without_group: int = 0  # rows


def select_images(rows: RunRows, groups: RowGroups | None) -> list[ScoredSet]:
    """The images that are readable and labelled; where the model was trained on some of them, also the others."""
    sets = [_select_rows(rows, rows.scored, groups, IMAGE, "per image")]
    if (rows.scored & rows.seen).any():
        sets.append(_select_rows(rows, rows.scored & ~rows.seen, groups, NEW_IMAGE, "per image, not in training"))
    return [each for each in sets if len(each.labels)]


def _select_rows(
    rows: RunRows, chosen: NDArray[np.bool_], groups: RowGroups | None, level: str, title: str
) -> ScoredSet:
    return ScoredSet(
        level=level,
        unit="image",
        title=title,
        labels=rows.labels[chosen],
        probabilities=rows.probabilities[chosen],
        groups=None if groups is None else groups.codes_with_singles()[chosen],
        source=None if groups is None else groups.source,
        without_group=0 if groups is None else int((groups.codes[chosen] < 0).sum()),
    )


def select_patients(patients: Patients) -> list[ScoredSet]:
    """The patients, once by the mean probability and once by the worst slice; nothing where there are none."""
    if len(patients.labels) == 0:
        return []
    ways = {PATIENT_MEAN: ("mean probability", patients.mean), PATIENT_WORST: ("worst slice", patients.worst)}
    return [
        ScoredSet(
            level=level, unit="patient", title=f"per patient ({way})", labels=patients.labels, probabilities=scores
        )
        for level, (way, scores) in ways.items()
    ]


def measure_level(chosen: ScoredSet, classes: Sequence[str], protocol: str | None, seed: int) -> Level:
    """All metrics of one set, with intervals, confusion matrix and calibration.

    Args:
        chosen: What is measured.
        classes: In the order of the probability columns.
        protocol: How test and training images were kept apart, as the user says.
        seed: Of the bootstrap.
    """
    count = None if chosen.groups is None else len(np.unique(chosen.groups))
    over = metrics.describe_unit(len(chosen.labels), count, chosen.unit)
    over += f" ({chosen.source})" if chosen.source else ""
    text = f"{protocol or PROTOCOL_UNKNOWN}; {chosen.title}; {over}"
    found = metrics.headline(chosen.labels, chosen.probabilities, classes, chosen.groups, seed, protocol=text)
    counts = metrics.confusion(chosen.labels, chosen.probabilities, classes)
    return Level(
        level=chosen.level,
        title=chosen.title,
        protocol=text,
        n=len(chosen.labels),
        intervals=_describe_intervals(chosen, seed),
        metrics=tuple(_to_row(metric) for metric in found),
        confusion=tuple(tuple(row) for row in counts.tolist()),
        calibration=ConfidenceCalibration(
            mean_confidence=float(chosen.probabilities.max(axis=1).mean(dtype=float64)),
            accuracy=metrics.find(found, "accuracy").value or 0.0,  # never None: a level has rows
            bins=tuple(metrics.calibration(chosen.labels, chosen.probabilities, classes)),
        ),
    )


def _describe_intervals(chosen: ScoredSet, seed: int) -> Intervals:
    groups = np.arange(len(chosen.labels)) if chosen.groups is None else chosen.groups
    sizes = np.unique(groups, return_counts=True)[1]
    return Intervals(
        method="percentile bootstrap",
        level=metrics.LEVEL,
        resamples=metrics.RESAMPLES,
        seed=seed,
        unit=chosen.unit if chosen.groups is None else "group",
        source=chosen.source,
        units=len(sizes),
        largest=int(sizes.max()),
        without_group=chosen.without_group,
    )


def _to_row(metric: Metric) -> MetricRow:
    return MetricRow(
        metric=metric.metric,
        class_=metric.class_,
        value=metric.value,
        low=metric.low,
        high=metric.high,
        n=metric.n,
        note=metric.note,
    )
