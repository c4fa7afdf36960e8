import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy import float32
from numpy.typing import NDArray

from mribatch.core.agreement import compare
from mribatch.core.model_spec import Tolerance

TOLERANCE = Tolerance()
EXPECTED = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.334, 0.333, 0.333]], dtype=float32)


def _shifted(row: int, change: tuple[float, float, float]) -> NDArray[float32]:
    got = EXPECTED.copy()
    got[row] += np.array(change, dtype=float32)
    return got


def test_equal_rows_agree() -> None:
    agreement = compare(EXPECTED.copy(), EXPECTED, TOLERANCE)
    assert agreement.holds
    assert str(agreement) == "max |Δp| 0.00e+00 (limit 1e-04), 0 of 3 classes differ"


def test_a_difference_beyond_the_limit_of_the_precision_fails() -> None:
    got = _shifted(0, (-0.005, 0.005, 0))
    single, half = compare(got, EXPECTED, TOLERANCE), compare(got, EXPECTED, TOLERANCE, "fp16")
    assert (single.holds, half.holds) == (False, True)
    assert single.max_difference == pytest.approx(0.005, rel=1e-4)
    assert (single.limit, half.limit) == (1e-4, 0.01)


def test_a_class_may_flip_only_where_the_expected_margin_is_small() -> None:
    wide = Tolerance(fp32=0.4, fp16=0.4, margin=0.02)
    near = compare(_shifted(2, (-0.002, 0.002, 0)), EXPECTED, wide)
    assert (near.flips, near.holds) == (0, True)
    clear = compare(_shifted(1, (0, -0.25, 0.25)), EXPECTED, wide)
    assert (clear.flips, clear.holds) == (1, False)
    assert clear.max_difference < clear.limit


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_never_agrees(number: float) -> None:
    got = EXPECTED.copy()
    got[1, 2] = number
    agreement = compare(got, EXPECTED, TOLERANCE)
    assert not agreement.holds
    assert np.isnan(agreement.max_difference)
    assert not compare(EXPECTED, got, TOLERANCE).holds


def test_no_rows_agree_and_other_shapes_do_not_compare() -> None:
    assert compare(EXPECTED[:0], EXPECTED[:0], TOLERANCE).holds
    with pytest.raises(ValueError, match=r"\(2, 3\) against \(3, 3\)"):
        compare(EXPECTED[:2], EXPECTED, TOLERANCE)


@given(arrays(float32, (5, 4), elements=st.floats(0, 1, width=32)), st.floats(-0.5, 0.5, width=32), st.integers(0, 19))
def test_holds_exactly_where_the_largest_difference_is_within_the_limit(
    expected: NDArray[float32], change: float, place: int
) -> None:
    got = expected.copy()
    got.flat[place] += float32(change)
    agreement = compare(got, expected, Tolerance(fp32=0.1, margin=0.49))
    assert agreement.max_difference == abs(float(got.flat[place]) - float(expected.flat[place]))
    assert agreement.holds == (agreement.max_difference <= 0.1 and agreement.flips == 0)
