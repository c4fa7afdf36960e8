"""One temperature for all classes, so that a confidence of 0.9 is right nine times in ten.

Guo et al. 2017, "On calibration of modern neural networks", section 4.2. Fitted on logits of images that the network
did not learn from. It moves no prediction, only how sure it is.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy import float32, float64, int64
from numpy.typing import NDArray

from mribatch.core.errors import MribatchError

LOWEST, HIGHEST = 0.05, 20.0
_PRECISION = 1e-7  # of the temperature's logarithm
_GOLDEN = (math.sqrt(5) - 1) / 2


def negative_log_likelihood(logits: NDArray[float64], labels: NDArray[int64], temperature: float) -> float:
    """Mean of -log softmax(logits / temperature)[label], nats."""
    scaled = logits / temperature
    scaled = scaled - scaled.max(axis=1, keepdims=True)
    return float((np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(labels)), labels]).mean())


def fit_temperature(logits: NDArray[float32], labels: NDArray[int64]) -> float:
    """The temperature with the least negative log likelihood, between 0.05 and 20.

    The likelihood is convex in 1 / temperature, so it has one minimum, and golden-section search finds it.

    Args:
        logits: (n, classes).
        labels: (n,), positions of the true classes.

    Raises:
        MribatchError: There are no logits, or one is not a finite number.
    """
    exact = np.asarray(logits, dtype=float64)
    if not len(exact) or not np.isfinite(exact).all():
        raise MribatchError("a temperature needs finite logits of one image or more", "train before calibrating")
    found = _lowest(
        lambda logarithm: negative_log_likelihood(exact, labels, math.exp(logarithm)),
        math.log(LOWEST),
        math.log(HIGHEST),
    )
    return math.exp(found)


def _lowest(value: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one minimum has it (Kiefer 1953)."""
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
