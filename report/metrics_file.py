"""The content of metrics.json as typed records, in the order of the file.

The keys are documented in docs/reference/metrics.md and in metrics.schema.json beside this module; a test compares all
three. The page and the table of the console are drawn from these records alone, so they cannot differ from the file.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

from mribatch.core.errors import MribatchError
from mribatch.core.typed_json import read_record, write_record
from mribatch.report.metrics import CalibrationBin, Metric, name_metric

SCHEMA_VERSION = 1
METRICS_JSON = "metrics.json"
IMAGE, PATIENT_MEAN, PATIENT_WORST = "image", "patient_mean", "patient_worst"  # levels
NEW_IMAGE = "image_not_in_training"  # level: the images that the model was not trained on, where it was on others


@dataclass(frozen=True, kw_only=True)
class MeasuredRun:
    """The run that was measured, from its run.json."""

    name: str  # of its folder
    model: str | None
    trained: bool
    classes: tuple[str, ...]  # in the order of the probability columns
    inputs: tuple[str, ...]  # as given to classify
    backend: str | None
    decoder: str | None
    precision: str | None
    tool_version: str | None  # the version that classified


@dataclass(frozen=True, kw_only=True)
class UnreadableFile:
    """A file without a prediction."""

    path: str
    status: str
    error: str | None


@dataclass(frozen=True, kw_only=True)
class FileCounts:
    """How many files there are, and which of them metrics are over."""

    total: int
    by_status: Mapping[str, int]
    readable: int
    labelled: int
    scored: int  # readable and labelled: metrics are over these
    readable_without_label: int
    unreadable_with_label: int
    not_readable: tuple[UnreadableFile, ...]  # the first 20


@dataclass(frozen=True, kw_only=True)
class ConfidenceSpread:
    """Quantiles of the confidence."""

    min: float
    q05: float
    q25: float
    median: float
    q75: float
    q95: float
    max: float


@dataclass(frozen=True, kw_only=True)
class PredictedClasses:
    """Predictions of every readable file, with or without a label."""

    counts: Mapping[str, int]  # files by predicted class
    confidence: ConfidenceSpread | None  # None where no file is readable


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """How the intervals of a level were made."""

    method: str
    level: float
    resamples: int
    seed: int
    unit: str  # what is resampled: "image", "group" or "patient"
    source: str | None  # of the groups, e.g. "series_id of groups.csv"
    units: int
    largest: int  # images in the largest unit
    without_group: int  # images that have no group; each is a group of its own


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """One metric of a level; see `mribatch.report.metrics.Metric`."""

    metric: str
    class_: str | None
    value: float | None
    low: float | None
    high: float | None
    n: int
    note: str | None

    @property
    def name(self) -> str:
        """As a requirement spells it: `accuracy`, `sensitivity[glioma_tumor]`."""
        return name_metric(self.metric, self.class_)


@dataclass(frozen=True, kw_only=True)
class ConfidenceCalibration:
    """The mean confidence against the accuracy, over all and by bin of confidence."""

    mean_confidence: float
    accuracy: float
    bins: tuple[CalibrationBin, ...]  # those that are not empty


@dataclass(frozen=True, kw_only=True)
class Level:
    """The figures of one set: the images, or the patients by one way of aggregating their slices."""

    level: str  # IMAGE, NEW_IMAGE, PATIENT_MEAN or PATIENT_WORST
    title: str  # e.g. "per patient (mean probability)"
    protocol: str
    n: int
    intervals: Intervals
    metrics: tuple[MetricRow, ...]
    confusion: tuple[tuple[int, ...], ...]  # rows are labels, columns predictions, in the order of the classes
    calibration: ConfidenceCalibration

    def find(self, metric: str, class_: str | None = None) -> MetricRow:
        """The row of that metric and class. Raises KeyError where there is none."""
        for row in self.metrics:
            if row.metric == metric and row.class_ == class_:
                return row
        raise KeyError((metric, class_))

    def to_metrics(self) -> tuple[Metric, ...]:
        """The rows of metrics.parquet, with the protocol in each."""
        return tuple(
            Metric(row.metric, row.class_, row.value, row.low, row.high, row.n, self.protocol, row.note)
            for row in self.metrics
        )


@dataclass(frozen=True, kw_only=True)
class MixedPatient:
    """A patient whose slices carry several labels."""

    patient: str
    labels: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class MixedPatients:
    """Patients that are left out because their slices carry several labels."""

    count: int
    named: tuple[MixedPatient, ...]  # the first 20


@dataclass(frozen=True, kw_only=True)
class PatientCounts:
    """How many patients there are, and who was left out."""

    source: str  # e.g. "patient_id of groups.csv"
    patients: int
    scored: int
    several_labels: MixedPatients
    nothing_to_score: int  # patients without a readable and labelled slice
    with_unreadable_slices: int
    slices_without_patient: int


@dataclass(frozen=True, kw_only=True)
class RequirementResult:
    """Whether a requirement holds for the images."""

    required: str
    value: float | None
    met: bool
    found: str  # for people


@dataclass(frozen=True, kw_only=True)
class SeenInTraining:
    """How many of the readable images the model was trained on, by the hashes in its bundle."""

    readable: int
    exact: int  # the same pixels
    near: int  # nearly the same picture
    scored: int  # exact or near, with a label

    @property
    def images(self) -> int:
        return self.exact + self.near


@dataclass(frozen=True, kw_only=True)
class UnlikeTraining:
    """How many of the readable images do not look like those that the model was trained on."""

    readable: int
    images: int  # of these, flagged
    scored: int  # flagged, with a label
    false_alarms: float  # share of left-out training images that are flagged


@dataclass(frozen=True, kw_only=True)
class MetricsFile:
    """The content of metrics.json."""

    schema_version: int
    tool_version: str
    research_notice: str
    notices: tuple[str, ...]  # what must be said beside every figure
    run: MeasuredRun
    protocol: str | None  # as given with --protocol
    files: FileCounts
    predicted: PredictedClasses
    no_metrics: str | None  # why there are no levels; None where there are
    levels: tuple[Level, ...]
    patients: PatientCounts | None
    requirements: tuple[RequirementResult, ...]
    seen_in_training: SeenInTraining | None = None  # absent where the bundle has no hashes of its training images
    unlike_training: UnlikeTraining | None = None  # absent where the bundle has no statistics of its training images

    @property
    def new_image_level(self) -> Level | None:
        """The figures of images that were not in training; None where none or all were."""
        return next((level for level in self.levels if level.level == NEW_IMAGE), None)

    @property
    def image_level(self) -> Level | None:
        """The figures per image, or None where no image could be scored."""
        return next((level for level in self.levels if level.level == IMAGE), None)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Every row of metrics.parquet, level by level."""
        return tuple(metric for level in self.levels for metric in level.to_metrics())

    def to_json(self) -> dict[str, Any]:
        """Return JSON values with the keys in the order of the file."""
        content = write_record(self)
        for level in content["levels"]:
            level["metrics"] = [_rename(row, "class_", "class") for row in level["metrics"]]
        return content


