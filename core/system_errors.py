"""What the operating system refuses (a disk, a network folder, a limit, memory) as errors of one line with a fix.

Nobody can foresee at which of a thousand calls a disk fails. Where a file's name is known, `name_system_error` makes
the error; `naming_system_errors` stands around whole commands and catches the rest.
"""

import contextlib
import errno
import os
from collections.abc import Iterator

from mribatch.core.errors import DiskFullError, LimitError, MemoryLimitError, MribatchError, StorageError, WriteError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_OPEN_FILES = {errno.EMFILE, errno.ENFILE}
_THREADS = {errno.EAGAIN}
# A disk, or a server of a network folder, that fails or does not answer; not what a wrong path gives.
_STORAGE = {
    getattr(errno, name)
    for name in (
        *("EIO", "ESTALE", "EINTR", "ENXIO", "ENODEV", "EREMOTEIO", "ETIMEDOUT", "ENOLCK", "EBADMSG"),
        *("EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ENOTCONN", "ECONNRESET", "EUCLEAN", "EBUSY"),
    )
    if hasattr(errno, name)
}
_NO_THREAD = ("can't start new thread", "pthread_create", "Resource temporarily unavailable")
_NO_MEMORY = (
    *("bad_alloc", "malloc of size", "failed to allocate", "Failed to allocate memory", "Insufficient memory"),
    *("failed to map segment", "Cannot allocate memory", "cannot allocate memory"),
)


def name_system_error(problem: str, error: OSError) -> MribatchError | None:
    """Return what the operating system says as an error of ours.

    Args:
        problem: What was tried, e.g. "could not read /data/run.json".
        error: Of the operating system.

    Returns:
        None where the error speaks neither of the file system, nor of a limit: a wrong path, a bug.
    """
    found = _kind_of(error)
    if found is None:
        return None
    kind, fix = found
    return kind(f"{problem}: {describe(error)}", fix)


def is_system_error(error: OSError) -> bool:
    """Whether it speaks of the file system or of a limit, so that the same call may succeed another time."""
    return _kind_of(error) is not None


def describe(error: OSError) -> str:
    """What the operating system says, in its own words and without those of the library in between."""
    return os.strerror(error.errno) if error.errno else str(error).splitlines()[0]


def write_error(problem: str, error: OSError, fix: str) -> MribatchError:
    """Return the error of a file that cannot be written; `fix` is for whatever is no fault of disk or limits."""
    if error.errno is None:  # of a library in C++ that does not say what the operating system said
        return StorageError(f"{problem}: {describe(error)}", _STORAGE_FIX)
    return name_system_error(problem, error) or WriteError(f"{problem}: {describe(error)}", fix)


@contextlib.contextmanager
def reading(what: object) -> Iterator[None]:
    """Give what the operating system refuses to read the file's name; other errors pass.

    Raises:
        StorageError, LimitError: As `name_system_error`.
    """
    try:
        yield
    except OSError as error:
        too_large = error.errno == errno.EFBIG  # to be read at once; nothing is full
        named = None if too_large else name_system_error(f"could not read {what}", error)
        if named is None:
            raise
        raise named from error
    except MribatchError:
        raise
    except Exception as error:
        named = _name_limit(error)
        if named is None:
            raise
        raise named from error


@contextlib.contextmanager
def naming_system_errors() -> Iterator[None]:
    """Turn what the operating system refuses anywhere inside into one line; everything else passes, with its traceback.

    Raises:
        StorageError, DiskFullError, LimitError, MemoryLimitError: By what it says.
    """
    try:
        yield
    except OSError as error:
        path = error.filename if isinstance(error.filename, str | bytes) else None
        where = f"could not use {os.fsdecode(path)}" if path else "could not use a file"
        named = name_system_error(where, error)
        if named is None and error.errno is None and type(error) is OSError:  # as libraries in C++ say it
            named = StorageError(f"{where}: {describe(error)}", _STORAGE_FIX)
        if named is None:
            raise
        raise named from error
    except MemoryError as error:
        raise _no_memory() from error
    except MribatchError:
        raise
    except Exception as error:  # RuntimeError, and what libraries in C++ make of theirs
        text = str(error)
        if type(error).__module__ == "sqlite3":  # which is not imported for every command
            raise StorageError(f"could not keep names on disk: {text}", _STORAGE_FIX) from error
        named = _name_limit(error)
        if named is None:
            raise
        raise named from error


def _name_limit(error: Exception) -> MribatchError | None:
    """What a library in C++ says of threads or memory that it did not get."""
    text = str(error)
    if any(words in text for words in _NO_THREAD):
        return _no_thread()
    return _no_memory() if any(words in text for words in _NO_MEMORY) else None


_STORAGE_FIX = "check the disk or the network folder, and type the same command again"
_FULL_FIX = "free some space and try again"
_FILES_FIX = "raise the limit on open files (ulimit -n), and type the same command again"
_THREADS_FIX = (
    "raise the limits on threads and processes (ulimit -u, or that of the container) and on memory (ulimit -v), and"
    " type the same command again"
)
_MEMORY_FIX = "free some memory or raise the limit on it (ulimit -v), and type the same command again"


def _kind_of(error: OSError) -> tuple[type[MribatchError], str] | None:
    if error.errno in _FULL:
        return DiskFullError, _FULL_FIX
    if error.errno in _OPEN_FILES:
        return LimitError, _FILES_FIX
    if error.errno in _THREADS:
        return LimitError, _THREADS_FIX
    if error.errno == errno.ENOMEM:
        return MemoryLimitError, _MEMORY_FIX
    if error.errno in _STORAGE:
        return StorageError, _STORAGE_FIX
    return None


def _no_thread() -> LimitError:
    return LimitError("the operating system starts no more threads or processes", _THREADS_FIX)


def _no_memory() -> MemoryLimitError:
    return MemoryLimitError("there is not enough memory", _MEMORY_FIX)
