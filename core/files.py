"""Files that appear whole or not at all, hashes of files, and a lock that dies with its process."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mribatch.core.errors import DiskFullError, FolderLockedError, WriteError

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def publishing(path: Path) -> Iterator[Path]:
    """Yield a dotted temporary path beside `path`; on success it is fsynced and renamed to `path`.

    A reader sees the whole new file or what was there before, never half a file. On any error the temporary file
    is removed.

    Raises:
        WriteError: The file system refused (full, read-only, permission).
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        _fsync(temporary)
        os.replace(temporary, path)
        _fsync(path.parent)
    except OSError as error:
        _remove_quietly(temporary)
        raise _write_error(path, error) from error
    except BaseException:
        _remove_quietly(temporary)
        raise


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace `path` by `content` as indented JSON, atomically. NaN is refused (ValueError): JSON has none."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with publishing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256_of_file(path: Path) -> str:
    """Hex digest of the file's bytes, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class FolderLock:
    """An exclusive advisory lock on a folder (flock on a dotted file in it).

    The kernel drops it when the process dies, however it dies, so there is no stale lock to delete by hand. The
    descriptor is not inherited by child processes.

    Raises:
        FolderLockedError: On entering: another process holds the lock.
        WriteError: On entering: the lock's file cannot be made.
    """

    FILE_NAME = ".lock"

    def __init__(self, folder: Path) -> None:
        self._path = folder / self.FILE_NAME
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise _write_error(self._path, error) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            self._descriptor = None
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise _write_error(self._path, error) from error
            raise FolderLockedError(
                f"another mribatch run is writing to {self._path.parent}", "wait for it to end, or stop it"
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _write_error(path: Path, error: OSError) -> WriteError:
    problem = f"could not write {path}: {error.strerror or error}"
    if error.errno in _NO_SPACE:
        return DiskFullError(problem, "free some space and try again")
    return WriteError(problem, f"make sure that the folder {path.parent} exists and that you may write to it")


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_quietly(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
