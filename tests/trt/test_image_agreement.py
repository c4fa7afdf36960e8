"""Two backends on a user's images: what is counted, and what counts as the same."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy import float32, uint8
from numpy.typing import NDArray

from mribatch.trt.image_agreement import Flip, compare_on_images
from tests.trt.graph.graphs import GoldenClassifier

Answers = NDArray[float32]


def compared(expected: Answers, got: Answers, batch: int = 4) -> Any:
    """Two backends that look their answers up by the image's number, its only pixel."""
    images = np.arange(len(expected), dtype=uint8).reshape(-1, 1, 1, 1)

    class Known(GoldenClassifier):
        def __init__(self, answers: Answers) -> None:
            self.answers, self.precision = answers, "fp16"

        def __call__(self, images: NDArray[uint8]) -> Answers:
            return self.answers[images[:, 0, 0, 0]]

    batches = [images[start : start + batch] for start in range(0, len(images), batch)]
    return compare_on_images(Known(expected), Known(got), batches)


def test_a_flip_is_counted_and_named_with_its_margin() -> None:
    expected = np.tile(np.array([[0.7, 0.2, 0.1]], float32), (11, 1))
    got = expected.copy()
    expected[9], got[9] = [0.502, 0.498, 0], [0.499, 0.501, 0]
    found = compared(expected, got)
    (flip,) = found.flips
    assert flip == Flip(image=9, first=0, second=1, margin=flip.margin) and flip.margin == pytest.approx(0.004, 1e-3)
    assert (found.images, found.same, found.share) == (11, 10, 10 / 11)
    assert found.max_difference == pytest.approx(0.003, rel=1e-3)
    assert not found.reaches_goal
    assert str(found) == "10 of 11 images (90.91%) have the same class (largest margin 0.004), max |Δp| 3.00e-03"


def test_an_answer_that_is_not_finite_is_not_the_same() -> None:
    expected = np.tile(np.array([[0.7, 0.2, 0.1]], float32), (3, 1))
    got = expected.copy()
    got[1, 2] = np.inf
    found = compared(expected, got, batch=1)
    assert found.same < 3 and np.isnan(found.max_difference)


def test_no_images_reach_no_goal() -> None:
    found = compared(np.zeros((0, 3), float32), np.zeros((0, 3), float32))
    assert (found.images, found.reaches_goal) == (0, False)
    assert np.isnan(found.share) and np.isnan(found.max_difference)


def test_other_classes_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="against"):
        compared(np.zeros((2, 3), float32), np.zeros((2, 4), float32))


@settings(deadline=None)  # what is slow on a busy machine is not wrong
@given(st.integers(1, 60), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_the_batches_change_nothing(images: int, batch: int, seed: int) -> None:
    random = np.random.Generator(np.random.PCG64(seed))
    expected = random.dirichlet([1, 1, 1], images).astype(float32)
    got = random.dirichlet([1, 1, 1], images).astype(float32)
    found = compared(expected, got, batch)
    assert found == compared(expected, got, images)
    assert found.same + len(found.flips) == found.images == images
    assert compared(expected, expected, batch).reaches_goal
    assert found.reaches_goal == (found.same >= 0.999 * images)
