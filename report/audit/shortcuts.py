"""How well the size of an image, the header of its file or its border alone tell the classes.

None of them says anything about a disease. A forest is trained on one of them and judged on images that share no
picture, series or patient with those that it learned from, so that leaks do not flatter it. What it gets right above
the share of the largest class, a network may learn in place of the disease.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy import float32, float64, int64
from numpy.typing import NDArray

from mribatch.pipeline.decode.formats.jpeg import JpegEncoding
from mribatch.report.audit.images import AuditedImages
from mribatch.report.metrics import find, headline

FOLDS = 5
MAX_IMAGES = 20_000  # that a forest learns from; more say no more about a shortcut
_TREES = 50
_LEAST_IN_A_LEAF = 3
_STEPS = 64  # of a quantisation table
_TABLES = 2
_COMPONENTS = 4
_FORMATS = ("jpeg", "png", "bmp", "tiff", "webp", "jp2", "dicom", "nifti")


class ShortcutCheck(StrEnum):
    """What is looked at."""

    SIZE = "size"
    HEADER = "header"
    BORDER = "border"


@dataclass(frozen=True, kw_only=True)
class ShortcutFigures:
    """How well one shortcut tells the classes. Figures are None where it was not measured; `note` says why."""

    check: str  # of ShortcutCheck
    target: str  # "class", or "tumor": any tumor against none
    images: int
    units: int  # of images that belong together: what folds and intervals keep whole
    folds: int | None
    majority: float | None  # share of the largest class: what guessing reaches
    accuracy: float | None
    low: float | None  # 95 % interval of the accuracy
    high: float | None
    balanced_accuracy: float | None
    note: str | None = None

    @property
    def tells(self) -> bool:
        """Whether the whole interval is above what guessing reaches."""
        return self.low is not None and self.majority is not None and self.low > self.majority


@dataclass(frozen=True)
class _Task:
    """What is to be told, by what: one row per image, in an order that depends on the images alone."""

    features: NDArray[float32]
    labels: NDArray[int64]
    names: tuple[str, ...]
    units: NDArray[int64]
    seed: int
    threads: int


def measure_shortcuts(
    images: AuditedImages, units: NDArray[int64], without: str | None, *, seed: int, threads: int
) -> tuple[ShortcutFigures, ...]:
    """Judge every shortcut, for the classes and, where a class stands for no tumor, for any tumor against none.

    Args:
        images: All images; those that are readable and labelled count.
        units: (n,), what belongs together.
        without: The class without a tumor, or None.
        seed: Of the forests and of the intervals.
        threads: Trees that are grown at once.
    """
    chosen = _choose(images)
    targets: list[tuple[str, NDArray[int64], tuple[str, ...]]] = [("class", images.labels[chosen], images.classes)]
    if without is not None and len(images.classes) > 2:
        healthy = images.labels[chosen] == images.classes.index(without)
        targets.append(("tumor", healthy.astype(int64), ("tumor", "none")))
    measured = []
    for target, labels, names in targets:
        present, codes = np.unique(labels, return_inverse=True)
        kept = tuple(names[position] for position in present.tolist())
        for check in ShortcutCheck:
            features = _describe(images, check)[chosen]
            task = _Task(features, codes.astype(int64), kept, _renumber(units[chosen]), seed, threads)
            measured.append(_measure(check, target, task))
    return tuple(measured)


def _choose(images: AuditedImages) -> NDArray[int64]:
    """Positions of readable, labelled images in the order of their content, so that names and order do not matter."""
    places = np.flatnonzero(images.readable & (images.labels >= 0)).tolist()
    ordered = sorted(places, key=lambda place: _order(images, place))
    if len(ordered) > MAX_IMAGES:
        steps = np.linspace(0, len(ordered) - 1, MAX_IMAGES).round().astype(int64)
        ordered = [ordered[step] for step in steps.tolist()]
    return np.array(ordered, int64)


def _order(images: AuditedImages, place: int) -> tuple[str, str, int, int]:
    study = images.files[place].study
    slice_ = -1 if study is None or study.slice is None else study.slice
    return images.content[place] or "", images.decoded[place].sha256 or "", slice_, int(images.labels[place])


def _renumber(units: NDArray[int64]) -> NDArray[int64]:
    """Numbers by first appearance, which follow from the order of the images alone."""
    first: dict[int, int] = {}
    return np.array([first.setdefault(unit, len(first)) for unit in units.tolist()], int64)


def _measure(check: ShortcutCheck, target: str, task: _Task) -> ShortcutFigures:
    counts = np.bincount(task.labels, minlength=1)
    units = len(np.unique(task.units))
    folds, why_not = _count_folds(check, task)
    if why_not is not None:
        majority = float(counts.max() / counts.sum()) if counts.sum() else None
        return ShortcutFigures(
            check=check,
            target=target,
            images=len(task.labels),
            units=units,
            folds=None,
            majority=majority,
            accuracy=None,
            low=None,
            high=None,
            balanced_accuracy=None,
            note=why_not,
        )
    metrics = headline(task.labels, _predict(task, folds), task.names, groups=task.units, seed=task.seed)
    accuracy = find(metrics, "accuracy")
    return ShortcutFigures(
        check=check,
        target=target,
        images=len(task.labels),
        units=units,
        folds=folds,
        majority=float(counts.max() / counts.sum()),
        accuracy=accuracy.value,
        low=accuracy.low,
        high=accuracy.high,
        balanced_accuracy=find(metrics, "balanced_accuracy").value,
    )


def _count_folds(check: ShortcutCheck, task: _Task) -> tuple[int, str | None]:
    """How many folds there can be, and why there are none."""
    if len(task.names) < 2:
        return 0, "fewer than two classes have images"
    fewest = min(len(np.unique(task.units[task.labels == label])) for label in range(len(task.names)))
    if fewest < 2:
        return 0, "a class has a single unit of images that belong together"
    if (task.features == task.features[0]).all():
        return 0, f"the {check} is the same in all images"
    return min(FOLDS, fewest), None


def _predict(task: _Task, folds: int) -> NDArray[float32]:
    """Out-of-fold probabilities, float32 (n, classes)."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import StratifiedGroupKFold

    found = np.zeros((len(task.labels), len(task.names)), float32)
    for trained, tested in StratifiedGroupKFold(folds).split(task.features, task.labels, task.units):
        forest: Any = RandomForestClassifier(
            _TREES, min_samples_leaf=_LEAST_IN_A_LEAF, random_state=task.seed, n_jobs=task.threads
        )
        forest.fit(task.features[trained], task.labels[trained])
        forest.n_jobs = 1  # threads would add the trees up in any order
        found[np.ix_(tested, forest.classes_)] = forest.predict_proba(task.features[tested])
    return found


