"""How far two sets of probabilities for the same images agree: the measure behind the gate."""

from dataclasses import dataclass

import numpy as np
from numpy import float32
from numpy.typing import NDArray

from mribatch.core.model_spec import Tolerance


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far `got` is from `expected`.

    max_difference: largest |Δp| of any class, NaN where anything is not finite. flips: rows whose class differs
    although the expected margin exceeds the tolerance's. row_spread: largest |Δp| between rows of one image in a batch,
    for a backend in which the place may matter; None where it was not measured.
    """

    rows: int
    max_difference: float
    flips: int
    limit: float
    row_spread: float | None = None

    @property
    def holds(self) -> bool:
        """True where every probability is finite and within the limit and no clear class flips."""
        return self.flips == 0 and self.max_difference <= self.limit  # NaN compares False

    def __str__(self) -> str:
        differ = f"{self.flips} of {self.rows} classes differ"
        return f"max |Δp| {self.max_difference:.2e} (limit {self.limit:.0e}), {differ}"


def compare(
    got: NDArray[float32], expected: NDArray[float32], tolerance: Tolerance, precision: str = "fp32"
) -> Agreement:
    """Compare probabilities row by row.

    Args:
        got: float32 (rows, classes), from the backend under test.
        expected: float32 (rows, classes), from Keras; must be finite.
        tolerance: The bundle's.
        precision: "fp32", "fp16" or "int8"; chooses the limits.

    Raises:
        ValueError: The shapes differ.
    """
    if got.shape != expected.shape:
        raise ValueError(f"{got.shape} against {expected.shape}")
    limit = tolerance.limit(precision)
    if not np.isfinite(got).all():
        return Agreement(rows=len(got), max_difference=float("nan"), flips=len(got), limit=limit)
    ordered = np.sort(expected, axis=1)
    clear = ordered[:, -1] - ordered[:, -2] > tolerance.clear_margin(precision)
    flips = int((clear & (got.argmax(axis=1) != expected.argmax(axis=1))).sum())
    difference = float(np.abs(got.astype(np.float64) - expected).max(initial=0.0))
    return Agreement(rows=len(got), max_difference=difference, flips=flips, limit=limit)
