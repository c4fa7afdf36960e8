"""From labels and probabilities to metrics with intervals. Arrays in, values out; knows no files.

Point values come from scikit-learn wherever it has the metric. Intervals are percentile bootstrap intervals: whole
groups (a patient, a series) are drawn with replacement, so that images that resemble each other are never taken for
independent evidence (cluster bootstrap: Davison and Hinkley 1997, section 3.8; Field and Welsh 2007).

What is undefined (the sensitivity to a class that never occurs) is None with a note that says why, never NaN.
`docs/reference/metrics.md` defines every metric.
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy import float32, float64, int64
from numpy.typing import ArrayLike, NDArray

from mribatch.core.errors import MribatchError

RESAMPLES = 2_000
LEVEL = 0.95
ECE_BINS = 15  # Guo et al. 2017, "On calibration of modern neural networks", section 2

MACRO, WEIGHTED = "macro", "weighted"
OVERALL_METRICS = ("accuracy", "balanced_accuracy", "log_loss", "brier", "ece", "support")
CLASS_METRICS = ("precision", "sensitivity", "specificity", "f1", "auroc", "auprc")

_SMALLEST = float(np.finfo(float32).eps)  # log loss clips here, as scikit-learn does for float32 probabilities
_SUM_TOLERANCE = 0.01  # FP16 softmax rows miss 1 by up to about 0.001
_RANK_BINS = 4_096  # steps of a resampled ROC curve; measured at 100,000 images: fewer steps move AUROC by under 1e-5
_RANK_CLASSES = 20  # above, the rank curves of every class in every resample cost more than they tell
_CHUNK = 4_000_000  # numbers held at once by the bootstrap: 32 MB

Key = tuple[str, str | None]


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of metrics.parquet, plus a note.

    `class_` is None for a figure over all classes, a class name, "macro" (mean over classes) or "weighted" (mean over
    classes by support). `low` and `high` bound the 95 % interval. `n` is the number of images that the value is a mean
    or a share of: those of the class for its sensitivity, those of other classes for its specificity, those predicted
    as the class for its precision, all of them otherwise.
    """

    metric: str
    class_: str | None
    value: float | None
    low: float | None
    high: float | None
    n: int
    protocol: str
    note: str | None = None  # why a value or an interval is missing, or which classes an average leaves out

    @property
    def name(self) -> str:
        """As a requirement spells it: `accuracy`, `sensitivity[glioma_tumor]`."""
        return name_metric(self.metric, self.class_)


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationBin:
    """The images whose confidence lies in one bin: above `low`, up to `high`."""

    low: float
    high: float
    n: int
    confidence: float  # mean
    accuracy: float


@dataclass(frozen=True, slots=True)
class _Point:
    value: float | None
    n: int
    note: str | None = None


@dataclass(frozen=True)
class _Scored:
    """labels, predicted: int64 (n,), positions in classes. probabilities: float32 (n, classes), within 0..1."""

    labels: NDArray[int64]
    predicted: NDArray[int64]
    probabilities: NDArray[float32]
    classes: tuple[str, ...]
    sums_to_one: bool

    @property
    def hits(self) -> NDArray[np.bool_]:
        hits: NDArray[np.bool_] = self.labels == self.predicted
        return hits

    @property
    def confidence(self) -> NDArray[float32]:
        confidence: NDArray[float32] = self.probabilities.max(axis=1)
        return confidence


