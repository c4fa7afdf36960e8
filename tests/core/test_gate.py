"""The gate lets a right backend through and no wrong one."""

from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from numpy import float32, uint8
from numpy.typing import NDArray

from mribatch.core.bundle import Bundle
from mribatch.core.gate import CPU_EMULATED, ON_CPU, GateReport, gate
from mribatch.pipeline.inference.onnxruntime import OnnxRuntimeClassifier
from tests.trt.graph.graphs import GoldenClassifier, bundle_of, efficientnet_like

Answers = NDArray[float32]
SIZES = (1, 3, 16)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """Ten slices whose answers differ clearly between the classes and from slice to slice."""
    found = bundle_of(efficientnet_like().model())
    random = np.random.Generator(np.random.PCG64(1))
    answers = random.dirichlet([0.3] * 4, 10).astype(float32)
    return replace(found, golden=replace(found.golden, probabilities=answers))


def passed(bundle: Bundle, change: Callable[[Answers, NDArray[uint8]], Any], precision: str = "fp16") -> GateReport:
    return gate(GoldenClassifier(bundle, change, precision), bundle, batch_sizes=SIZES)


def test_a_right_backend_passes_in_batches_of_every_size(bundle: Bundle) -> None:
    classifier = GoldenClassifier(bundle)
    report = gate(classifier, bundle, batch_sizes=SIZES)
    assert report.holds and report.verified == "gpu"
    assert [check.batch_size for check in report.checks] == [1, 3, 16]
    assert set(classifier.batches) == {1, 3, 16}  # full ones only
    assert [check.agreement.rows for check in report.checks if check.agreement] == [10, 12, 16]
    assert str(report) == "double 1 fp16 (gpu): holds in batches of 1, 3, 16, max |Δp| 0.00e+00"


def test_onnx_runtime_passes_its_own_golden_answers() -> None:
    bundle = bundle_of(efficientnet_like().model())
    with OnnxRuntimeClassifier(bundle, threads=1) as classifier:
        report = gate(classifier, bundle, batch_sizes=(1, 5, 16), verified=ON_CPU)
    assert report.holds and report.verified == "cpu" and report.precision == "fp32"


def test_a_small_drift_passes_in_fp16_and_not_in_fp32(bundle: Bundle) -> None:
    def drifting(by: float) -> Callable[[Answers, Any], Answers]:
        return lambda answers, _: answers + float32(by)

    assert passed(bundle, drifting(0.009)).holds
    assert passed(bundle, drifting(0.009)).max_difference == pytest.approx(0.009, rel=1e-3)
    assert not passed(bundle, drifting(0.009), "fp32").holds
    report = passed(bundle, drifting(0.011))
    assert not report.holds
    assert str(report).startswith("double 1 fp16 (gpu): fails, batch 1: max |Δp| 1.10e-02 (limit 1e-02)")


@pytest.mark.parametrize("order", [order for order in permutations(range(4)) if order != (0, 1, 2, 3)])
def test_classes_in_another_order_fail(bundle: Bundle, order: tuple[int, ...]) -> None:
    report = passed(bundle, lambda answers, _: answers[:, order])
    assert not report.holds and not any(check.holds for check in report.checks)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_fails(bundle: Bundle, value: float) -> None:
    marked = bundle.golden.images[4].tobytes()

    def poisoned(answers: Answers, images: NDArray[uint8]) -> Answers:
        answers[[image.tobytes() == marked for image in images], 2] = value
        return answers

    report = passed(bundle, poisoned)
    assert [check.not_finite for check in report.checks] == [1, 1, 2]  # places 4, 14 of 16
    assert not report.holds and "1 rows with NaN or infinity" in str(report)
    assert np.isnan(report.max_difference)


def test_values_that_are_not_finite_for_repeated_rows_only_fail(bundle: Bundle) -> None:
    def poisoned(answers: Answers, images: NDArray[uint8]) -> Answers:
        return answers * float32(np.nan if len(images) > 1 and (images == images[:1]).all() else 1)

    checks = passed(bundle, poisoned).checks
    assert [check.holds for check in checks] == [True, False, False]


def test_rows_that_depend_on_their_place_fail_though_within_the_tolerance(bundle: Bundle) -> None:
    def by_place(answers: Answers, images: NDArray[uint8]) -> Answers:
        answers[-1] += float32(0.005 if len(answers) == 16 else 0)
        return answers

    report = passed(bundle, by_place)
    assert [check.rows_alike for check in report.checks] == [True, True, False]
    assert [check.agreement.holds for check in report.checks if check.agreement] == [True] * 3
    assert not report.holds and "batch 16: rows of one slice differ by 5.00e-03" in str(report)


