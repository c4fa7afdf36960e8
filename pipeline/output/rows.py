"""Probabilities and verdicts -> one Prediction per file, in order."""

from collections.abc import Sequence

import numpy as np
from numpy import float32
from numpy.typing import NDArray

from mribatch.pipeline.records import ClassifiedBatch, DecodedFile, Prediction, Status


def predictions(batch: ClassifiedBatch, classes: Sequence[str]) -> list[Prediction]:
    """One row for each of the batch's files; `classes` in column order."""
    count, probabilities = len(batch.files), batch.probabilities
    scores = np.zeros((count, len(classes)), float32) if probabilities is None else probabilities[:count]
    finite: NDArray[np.bool_] = np.all(np.isfinite(scores), axis=1)
    safe = np.where(finite[:, None], scores, float32(1.0))
    best = safe.argmax(axis=1)  # the first maximum: ties take the lowest class
    top = np.sort(safe, axis=1)[:, -2:]
    entropy = -np.where(safe > 0, safe * np.log(np.where(safe > 0, safe, 1.0), dtype=np.float64), 0.0).sum(axis=1)
    columns = zip(
        batch.files, finite.tolist(), best.tolist(), top.tolist(), entropy.tolist(), scores.tolist(), strict=True
    )
    return [
        _row(decoded, is_finite, classes[winner], pair, disorder, row)
        for decoded, is_finite, winner, pair, disorder, row in columns
    ]


def _row(
    decoded: DecodedFile, finite: bool, predicted: str, top: list[float], entropy: float, probabilities: list[float]
) -> Prediction:
    if decoded.verdict.status is not Status.OK:
        return Prediction(decoded, decoded.verdict.status, decoded.verdict.error)
    if not finite:
        shown = ", ".join(f"{value:.3g}" for value in probabilities)
        return Prediction(decoded, Status.INVALID_OUTPUT, f"the model answered with [{shown}]")
    return Prediction(
        decoded, Status.OK, None, predicted, top[1], top[1] - top[0], max(entropy, 0.0), tuple(probabilities)
    )
