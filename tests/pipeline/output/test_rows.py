"""Probabilities become rows: one per file, ties to the lowest class, null where there is nothing to say."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mribatch.pipeline.output.rows import predictions
from mribatch.pipeline.records import ClassifiedBatch, DecodedFile, ImageFile, Status, Verdict

CLASSES = ("a", "b", "c")


def batch(scores: np.ndarray | None, *verdicts: Verdict) -> ClassifiedBatch:
    files = tuple(DecodedFile(ImageFile(i, 0, f"{i}.jpg", b""), verdict) for i, verdict in enumerate(verdicts))
    return ClassifiedBatch(files, scores)


def test_a_row_says_class_confidence_margin_and_entropy() -> None:
    (row,) = predictions(batch(np.array([[0.25, 0.5, 0.25]], np.float32), Verdict(Status.OK)), CLASSES)
    assert (row.predicted, row.confidence, row.margin) == ("b", 0.5, 0.25)
    assert row.entropy == pytest.approx(1.5 * math.log(2))
    assert row.probabilities == (0.25, 0.5, 0.25)


def test_ties_take_the_lowest_class() -> None:
    (row,) = predictions(batch(np.array([[0.2, 0.4, 0.4]], np.float32), Verdict(Status.OK)), CLASSES)
    assert (row.predicted, row.margin) == ("b", 0.0)


def test_a_certain_answer_has_no_entropy() -> None:
    (row,) = predictions(batch(np.array([[0.0, 1.0, 0.0]], np.float32), Verdict(Status.OK)), CLASSES)
    assert (row.entropy, math.copysign(1, row.entropy or 0.0)) == (0.0, 1.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_answer_that_is_no_number_is_invalid_output(bad: float) -> None:
    scores = np.array([[0.2, bad, 0.3], [0.2, 0.5, 0.3]], np.float32)
    first, second = predictions(batch(scores, Verdict(Status.OK), Verdict(Status.OK)), CLASSES)
    assert first.status is Status.INVALID_OUTPUT
    assert first.error is not None and first.error.startswith("the model answered with [0.2, ")
    assert (first.predicted, first.confidence, first.margin, first.entropy, first.probabilities) == (None,) * 5
    assert (second.status, second.predicted) == (Status.OK, "b")


def test_failed_files_keep_their_verdict_and_have_no_numbers() -> None:
    failed = Verdict(Status.TRUNCATED, "ends early")
    rows = predictions(batch(np.array([[0, 0, 1], [1, 0, 0]], np.float32), failed, Verdict(Status.OK)), CLASSES)
    assert (rows[0].status, rows[0].error, rows[0].predicted) == (Status.TRUNCATED, "ends early", None)
    assert rows[1].predicted == "a"
    (alone,) = predictions(batch(None, failed), CLASSES)
    assert alone.status is Status.TRUNCATED


@given(arrays(np.float32, (4, 3), elements=st.floats(0, 1, width=32)))
def test_numbers_are_what_they_are_called(scores: np.ndarray) -> None:
    for row, score in zip(predictions(batch(scores, *[Verdict(Status.OK)] * 4), CLASSES), scores, strict=True):
        assert row.confidence == score.max()
        assert row.predicted == CLASSES[int(score.argmax())]
        assert row.margin == pytest.approx(np.sort(score)[-1] - np.sort(score)[-2], abs=1e-7)
        assert row.entropy is not None and row.entropy >= 0 and math.isfinite(row.entropy)
