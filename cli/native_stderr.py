"""Keeps what C libraries print on file descriptor 2 away from the terminal."""

import contextlib
import faulthandler
import os
import sys
from collections.abc import Iterator


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
    sys.stderr = os.fdopen(saved, "w", buffering=1, encoding=python_stderr.encoding, errors="backslashreplace")
    faulthandler.enable(sys.stderr)
    try:
        yield
    finally:
        faulthandler.disable()
        sys.stderr.flush()
        os.dup2(saved, 2)
        sys.stderr.close()
        sys.stderr = python_stderr
