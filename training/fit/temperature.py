"""One temperature for all classes, so that predictions with a confidence of 0.9 are right nine times out of ten.

Guo et al. 2017, "On calibration of modern neural networks", section 4.2. It is fitted on logits of images that the
network was not trained on. It changes no predicted class, only the confidence.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy import float32, float64, int64
from numpy.typing import NDArray

from mribatch.core.errors import MribatchError
from mribatch.training.fit.losses import cross_entropy

LOWEST, HIGHEST = 0.05, 20.0
_PRECISION = 1e-7  # of the temperature's logarithm
_GOLDEN = (math.sqrt(5) - 1) / 2


def fit_temperature(logits: NDArray[float32], labels: NDArray[int64]) -> float:
    """Return the temperature with the lowest cross-entropy, between 0.05 and 20.

    The cross-entropy is convex in 1 / temperature, so it has one minimum, which golden-section search finds.

    Args:
        logits: (n, classes).
        labels: (n,), positions of the true classes.

    Raises:
        MribatchError: There are no logits, or one is not a finite number.
    """
    exact = np.asarray(logits, dtype=float64)
    if not len(exact) or not np.isfinite(exact).all():
        raise MribatchError("a temperature needs finite logits of one image or more", "train before calibrating")
    logarithm = _find_minimum(
        lambda logarithm: cross_entropy(exact, labels, math.exp(logarithm)), math.log(LOWEST), math.log(HIGHEST)
    )
    return math.exp(logarithm)


def _find_minimum(value: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function with one minimum has it (Kiefer 1953)."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = value(left), value(right)
    while high - low > _PRECISION:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = value(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = value(right)
    return (low + high) / 2