def headline(
    labels: ArrayLike,
    probabilities: ArrayLike,
    classes: Sequence[str],
    groups: ArrayLike | None = None,
    seed: int = 0,
    *,
    protocol: str | None = None,
    resamples: int = RESAMPLES,
) -> list[Metric]:
    """Every metric of one set of images, with 95 % intervals; the one entry for reports and for training.

    Args:
        labels: int (n,), positions in `classes`.
        probabilities: float32 (n, classes). The prediction is the largest; ties take the lowest class.
        classes: Names in the order of the columns.
        groups: (n,) integers or strings; equal ones are resampled together. None: every image is a group of its own.
        seed: Of the bootstrap. The same arguments give the same list.
        protocol: Written in every row; None describes the groups.
        resamples: Number of bootstrap resamples.

    Returns:
        Overall metrics, then those of each class in order, then the macro and the weighted averages.

    Raises:
        ValueError: Shapes, labels out of range, or numbers that are not finite.
        MribatchError: A class is called "macro" or "weighted".
    """
    scored = _check_arrays(labels, probabilities, classes)
    codes = _number_groups(groups, len(scored.labels))
    text = describe_unit(len(codes), None if groups is None else len(set(codes.tolist())))
    text = f"per image; {text}" if protocol is None else protocol
    if len(codes) == 0:
        return [Metric(*key, None, None, None, 0, text, "there is nothing to score") for key in metric_keys(classes)]
    points = _measure_all(scored)
    resampled = _Resampled(scored, codes, seed, resamples)
    return [resampled.metric(key, points[key], text) for key in metric_keys(classes)]


def describe_unit(images: int, groups: int | None, unit: str = "image") -> str:
    """What the intervals are resampled over, in words, e.g. "intervals over 181 groups"."""
    return f"intervals over {images:,} single {unit}s" if groups is None else f"intervals over {groups:,} groups"


def metric_keys(classes: Sequence[str]) -> list[Key]:
    """(metric, class) of every row of `headline`, in order."""
    keys: list[Key] = [(metric, None) for metric in OVERALL_METRICS]
    for name in classes:
        keys += [(metric, name) for metric in (*CLASS_METRICS, "support")]
    return keys + [(metric, average) for average in (MACRO, WEIGHTED) for metric in CLASS_METRICS]


def name_metric(metric: str, class_: str | None) -> str:
    """The name that a requirement spells: `accuracy`, `sensitivity[glioma_tumor]`."""
    return metric if class_ is None else f"{metric}[{class_}]"


def find(metrics: Iterable[Metric], metric: str, class_: str | None = None) -> Metric:
    """The row of that metric and class. Raises KeyError where there is none."""
    for row in metrics:
        if row.metric == metric and row.class_ == class_:
            return row
    raise KeyError((metric, class_))


def confusion(labels: ArrayLike, probabilities: ArrayLike, classes: Sequence[str]) -> NDArray[int64]:
    """Counts, int64 (classes, classes): rows are labels, columns predictions."""
    from sklearn.metrics import confusion_matrix

    scored = _check_arrays(labels, probabilities, classes)
    if len(scored.labels) == 0:
        return np.zeros((len(classes), len(classes)), dtype=int64)
    counts: NDArray[int64] = confusion_matrix(scored.labels, scored.predicted, labels=range(len(classes)))
    return counts


def ece_bins(confidence: NDArray[float32]) -> NDArray[int64]:
    """Bin 0..14 of each confidence: equal widths, right edge included (Guo et al. 2017). Input and output (n,)."""
    edges = np.arange(1, ECE_BINS, dtype=float32) / float32(ECE_BINS)  # float32, so that 0.2 lies on the edge 3/15
    return np.searchsorted(edges, confidence, side="left").astype(int64)


def calibration(labels: ArrayLike, probabilities: ArrayLike, classes: Sequence[str]) -> list[CalibrationBin]:
    """The reliability table behind ECE, one record per bin that is not empty."""
    scored = _check_arrays(labels, probabilities, classes)
    bins = ece_bins(scored.confidence)
    table = []
    for position in np.unique(bins).tolist():
        inside = bins == position
        table.append(
            CalibrationBin(
                low=position / ECE_BINS,
                high=(position + 1) / ECE_BINS,
                n=int(inside.sum()),
                confidence=float(scored.confidence[inside].mean(dtype=float64)),
                accuracy=float(scored.hits[inside].mean()),
            )
        )
    return table


