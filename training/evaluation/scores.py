"""What a network is worth on images that it was not trained on, and what the size of the files alone would be worth."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy import float32, int64
from numpy.typing import NDArray

from mribatch.report.metrics import Metric, confusion, find, headline
from mribatch.training.data.images import DataSet
from mribatch.training.networks.build import calibrate

LEAKED, CLEAN = "leaked", "clean"
FEWEST_APART = 20  # images; figures of fewer are not given
SHARE_METRICS: tuple[tuple[str, str | None], ...] = (("accuracy", None), ("f1", "macro"))


@dataclass(frozen=True, kw_only=True)
class TestSet:
    """What is scored and what the scores are called. Arrays have one row per image."""

    __test__ = False  # not a class of tests

    classes: Sequence[str]
    labels: NDArray[int64]  # (n,)
    units: NDArray[int64]  # (n,), what intervals are resampled over, never single images
    protocol: str  # one sentence for people; in every metric


@dataclass(frozen=True)
class Share:
    """The leaked or the clean test images, scored separately."""

    name: str  # "leaked": with a near-duplicate among the images used for training or choosing; or "clean"
    images: int
    metrics: tuple[Metric, ...]  # accuracy and macro F1; empty for fewer than FEWEST_APART images

    @property
    def leak_rate(self) -> float:
        """1 or 0: that of this share alone."""
        return float(self.name == LEAKED)


@dataclass(frozen=True)
class Evaluation:
    """Scores of one test set. Arrays have one row per image."""

    probabilities: NDArray[float32]  # (n, classes)
    metrics: tuple[Metric, ...]
    confusion: NDArray[int64]  # (classes, classes): rows are labels, columns predictions
    shares: tuple[Share, ...] = ()  # leaked and clean images, if there are both


@dataclass(frozen=True)
class Shortcut:
    """How well the stored size in pixels separates one class from the others without looking at the picture."""

    name: str  # of the class
    accuracy: float  # on the test part
    majority: float  # accuracy of always giving the more frequent answer


def score(logits: NDArray[float32], test: TestSet, temperature: float) -> Evaluation:
    """Score the logits, (n, classes), of a test set."""
    probabilities = calibrate(logits, temperature)
    metrics = headline(test.labels, probabilities, test.classes, groups=test.units, protocol=test.protocol)
    return Evaluation(probabilities, tuple(metrics), confusion(test.labels, probabilities, test.classes))


def score_shares(probabilities: NDArray[float32], test: TestSet, leaked: NDArray[np.bool_]) -> tuple[Share, ...]:
    """Score leaked and clean test images separately: what a leak is worth. Empty unless there are both.

    Args:
        probabilities: (n, classes).
        test: All test images; each share's protocol adds which share it is.
        leaked: (n,), whether a near-duplicate was used for training or for choosing.
    """
    if leaked.all() or not leaked.any():
        return ()
    shares = []
    for name, chosen in ((LEAKED, leaked), (CLEAN, ~leaked)):
        count = int(chosen.sum())
        metrics: tuple[Metric, ...] = ()
        if count >= FEWEST_APART:
            scored = headline(
                test.labels[chosen],
                probabilities[chosen],
                test.classes,
                groups=test.units[chosen],
                protocol=share_protocol(test.protocol, name),
            )
            metrics = tuple(find(scored, *key) for key in SHARE_METRICS)
        shares.append(Share(name, count, metrics))
    return tuple(shares)


def share_protocol(protocol: str, name: str) -> str:
    """Return the protocol of the leaked or clean images of a test part."""
    return f"{protocol}; {name} test images only"


def measure_size_shortcuts(
    data: DataSet, *, trained: NDArray[np.bool_], tested: NDArray[np.bool_]
) -> tuple[Shortcut, ...]:
    """For each class, answer as most training images of the same size do, or as most of all if the size is new.

    Args:
        data: All images.
        trained: (n,), which images the answers are learned from.
        tested: (n,), which images they are tested on.
    """
    rows = []
    for index, name in enumerate(data.classes.names):
        truth = data.labels == index
        answers = _find_commonest(data.stored_sizes, truth, trained)
        overall = bool(truth[trained].mean() > 0.5)
        given = np.array([answers.get(size, overall) for size in data.stored_sizes])
        majority = float((truth[tested] == overall).mean())
        rows.append(Shortcut(name, float((given[tested] == truth[tested]).mean()), majority))
    return tuple(rows)


def _find_commonest(
    sizes: Sequence[tuple[int, int]], truth: NDArray[np.bool_], trained: NDArray[np.bool_]
) -> Mapping[tuple[int, int], bool]:
    votes: Counter[tuple[int, int]] = Counter()
    for position in np.flatnonzero(trained).tolist():
        votes[sizes[position]] += 1 if truth[position] else -1
    return {size: balance > 0 for size, balance in votes.items() if balance != 0}
