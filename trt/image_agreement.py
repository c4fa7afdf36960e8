"""Two backends on a user's own images: how many have the same class, and how far apart the probabilities are."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy import float32, uint8
from numpy.typing import NDArray

from mribatch.core.classifier import Classifier

GOAL = 0.999
"""Share of a user's images whose class should be the same in FP16 and FP32."""


@dataclass(frozen=True, kw_only=True)
class Flip:
    """An image that two backends put into different classes.

    image: its number in the order given. first, second: class indices. margin: best minus second probability of the
    first backend; where it is small, the two classes were almost equal.
    """

    image: int
    first: int
    second: int
    margin: float


@dataclass(frozen=True, kw_only=True)
class ImageAgreement:
    """Two backends on the same images.

    images: how many. same: how many have the same class and finite answers in both. max_difference: largest |Δp|, NaN
    where anything is not finite or there are no images. flips: those whose class differs.
    """

    images: int
    same: int
    max_difference: float
    flips: tuple[Flip, ...]

    @property
    def share(self) -> float:
        """Share of images with the same class; NaN without images."""
        return self.same / self.images if self.images else float("nan")

    @property
    def reaches_goal(self) -> bool:
        """True where the share is at least GOAL."""
        return self.share >= GOAL  # NaN compares False

    def __str__(self) -> str:
        margins = f" (largest margin {max(flip.margin for flip in self.flips):.3f})" if self.flips else ""
        return (
            f"{self.same:,} of {self.images:,} images ({self.share:.2%}) have the same class{margins}, "
            f"max |Δp| {self.max_difference:.2e}"
        )


def compare_on_images(first: Classifier, second: Classifier, batches: Iterable[NDArray[uint8]]) -> ImageAgreement:
    """Compare two backends on a user's images; holds one batch and the flips in memory.

    Args:
        first: The reference, entered. second: On trial, entered.
        batches: Of uint8 (batch, height, width, 1).

    Raises:
        MribatchError: A classifier fails.
        ValueError: The two give different shapes.
    """
    images, same, largest = 0, 0, 0.0
    flips: list[Flip] = []
    for batch in batches:
        expected, got = first(batch), second(batch)
        if expected.shape != got.shape:
            raise ValueError(f"{expected.shape} against {got.shape}")
        alike = expected.argmax(axis=1) == got.argmax(axis=1)
        finite = np.isfinite(expected).all(axis=1) & np.isfinite(got).all(axis=1)
        difference = np.abs(got.astype(np.float64) - expected) if finite.all() else np.array(np.nan)
        largest = float(np.maximum(largest, difference.max(initial=0.0)))  # NaN stays
        same += int((alike & finite).sum())
        flips += [_describe_flip(images + int(row), expected[row], got[row]) for row in np.flatnonzero(~alike)]
        images += len(batch)
    return ImageAgreement(
        images=images, same=same, max_difference=largest if images else float("nan"), flips=tuple(flips)
    )


def _describe_flip(image: int, expected: NDArray[float32], got: NDArray[float32]) -> Flip:
    second_best, best = np.sort(expected)[-2:]
    return Flip(image=image, first=int(expected.argmax()), second=int(got.argmax()), margin=float(best - second_best))
