"""The work folder itself, and the network that is saved in it."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mribatch.core.errors import MribatchError
from mribatch.core.files import FolderLock, remove_folder

NETWORK_FILE = "model.keras"


def make_folder(folder: Path) -> None:
    """Make a work folder.

    Raises:
        MribatchError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"cannot make the work folder {folder}: {error.strerror}"
        raise MribatchError(problem, "choose another --work folder") from error


@contextlib.contextmanager
def locked_work_folder(folder: Path) -> Iterator[None]:
    """Make and lock a work folder; remove it again if it was made here and the work ends before it leaves a file.

    Raises:
        MribatchError: It cannot be made, or another process works in it.
    """
    existed = folder.exists()
    make_folder(folder)
    try:
        with FolderLock(folder):
            yield
    finally:
        files = (path for path in folder.rglob("*") if not path.is_dir() and path.name != FolderLock.FILE_NAME)
        if not existed and not any(files):
            remove_folder(folder)


def save_network(network: Any, work: Path) -> None:
    """Write model.keras into the work folder, whole or not at all."""
    unfinished = work / ".model.tmp.keras"  # Keras demands this suffix
    network.save(unfinished)
    os.replace(unfinished, work / NETWORK_FILE)
