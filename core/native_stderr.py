"""Keeps what C libraries print on file descriptor 2 away from the terminal: all of it, or known noise."""

import contextlib
import faulthandler
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any


class LossyFile(io.FileIO):
    """A raw file for stderr. What cannot be written is lost: nothing can say so, and no work must end over it."""

    def write(self, content: Any) -> int:
        try:
            return super().write(content)
        except OSError:
            return memoryview(content).nbytes


@contextlib.contextmanager
def without_native_stderr() -> Iterator[None]:
    """While entered, descriptor 2 leads nowhere and sys.stderr writes to where it led before.

    libjpeg and libpng print a line for every damaged file, without its name, into the middle of the progress bar; no
    call of OpenCV turns that off. The file's row says what is known. A crash still shows Python's traceback.
    """
    sys.stderr.flush()
    python_stderr = sys.stderr
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    kept = io.BufferedWriter(LossyFile(saved, "wb"))
    sys.stderr = io.TextIOWrapper(kept, encoding=python_stderr.encoding, errors="backslashreplace", line_buffering=True)
    faulthandler.enable(sys.stderr)
    try:
        yield
    finally:
        faulthandler.disable()
        sys.stderr.flush()
        os.dup2(saved, 2)
        sys.stderr.close()
        sys.stderr = python_stderr


@contextlib.contextmanager
def filtering_native_stderr(is_noise: Callable[[str], bool]) -> Iterator[None]:
    """While entered, what is written to descriptor 2 is kept; at the end all lines but the noise are written there.

    For the import of a library that announces itself. Where the body fails, every line is written.

    Args:
        is_noise: Whether a line, without its end, tells nobody anything.
    """
    _flush_stderr()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            _flush_stderr()
            os.dup2(saved, 2)
            os.close(saved)
            kept.seek(0)
            text = kept.read().decode("utf-8", "backslashreplace")
            lines = text.splitlines(keepends=True)
            text = "".join(line for line in lines if failed or not is_noise(line.rstrip("\r\n")))
            LossyFile(2, "wb", closefd=False).write(text.encode())


def _flush_stderr() -> None:
    if sys.stderr is not None:
        sys.stderr.flush()
