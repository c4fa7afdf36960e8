"""An exclusive lock on an open file, by whatever the operating system has: flock, or msvcrt's on Windows.

Both are dropped by the kernel when the process dies, however it dies, so there is no stale lock to delete by hand.
"""

import contextlib
import errno
import os
from pathlib import Path

from mribatch.core.errors import NoLocksError

# A file system without locks: Lustre mounted without -o flock, NFS without its lock service, some FUSE file systems.
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}
_HELD = {errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK}  # the last two: Windows


def open_lock_file(path: Path, mode: int = 0o644, flags: int = 0) -> int:
    """Open a lock's file for `take_lock`, made if it is missing; child processes do not inherit the descriptor.

    Raises:
        OSError: It cannot be opened.
    """
    return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | flags, mode)


def take_lock(descriptor: int, path: Path) -> bool:
    """Take the lock of an open file until the descriptor is closed; never waits.

    Args:
        descriptor: Of the lock's file, open for writing.
        path: Of that file, for the message.

    Returns:
        Whether it was free.

    Raises:
        NoLocksError: The file system, or the operating system, has no locks.
        OSError: Anything else that keeps the lock from being taken.
    """
    try:
        _lock(descriptor)
    except OSError as error:
        if error.errno in _HELD:
            return False
        if error.errno not in _NO_LOCKS:
            raise
        raise NoLocksError(
            f"the file system of {path.parent} has no file locks ({error.strerror})",
            "use a folder on a local disk, or have the file system mounted with locks (Lustre: -o flock; NFS: lockd)",
        ) from error
    return True


def _lock(descriptor: int) -> None:
    with contextlib.suppress(ImportError):
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    try:
        import msvcrt
    except ImportError:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
    os.lseek(descriptor, 0, os.SEEK_SET)  # the lock is on the byte at the file's position
    msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