def _check_arrays(labels: ArrayLike, probabilities: ArrayLike, classes: Sequence[str]) -> _Scored:
    truth, scores = np.asarray(labels), np.asarray(probabilities, dtype=float32)
    if taken := {MACRO, WEIGHTED} & set(classes):
        raise MribatchError(
            f"a class is called '{taken.pop()}', which is the name of an average", "rename the class in the bundle"
        )
    if len(classes) < 2 or scores.shape != (len(truth), len(classes)) or truth.ndim != 1:
        raise ValueError(f"labels {truth.shape}, probabilities {scores.shape}, {len(classes)} classes")
    if len(truth) and not np.issubdtype(truth.dtype, np.integer):
        raise ValueError(f"labels are {truth.dtype}, not integers")
    truth = truth.astype(int64)
    if len(truth) and (truth.min() < 0 or truth.max() >= len(classes)):
        raise ValueError(f"labels from {truth.min()} to {truth.max()} for {len(classes)} classes")
    if not np.isfinite(scores).all():
        raise ValueError("a probability is not finite")
    sums = scores.sum(axis=1, dtype=float64)
    whole = bool((np.abs(sums - 1) <= _SUM_TOLERANCE).all())
    predicted = scores.argmax(axis=1).astype(int64) if len(truth) else truth
    return _Scored(truth, predicted, scores.clip(0, 1), tuple(classes), whole)


def _number_groups(groups: ArrayLike | None, count: int) -> NDArray[int64]:
    if groups is None:
        return np.arange(count, dtype=int64)
    values = np.asarray(groups)
    if values.shape != (count,):
        raise ValueError(f"groups {values.shape} for {count} images")
    return np.unique(values, return_inverse=True)[1].astype(int64)


# ---------------------------------------------------------------------------------------------- point values


def _measure_all(scored: _Scored) -> dict[Key, _Point]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # every undefined value is met and explained here
        per_class = _measure_counts(scored) | _measure_ranks(scored)
        return _measure_overall(scored) | per_class | _average_classes(scored, per_class)


def _measure_overall(scored: _Scored) -> dict[Key, _Point]:
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, brier_score_loss, log_loss

    labels, every, n = scored.labels, range(len(scored.classes)), len(scored.labels)
    gaps = np.bincount(ece_bins(scored.confidence), weights=scored.hits - scored.confidence.astype(float64))
    points = {
        "accuracy": _Point(float(accuracy_score(labels, scored.predicted)), n),
        "balanced_accuracy": _Point(float(balanced_accuracy_score(labels, scored.predicted)), n),
        "ece": _Point(float(np.abs(gaps).sum() / n), n),
        "support": _Point(float(n), n),
    }
    if scored.sums_to_one:
        bounded = scored.probabilities.clip(_SMALLEST, 1 - _SMALLEST).astype(float64)
        exact = scored.probabilities.astype(float64)
        points["log_loss"] = _Point(float(log_loss(labels, bounded, labels=every)), n)
        points["brier"] = _Point(float(brier_score_loss(labels, exact, labels=every, scale_by_half=False)), n)
    else:
        note = f"some probabilities do not sum to 1 within {_SUM_TOLERANCE}"
        points["log_loss"] = points["brier"] = _Point(None, n, note)
    return {(metric, None): point for metric, point in points.items()}


def _measure_counts(scored: _Scored) -> dict[Key, _Point]:
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    every, n = range(len(scored.classes)), len(scored.labels)
    precision, sensitivity, f1, support = precision_recall_fscore_support(
        scored.labels, scored.predicted, labels=every, zero_division=np.nan
    )
    counts = confusion_matrix(scored.labels, scored.predicted, labels=every)
    columns = counts.sum(axis=0)
    points: dict[Key, _Point] = {}
    for c, name in enumerate(scored.classes):
        positives, claimed = int(support[c]), int(columns[c])
        negatives, false_alarms = n - positives, claimed - int(counts[c, c])
        specificity = (negatives - false_alarms) / negatives if negatives else np.nan
        points[("precision", name)] = _make_point(precision[c], claimed, "this class was never predicted")
        points[("sensitivity", name)] = _make_point(sensitivity[c], positives, "this class never occurs")
        points[("specificity", name)] = _make_point(specificity, negatives, "no other class occurs")
        points[("f1", name)] = _make_point(f1[c], n, "this class never occurs and was never predicted")
        points[("support", name)] = _Point(float(positives), n)
    return points


