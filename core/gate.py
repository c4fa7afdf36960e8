"""The gate: before a backend writes a row, it must reproduce the golden answers of its bundle.

The golden slices go through the backend in batches of the given sizes, repeated until the last batch is full, so that a
slice takes many places in a batch. Batch size, neighbours and place must change nothing that matters, no class may
change, and nothing may be NaN or infinite. How far one slice's answers differ within a batch is recorded.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy import float32, uint8
from numpy.typing import NDArray

from mribatch.core.agreement import Agreement, compare
from mribatch.core.bundle import Bundle
from mribatch.core.classifier import Classifier
from mribatch.core.errors import MribatchError

ON_GPU, ON_CPU, CPU_EMULATED = "gpu", "cpu", "cpu-emulated"
"""Where a gated backend computes."""

SPREAD_ON_GPU = 1e-3
"""|Δp| by which rows of one batch with the same pixels may differ on a GPU: one step of FP16 at 1. Neither TensorRT nor
cuDNN promises that a row does not depend on its place; more than this is no rounding but a fault."""

SPREAD_ON_CPU = 1e-6
"""|Δp| by which such rows may differ on a CPU: some roundings of float32. ONNX Runtime's matrix product sums the rows
left over from its tiles in another order; up to 2.1e-7 was measured in batches of 16 and 33."""

SLICES_REPEATED = 3
"""Golden slices that each fill a whole batch, to see whether the place in a batch matters."""


class GateFailed(MribatchError):
    """A backend does not reproduce the golden answers of its bundle."""


@dataclass(frozen=True, kw_only=True)
class BatchCheck:
    """The golden slices in batches of one size.

    agreement: with Keras' answers; None where the answers have the wrong shape or type. same_class: rows of Keras'
    class, including those in which two classes are almost equal. not_finite: rows with NaN or infinity. row_spread: in
    batches of one repeated slice, the largest |Δp| from the batch's first row; at most spread_limit. repeated: how many
    such batches there were. wrong_form: what came instead of float32 (batch, classes), or None.
    """

    batch_size: int
    agreement: Agreement | None
    same_class: int = 0
    not_finite: int = 0
    row_spread: float = 0.0
    spread_limit: float = SPREAD_ON_GPU
    repeated: int = 0
    wrong_form: str | None = None

    @property
    def holds(self) -> bool:
        """True where the answers are finite, agree with Keras', and do not depend on the place in the batch."""
        return self.agreement is not None and self.agreement.holds and self.rows_alike and not self.not_finite

    @property
    def rows_alike(self) -> bool:
        """True where one slice has the same answer in every place of a batch, up to spread_limit."""
        return self.agreement is not None and self.row_spread <= self.spread_limit  # NaN compares False

    def __str__(self) -> str:
        faults = [
            self.wrong_form or "",
            f"{self.not_finite} rows with NaN or infinity" if self.not_finite else "",
            f"rows of one slice differ by {self.row_spread:.2e}" if self.agreement and not self.rows_alike else "",
            str(self.agreement) if self.agreement is not None and not self.agreement.holds else "",
        ]
        return f"batch {self.batch_size}: {', '.join(filter(None, faults)) or 'holds'}"


@dataclass(frozen=True, kw_only=True)
class GateReport:
    """What the gate found.

    verified: where the answers were computed, ON_GPU, ON_CPU or CPU_EMULATED. slices: how many golden slices there are.
    limit: the bundle's for |Δp| in this precision.
    """

    backend: str
    library_version: str
    precision: str
    verified: str
    slices: int
    limit: float
    checks: tuple[BatchCheck, ...]

    @property
    def holds(self) -> bool:
        """True where every batch size holds; False where none was tried."""
        return bool(self.checks) and all(check.holds for check in self.checks)

    @property
    def max_difference(self) -> float:
        """Largest |Δp| over all batch sizes; NaN where one is not finite or could not be compared."""
        values = [check.agreement.max_difference if check.agreement else float("nan") for check in self.checks]
        return float(np.max(values)) if values else float("nan")

    @property
    def row_spread(self) -> float | None:
        """Largest |Δp| between rows of one slice in one batch; None where no slice was repeated."""
        spreads = [check.row_spread for check in self.checks if check.repeated]
        return float(np.max(spreads)) if spreads else None

    @property
    def agreement(self) -> Agreement:
        """The worst of all batch sizes, in terms of the golden slices."""
        flips = [min(check.agreement.flips if check.agreement else self.slices, self.slices) for check in self.checks]
        return Agreement(
            rows=self.slices,
            max_difference=self.max_difference,
            flips=max(flips, default=0),
            limit=self.limit,
            row_spread=self.row_spread,
        )

    def __str__(self) -> str:
        who = f"{self.backend} {self.library_version} {self.precision} ({self.verified})"
        if self.holds:
            sizes = ", ".join(str(check.batch_size) for check in self.checks)
            spread = f", rows of one slice within {self.row_spread:.1e}" if self.row_spread else ""
            return f"{who}: holds in batches of {sizes}, max |Δp| {self.max_difference:.2e}{spread}"
        faults = "; ".join(str(check) for check in self.checks if not check.holds) or "nothing was compared"
        return f"{who}: fails, {faults}"


