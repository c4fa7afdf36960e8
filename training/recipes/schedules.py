"""The learning rate at every step of a fit, as a fraction of the recipe's."""

import math
from collections.abc import Callable, Mapping

WARM_UP = 0.2  # fraction of all steps
_START, _END = 0.04, 0.001


def constant(done: float) -> float:  # noqa: ARG001
    """Return 1 at every step."""
    return 1.0


def cosine(done: float) -> float:
    """Follow half a cosine wave from 1 to 0.001 (Loshchilov and Hutter 2017, arXiv:1608.03983)."""
    return _interpolate(1.0, _END, done)


def one_cycle(done: float) -> float:
    """Rise from 0.04 to 1 over the first fifth, then fall to 0.001, along half cosines (Smith 2018, 1803.09820)."""
    if done < WARM_UP:
        return _interpolate(_START, 1.0, done / WARM_UP)
    return _interpolate(1.0, _END, (done - WARM_UP) / (1 - WARM_UP))


SCHEDULES: Mapping[str, Callable[[float], float]] = {"constant": constant, "cosine": cosine, "one_cycle": one_cycle}
"""Name -> function from the fraction of steps done, 0..1, to the fraction of the learning rate."""


def _interpolate(first: float, last: float, done: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * min(done, 1.0))) / 2
