"""Rates: where they start, peak and end, and that they never leave that way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mribatch.training.recipes.schedules import SCHEDULES, WARM_UP, constant, cosine, one_cycle


def test_ends_and_peaks() -> None:
    assert constant(0.0) == constant(0.7) == 1
    assert cosine(0.0) == 1 and cosine(1.0) == pytest.approx(0.001) and cosine(0.5) == pytest.approx(0.5005)
    assert one_cycle(0.0) == pytest.approx(0.04) and one_cycle(WARM_UP) == 1 and one_cycle(1.0) == pytest.approx(0.001)


@given(st.floats(0, 1), st.floats(0, 1))
def test_up_then_down_and_always_within(first: float, second: float) -> None:
    early, late = sorted((first, second))
    for schedule in SCHEDULES.values():
        assert 0 < schedule(early) <= 1
    assert cosine(early) >= cosine(late)
    if late <= WARM_UP:
        assert one_cycle(early) <= one_cycle(late)
    if early >= WARM_UP:
        assert one_cycle(early) >= one_cycle(late)
