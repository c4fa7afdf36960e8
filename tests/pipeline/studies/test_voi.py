"""Which windows are believed: the stated rule, one case for each of its parts."""

import math

import pytest

from mribatch.pipeline.studies.voi import VoiFunction, VoiWindow, is_sane

LINEAR, EXACT, SIGMOID = VoiFunction.LINEAR, VoiFunction.LINEAR_EXACT, VoiFunction.SIGMOID


@pytest.mark.parametrize(
    ("center", "width", "function", "sane"),
    [
        (600, 1200, LINEAR, True),
        (2048, 4096, LINEAR, True),
        (2000, 20, LINEAR, True),  # narrow, and still 16 levels
        (0.5, 1, LINEAR, False),  # a placeholder: black or white
        (600, 0, LINEAR, False),
        (600, -5, LINEAR, False),
        (600, 0.5, LINEAR, False),  # PS3.3 C.11.2.1.2: at least 1
        (600, 0.5, EXACT, False),  # allowed, and gives two levels
        (600, 1200, EXACT, True),
        (600, 1200, SIGMOID, True),
        (600, 0, SIGMOID, False),
        (math.nan, 1200, LINEAR, False),
        (600, math.inf, LINEAR, False),
        (-5000, 1200, LINEAR, False),  # beside all values
        (9000, 1200, LINEAR, False),
        (32767, 65535, LINEAR, True),  # 12 bits give 17 levels
        (0, 4_000_000, LINEAR, False),  # all values are one grey
    ],
)
def test_a_window_is_believed_where_it_can_show_12_bits(
    center: float, width: float, function: VoiFunction, sane: bool
) -> None:
    assert is_sane(VoiWindow(center, width, function), 0, 4095, 1) is sane


def test_few_values_need_few_levels() -> None:
    assert is_sane(VoiWindow(1, 2), 0, 1, 1)
    assert not is_sane(VoiWindow(50, 2), 0, 1, 1)


def test_the_rule_counts_steps_of_the_slope() -> None:
    assert is_sane(VoiWindow(0.5, 1, EXACT), 0, 1, 1 / 4095)
    assert not is_sane(VoiWindow(2048, 100, EXACT), 0, 40950, 10)  # ten steps of ten