def _measure_ranks(scored: _Scored) -> dict[Key, _Point]:
    from sklearn.metrics import average_precision_score, roc_auc_score

    points: dict[Key, _Point] = {}
    for c, name in enumerate(scored.classes):
        truth, score = scored.labels == c, scored.probabilities[:, c]
        if truth.all() or not truth.any():
            note = "no other class occurs" if truth.all() else "this class never occurs"
            points[("auroc", name)] = points[("auprc", name)] = _Point(None, len(truth), note)
        else:
            points[("auroc", name)] = _Point(float(roc_auc_score(truth, score)), len(truth))
            points[("auprc", name)] = _Point(float(average_precision_score(truth, score)), len(truth))
    return points


def _average_classes(scored: _Scored, per_class: dict[Key, _Point]) -> dict[Key, _Point]:
    """Means over the classes whose value is defined; the note names the others."""
    n = len(scored.labels)
    support = np.array([per_class[("support", name)].value for name in scored.classes], dtype=float64)
    points: dict[Key, _Point] = {}
    for metric in CLASS_METRICS:
        found = [per_class[(metric, name)].value for name in scored.classes]
        values = np.array([np.nan if value is None else value for value in found])
        missing = [name for name, value in zip(scored.classes, found, strict=True) if value is None]
        left_out = f"undefined for {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}"
        note = f"mean over {len(found) - len(missing)} of {len(found)} classes; {left_out}" if missing else None
        for average, weights in ((MACRO, np.ones_like(support)), (WEIGHTED, support)):
            value = float(_average_known(values[None], weights[None])[0])
            points[(metric, average)] = _make_point(value, n, "undefined for every class that it would average", note)
    return points


def _make_point(value: float, n: int, why_undefined: str, note: str | None = None) -> _Point:
    return _Point(float(value), n, note) if np.isfinite(value) else _Point(None, n, why_undefined)


def _average_known(values: NDArray[float64], weights: NDArray[float64]) -> NDArray[float64]:
    """Mean of each row of (rows, classes) by weight, over what is not NaN; NaN where nothing is left."""
    known = np.isfinite(values)
    used = np.where(known, weights, 0.0)
    return _divide((np.where(known, values, 0.0) * used).sum(axis=1), used.sum(axis=1))


def _divide(above: NDArray[float64], below: NDArray[float64]) -> NDArray[float64]:
    ratio: NDArray[float64] = np.divide(
        above, below, out=np.full(np.broadcast(above, below).shape, np.nan), where=below > 0
    )
    return ratio


# ---------------------------------------------------------------------------------------------- the bootstrap


