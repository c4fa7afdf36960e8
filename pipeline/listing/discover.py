"""Inputs -> every file once, in a stable order. The first step of the pipeline.

Names are collected into a small on-disk database and read back sorted, so that memory does not grow with the number
of files, not even for millions of names in one folder.

Order: inputs as typed; lines of a list as listed; within an input the raw bytes of the relative path.
"""

import contextlib
import glob
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from mribatch.core.errors import MribatchError
from mribatch.core.text import decode_name

IMAGE_SUFFIXES = (b".jpg", b".jpeg", b".jpe", b".png", b".bmp", b".tif", b".tiff", b".webp", b".jp2")
DICOM_SUFFIXES = (b".dcm", b".dicom", b".ima")
NIFTI_SUFFIXES = (b".nii", b".nii.gz")
MAX_INPUTS = 32_767  # `input` is an int16 column

_MAX_VISITS_OF_A_FOLDER = 16  # folders linked to each other could otherwise be walked exponentially often
_SQLITE_CACHE_KIB = 4096  # bounds the memory of sorting; the rest spills to disk
_FILES_BETWEEN_CALLS = 512  # files between two progress reports


class SkipReason(StrEnum):
    """Why a file that was seen is not in the listing. Documented in docs/reference/parquet-schema.md."""

    SUFFIX = "suffix"  # its name does not end like an image's
    DICOM = "dicom"  # not supported yet
    NIFTI = "nifti"  # not supported yet
    DUPLICATE = "duplicate"  # the same real path was listed under an earlier name
    SYMLINK_LOOP = "symlink_loop"  # a folder that contains itself through a link
    UNREADABLE_FOLDER = "unreadable_folder"  # its files could not be listed


class InputKind(StrEnum):
    FOLDER = "folder"
    FILE = "file"
    GLOB = "glob"
    LIST = "list"


