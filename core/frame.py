"""The box of what is not background in a slice, which is all that a network with a frame sees.

Exports of the same scan differ in how much air they leave around the head. A row or column belongs to the content if at
least 3 % of its pixels are brighter than 24 of 255; the box reaches from the first to the last of them, with a margin
of 2 % of the side. Where fewer than a quarter of the rows or columns belong to it, the whole slice is taken.
"""

import numpy as np
from numpy import uint8
from numpy.typing import NDArray

BRIGHT, LEAST, MARGIN, FEWEST = 24.0, 0.03, 0.02, 0.25

Box = tuple[int, int, int, int]  # top, bottom, left, right; bottom and right are outside


def find_box(image: NDArray[uint8]) -> Box:
    """Return the box of the content of one slice, uint8 (height, width), with its margin."""
    lit = image > BRIGHT
    edges: list[int] = []
    for axis, side in enumerate(image.shape):
        places = np.flatnonzero(lit.mean(axis=1 - axis) >= LEAST)
        if len(places) < FEWEST * side:
            return 0, image.shape[0], 0, image.shape[1]
        margin = round(MARGIN * side)
        edges += [max(0, int(places[0]) - margin), min(side, int(places[-1]) + 1 + margin)]
    return edges[0], edges[1], edges[2], edges[3]
