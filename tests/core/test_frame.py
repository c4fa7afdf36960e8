"""The box of what is not background."""

import numpy as np

from mribatch.core.frame import find_box


def test_the_box_is_what_is_not_background() -> None:
    image = np.zeros((100, 100), np.uint8)
    image[30:80, 10:90] = 100
    assert find_box(image) == (28, 82, 8, 92)
    image[30:80, 10:90] = 24
    assert find_box(image) == (0, 100, 0, 100)
    image[40:60, 10:90] = 100
    assert find_box(image) == (0, 100, 0, 100), "twenty rows are fewer than a quarter"
