"""The learning rate at every step of a fit, as a share of the recipe's."""

import math
from collections.abc import Callable, Mapping

WARM_UP = 0.2  # of all steps
_START, _END = 0.04, 0.001


def constant(done: float) -> float:  # noqa: ARG001
    """Always 1."""
    return 1.0


def cosine(done: float) -> float:
    """Half a wave of the cosine from 1 to 0.001 (Loshchilov and Hutter 2017, arXiv:1608.03983)."""
    return _wave(1.0, _END, done)


def one_cycle(done: float) -> float:
    """From 0.04 up to 1 over the first fifth, then down to 0.001, both as half a cosine (Smith 2018, 1803.09820)."""
    if done < WARM_UP:
        return _wave(_START, 1.0, done / WARM_UP)
    return _wave(1.0, _END, (done - WARM_UP) / (1 - WARM_UP))


SCHEDULES: Mapping[str, Callable[[float], float]] = {"constant": constant, "cosine": cosine, "one_cycle": one_cycle}
"""Name -> function from the share of all steps that are done, 0..1, to the share of the learning rate."""


def _wave(first: float, last: float, done: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * min(done, 1.0))) / 2
