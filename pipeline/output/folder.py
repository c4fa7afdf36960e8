"""The output folder of a run: whether it is ours, and whether an earlier run in it may be resumed.

run.json is the first file of a run and names every field that must be the same for the run to be resumed.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from mribatch.core.errors import RunError, WriteError
from mribatch.core.files import FolderLock, remove_folder, write_json
from mribatch.pipeline.listing.table import LISTING_FILE, PATHS_FILE, SKIPPED_FILE
from mribatch.pipeline.output.difference import describe_difference
from mribatch.pipeline.output.lease import Lease
from mribatch.pipeline.output.mirror import FIGURES_FOLDER, Mirror, Place, mirroring, part_name, place_of
from mribatch.pipeline.output.part_hashes import HASHES_FILE
from mribatch.pipeline.output.parts import PARTS_FOLDER
from mribatch.pipeline.output.run_file import (
    RUN_FILE,
    ForeignRunFile,
    JsonScalar,
    RunFile,
    RunState,
    parse_run_file,
    read_run_bytes,
)

KEY_FILE = "pseudonym.key"  # only where the run has pseudonyms of its own
CSV_FILE, XLSX_FILE = "predictions.csv", "predictions.xlsx"
LISTING_KEY = "listing"  # of the fingerprint: the hash of the listing
DISCOVERY_DATABASE, LABELS_DATABASE = ".discovery.sqlite", ".labels.sqlite"
WORKER_LOG = "worker.log"  # what the libraries of the worker process print, and how it ended
FRESH_FOLDER = ".fresh"  # a new listing, until it is known to fit
# What a run leaves in its folder and --overwrite may delete; anything else there is the user's. WORKER_LOG, too, but
# only before the new run's worker writes to it.
_FROM_ROWS = (
    CSV_FILE,
    XLSX_FILE,
    "metrics.parquet",
    "metrics.json",
    "report.md",
    "report.html",
    "patients.parquet",
    "series.parquet",
    "patients.csv",
)  # copies and figures
_OWN_FILES = (
    LISTING_FILE,
    SKIPPED_FILE,
    *_FROM_ROWS,
    PATHS_FILE,
    KEY_FILE,
    HASHES_FILE,
    DISCOVERY_DATABASE,
    LABELS_DATABASE,
)
_OWN_FOLDERS = (PARTS_FOLDER, FIGURES_FOLDER, FRESH_FOLDER)
_NEW_FOLDER = "name a folder that is new or empty"

# What a run that was killed at its very beginning may leave without a run.json.
_BEFORE_RUN_FILE = (FolderLock.FILE_NAME, FRESH_FOLDER, WORKER_LOG, KEY_FILE, f".{KEY_FILE}.tmp", f".{RUN_FILE}.tmp")


@dataclass(frozen=True)
class Fingerprint:
    """What must be equal for the rows of two processes to belong to one run."""

    fields: Mapping[str, JsonScalar]

    @property
    def run_id(self) -> str:
        """Short hash that every part carries."""
        return sha256(json.dumps(dict(self.fields), sort_keys=True).encode()).hexdigest()[:32]

    def difference(self, earlier: Mapping[str, JsonScalar]) -> "Difference | None":
        """Return the first field that differs from an earlier run's; None where all are equal."""
        keys = {**self.fields, **earlier}  # also what only the earlier run asked for; the listing last: it says least
        for key in sorted(keys, key=lambda key: key == LISTING_KEY):
            if earlier.get(key) != self.fields.get(key):
                return Difference(key, earlier.get(key), self.fields.get(key))
        return None


@dataclass(frozen=True)
class Difference:
    """A field of the fingerprint with the value of the earlier run and that of today."""

    key: str
    earlier: JsonScalar
    now: JsonScalar

    def __str__(self) -> str:
        return describe_difference(self.key, self.earlier, self.now)


