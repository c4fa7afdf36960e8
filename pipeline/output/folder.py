"""The output folder: whose it is, what was asked of it, and how far it has come.

run.json is the first file of a run and names every field that must be the same for the run to go on.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Any

from mribatch.core.errors import MribatchError
from mribatch.core.files import FolderLock, write_json
from mribatch.pipeline.listing.table import LISTING_FILE, SKIPPED_FILE
from mribatch.pipeline.output.parts import PARTS_FOLDER

RUN_FILE = "run.json"
CSV_FILE = "predictions.csv"
DISCOVERY_DATABASE, LABELS_DATABASE = ".discovery.sqlite", ".labels.sqlite"
WORKER_LOG = "worker.log"  # what the libraries of the worker process print, and how it ended
FRESH_FOLDER = ".fresh"  # a new listing, until it is known to fit
_TOOL = "mribatch"
# What a run leaves in its folder and --overwrite may delete; anything else there is the user's. WORKER_LOG, too, but
# only before the new run's worker writes to it.
_OWN_FILES = (
    LISTING_FILE,
    SKIPPED_FILE,
    CSV_FILE,
    "metrics.parquet",
    "metrics.json",
    "report.md",
    "patients.parquet",
    DISCOVERY_DATABASE,
    LABELS_DATABASE,
)
_OWN_FOLDERS = (PARTS_FOLDER, "figures", FRESH_FOLDER)


# What a run that was killed at its very beginning may leave without a run.json.
_BEFORE_RUN_FILE = (FolderLock.FILE_NAME, FRESH_FOLDER, WORKER_LOG, f".{RUN_FILE}.tmp")


class RunState(StrEnum):
    LISTING = "listing"  # the inputs are being walked
    RUNNING = "running"  # also what a killed run says
    INTERRUPTED = "interrupted"  # by a signal
    STOPPED = "stopped"  # by an error
    COMPLETE = "complete"  # rows == files was checked


@dataclass(frozen=True)
class Fingerprint:
    """What must be equal for rows of two processes to stand in one run. Values are JSON scalars."""

    fields: Mapping[str, Any]

    @property
    def run_id(self) -> str:
        """Short hash that every part carries."""
        return sha256(json.dumps(dict(self.fields), sort_keys=True).encode()).hexdigest()[:32]

    def difference(self, earlier: Mapping[str, Any]) -> str | None:
        """The first field that differs from an earlier run's, with both values; None where all are equal."""
        for key, value in self.fields.items():
            if earlier.get(key) != value:
                return f"{key} was {_short(earlier.get(key))}, now it is {_short(value)}"
        return None


class RunFolder:
    """One output folder. Reading never changes it; `claim` and `overwrite` are called under its lock."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Any] | None:
        """The content of run.json, or None where there is none.

        Raises:
            MribatchError: There is a run.json that is not ours.
        """
        path = self.path / RUN_FILE
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise self._not_ours(f"its {RUN_FILE} cannot be read: {error}") from error
        if not isinstance(content, dict) or content.get("tool") != _TOOL:
            raise self._not_ours(f"its {RUN_FILE} was not written by mribatch")
        if content.get("state") not in list(RunState) or not isinstance(content.get("fingerprint"), dict):
            raise self._not_ours(f"its {RUN_FILE} has no state or fingerprint that this version knows")
        return content

    def check_free(self) -> dict[str, Any] | None:
        """Refuse a place that holds anything but a run of ours; return that run's run.json, if any.

        Raises:
            MribatchError: Not a folder, or a folder with other files in it.
        """
        if not self.path.exists() and not self.path.is_symlink():
            return None
        if not self.path.is_dir():
            raise MribatchError(f"--out {self.path} is not a folder", "name a folder that is new or empty")
        content = self.read()
        others = [] if content else [entry.name for entry in self.path.iterdir() if entry.name not in _BEFORE_RUN_FILE]
        if others:
            raise self._not_ours(f"it holds '{min(others)}' and no {RUN_FILE}")
        return content

    def write(self, content: Mapping[str, Any]) -> None:
        """Replace run.json."""
        write_json(self.path / RUN_FILE, {"tool": _TOOL} | dict(content))

    def overwrite(self) -> None:
        """Delete what an earlier run of ours left, and nothing else. run.json goes last, so that it stays ours."""
        content = self.read()
        if content is None:
            return
        self.write(content | {"state": RunState.LISTING})
        for name in _OWN_FOLDERS:
            shutil.rmtree(self.path / name, ignore_errors=True)
        for name in _OWN_FILES:
            (self.path / name).unlink(missing_ok=True)
        (self.path / RUN_FILE).unlink(missing_ok=True)

    def _not_ours(self, reason: str) -> MribatchError:
        return MribatchError(
            f"--out {self.path} is not a run folder of mribatch: {reason}", "name a folder that is new or empty"
        )


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return f"{text[:12]}…" if len(text) > 40 else text
