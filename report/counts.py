"""What is counted over all rows, labelled or not: files by status, predictions, and why there are no metrics."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy import float64

from mribatch.report.metrics_file import (
    ConfidenceSpread,
    FileCounts,
    PredictedClasses,
    SeenInTraining,
    UnlikeTraining,
    UnreadableFile,
)
from mribatch.report.rows import RunRows
from mribatch.report.run_facts import RunFacts

_MOST_NAMED = 20  # unreadable files that are named; the rest is counted
_QUANTILES = {"min": 0.0, "q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95, "max": 1.0}


def count_files(rows: RunRows) -> FileCounts:
    """Count the files by status, and those with and without a label; name the first that are not readable."""
    failed = ~rows.readable & ~rows.blank
    damaged = np.flatnonzero(failed).tolist()
    labelled = rows.labels >= 0
    return FileCounts(
        total=len(rows),
        by_status=dict(sorted(Counter(rows.statuses).items())),
        readable=int(rows.readable.sum()),
        labelled=int(labelled.sum()),
        scored=int(rows.scored.sum()),
        readable_without_label=int((rows.readable & ~labelled).sum()),
        unreadable_with_label=int((failed & labelled).sum()),
        not_readable=tuple(
            UnreadableFile(path=rows.paths[i], status=rows.statuses[i], error=rows.errors[i])
            for i in damaged[:_MOST_NAMED]
        ),
    )


def count_training_images(facts: RunFacts, rows: RunRows) -> SeenInTraining | None:
    """Count the images that the model was trained on; None where its bundle does not tell them."""
    if facts.training_images is None:
        return None
    return SeenInTraining(
        readable=int(rows.readable.sum()),
        exact=int((rows.readable & rows.seen & ~rows.near).sum()),
        near=int((rows.readable & rows.near).sum()),
        scored=int((rows.scored & rows.seen).sum()),
    )


def count_unlike_images(facts: RunFacts, rows: RunRows) -> UnlikeTraining | None:
    """Count the images that look like none of training; None where the bundle cannot tell."""
    if facts.unlike_false_alarms is None:
        return None
    return UnlikeTraining(
        readable=int(rows.readable.sum()),
        images=int((rows.readable & rows.unlike).sum()),
        scored=int((rows.scored & rows.unlike).sum()),
        false_alarms=facts.unlike_false_alarms,
    )


def count_predictions(rows: RunRows, classes: Sequence[str]) -> PredictedClasses:
    """Count the predicted classes and describe the confidence, over every readable row."""
    scores = rows.probabilities[rows.readable]
    if len(scores) == 0:
        return PredictedClasses(counts=dict.fromkeys(classes, 0), confidence=None)
    counts = np.bincount(scores.argmax(axis=1), minlength=len(classes))
    spread = np.quantile(scores.max(axis=1).astype(float64), list(_QUANTILES.values()))
    return PredictedClasses(
        counts={name: int(counts[k]) for k, name in enumerate(classes)},
        confidence=ConfidenceSpread(**dict(zip(_QUANTILES, spread.tolist(), strict=True))),
    )


def explain_no_metrics(facts: RunFacts, rows: RunRows) -> str:
    """Why nothing could be scored, and what to do about it."""
    if not rows.readable.any():
        return f"none of the {len(rows):,} files could be read"
    if (rows.labels >= 0).any():
        return "every file with a label could not be read"
    remedy = (
        "run mribatch classify again with --labels FILE.csv (columns path,label), or sort the files into one folder "
        "per class"
    )
    if facts.labels == "none":
        return f"the run was made with --labels none, so nothing says what each image shows; {remedy}"
    named = f" ({', '.join(facts.unknown_labels[:5])})" if facts.unknown_labels else ""
    return f"no label is known: no folder or given label{named} names a class of the model; {remedy}"
