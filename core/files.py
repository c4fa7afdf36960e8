"""Files that appear whole or not at all, hashes of files, and a lock that dies with its process."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mribatch.core.errors import FolderGoneError, FolderLockedError, MribatchError, NoLocksError
from mribatch.core.locks import open_lock_file, take_lock
from mribatch.core.system_errors import write_error


@contextlib.contextmanager
def publishing(path: Path) -> Iterator[Path]:
    """Yield a dotted temporary path beside `path`; on success it is fsynced and renamed to `path`.

    A reader sees the whole new file or what was there before, never half a file. On any error the temporary file
    is removed.

    Raises:
        WriteError: The file system refused (full, read-only, permission).
        LimitError: Too many files are open.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        _fsync(temporary)
        os.replace(temporary, path)
        _fsync_folder(path.parent)
    except OSError as error:
        _remove_quietly(temporary)
        raise _write_error(path, error) from error
    except BaseException:
        _remove_quietly(temporary)
        raise


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace `path` by `content` as indented JSON, atomically. NaN is refused (ValueError): JSON has none.

    What UTF-8 lacks is written as escapes and read back the same: surrogates, which stand for bytes of file names.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with publishing(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def append_line(path: Path, line: bytes) -> None:
    """Append a line and make it durable. What a killed process left of a line is ended first.

    Raises:
        WriteError: The file system refused.
    """
    try:
        with path.open("ab+") as stream:
            if stream.seek(0, os.SEEK_END):
                stream.seek(-1, os.SEEK_END)
                line = line if stream.read(1) == b"\n" else b"\n" + line
            stream.write(line + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise _write_error(path, error) from error


def remove_folder(folder: Path) -> None:
    """Remove a folder and what is in it, as far as that goes; what stays is removed another time.

    shutil.rmtree(ignore_errors=True) does not ignore what closing a folder says (Python 3.11).
    """
    with contextlib.suppress(OSError):
        shutil.rmtree(folder, ignore_errors=True)


def sha256_of_file(path: Path) -> str:
    """Hex digest of the file's bytes, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class FolderLock:
    """An exclusive advisory lock on a folder (on a dotted file in it, see core/locks.py).

    The kernel drops it when the process dies, however it dies, so there is no stale lock to delete by hand. The
    descriptor is not inherited by child processes.

    Raises:
        FolderLockedError: On entering: another process holds the lock.
        NoLocksError: On entering: the file system has no locks.
        WriteError: On entering: the lock's file cannot be made.
    """

    FILE_NAME = ".lock"

    def __init__(self, folder: Path) -> None:
        self._path = folder / self.FILE_NAME
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        try:
            self._descriptor = open_lock_file(self._path)
            free = take_lock(self._descriptor, self._path)
        except OSError as error:
            self._close()
            raise _write_error(self._path, error) from error
        except NoLocksError:
            self._close()
            raise
        if not free:
            self._close()
            raise FolderLockedError(
                f"another mribatch run is writing to {self._path.parent}", "wait for it to end, or stop it"
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def check(self) -> None:
        """Make sure that the folder is still the one whose lock is held.

        Raises:
            FolderGoneError: The folder, or the lock's file in it, was removed or replaced.
            StorageError: The file system does not say.
        """
        if self._descriptor is None:
            return
        mine = os.fstat(self._descriptor)
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            there = None
        except OSError as error:
            raise _write_error(self._path, error) from error
        if there is None or not os.path.samestat(mine, there):
            raise FolderGoneError(
                f"the folder {self._path.parent} was removed or replaced while it was written to",
                "leave it alone and type the same command again",
            )

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _write_error(path: Path, error: OSError) -> MribatchError:
    fix = f"make sure that the folder {path.parent} exists and that you may write to it"
    return write_error(f"could not write {path}", error, fix)


def _fsync(path: Path) -> None:
    access = os.O_RDWR if os.name == "nt" else os.O_RDONLY  # Windows flushes only what may be written
    descriptor = os.open(path, access | getattr(os, "O_CLOEXEC", 0))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fsync_folder(path: Path) -> None:
    """Make a rename durable. Windows opens no folder, and some file systems flush none (EINVAL)."""
    if os.name == "nt":
        return
    try:
        _fsync(path)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def _remove_quietly(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
