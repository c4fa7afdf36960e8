"""stdin, stdout and stderr as they come: closed, on a full disk, or in an encoding that lacks a letter."""

import errno
import io
import os
import sys
from typing import TYPE_CHECKING

from mribatch.core.errors import MribatchError
from mribatch.core.native_stderr import LossyFile

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_OUT, _ERR = 1, 2


class StdoutError(MribatchError):
    """What a command prints cannot be written to stdout."""


def prepare_streams() -> None:
    """Make stdout and stderr fit to print any text, a full stdout an error of one line, and a full stderr none.

    What their encoding lacks is written as a backslash escape. A descriptor that the parent process closed leads to
    /dev/null, so that no file of ours gets its number.
    """
    for descriptor in (0, _OUT, _ERR):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    if sys.stdout is None or sys.stdout is sys.__stdout__:  # not where a caller in Python captures it
        sys.stdout = _wrap(_Stdout(_OUT, "wb", closefd=False), sys.stdout)
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        sys.stderr = _wrap(LossyFile(_ERR, "wb", closefd=False), sys.stderr, line_buffering=True)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class _Stdout(io.FileIO):
    """Descriptor 1. Once a write has failed, the rest goes nowhere, so that it fails only once."""

    def write(self, content: "ReadableBuffer") -> int:
        try:
            return super().write(content)
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, _OUT)
            os.close(nowhere)
            if error.errno == errno.EPIPE:  # the reader went away, e.g. `| head`
                raise
            reason = error.strerror or str(error)
            fix = "free some space there, or send the output elsewhere"
            raise StdoutError(f"cannot write to standard output: {reason}", fix) from error


def _wrap(raw: io.FileIO, earlier: io.TextIOBase | None, *, line_buffering: bool = False) -> io.TextIOWrapper:
    encoding = earlier.encoding if earlier is not None else "utf-8"
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=encoding, line_buffering=line_buffering or raw.isatty())