def gate(
    classifier: Classifier,
    bundle: Bundle,
    *,
    batch_sizes: Sequence[int],
    verified: str = ON_GPU,
    slices_repeated: int = SLICES_REPEATED,
) -> GateReport:
    """Compare a backend with the golden answers of its bundle.

    Args:
        classifier: Entered.
        bundle: Its tolerance for the classifier's precision is the limit.
        batch_sizes: Each at least 1: 1, an odd size and the largest.
        verified: Where the classifier computes; identical rows may differ more on a GPU than on a CPU.
        slices_repeated: Golden slices that each fill a whole batch; 0 for a backend that computes every row in a call
            of the same shape, so that no place in a batch can matter.

    Raises:
        MribatchError: The classifier fails. Answers that differ are not an error here.
        ValueError: A batch size below 1.
    """
    if min(batch_sizes, default=1) < 1:
        raise ValueError(f"batch sizes {list(batch_sizes)}")
    spread_limit = SPREAD_ON_GPU if verified == ON_GPU else SPREAD_ON_CPU
    return GateReport(
        backend=classifier.name,
        library_version=classifier.library_version,
        precision=classifier.precision,
        verified=verified,
        slices=len(bundle.golden.images),
        limit=bundle.spec.tolerance.limit(classifier.precision),
        checks=tuple(
            _check(classifier, bundle, size, spread_limit=spread_limit, slices_repeated=slices_repeated)
            for size in dict.fromkeys(batch_sizes)
        ),
    )


def _check(
    classifier: Classifier, bundle: Bundle, size: int, *, spread_limit: float, slices_repeated: int
) -> BatchCheck:
    images, expected = bundle.golden.images, bundle.golden.probabilities
    places = np.arange(-(-len(images) // size) * size) % len(images)
    answers = []
    for start in range(0, len(places), size):
        got = classifier(np.ascontiguousarray(images[places[start : start + size]]))
        wrong = _find_wrong_form(got, (size, expected.shape[1]))
        if wrong:
            return BatchCheck(batch_size=size, agreement=None, wrong_form=wrong)
        answers.append(got)
    everything, wanted = np.concatenate(answers), expected[places]
    return BatchCheck(
        batch_size=size,
        agreement=compare(everything, wanted, bundle.spec.tolerance, classifier.precision),
        same_class=int((everything.argmax(axis=1) == wanted.argmax(axis=1)).sum()),
        not_finite=int((~np.isfinite(everything)).any(axis=1).sum()),
        row_spread=_measure_row_spread(classifier, images, size, slices_repeated),
        spread_limit=spread_limit,
        repeated=slices_repeated,
    )


def _find_wrong_form(got: NDArray[float32], shape: tuple[int, int]) -> str | None:
    if got.shape == shape and got.dtype == float32:
        return None
    return f"gives {got.dtype} {got.shape} for float32 {shape}"


def _measure_row_spread(classifier: Classifier, images: NDArray[uint8], size: int, slices_repeated: int) -> float:
    largest = 0.0
    for number in np.unique(np.linspace(0, len(images) - 1, slices_repeated).astype(int)):
        got = classifier(np.repeat(images[number : number + 1], size, axis=0)).astype(np.float64)
        with np.errstate(invalid="ignore"):  # infinity minus infinity is the NaN that is wanted
            largest = float(np.maximum(largest, np.abs(got - got[:1]).max()))  # NaN stays
    return largest
