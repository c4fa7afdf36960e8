"""Seconds per stage; part of the result, so that a user sees where the time went."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")

LISTING, LOADING, WAITING, INFERENCE, WRITING, CHECKING = (
    "listing",
    "loading",
    "waiting_for_decoding",
    "inference",
    "writing",
    "checking",
)
DECODING = "decoding_core_seconds"  # of all decode threads together; they run beside the other stages

_BOTTLENECKS = {WAITING: "decoding", INFERENCE: "inference", WRITING: "writing"}


class Stopwatch:
    """Wall seconds by stage; decoding is in core-seconds, since its threads overlap with everything else."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys((LISTING, LOADING, WAITING, INFERENCE, WRITING, CHECKING, DECODING), 0.0)
        self._begin = time.perf_counter()

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the wall seconds of the block to a stage."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - begin

    def waiting(self, items: Iterator[Item]) -> Iterator[Item]:
        """Pass items through, counting the time until each one arrives as waiting for the decoder."""
        while True:
            with self.measure(WAITING):
                item = next(items, None)
            if item is None:
                return
            yield item

    @property
    def total(self) -> float:
        """Wall seconds since the stopwatch was made."""
        return time.perf_counter() - self._begin

    @property
    def in_rows(self) -> float:
        """Wall seconds of the stages that every image passes."""
        return sum(self.seconds[stage] for stage in _BOTTLENECKS)

    @property
    def bottleneck(self) -> str:
        """The stage that the run spent most of its time in."""
        return _BOTTLENECKS[max(_BOTTLENECKS, key=lambda stage: self.seconds[stage])]
