"""Does a backend give the bundle's answers? The gate that every engine passes before it writes a row.

The golden slices go through it one by one, in batches of an odd size and in full ones, repeated until the last batch is
full, so that a slice stands at many places. A batch size or a neighbour must change nothing that matters, a place in a
batch nothing at all, no class may move, and nothing may be NaN or infinite.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy import float32, uint8
from numpy.typing import NDArray

from mribatch.core.agreement import Agreement, compare
from mribatch.core.bundle import Bundle
from mribatch.core.classifier import Classifier
from mribatch.trt.graph.conversion import Fp16Graph
from mribatch.trt.graph.emulation import RoundingClassifier

ON_GPU, CPU_EMULATED = "gpu", "cpu-emulated"
EMULATED_BATCH_SIZES = (1, 7)
GOAL = 0.999
"""Share of a user's images whose class should be the same in FP16 and FP32."""

SPREAD_ON_GPU = 0.0
"""On a GPU, rows of one batch with the same pixels have the same answers, bit by bit."""

SPREAD_ON_CPU = 1e-6
"""|Δp| that such rows may differ by where a CPU computes: some roundings of float32. ONNX Runtime's matrix product sums
the rows that are left over from its tiles in another order; up to 2.1e-7 was measured in batches of 16 and 33."""

_SLICES_REPEATED = 3  # golden slices that each fill a whole batch


@dataclass(frozen=True, kw_only=True)
class BatchCheck:
    """The golden slices in batches of one size.

    agreement: with Keras' answers; None where the answers' shape or type is wrong. same_class: rows of Keras' class,
    where two classes are as good as equal too. not_finite: rows with NaN or infinity. row_spread: in batches of one
    repeated slice, the largest |Δp| from the batch's first row; at most spread_limit. wrong_form: what came instead of
    float32 (batch, classes), or None.
    """

    batch_size: int
    agreement: Agreement | None
    same_class: int = 0
    not_finite: int = 0
    row_spread: float = 0.0
    spread_limit: float = SPREAD_ON_GPU
    wrong_form: str | None = None

    @property
    def holds(self) -> bool:
        """True where the answers are finite, agree with Keras', and do not depend on the place in the batch."""
        return self.agreement is not None and self.agreement.holds and self.rows_alike and not self.not_finite

    @property
    def rows_alike(self) -> bool:
        """True where one slice has one answer wherever in a batch it stands."""
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
    """What the gate found. verified: where the answers were computed, "gpu" or "cpu-emulated"."""

    backend: str
    library_version: str
    precision: str
    verified: str
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

    def __str__(self) -> str:
        who = f"{self.backend} {self.library_version} {self.precision} ({self.verified})"
        if self.holds:
            sizes = ", ".join(str(check.batch_size) for check in self.checks)
            return f"{who}: holds in batches of {sizes}, max |Δp| {self.max_difference:.2e}"
        faults = "; ".join(str(check) for check in self.checks if not check.holds) or "nothing was compared"
        return f"{who}: fails, {faults}"


def gate(classifier: Classifier, bundle: Bundle, *, batch_sizes: Sequence[int], verified: str = ON_GPU) -> GateReport:
    """Let a backend reproduce the bundle's golden slices.

    Args:
        classifier: Entered.
        bundle: Its tolerance for the classifier's precision is the limit.
        batch_sizes: Each at least 1: 1, an odd size and the largest.
        verified: Where the classifier computes; on a GPU, identical rows must have identical answers.

    Raises:
        MribatchError: The classifier fails.
        ValueError: A batch size below 1.
    """
    if min(batch_sizes, default=1) < 1:
        raise ValueError(f"batch sizes {list(batch_sizes)}")
    return GateReport(
        backend=classifier.name,
        library_version=classifier.library_version,
        precision=classifier.precision,
        verified=verified,
        checks=tuple(
            _check(classifier, bundle, size, SPREAD_ON_GPU if verified == ON_GPU else SPREAD_ON_CPU)
            for size in dict.fromkeys(batch_sizes)
        ),
    )


def emulate(bundle: Bundle, graph: Fp16Graph) -> GateReport:
    """The gate without a GPU: the FP16 graph on the CPU, every FP16 tensor rounded (`mribatch.trt.graph.emulation`).

    Raises:
        MribatchError: ONNX Runtime does not accept the graph.
    """
    with RoundingClassifier(graph) as classifier:
        return gate(classifier, bundle, batch_sizes=EMULATED_BATCH_SIZES, verified=CPU_EMULATED)


def _check(classifier: Classifier, bundle: Bundle, size: int, spread_limit: float) -> BatchCheck:
    images, expected = bundle.golden.images, bundle.golden.probabilities
    places = np.arange(-(-len(images) // size) * size) % len(images)
    answers = []
    for start in range(0, len(places), size):
        got = classifier(np.ascontiguousarray(images[places[start : start + size]]))
        wrong = _wrong_form(got, (size, expected.shape[1]))
        if wrong:
            return BatchCheck(batch_size=size, agreement=None, wrong_form=wrong)
        answers.append(got)
    everything, wanted = np.concatenate(answers), expected[places]
    return BatchCheck(
        batch_size=size,
        agreement=compare(everything, wanted, bundle.spec.tolerance, classifier.precision),
        same_class=int((everything.argmax(axis=1) == wanted.argmax(axis=1)).sum()),
        not_finite=int((~np.isfinite(everything)).any(axis=1).sum()),
        row_spread=_row_spread(classifier, images, size),
        spread_limit=spread_limit,
    )


def _wrong_form(got: NDArray[float32], shape: tuple[int, int]) -> str | None:
    if got.shape == shape and got.dtype == float32:
        return None
    return f"gives {got.dtype} {got.shape} for float32 {shape}"


def _row_spread(classifier: Classifier, images: NDArray[uint8], size: int) -> float:
    largest = 0.0
    for number in np.unique(np.linspace(0, len(images) - 1, _SLICES_REPEATED).astype(int)):
        got = classifier(np.repeat(images[number : number + 1], size, axis=0)).astype(np.float64)
        with np.errstate(invalid="ignore"):  # infinity minus infinity is the NaN that is wanted
            largest = float(np.maximum(largest, np.abs(got - got[:1]).max()))  # NaN stays
    return largest


@dataclass(frozen=True, kw_only=True)
class Flip:
    """An image that two backends put into different classes.

    image: its number in the order given. first, second: class indices. margin: best minus second probability of the
    first backend; a flip with a small one is a coin that fell on the other side.
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


def agreement_on_images(first: Classifier, second: Classifier, batches: Iterable[NDArray[uint8]]) -> ImageAgreement:
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
        flips += [_flip(images + int(row), expected[row], got[row]) for row in np.flatnonzero(~alike)]
        images += len(batch)
    return ImageAgreement(
        images=images, same=same, max_difference=largest if images else float("nan"), flips=tuple(flips)
    )


def _flip(image: int, expected: NDArray[float32], got: NDArray[float32]) -> Flip:
    second_best, best = np.sort(expected)[-2:]
    return Flip(image=image, first=int(expected.argmax()), second=int(got.argmax()), margin=float(best - second_best))