@pytest.mark.parametrize(
    "by, on_a_cpu, on_a_gpu",
    [
        (0.0, True, True),
        (6e-8, True, True),
        (9e-7, True, True),
        (2e-6, False, True),
        (9e-4, False, True),
        (2e-3,) + (False,) * 2,
    ],
)
def test_rows_of_one_slice_differ_by_a_step_of_half_on_a_gpu_and_by_roundings_of_float_on_a_cpu(
    bundle: Bundle, by: float, on_a_cpu: bool, on_a_gpu: bool
) -> None:
    def by_tile(answers: Answers, images: NDArray[uint8]) -> Answers:
        answers[8:] += float32(by)
        return answers

    on_gpu = passed(bundle, by_tile)
    assert on_gpu.holds is on_a_gpu and on_gpu.row_spread == pytest.approx(by, abs=1e-7)
    assert on_gpu.agreement.row_spread == on_gpu.row_spread, "it is recorded"
    assert ("rows of one slice" in str(on_gpu)) is (by > 0)
    report = gate(GoldenClassifier(bundle, by_tile), bundle, batch_sizes=SIZES, verified=CPU_EMULATED)
    assert report.holds is on_a_cpu
    assert report.holds or "batch 16: rows of one slice differ by " in str(report)


def test_no_spread_is_said_where_no_place_can_matter(bundle: Bundle) -> None:
    report = gate(GoldenClassifier(bundle), bundle, batch_sizes=SIZES, verified=ON_CPU, slices_repeated=0)
    assert report.holds and report.row_spread is None and report.agreement.row_spread is None


def test_the_class_of_every_row_counts_also_where_two_are_as_good_as_equal(bundle: Bundle) -> None:
    probabilities = bundle.golden.probabilities.copy()
    probabilities[3] = [0.5001, 0.4999, 0, 0]
    even = replace(bundle, golden=replace(bundle.golden, probabilities=probabilities))

    def turned(answers: Answers, images: NDArray[uint8]) -> Answers:
        close = np.abs(answers[:, 0] - answers[:, 1]) < 0.001
        answers[close, :2] = answers[close, 1::-1]
        return answers

    report = passed(even, turned)
    assert report.holds and [check.same_class for check in report.checks] == [9, 11, 14]


def test_a_neighbour_that_shines_through_fails(bundle: Bundle) -> None:
    assert not passed(bundle, lambda answers, _: np.roll(answers, 1, axis=0)).holds


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        (lambda answers, _: answers[:, :3], "gives float32 (1, 3) for float32 (1, 4)"),
        (lambda answers, _: answers[:-1], "gives float32 (0, 4) for float32 (1, 4)"),
        (lambda answers, _: answers[0], "gives float32 (4,) for float32 (1, 4)"),
        (lambda answers, _: answers.astype(np.float64), "gives float64 (1, 4)"),
        (lambda answers, _: answers.astype(np.float16), "gives float16 (1, 4)"),
    ],
    ids=["class", "row", "rank", "double", "half"],
)
def test_answers_of_another_form_fail(bundle: Bundle, change: Callable[..., Any], shown: str) -> None:
    report = passed(bundle, change)
    assert not report.holds and shown in str(report) and np.isnan(report.max_difference)
    assert "\n" not in str(report)


def test_a_gate_without_batches_does_not_hold(bundle: Bundle) -> None:
    report = gate(GoldenClassifier(bundle), bundle, batch_sizes=())
    assert not report.holds and "nothing was compared" in str(report) and np.isnan(report.max_difference)
    with pytest.raises(ValueError, match="batch sizes"):
        gate(GoldenClassifier(bundle), bundle, batch_sizes=(0,))


def test_the_agreement_counts_each_golden_slice_once(bundle: Bundle) -> None:
    report = gate(GoldenClassifier(bundle), bundle, batch_sizes=SIZES)
    assert (report.agreement.rows, report.agreement.max_difference, report.agreement.flips) == (10, 0, 0)
    assert report.agreement.limit == bundle.spec.tolerance.fp16 and report.agreement.holds
    wrong = passed(bundle, lambda answers, _: answers[:, ::-1])
    assert wrong.agreement.rows == 10 >= wrong.agreement.flips > 0 and not wrong.agreement.holds
    nothing = passed(bundle, lambda answers, _: answers[:, :3])
    assert np.isnan(nothing.agreement.max_difference) and not nothing.agreement.holds


def test_no_slice_is_repeated_where_no_place_can_matter(bundle: Bundle) -> None:
    classifier = GoldenClassifier(bundle)
    report = gate(classifier, bundle, batch_sizes=(16,), verified=ON_CPU, slices_repeated=0)
    assert report.holds and classifier.batches == [16]
