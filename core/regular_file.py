"""The bytes of a regular file of a stranger: never a FIFO that blocks, a device that has no end, or too many bytes.

A disk or a server that fails once is asked again: what it gives at the second or third time is as good.
"""

import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable
from io import BufferedReader
from typing import TypeVar

from mribatch.core.system_errors import is_system_error

Result = TypeVar("Result")
MAX_FILE_BYTES = 2 << 30
_PAUSES_S = (0.02, 0.2)  # before the second and the third time


def ask_again(call: Callable[[], Result]) -> Result:
    """Call, up to three times while the file system or a limit is to blame.

    Raises:
        OSError: That of the last time.
    """
    for pause in _PAUSES_S:
        try:
            return call()
        except OSError as error:
            if not is_system_error(error) or error.errno == errno.EFBIG:
                raise
        time.sleep(pause)
    return call()


def read_file(path: bytes, limit: int = MAX_FILE_BYTES) -> bytes:
    """All bytes of a regular file.

    A FIFO without a writer does not block: the open is non-blocking and anything but a regular file is refused.

    Raises:
        OSError: The file is gone, forbidden, no regular file, or larger than `limit` bytes.
    """
    return ask_again(lambda: _read_file(path, limit))


def _read_file(path: bytes, limit: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        _check_regular(status.st_mode, path)
        chunks: list[bytes] = []
        total = 0
        wanted = status.st_size + 1  # one more byte than expected, so that a file of the expected size ends in one read
        while total <= limit and status.st_size <= limit:
            chunk = os.read(descriptor, max(wanted - total, 1 << 16))
            if not chunk:
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)
            chunks.append(chunk)
            total += len(chunk)
        size = max(status.st_size, total)
        raise OSError(errno.EFBIG, f"it has {size:,} bytes; the limit is {limit:,}", path)
    finally:
        os.close(descriptor)


def read_head(path: bytes, size: int) -> bytes:
    """The first `size` bytes of a regular file, or fewer where it is shorter.

    Raises:
        OSError: As `read_file`, for files of any size.
    """
    return ask_again(lambda: _read_head(path, size))


def _read_head(path: bytes, size: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check_regular(os.fstat(descriptor).st_mode, path)
        return os.read(descriptor, size)
    finally:
        os.close(descriptor)


def open_regular(path: bytes) -> BufferedReader:
    """Open a regular file of any size for reading.

    Raises:
        OSError: As `read_head`.
    """
    return ask_again(lambda: _open_regular(path))


def _open_regular(path: bytes) -> BufferedReader:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check_regular(os.fstat(descriptor).st_mode, path)
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def digest_file(path: bytes) -> tuple[int, str]:
    """Size in bytes and sha256, hex, of a regular file of any size, read in blocks.

    Raises:
        OSError: As `read_head`.
    """
    with open_regular(path) as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return stream.tell(), digest


def check_regular(path: bytes) -> None:
    """Raises OSError where there is no regular file; for libraries that open a file by its name."""
    _check_regular(os.stat(path).st_mode, path)


def _check_regular(mode: int, path: bytes) -> None:
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"it is a {_kind_of_file(mode)}, not a regular file", path)


def _kind_of_file(mode: int) -> str:
    kinds = {
        stat.S_IFIFO: "FIFO",
        stat.S_IFCHR: "character device",
        stat.S_IFBLK: "block device",
        stat.S_IFSOCK: "socket",
        stat.S_IFDIR: "folder",
    }
    return kinds.get(stat.S_IFMT(mode), "special file")