class _Resampled:
    """The bootstrap distribution of every metric.

    Every metric here is a function of sums over images (hits, label and prediction counts, losses, gaps per bin, counts
    per score), so a resample of groups is one product of a (resamples, groups) matrix of draw counts with a sparse
    (groups, sums) matrix, and no image is looked at twice.
    """

    def __init__(self, scored: _Scored, codes: NDArray[int64], seed: int, resamples: int) -> None:
        from scipy.sparse import csr_matrix

        self._classes = len(scored.classes)
        self._names = scored.classes
        self._rank_bins = 0
        rows = self._sums_per_image(scored)
        self._groups = int(codes.max()) + 1
        ones = np.ones(len(codes))
        per_group = csr_matrix((ones, (codes, np.arange(len(codes)))), shape=(self._groups, len(codes))) @ rows
        self._contributing = self._count_contributing(per_group)
        self._values = self._resample(per_group.T.tocsr(), seed, resamples)

    def metric(self, key: Key, point: _Point, protocol: str) -> Metric:
        low, high, note = self._interval(key, point)
        return Metric(*key, point.value, low, high, point.n, protocol, point.note or note)

    def _interval(self, key: Key, point: _Point) -> tuple[float | None, float | None, str | None]:
        metric, value = key[0], point.value
        if value is None or metric == "support":
            return None, None, None
        if key not in self._values:
            return None, None, f"no interval with more than {_RANK_CLASSES} classes"
        drawn = self._values[key]
        drawn = drawn[np.isfinite(drawn)]
        if len(drawn) == 0:
            return None, None, "undefined in every resample"
        tail = 100 * (1 - LEVEL) / 2
        low, high = (float(bound) for bound in np.percentile(drawn, [tail, 100 - tail]))
        if high - low > 1e-12:
            # Binned ECE is biased upwards and a resample's even more, so the value can lie below its resamples.
            return (min(low, value) if metric == "ece" else low), high, None
        if key in self._contributing and value in (0.0, 1.0):
            bound = exact_bound(self._contributing[key])
            return (bound, 1.0, None) if value == 1.0 else (0.0, 1 - bound, None)
        return None, None, "no interval: every resample gives the same value, which is not a measure of certainty"

    def _sums_per_image(self, scored: _Scored) -> Any:
        """Sparse (n, sums). Columns: labels, predictions, hits (per class), log loss, Brier, ECE gaps, score counts."""
        from scipy.sparse import coo_matrix, hstack

        n, c = len(scored.labels), self._classes
        image = np.arange(n)
        truth = scored.probabilities[image, scored.labels].clip(_SMALLEST, 1 - _SMALLEST).astype(float64)
        exact = scored.probabilities.astype(float64)
        brier = (exact**2).sum(axis=1) - 2 * exact[image, scored.labels] + 1
        columns = [
            scored.labels,
            c + scored.predicted,
            2 * c + scored.labels,
            np.full(n, 3 * c),
            np.full(n, 3 * c + 1),
            3 * c + 2 + ece_bins(scored.confidence),
        ]
        gaps: NDArray[float64] = scored.hits - scored.confidence.astype(float64)
        values = [np.ones(n), np.ones(n), scored.hits.astype(float64), -np.log(truth), brier, gaps]
        places = (np.tile(image, len(columns)), np.concatenate(columns))
        counted = coo_matrix((np.concatenate(values), places), shape=(n, 3 * c + 2 + ECE_BINS)).tocsr()
        return hstack([counted, self._score_counts(scored)]).tocsr() if c <= _RANK_CLASSES else counted

    def _score_counts(self, scored: _Scored) -> Any:
        """Sparse (n, classes * bins * 2): a one where image, class, rank of its score and "is of the class" meet."""
        from scipy.sparse import coo_matrix

        n, c = len(scored.labels), self._classes
        ranks = [_bin_scores(scored.probabilities[:, k], scored.labels == k) for k in range(c)]
        self._rank_bins = max(int(rank.max()) + 1 for rank in ranks)
        columns = [(k * self._rank_bins + ranks[k]) * 2 + (scored.labels == k) for k in range(c)]
        places = (np.tile(np.arange(n), c), np.concatenate(columns))
        return coo_matrix((np.ones(n * c), places), shape=(n, c * self._rank_bins * 2))

    def _count_contributing(self, per_group: Any) -> dict[Key, int]:
        """How many groups hold an image that counts in the denominator of a proportion."""
        c = self._classes
        labels, predicted = per_group[:, :c].toarray(), per_group[:, c : 2 * c].toarray()
        sizes = labels.sum(axis=1)
        counts: dict[Key, int] = {("accuracy", None): self._groups}
        for k, name in enumerate(self._names):
            counts[("sensitivity", name)] = int((labels[:, k] > 0).sum())
            counts[("specificity", name)] = int((sizes - labels[:, k] > 0).sum())
            counts[("precision", name)] = int((predicted[:, k] > 0).sum())
        return counts

    def _resample(self, sums_of_groups: Any, seed: int, resamples: int) -> dict[Key, NDArray[float64]]:
        generator = np.random.default_rng(seed)
        groups, collected = self._groups, []
        chunk = max(1, min(resamples, _CHUNK // max(groups, sums_of_groups.shape[0])))
        for start in range(0, resamples, chunk):
            size = min(chunk, resamples - start)
            draws = generator.integers(0, groups, size=(size, groups), dtype=np.int32).astype(int64)
            draws += np.arange(size, dtype=int64)[:, None] * groups
            counts = np.bincount(draws.ravel(), minlength=size * groups).reshape(size, groups)
            collected.append(self._metrics_of((sums_of_groups @ counts.T.astype(float64)).T))
        return {key: np.concatenate([part[key] for part in collected]) for key in collected[0]} if collected else {}

    def _metrics_of(self, sums: NDArray[float64]) -> dict[Key, NDArray[float64]]:
        """(resamples, sums) to (resamples,) per metric; NaN where a resample leaves it undefined."""
        c = self._classes
        support, claimed, hits = sums[:, :c], sums[:, c : 2 * c], sums[:, 2 * c : 3 * c]
        n = support.sum(axis=1)
        gaps = np.abs(sums[:, 3 * c + 2 : 3 * c + 2 + ECE_BINS]).sum(axis=1)
        rest = n[:, None] - support
        by_class = {
            "precision": _divide(hits, claimed),
            "sensitivity": _divide(hits, support),
            "specificity": _divide(rest - claimed + hits, rest),
            "f1": _divide(2 * hits, support + claimed),
        }
        if self._rank_bins:
            by_class["auroc"], by_class["auprc"] = _integrate_curves(sums[:, 3 * c + 2 + ECE_BINS :], c)
        values: dict[Key, NDArray[float64]] = {
            ("accuracy", None): hits.sum(axis=1) / n,
            ("balanced_accuracy", None): _average_known(by_class["sensitivity"], np.ones_like(support)),
            ("log_loss", None): sums[:, 3 * c] / n,
            ("brier", None): sums[:, 3 * c + 1] / n,
            ("ece", None): gaps / n,
        }
        for metric, table in by_class.items():
            values |= {(metric, name): table[:, k].copy() for k, name in enumerate(self._names)}
            values[(metric, MACRO)] = _average_known(table, np.ones_like(support))
            values[(metric, WEIGHTED)] = _average_known(table, support)
        return values


def exact_bound(groups: int) -> float:
    """Lower 95 % bound of a share that is 1 in every one of `groups` independent units (Clopper and Pearson 1934).

    Resampling what is always right always gives 1, so the bootstrap has nothing to say there; the share of a few units
    must not look certain. With one unit per group this is conservative for groups of several images.
    """
    return float(((1 - LEVEL) / 2) ** (1 / max(groups, 1)))


def _bin_scores(scores: NDArray[float32], truth: NDArray[np.bool_]) -> NDArray[int64]:
    """Order-keeping bin of each score, (n,); equal scores share one.

    A run of scores that only negatives have is one bin: no curve can tell them apart, whatever the weights. So rare
    classes stay exact; what is still over the limit is cut into runs of neighbouring bins.
    """
    distinct, places = np.unique(scores, return_inverse=True)
    positive = np.bincount(places, weights=truth, minlength=len(distinct)) > 0
    starts = positive.copy()
    starts[1:] |= positive[:-1]
    starts[0] = True
    bins = np.cumsum(starts) - 1
    count = int(bins[-1]) + 1
    if count > _RANK_BINS:
        bins = bins * _RANK_BINS // count
    return bins.astype(int64)[places]


def _integrate_curves(counts: NDArray[float64], classes: int) -> tuple[NDArray[float64], NDArray[float64]]:
    """AUROC and average precision, each (resamples, classes), from counts per class, score and negative or positive.

    AUROC is the share of (positive, negative) pairs in the right order, ties half (Hanley and McNeil 1982).
    """
    table = counts.reshape(len(counts), classes, -1, 2)
    negative, positive = table[..., 0], table[..., 1]
    negatives, positives = negative.sum(axis=2), positive.sum(axis=2)
    below = np.cumsum(negative, axis=2) - negative / 2
    auroc = _divide((positive * below).sum(axis=2), positives * negatives)
    above_positive = positives[..., None] - np.cumsum(positive, axis=2) + positive
    above = above_positive + negatives[..., None] - np.cumsum(negative, axis=2) + negative
    precision = np.divide(above_positive, above, out=np.zeros_like(above), where=above > 0)
    auprc = _divide((positive * precision).sum(axis=2), np.where(negatives > 0, positives, 0.0))
    return auroc, auprc
