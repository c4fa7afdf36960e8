"""The work folder itself, and the network that is saved in it."""

import os
from pathlib import Path
from typing import Any

from mribatch.core.errors import MribatchError

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


def save_network(network: Any, work: Path) -> None:
    """Write model.keras into the work folder, whole or not at all."""
    unfinished = work / ".model.tmp.keras"  # Keras demands this suffix
    network.save(unfinished)
    os.replace(unfinished, work / NETWORK_FILE)