class RunFolder:
    """One output folder. Reading never changes it; `write` and `overwrite` are called under its lock.

    Args:
        path: Of the folder, or of its local copy.
        mirror: Where it is in a store; None: it is on this machine.
    """

    def __init__(self, path: Path, mirror: Mirror | None = None) -> None:
        self.path = path
        self._mirror = mirror
        self._lock: FolderLock | None = None
        self._lease: Lease | None = None

    @property
    def place(self) -> Place:
        """Where the results are for everyone else."""
        return self.path if self._mirror is None else self._mirror.address

    @property
    def address(self) -> str | None:
        """Its address in a store; None: it is on this machine."""
        return None if self._mirror is None else str(self._mirror.address)

    @contextlib.contextmanager
    def locked(self, note: Callable[[str], None]) -> Iterator[None]:
        """Keep other processes out while entered; what is in a store is fetched first.

        Args:
            note: Receives a line where it must wait for the owner of a folder in a store.

        Raises:
            FolderLockedError, NoLocksError, WriteError: As FolderLock and Lease.
            FolderGoneError: In place of an error that a removed folder leads to.
        """
        with FolderLock(self.path) as self._lock, self._leased(note):
            try:
                yield
            except (WriteError, RunError, OSError):
                self.check_lock()
                raise
            finally:
                self._lock = self._lease = None

    @contextlib.contextmanager
    def _leased(self, note: Callable[[str], None]) -> Iterator[None]:
        if self._mirror is None:
            yield
            return
        with Lease(self._mirror.address, note) as self._lease:
            self._mirror.fetch()
            yield

    def published(self, part: int) -> None:
        """Put a part that is there now into the store.

        Raises:
            FolderGoneError: As `check_lock`.
            MribatchError: The store refuses.
        """
        if self._mirror is not None:
            self.check_lock()
            self._mirror.push(part_name(part))

    def collect(self) -> None:
        """Fetch the parts that other machines have put into the store."""
        if self._mirror is not None:
            self._mirror.fetch_parts()

    def synchronise(self) -> None:
        """Put everything into the store that is not there yet."""
        if self._mirror is not None:
            self.check_lock()
            self._mirror.sync()

    def check_lock(self) -> None:
        """Make sure that the folder is still the one that was locked.

        Raises:
            FolderGoneError: It was removed or replaced.
        """
        if self._lock is not None:
            self._lock.check()
        if self._lease is not None:
            self._lease.check()

    def read(self) -> RunFile | None:
        """Return run.json, or None where there is none.

        Raises:
            RunError: There is a run.json that is damaged or not ours.
        """
        try:
            return parse_run_file(read_run_bytes(self.path / RUN_FILE))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._not_ours(f"its {RUN_FILE} cannot be read: {error}") from error
        except ForeignRunFile as error:
            raise self._not_ours(str(error)) from error
        except ValueError as error:
            raise self._not_ours(f"its {RUN_FILE} is damaged or of another version: {error}") from error

    def check_free(self) -> RunFile | None:
        """Refuse a place that holds anything but a run of ours; return that run's run.json, if any.

        Raises:
            RunError: Not a folder, or a folder with other files in it.
        """
        if not self.path.exists() and not self.path.is_symlink():
            return None
        if not self.path.is_dir():
            raise RunError(f"{self.path} is not a folder", _NEW_FOLDER)
        names = self._names()
        content = self.read()
        others = [] if content else [name for name in names if name not in _BEFORE_RUN_FILE]
        if others:
            raise self._not_ours(f"it holds '{min(others)}' and no {RUN_FILE}")
        return content

    def _names(self) -> set[str]:
        """What is in the folder. Of one in a store, run.json is fetched, unless everything was already."""
        if self._mirror is None or self._lease is not None:
            return {entry.name for entry in self.path.iterdir()}
        return {name.partition("/")[0] for name in self._mirror.fetch(lambda name: name == RUN_FILE)}

    def write(self, content: RunFile) -> None:
        """Replace run.json; in a store, after everything else that is new.

        Raises:
            FolderGoneError: As `check_lock`.
            WriteError: The file system refused.
        """
        self.check_lock()
        write_json(self.path / RUN_FILE, content.to_json())
        if self._mirror is not None:
            self._mirror.sync()

    def overwrite(self) -> None:
        """Delete what an earlier run of ours left, and nothing else. run.json goes last, so that it stays ours."""
        content = self.read()
        if content is None:
            return
        self.write(replace(content, state=RunState.LISTING))
        for name in _OWN_FOLDERS:
            remove_folder(self.path / name)
        for name in _OWN_FILES:
            (self.path / name).unlink(missing_ok=True)
        (self.path / RUN_FILE).unlink(missing_ok=True)

    def remove_copies(self) -> None:
        """Delete what was made from all rows, before more rows come: a copy or a report of fewer would mislead."""
        remove_folder(self.path / FIGURES_FOLDER)
        for name in _FROM_ROWS:
            (self.path / name).unlink(missing_ok=True)

    def _not_ours(self, reason: str) -> RunError:
        return RunError(f"{self.path} is not a run folder of mribatch: {reason}", _NEW_FOLDER)


@contextlib.contextmanager
def open_run_folder(out: str | Place) -> Iterator[RunFolder]:
    """The output folder that a user names: a path, or an address in a store."""
    place = place_of(out)
    if isinstance(place, Path):
        yield RunFolder(place)
    else:
        with mirroring(place) as mirror:
            yield RunFolder(mirror.path, mirror)