@dataclass(frozen=True)
class Input:
    """One INPUT of the command line, resolved against the file system."""

    kind: InputKind
    text: str  # as typed, escaped where not UTF-8
    root: bytes  # absolute folder that this input's paths are relative to
    name: bytes = b""  # FILE: its name in root; GLOB: the absolute pattern; LIST: the file with the names, b"-" stdin


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file as the walk saw it. `size` and `mtime_ns` are None where the file could not be asked."""

    input: int
    path: bytes  # relative to the input's root, with "/"
    size: int | None
    mtime_ns: int | None
    skipped: SkipReason | None = None
    detail: str | None = None


OnFiles = Callable[[int], None]  # called now and then with the number of files seen so far


def ignore_files(seen: int) -> None:
    """Do nothing with the number of files seen."""


def resolve_inputs(inputs: Sequence[str | Path], from_file: str | None = None) -> tuple[Input, ...]:
    """Tell folders, files, patterns and lists apart. An existing name is never taken for a pattern.

    Raises:
        MribatchError: An input does not exist, matches nothing, or there are none or too many.
    """
    resolved = [_resolve(os.fsencode(item)) for item in inputs]
    if from_file is not None:
        if from_file != "-" and not os.path.isfile(from_file):
            raise MribatchError(f"there is no list '{from_file}'", "give a text file with one path per line, or -")
        resolved.append(Input(InputKind.LIST, from_file, os.fsencode(os.getcwd()), os.fsencode(from_file)))
    if not resolved:
        raise MribatchError(
            "there is nothing to classify", "name a folder, files or a pattern, or give a list of files"
        )
    if len(resolved) > MAX_INPUTS:
        raise MribatchError(
            f"{len(resolved):,} inputs are more than the {MAX_INPUTS:,} allowed", "give the names in a list of files"
        )
    return tuple(resolved)


class Discovery:
    """A walk over all inputs, kept in an on-disk database while this context is open.

    Args:
        inputs: From `resolve_inputs`.
        database: Where the names are kept; removed at the end and replaced at the start.
        excluded: A folder that is not entered (the run's own output), or None.
    """

    def __init__(self, inputs: Sequence[Input], database: Path, excluded: Path | None = None) -> None:
        self._inputs = inputs
        self._database = database
        self._excluded = os.path.realpath(os.fsencode(excluded)) if excluded is not None else None

    def __enter__(self) -> Self:
        self._database.unlink(missing_ok=True)
        self._connection = sqlite3.connect(self._database, isolation_level=None)
        for statement in (
            "PRAGMA journal_mode=OFF",
            "PRAGMA synchronous=OFF",
            "PRAGMA temp_store=FILE",
            f"PRAGMA cache_size=-{_SQLITE_CACHE_KIB}",
            "CREATE TABLE found (input INTEGER, line INTEGER, path BLOB, real BLOB, size INTEGER, mtime_ns INTEGER,"
            " skipped TEXT, detail TEXT)",
            "CREATE TABLE seen (real BLOB PRIMARY KEY) WITHOUT ROWID",
        ):
            self._connection.execute(statement)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        self._database.unlink(missing_ok=True)

    def files(self, on_files: OnFiles = ignore_files) -> Iterator[FoundFile]:
        """Every file of every input, candidates and skipped ones, in listing order. Walks when first asked."""
        self._collect(on_files)
        rows = self._connection.execute("SELECT * FROM found ORDER BY input, line, path")
        for position, _, path, real, size, mtime_ns, skipped, detail in rows:
            reason = SkipReason(skipped) if skipped else None
            if reason is None and not self._is_first(real):
                reason = SkipReason.DUPLICATE
            yield FoundFile(position, path, size, mtime_ns, reason, detail)

    def _is_first(self, real: bytes) -> bool:
        return self._connection.execute("INSERT OR IGNORE INTO seen VALUES (?)", (real,)).rowcount == 1

    def _collect(self, on_files: OnFiles) -> None:
        self._connection.execute("DELETE FROM found")
        self._connection.execute("BEGIN")
        self._connection.executemany("INSERT INTO found VALUES (?, ?, ?, ?, ?, ?, ?, ?)", self._rows(on_files))
        self._connection.execute("COMMIT")

    def _rows(self, on_files: OnFiles) -> Iterator[tuple[object, ...]]:
        seen = 0
        for position, item in enumerate(self._inputs):
            for line, entry in _walk_input(item, self._excluded):
                yield (
                    position,
                    line,
                    entry.path,
                    _hash_path(entry.real),
                    entry.size,
                    entry.mtime_ns,
                    entry.skipped,
                    entry.detail,
                )
                seen += 1
                if seen % _FILES_BETWEEN_CALLS == 0:
                    on_files(seen)
        on_files(seen)


def has_candidate(inputs: Sequence[Input], excluded: Path | None) -> bool:
    """Whether any input holds at least one candidate; stops at the first. A list on stdin is taken to."""
    own = os.path.realpath(os.fsencode(excluded)) if excluded is not None else None
    for item in inputs:
        if item.kind is InputKind.LIST and item.name == b"-":
            return True
        if any(entry.skipped is None for _, entry in _walk_input(item, own)):
            return True
    return False


@dataclass(frozen=True, slots=True)
class _Entry:
    path: bytes
    real: bytes
    size: int | None
    mtime_ns: int | None
    skipped: SkipReason | None = None
    detail: str | None = None


def _hash_path(real: bytes) -> bytes:
    return blake2b(real, digest_size=16).digest()


def _resolve(name: bytes) -> Input:
    text = decode_name(name)[0]
    absolute = os.path.abspath(name)
    if os.path.isdir(name):
        return Input(InputKind.FOLDER, text, absolute)
    if os.path.lexists(name):
        return Input(InputKind.FILE, text, os.path.dirname(absolute), os.path.basename(absolute))
    if glob.has_magic(name):
        if next(glob.iglob(absolute, recursive=True, include_hidden=True), None) is None:
            raise MribatchError(f"the pattern '{text}' matches nothing", "check the pattern and the current folder")
        return Input(InputKind.GLOB, text, _fixed_folder(absolute), absolute)
    raise MribatchError(f"there is no file or folder '{text}'", "check the path and the current folder")


def _fixed_folder(pattern: bytes) -> bytes:
    """The longest leading folder of a pattern that has no wildcard in it."""
    folder = os.path.dirname(pattern)
    while glob.has_magic(folder):
        folder = os.path.dirname(folder)
    return folder


def _walk_input(item: Input, excluded: bytes | None) -> Iterator[tuple[int, _Entry]]:
    """Yield (line, entry): line is the place in a list, 0 elsewhere."""
    if item.kind is InputKind.FILE:
        yield 0, _named_file(item.root, item.name)
    elif item.kind is InputKind.FOLDER:
        yield from ((0, entry) for entry in _walk_folder(item.root, b"", excluded))
    elif item.kind is InputKind.GLOB:
        yield from ((0, entry) for entry in _walk_matches(item, excluded))
    else:
        with _open_list(item.name) as lines:
            for number, line in enumerate(lines):
                name = line.rstrip(b"\r\n")
                if b"\0" in name:
                    raise MribatchError(
                        f"line {number + 1} of the list {item.text} holds a NUL byte",
                        "give one path per line (find -print)",
                    )
                if name and os.path.isdir(os.path.join(item.root, name)):
                    yield from ((number, entry) for entry in _walk_folder(item.root, name.rstrip(b"/"), excluded))
                elif name:
                    yield number, _named_file(item.root, name)


def _open_list(name: bytes) -> contextlib.AbstractContextManager[BinaryIO]:
    if name == b"-":
        import sys

        return contextlib.nullcontext(sys.stdin.buffer)
    return Path(os.fsdecode(name)).open("rb")


def _walk_matches(item: Input, excluded: bytes | None) -> Iterator[_Entry]:
    for match in glob.iglob(item.name, recursive=True, include_hidden=True):
        relative = os.path.relpath(match, item.root)
        if not os.path.isdir(match):
            entry = _named_file(item.root, relative)
            yield _Entry(entry.path, entry.real, entry.size, entry.mtime_ns, _reason_by_name(relative))
        elif b"**" not in item.name:  # "**" already reaches what lies in a matching folder
            yield from _walk_folder(item.root, relative, excluded)


def _named_file(root: bytes, name: bytes) -> _Entry:
    """A file named outright is a candidate whatever its suffix, also when it is not there: it earns its row."""
    full = os.path.join(root, name)
    size = mtime_ns = None
    with contextlib.suppress(OSError):
        facts = os.stat(full)
        size, mtime_ns = facts.st_size, facts.st_mtime_ns
    return _Entry(name, os.path.realpath(full), size, mtime_ns)


def _walk_folder(root: bytes, start: bytes, excluded: bytes | None) -> Iterator[_Entry]:
    """Walk `root/start`; symbolic links are followed, a folder inside itself is not entered again."""
    start_real = os.path.realpath(os.path.join(root, start))
    waiting: list[tuple[bytes, bytes, tuple[bytes, ...]]] = [(start, start_real, ())]
    visits: dict[bytes, int] = {}
    while waiting:
        relative, real, linked_from = waiting.pop()
        if real == excluded:
            continue
        loop = any(real == above or above.startswith(real.rstrip(b"/") + b"/") for above in linked_from)
        visits[real] = visits.get(real, 0) + 1
        if loop or visits[real] > _MAX_VISITS_OF_A_FOLDER:
            yield _Entry(relative + b"/", real, None, None, SkipReason.SYMLINK_LOOP)
            continue
        try:
            with os.scandir(os.path.join(root, relative) if relative else root) as entries:
                for entry in entries:
                    path = os.path.join(relative, entry.name)
                    if not _is_folder(entry):
                        yield _file_entry(entry, path, real)
                    elif entry.is_symlink():
                        waiting.append((path, os.path.realpath(entry.path), (*linked_from, real)))
                    else:
                        waiting.append((path, os.path.join(real, entry.name), linked_from))
        except OSError as error:
            shown = error.strerror or str(error)
            yield _Entry(relative + b"/", real, None, None, SkipReason.UNREADABLE_FOLDER, shown)


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that cannot be followed is a file that cannot be read
        return False


def _file_entry(entry: os.DirEntry[bytes], path: bytes, folder_real: bytes) -> _Entry:
    reason = _reason_by_name(entry.name)
    if reason is not None:
        return _Entry(path, b"", None, None, reason)
    real = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(folder_real, entry.name)
    size = mtime_ns = None
    with contextlib.suppress(OSError):
        facts = entry.stat()
        size, mtime_ns = (facts.st_size, facts.st_mtime_ns) if stat.S_ISREG(facts.st_mode) else (None, None)
    return _Entry(path, real, size, mtime_ns)


def _reason_by_name(name: bytes) -> SkipReason | None:
    lower = name.lower()
    if lower.endswith(IMAGE_SUFFIXES):
        return None
    if lower.endswith(DICOM_SUFFIXES):
        return SkipReason.DICOM
    if lower.endswith(NIFTI_SUFFIXES):
        return SkipReason.NIFTI
    return SkipReason.SUFFIX
