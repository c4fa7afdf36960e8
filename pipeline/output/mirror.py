"""A run folder in an object store: worked on as a local folder, and published object by object.

Everything that makes or reads a run folder works with files. So such a folder has a local copy for as long as a command
takes: what the store has is fetched, and what appears here is put there. A part is put as soon as it is there, and its
put is its done marker; everything else is put when run.json is written, and run.json last, so that it never speaks of
what is not there.
"""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath

from mribatch.core.errors import MribatchError, RunError
from mribatch.core.files import publishing, remove_folder
from mribatch.core.local_paths import utf8_path
from mribatch.pipeline.output.lease import is_claim
from mribatch.pipeline.output.part_hashes import record_part, recorded_hashes
from mribatch.pipeline.output.parts import PARTS_FOLDER, part_number, part_path, partial_path
from mribatch.pipeline.output.run_file import RUN_FILE
from mribatch.pipeline.storage.address import Address, is_address, local_path
from mribatch.pipeline.storage.store import (
    FIRST_PATIENCE_S,
    ObjectFacts,
    StoreError,
    delete_object,
    look_up,
    put_object,
    read_object,
    walk_files,
)

FIGURES_FOLDER = "figures"
_SIDE_BY_SIDE = 16  # objects that are fetched or put at once
_PRIVATE = ("paths.parquet", "pseudonym.key")  # readable by their owner only

Place = Path | Address


def place_of(folder: str | os.PathLike[str] | Address) -> Place:
    """Return a folder as a path, or as an address where it is in a store."""
    if isinstance(folder, Address):
        return folder
    return Address.parse(folder) if is_address(folder) else Path(local_path(folder))


class Mirror:
    """The local copy of a run folder in a store.

    Args:
        address: Of the run folder.
        path: An existing local folder.
    """

    def __init__(self, address: Address, path: Path) -> None:
        self.address = address
        self.path = path
        self._same: dict[str, tuple[int, int]] = {}  # name -> local size and time when both were the same
        self._fetched: dict[str, ObjectFacts] = {}  # name -> what the store said when it was fetched

    def names(self) -> dict[str, ObjectFacts]:
        """Everything in the store below the run folder, except claims.

        Raises:
            MribatchError: The store cannot be listed.
        """
        try:
            if look_up(self.address, FIRST_PATIENCE_S) is None:
                return {}
            return {name: facts for name, facts in walk_files(self.address) if not is_claim(name)}
        except StoreError as error:
            raise error.to_user(f"cannot read {self.address}") from error

    def fetch(self, wanted: Callable[[str], bool] | None = None) -> dict[str, ObjectFacts]:
        """Bring the local copy up to date, and return what is in the store.

        Args:
            wanted: Whether an object of this name is fetched; None: all that a run leaves.

        Raises:
            MribatchError: An object cannot be read.
        """
        wanted = wanted if wanted is not None else _is_of_run
        there = self.names()
        for name in set(self._fetched) - there.keys():
            (self.path / name).unlink(missing_ok=True)
            self._forget(name)
        missing = [name for name, facts in there.items() if wanted(name) and self._fetched.get(name) != facts]
        self._side_by_side(partial(self._fetch_one, there), missing, "read")
        return there

    def push(self, name: str) -> None:
        """Put one file, if it is here and the store has not the same.

        Raises:
            MribatchError: The store refuses.
        """
        if (self.path / name).is_file():
            self._side_by_side(self._push_one, [name], "write to")

    def sync(self) -> None:
        """Make the store's folder like the local one: first what is gone, then what is new, run.json last.

        Raises:
            MribatchError: The store refuses.
        """
        here = set(self._local_names())
        self._side_by_side(self._delete_one, sorted(self._same.keys() - here), "write to")
        self._side_by_side(self._push_one, sorted(here - {RUN_FILE}), "write to")
        self._side_by_side(self._push_one, sorted(here & {RUN_FILE}), "write to")

    def fetch_parts(self) -> None:
        """Fetch the parts that others have put, and record their hashes.

        Raises:
            MribatchError: The store cannot be read, or the local folder not written.
        """
        self.fetch(lambda name: name.startswith(f"{PARTS_FOLDER}/") and not (self.path / name).exists())
        recorded = recorded_hashes(self.path)
        for path in sorted((self.path / PARTS_FOLDER).glob("part-*.parquet")):
            part = part_number(path)
            if part is not None and part not in recorded:
                record_part(self.path, part, path.read_bytes())

    def _fetch_one(self, there: dict[str, ObjectFacts], name: str) -> None:
        _check_name(name)
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = read_object(self.address / name).data
        with publishing(path) as temporary:
            if PurePosixPath(name).name in _PRIVATE:
                os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT, 0o600))
            temporary.write_bytes(content)
        self._same[name] = _stamp(path)
        self._fetched[name] = there[name]

    def _push_one(self, name: str) -> None:
        path = self.path / name
        stamp = _stamp(path)
        if self._same.get(name) != stamp:
            put_object(self.address / name, path.read_bytes())
            self._same[name] = stamp

    def _delete_one(self, name: str) -> None:
        delete_object(self.address / name)
        self._forget(name)

    def _forget(self, name: str) -> None:
        self._same.pop(name, None)
        self._fetched.pop(name, None)

    def _local_names(self) -> Iterator[str]:
        """What a run leaves here for others: nothing of a walk under way, no lock, nothing half written."""
        for folder, folders, files in os.walk(self.path):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in files:
                if not name.startswith(".") or name.endswith(".partial"):
                    yield Path(folder, name).relative_to(self.path).as_posix()

    def _side_by_side(self, work: Callable[[str], None], names: Iterable[str], what: str) -> None:
        try:
            with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
                for _ in pool.map(work, names):
                    pass
        except StoreError as error:
            raise error.to_user(f"cannot {what} {self.address}") from error