def read_metrics(path: Path, *, fix: str) -> MetricsFile:
    """Read a metrics.json and check every field.

    Args:
        path: The file.
        fix: What errors advise; the caller knows its options.

    Raises:
        MribatchError: Missing, unreadable, of another version, or a field that is missing or of another type.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
        _check_version(content)
        return read_record(MetricsFile, _with_python_names(content))
    except OSError as error:
        raise MribatchError(f"cannot read {path}: {error.strerror or error}", fix) from error
    except (ValueError, RecursionError) as error:
        raise MribatchError(f"{path} is not a metrics.json of this version: {error}", fix) from error


def metrics_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of metrics.json, as shipped with the package."""
    text = resources.files("mribatch.report").joinpath("metrics.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def _check_version(content: object) -> None:
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise ValueError(f"its schema_version is {version!r}, not {SCHEMA_VERSION}")


def _with_python_names(content: dict[str, Any]) -> dict[str, Any]:
    """With `class_` in the place of `class`, which Python does not allow as a name; damage is left as it is."""
    levels = content.get("levels")
    if not isinstance(levels, list):
        return content
    renamed = []
    for level in levels:
        rows = level.get("metrics") if isinstance(level, dict) else None
        if isinstance(rows, list):
            rows = [_rename(row, "class", "class_") if isinstance(row, dict) else row for row in rows]
            renamed.append(level | {"metrics": rows})
        else:
            renamed.append(level)
    return content | {"levels": renamed}


def _rename(row: Mapping[str, Any], old: str, new: str) -> dict[str, Any]:
    return {new if key == old else key: value for key, value in row.items()}


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