def _describe(images: AuditedImages, check: ShortcutCheck) -> NDArray[float32]:
    """What a forest sees of every image: float32 (n, figures)."""
    if check is ShortcutCheck.BORDER:
        return images.borders
    if check is ShortcutCheck.SIZE:
        sizes = np.array([(one.width or 0, one.height or 0) for one in images.verdicts], float64).reshape(-1, 2)
        across, down = sizes[:, 0], sizes[:, 1]
        return np.stack([across, down, across * down, across / np.maximum(down, 1)], axis=1).astype(float32)
    rows = [
        [_FORMATS.index(verdict.format) if verdict.format in _FORMATS else -1, verdict.bits or 0, *_describe_jpeg(one)]
        for verdict, one in zip(images.verdicts, images.encodings, strict=True)
    ]
    return np.array(rows, float32).reshape(len(rows), -1)


def _describe_jpeg(encoding: JpegEncoding | None) -> Sequence[int]:
    """Quantisation tables, subsampling, markers; all zero for what is no JPEG."""
    steps = [0] * (_TABLES * _STEPS)
    factors = [0] * (2 * _COMPONENTS)
    applications = [0] * 16
    if encoding is None:
        return [*steps, *factors, 0, 0, 0, 0, *applications]
    for number, table in enumerate(encoding.quantization[:_TABLES]):
        steps[number * _STEPS : (number + 1) * _STEPS] = table
    for number, (across, down) in enumerate(encoding.sampling[:_COMPONENTS]):
        factors[2 * number : 2 * number + 2] = across, down
    for number in encoding.applications:
        applications[number] = 1
    facts = len(encoding.quantization), encoding.progressive, encoding.restarts, encoding.comments
    return [*steps, *factors, *map(int, facts), *applications]
