"""The files from which a killed fit resumes: its fingerprint, its state after the last epoch, its best weights."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mribatch.core.errors import MribatchError
from mribatch.core.files import publishing, write_json
from mribatch.training.fit.fingerprint import FitFingerprint
from mribatch.training.fit.history import Epoch

FINGERPRINT_FILE, STATE_FILE = "fit.json", "state.npz"
_FIX = "choose another --work folder"

Arrays = Mapping[str, NDArray[Any]]  # "network/0", "network/1", … "optimizer/0", … "average/0", …


@dataclass(frozen=True)
class FitState:
    """A fit after the last epoch of its history."""

    arrays: Arrays
    history: tuple[Epoch, ...]


class Checkpoints:
    """The checkpoints in the folder of one fit. Every file is whole or absent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def check_fingerprint(self, fingerprint: FitFingerprint) -> None:
        """Write the fingerprint into a new folder, or compare it with the one that is there.

        Raises:
            MribatchError: They differ; names the first field and both values.
        """
        path = self.folder / FINGERPRINT_FILE
        if not path.exists():
            if (self.folder / STATE_FILE).exists():
                raise MribatchError(f"{self.folder} holds a fit without its {FINGERPRINT_FILE}", _FIX)
            write_json(path, fingerprint.to_json())
            return
        try:
            known = FitFingerprint.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise MribatchError(f"cannot read {path}: {error}", _FIX) from error
        if difference := known.find_difference(fingerprint):
            name, before, now = difference
            raise MribatchError(
                f"the fit in {self.folder} was started with {name} = {before}, this command has {now}",
                "repeat the first command, or choose another --work folder",
            )

    def read_state(self) -> FitState | None:
        """Return the state after the last epoch; None before the first.

        Raises:
            MribatchError: The file is damaged.
        """
        path = self.folder / STATE_FILE
        if not path.exists():
            return None
        arrays = self._read(path)
        try:
            history = tuple(Epoch.from_json(row) for row in json.loads(str(arrays.pop("history"))))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise MribatchError(f"cannot read {path}: {error}", _FIX) from error
        return FitState(arrays, history)

    def write_state(self, arrays: Arrays, history: Sequence[Epoch]) -> None:
        """Replace the state."""
        rows = json.dumps([row.to_json() for row in history])
        self.write(STATE_FILE, {**arrays, "history": np.array(rows)})

    def read_best(self, epoch: int) -> Arrays:
        """Return the weights of the best epoch.

        Raises:
            MribatchError: The file is damaged or missing.
        """
        return self._read(self.folder / _best_file(epoch))

    def write_best(self, epoch: int, arrays: Arrays) -> None:
        """Keep the weights of an epoch in a file of their own."""
        self.write(_best_file(epoch), arrays)

    def remove_best_except(self, epoch: int) -> None:
        """Delete the weights of epochs that are no longer the best."""
        for path in self.folder.glob(_best_file("*")):
            if path.name != _best_file(epoch):
                path.unlink()

    def remove(self) -> None:
        """Delete all checkpoints; everything else in the folder stays."""
        for name in (STATE_FILE, FINGERPRINT_FILE):
            (self.folder / name).unlink(missing_ok=True)
        for path in self.folder.glob(_best_file("*")):
            path.unlink(missing_ok=True)

    def write(self, name: str, arrays: Arrays) -> None:
        """Replace one file of arrays."""
        with publishing(self.folder / name) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]

    def _read(self, path: Path) -> dict[str, NDArray[Any]]:
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise MribatchError(f"cannot read {path}: {error}", _FIX) from error


def _best_file(epoch: int | str) -> str:
    return f"best-{epoch}.npz"
