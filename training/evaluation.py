"""What a network is worth on images that it was not trained on, and what the images' size alone would be worth."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy import float32, int64
from numpy.typing import NDArray

from mribatch.report.metrics import Metric, confusion, find, headline
from mribatch.training.networks.build import calibrated, predict_logits

LEAKED, CLEAN = "leaked", "clean"
FEWEST_APART = 20  # images: the figures of fewer tell nothing
SHARE_METRICS: tuple[tuple[str, str | None], ...] = (("accuracy", None), ("f1", "macro"))

_KEPT_OVERALL = ("accuracy", "balanced_accuracy", "log_loss", "brier", "ece", "support")
_KEPT_BY_CLASS = ("precision", "sensitivity", "specificity", "f1", "auroc", "support")


@dataclass(frozen=True)
class Share:
    """The leaked or the clean test images, scored by themselves."""

    name: str  # "leaked": with a near-duplicate among the images that were learned or chosen from; or "clean"
    images: int
    metrics: tuple[Metric, ...]  # accuracy and macro F1; none of fewer than FEWEST_APART images

    @property
    def leak_rate(self) -> float:
        """1 or 0: of this share alone."""
        return float(self.name == LEAKED)


@dataclass(frozen=True)
class Evaluation:
    """Scores of one part. Arrays have one row per image."""

    probabilities: NDArray[float32]  # (n, classes)
    metrics: tuple[Metric, ...]
    confusion: NDArray[int64]  # (classes, classes): rows are labels, columns predictions
    apart: tuple[Share, ...] = ()  # leaked and clean images, where there are both


def evaluate(
    network: Any,
    images: NDArray[np.uint8],
    labels: NDArray[int64],
    classes: Sequence[str],
    units: NDArray[int64],
    temperature: float,
    protocol: str,
) -> Evaluation:
    """Score images with Keras; intervals are resampled over units, never over single images."""
    return score(predict_logits(network, images), labels, classes, units, temperature, protocol)


def score(
    logits: NDArray[float32],
    labels: NDArray[int64],
    classes: Sequence[str],
    units: NDArray[int64],
    temperature: float,
    protocol: str,
) -> Evaluation:
    """As `evaluate`, from logits that are there already."""
    probabilities = calibrated(logits, temperature)
    metrics = headline(labels, probabilities, classes, groups=units, protocol=protocol)
    return Evaluation(probabilities, tuple(metrics), confusion(labels, probabilities, classes))


def score_apart(
    probabilities: NDArray[float32],
    labels: NDArray[int64],
    leaked: NDArray[np.bool_],
    units: NDArray[int64],
    classes: Sequence[str],
    protocol: str,
) -> tuple[Share, ...]:
    """Leaked and clean test images apart: what a leak is worth. Nothing where all are the one or the other.

    Args:
        probabilities: (n, classes).
        labels: (n,).
        leaked: (n,), whether a near-duplicate was learned or chosen from.
        units: (n,), what intervals are resampled over.
        classes: Names.
        protocol: Of the whole test part; each row's own adds which share it is of.
    """
    if leaked.all() or not leaked.any():
        return ()
    shares = []
    for name, chosen in ((LEAKED, leaked), (CLEAN, ~leaked)):
        count = int(chosen.sum())
        metrics: tuple[Metric, ...] = ()
        if count >= FEWEST_APART:
            scored = headline(
                labels[chosen],
                probabilities[chosen],
                classes,
                groups=units[chosen],
                protocol=share_protocol(protocol, name),
            )
            metrics = tuple(find(scored, *key) for key in SHARE_METRICS)
        shares.append(Share(name, count, metrics))
    return tuple(shares)


def share_protocol(protocol: str, name: str) -> str:
    """The protocol of the leaked or clean images of a test part."""
    return f"{protocol}; {name} test images only"


def metric_facts(metrics: Sequence[Metric], leak_rate: float) -> list[dict[str, Any]]:
    """The metrics as bundle.json keeps them, each with its protocol and leak rate."""
    rows = []
    for row in metrics:
        kept = _KEPT_OVERALL if row.class_ is None else _KEPT_BY_CLASS
        if row.metric in kept:
            fact = {"metric": row.metric, "class": row.class_, "value": row.value, "low": row.low, "high": row.high}
            rows.append({**fact, "n": row.n, "protocol": row.protocol, "leak_rate": leak_rate})
    return rows


@dataclass(frozen=True)
class Shortcut:
    """How well size in pixels, as stored, tells one class from the others without looking at the picture."""

    name: str  # of the class
    accuracy: float  # on the test part
    majority: float  # of always giving the commoner answer


def size_shortcuts(
    stored_sizes: Sequence[tuple[int, int]],
    labels: NDArray[int64],
    trained: NDArray[np.bool_],
    tested: NDArray[np.bool_],
    classes: Sequence[str],
) -> list[Shortcut]:
    """For each class: answer as most training images of the same size do, as most of all where the size is new."""
    rows = []
    for index, name in enumerate(classes):
        truth = labels == index
        answers = _commonest(stored_sizes, truth, trained)
        overall = bool(truth[trained].mean() > 0.5)
        given = np.array([answers.get(size, overall) for size in stored_sizes])
        majority = float((truth[tested] == overall).mean())
        rows.append(Shortcut(name, float((given[tested] == truth[tested]).mean()), majority))
    return rows


def _commonest(
    sizes: Sequence[tuple[int, int]], truth: NDArray[np.bool_], trained: NDArray[np.bool_]
) -> Mapping[tuple[int, int], bool]:
    votes: Counter[tuple[int, int]] = Counter()
    for position in np.flatnonzero(trained).tolist():
        votes[sizes[position]] += 1 if truth[position] else -1
    return {size: balance > 0 for size, balance in votes.items() if balance != 0}
