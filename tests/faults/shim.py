"""The library that makes system calls fail (shim.c): compiled here, steered and read through shared memory."""

import errno
import mmap
import os
import shutil
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

# The kinds of calls, in the order of shim.c.
KINDS = (
    *("open", "read", "write", "fsync", "rename", "mkdir", "mmap"),
    *("unlink", "lock", "stat", "list", "truncate", "close", "thread"),
)
SHORT = -1  # in place of an errno: less is read or written than was asked for
_FOLDERS, _NAME = 4, 512
_NUMBERS = 7 + len(KINDS)
_SIZE = 8 * _NUMBERS + _FOLDERS * _NAME + _NAME
_AT = {"mask": 0, "at": 1, "error": 2, "sticky": 3, "clock_ns": 4, "matching": 5, "injected": 6}


class NoCompilerError(Exception):
    """There is no C compiler, or it cannot make the library."""


@dataclass(frozen=True)
class Fault:
    """Which call fails, and how.

    kind: One of KINDS. number: Which of the calls of that kind, from 1. error: errno, or SHORT. sticky: Whether all
    later calls of the kind fail as well.
    """

    kind: str
    number: int
    error: int
    sticky: bool = False

    @property
    def name(self) -> str:
        """How the error is called, e.g. "ENOSPC"."""
        return "short" if self.error == SHORT else errno.errorcode[self.error]

    def __str__(self) -> str:
        return f"{self.kind} {self.number}{' and all after it' if self.sticky else ''}: {self.name}"


def compile_shim(folder: Path) -> Path:
    """Compile the library into a folder.

    Raises:
        NoCompilerError: Says why not.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise NoCompilerError("there is no C compiler (cc)")
    library, source = folder / "shim.so", Path(__file__).with_name("shim.c")
    command = [compiler, "-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o", str(library), str(source)]
    made = subprocess.run([*command, "-ldl"], capture_output=True, text=True, check=False)
    if made.returncode:
        raise NoCompilerError(f"the library cannot be compiled here: {made.stderr.splitlines()[0]}")
    return library


class Control:
    """The shared memory of the test and the processes with the library.

    Args:
        library: From `compile_shim`.
        file: Is made; the processes map it.
    """

    def __init__(self, library: Path, file: Path) -> None:
        self._library = library
        self._file = file
        file.write_bytes(bytes(_SIZE))
        with file.open("r+b") as stream:
            self._memory = mmap.mmap(stream.fileno(), _SIZE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._memory.close()

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process whose calls may fail."""
        return {**os.environ, "LD_PRELOAD": str(self._library), "FAULT_CONTROL": str(self._file)}

    def watch(self, folders: Sequence[Path], fault: Fault | None = None) -> None:
        """Count from 0 the calls about files in these folders, at most four; make one of them fail."""
        self._memory[:] = bytes(_SIZE)
        for place, folder in enumerate(folders):
            begin = 8 * _NUMBERS + place * _NAME
            name = os.fsencode(folder)
            self._memory[begin : begin + len(name)] = name
        if fault is not None:
            self._set("error", fault.error)
            self._set("sticky", int(fault.sticky))
            self._set("at", fault.number)
            self._set("mask", 1 << KINDS.index(fault.kind))

    def set_clock(self, seconds: int) -> None:
        """Let the clock of the day go wrong by so many seconds from now on."""
        self._set("clock_ns", seconds * 1_000_000_000)

    @property
    def counts(self) -> dict[str, int]:
        """Kind -> calls since `watch`."""
        return {kind: self._number(7 + place) for place, kind in enumerate(KINDS)}

    @property
    def injected(self) -> int:
        """Calls that failed since `watch`."""
        return self._number(_AT["injected"])

    @property
    def what(self) -> str:
        """The first call that failed: its kind and its path."""
        text = self._memory[_SIZE - _NAME :].split(b"\0", 1)[0]
        return text.decode(errors="backslashreplace")

    def _set(self, name: str, value: int) -> None:
        struct.pack_into("=q", self._memory, 8 * _AT[name], value)

    def _number(self, place: int) -> int:
        value: int = struct.unpack_from("=q", self._memory, 8 * place)[0]
        return value
