"""How long a Python process holds its global interpreter lock, seen from outside, without taking part.

The interpreter keeps a flag of its own that says whether the lock is held. `GilWatch` reads it in the memory of
another process, at random times: the share of the readings in which it is set is the share of the time for which some
thread held the lock. A thread that waits for a processor while it holds the lock counts as holding it, so this is an
upper bound on a busy machine.

Where the flag lies is found in this process, which must run the same Python: the lock's record begins with the switch
interval, which is set to one number and then to another; the record is the place that holds first the one and then the
other. A single number is not enough: it may stand in the memory behind the interpreter's state by chance.
"""

import ctypes
import os
import random
import struct
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_RUNTIME = "_PyRuntime"  # the interpreter's state, which holds the record of the lock
_SEARCHED = 1 << 20  # bytes of it
_RECORD = struct.Struct(
    "=QQi4xQ"
)  # switch interval (µs), last holder, whether it is held, how often it was handed over
_MARKS_US = (4321, 8765)
_SHORTEST_S, _LONGEST_S = 0.0005, 0.0025  # between two readings


class GilNotFound(Exception):
    """This interpreter keeps its lock elsewhere."""


@dataclass(frozen=True)
class GilPlace:
    """Where the record of the lock lies. library: file that is mapped; offset: from where its first mapping begins."""

    library: str
    offset: int

    @classmethod
    def find(cls) -> Self:
        """Look for it in this process.

        Raises:
            GilNotFound: There is no such record, or more than one.
        """
        start = ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, _RUNTIME))
        before = sys.getswitchinterval()
        try:
            first, second = (_places_of(mark, start) for mark in _MARKS_US)
        finally:
            sys.setswitchinterval(before)
        places = first & second
        if len(places) != 1:
            raise GilNotFound(f"{len(places)} records of a lock in {_RUNTIME} of Python {sys.version.split()[0]}")
        library, base = _mapping_of(os.getpid(), start)
        place = cls(library, start + places.pop() - base)
        if not place._is_held_here():
            raise GilNotFound(f"the record of the lock says that nobody holds it, in Python {sys.version.split()[0]}")
        return place

    def address_in(self, process: int) -> int:
        """Where the record lies in another process.

        Raises:
            GilNotFound: It does not run this Python.
        """
        for line in Path(f"/proc/{process}/maps").read_text().splitlines():
            if line.endswith(self.library):
                return int(line.partition("-")[0], 16) + self.offset
        raise GilNotFound(f"process {process} has not loaded {self.library}")

    def _is_held_here(self) -> bool:
        """Whether the flag is set while this thread holds the lock: a read by ctypes.string_at does not give it up."""
        record = ctypes.string_at(self.address_in(os.getpid()), _RECORD.size)
        return bool(_RECORD.unpack(record)[2] == 1)


class GilWatch:
    """Readings of another process' lock, on a thread of this one, from entering to leaving.

    Args:
        place: In this Python.
        process: Whose lock.
    """

    def __init__(self, place: GilPlace, process: int) -> None:
        self._memory = os.open(f"/proc/{process}/mem", os.O_RDONLY)
        self._address = place.address_in(process)
        self._ends = threading.Event()
        self._random = random.Random(0)
        self._readings = self._held = 0
        self._thread = threading.Thread(target=self._watch, name="gil-watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()
        os.close(self._memory)

    def counts(self) -> tuple[int, int]:
        """How many readings so far, and in how many of them the lock was held."""
        return self._readings, self._held

    def _watch(self) -> None:
        while not self._ends.wait(self._random.uniform(_SHORTEST_S, _LONGEST_S)):
            try:
                record = os.pread(self._memory, _RECORD.size, self._address)
            except OSError:  # the process has ended
                return
            if len(record) < _RECORD.size:
                return
            self._held += _RECORD.unpack(record)[2] == 1
            self._readings += 1


def _places_of(mark_us: int, start: int) -> set[int]:
    """Where the switch interval may be stored, counted from start: it is set to so many microseconds and looked for."""
    sys.setswitchinterval(mark_us / 1e6)
    content = _read_own(start, _SEARCHED)
    mark = struct.pack("=Q", mark_us)
    return {at for at in range(0, len(content) - _RECORD.size, 8) if content.startswith(mark, at)}


def _read_own(start: int, size: int) -> bytes:
    """As much as is mapped there."""
    descriptor = os.open("/proc/self/mem", os.O_RDONLY)
    try:
        return os.pread(descriptor, size, start)
    finally:
        os.close(descriptor)


def _mapping_of(process: int, address: int) -> tuple[str, int]:
    """(file, beginning of its first mapping) of what is mapped at an address, or just before it."""
    first: dict[str, int] = {}
    name = ""
    for line in Path(f"/proc/{process}/maps").read_text().splitlines():
        span, *_, last = line.split(maxsplit=5)
        begin, end = (int(one, 16) for one in span.split("-"))
        if last.startswith("/"):
            name = last
            first.setdefault(name, begin)
        if begin <= address < end:
            return name, first[name]
    raise GilNotFound("the interpreter's state is not in a mapped file")
