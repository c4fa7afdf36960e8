"""How often a target was executed, in a file that outlives the process that counts."""

import mmap
import struct
from pathlib import Path

_FORMAT = struct.Struct("<qq")


class Counters:
    """Two numbers in a file: executions, and those whose input the reader took."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(_FORMAT.pack(0, 0))
        with path.open("r+b") as stream:
            self._shared = mmap.mmap(stream.fileno(), _FORMAT.size)
        self._executions, self._taken = _FORMAT.unpack(self._shared[:])

    def executed(self) -> None:
        self._executions += 1
        _FORMAT.pack_into(self._shared, 0, self._executions, self._taken)

    def took(self) -> None:
        self._taken += 1
        _FORMAT.pack_into(self._shared, 0, self._executions, self._taken)


def read_counters(path: Path) -> tuple[int, int]:
    """Executions, and inputs taken; zeros where there is no file."""
    executions, taken = _FORMAT.unpack(path.read_bytes()) if path.exists() else (0, 0)
    return executions, taken