@contextlib.contextmanager
def mirroring(address: Address) -> Iterator[Mirror]:
    """A Mirror in a temporary folder; errors name the address instead of that folder."""
    folder = Path(tempfile.mkdtemp(prefix="mribatch-"))
    try:
        with _naming(folder, address):
            yield Mirror(address, folder)
    finally:
        remove_folder(folder)


@contextlib.contextmanager
def run_copy(run: str | Place, *, writes: bool = False) -> Iterator[Path]:
    """A run folder to read, wherever it is: itself, or a local copy of what a store has.

    Args:
        run: A folder, or its address.
        writes: Whether new files in it are put into the store in the end.

    Raises:
        MribatchError: The store cannot be read, or written to.
    """
    place = place_of(run)
    if isinstance(place, Path):
        yield place
        return
    with mirroring(place) as mirror:
        if not mirror.fetch():
            raise RunError(f"there is no run in {place}", "name a folder that classify wrote")
        yield mirror.path
        if writes:
            mirror.sync()


def part_name(part: int) -> str:
    """The name of a part file in its run folder."""
    return part_path(Path(), part).as_posix()


def partial_name(part: int) -> str:
    """The name of the file that keeps the rows of an unfinished part."""
    return partial_path(Path(), part).as_posix()


@contextlib.contextmanager
def _naming(folder: Path, address: Address) -> Iterator[None]:
    try:
        yield
    except MribatchError as error:
        error.problem = error.problem.replace(str(folder), str(address))
        error.fix = error.fix.replace(str(folder), str(address))
        raise


def _is_of_run(name: str) -> bool:
    folder, slash, _ = name.partition("/")
    return not slash or folder in (PARTS_FOLDER, FIGURES_FOLDER)


def _check_name(name: str) -> None:
    """A store may hold names that no file can have, or that lead elsewhere."""
    if name.startswith("/") or ".." in name.split("/") or "\0" in name or "\\" in name:
        raise RunError(f"the run folder holds an object with the name '{name}'", "delete that object")
    utf8_path(name)


def _stamp(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns
