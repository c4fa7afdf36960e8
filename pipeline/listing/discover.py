"""Inputs -> every file once, in a stable order. The first step of the pipeline.

Names are collected into a small on-disk database and read back sorted, so that memory does not grow with the number
of files, not even for millions of names in one folder. Files that may be DICOM or NIfTI are then looked into.

Order: inputs as typed; lines of a list as listed; within an input the raw bytes of the relative path.
"""

import contextlib
import glob
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

from mribatch.core.errors import MribatchError, OptionError
from mribatch.core.regular_file import ask_again
from mribatch.core.scratch_database import open_scratch
from mribatch.core.system_errors import describe, is_system_error, reading
from mribatch.core.text import decode_name
from mribatch.pipeline.listing.archives import expand
from mribatch.pipeline.listing.entry import IMAGE_SUFFIXES, Entry, Scope, SkipReason, judge_name, left_out_folder
from mribatch.pipeline.listing.headers import (
    HeaderReader,
    Look,
    StudyEntry,
    UnreadFile,
    WrittenEntry,
    read_entry,
)
from mribatch.pipeline.listing.name_list import read_names
from mribatch.pipeline.listing.objects import name_object, name_objects, walk_objects
from mribatch.pipeline.listing.other_programs import describe_folder
from mribatch.pipeline.listing.patterns import PathPatterns
from mribatch.pipeline.records import Status
from mribatch.pipeline.storage.address import Address, is_address, join, local_path, locate
from mribatch.pipeline.storage.archive import ARCHIVE_SUFFIXES, SHARD_SUFFIXES
from mribatch.pipeline.storage.store import FIRST_PATIENCE_S, StoreError, check_bucket, look_up, open_object
from mribatch.pipeline.studies.facts import NotAnImage, StudyFormat

RANGE_SAMPLES = 16  # images of a series that its range of values is taken from
MAX_INPUTS = 32_767  # `input` is an int16 column

_MAX_VISITS_OF_A_FOLDER = 16  # folders linked to each other could otherwise be walked exponentially often
_SQLITE_CACHE_KIB = 4096  # bounds the memory of sorting; the rest spills to disk
_STDIN = b"-"  # as the name of a list
_NAMES_AT_ONCE = 256  # of a list
_FILES_BETWEEN_CALLS = 512  # files between two progress reports


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
    null: bool = False  # LIST: NUL bytes end the names
    once: bool = False  # LIST: standard input or a pipe, whose names can be read only once
    archives: bool = False  # tar and zip files stand for what is in them

    @property
    def identity(self) -> tuple[str, str, str]:
        """What must be equal to resume a run. All pipes are: the same command may get another /dev/fd/63 next time."""
        name = _STDIN if self.once else self.name
        return self.kind, decode_name(self.root)[0], decode_name(name)[0]


@dataclass(frozen=True, slots=True)
class FoundStudy:
    """What the header of a DICOM or NIfTI file says, under pseudonyms."""

    header: StudyEntry
    sampled: tuple[bool, ...]  # per slice: whether the range of values of its series is taken from it


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file as the walk saw it. `size` and `mtime_ns` are None where the file could not be asked."""

    input: int
    path: bytes  # relative to the input's root, with "/"
    size: int | None
    mtime_ns: int | None
    skipped: SkipReason | None = None
    detail: str | None = None
    study: FoundStudy | None = None  # None: a plain image, or skipped
    fault: str | None = None  # what the file system said instead of the size; None where it answered
    member: str | None = None  # where it is in its archive; None: it is in none

    @property
    def images(self) -> int:
        """Rows that the file has."""
        return len(self.study.sampled) if self.study is not None else int(self.skipped is None)


class ListingProgress(Protocol):
    """Told now and then how far a listing has come."""

    def listed(self, files: int) -> None:
        """So many files have been seen."""

    def read_headers(self, files: int, total: int) -> None:
        """So many of the files that may be DICOM or NIfTI have been looked into."""


class NoListingProgress:
    """Does nothing with what it is told."""

    def listed(self, files: int) -> None: ...

    def read_headers(self, files: int, total: int) -> None: ...


def resolve_inputs(
    inputs: Sequence[str | Path], from_file: str | None = None, *, null: bool = False, archives: bool = False
) -> tuple[Input, ...]:
    """Tell folders, files, patterns, lists and addresses apart. An existing name is never taken for a pattern.

    Args:
        inputs: As the user gave them.
        from_file: File or pipe with one more name per line, "-" for standard input, or None.
        null: Whether the names in that file end with NUL bytes instead of line feeds.
        archives: Whether tar and zip files stand for what is in them.

    Raises:
        MribatchError: An input does not exist, matches nothing, or there are none or too many.
    """
    resolved = [_resolve(os.fsencode(local_path(item))) for item in inputs]
    if from_file is not None:
        resolved.append(_resolve_list(from_file, null=null))
    if not resolved:
        raise OptionError("there is nothing to classify", "name a folder, files or a pattern, or give a list of files")
    if len(resolved) > MAX_INPUTS:
        raise MribatchError(
            f"{len(resolved):,} inputs are more than the {MAX_INPUTS:,} allowed", "give the names in a list of files"
        )
    return tuple(replace(item, archives=archives) for item in resolved)


def come_from_afar(inputs: Sequence[Input]) -> bool:
    """Whether files are read over a network: of a list, its first name tells, unless it can be read only once."""
    return any(is_address(item.root) or (item.kind is InputKind.LIST and _names_address(item)) for item in inputs)


def _names_address(item: Input) -> bool:
    if item.once:
        return False
    with _open_list(item.name) as stream:
        return any(is_address(name) for _, name in islice(read_names(stream, item.text, null=item.null), 1))


NO_PATTERNS = PathPatterns()


class Discovery:
    """A walk over all inputs, kept in an on-disk database while this context is open.

    Args:
        inputs: From `resolve_inputs`.
        database: Where the names are kept; removed at the end and replaced at the start.
        excluded: A folder that is not entered (the run's own output), or None.
        patterns: What the user leaves out.
        headers: Looks into files that may be DICOM or NIfTI; None: they are skipped.
    """

    def __init__(
        self,
        inputs: Sequence[Input],
        database: Path,
        excluded: Path | Address | None = None,
        patterns: PathPatterns = NO_PATTERNS,
        headers: HeaderReader | None = None,
    ) -> None:
        self._headers = headers
        self._inputs = inputs
        self._database = database
        self._scope = Scope.of(excluded, patterns)

    def __enter__(self) -> Self:
        self._connection = open_scratch(self._database, _SQLITE_CACHE_KIB)
        for statement in (
            "CREATE TABLE found (input INTEGER, line INTEGER, path BLOB, real BLOB, size INTEGER, mtime_ns INTEGER,"
            " skipped TEXT, detail TEXT, look INTEGER, fault TEXT, member TEXT)",
            "CREATE TABLE seen (real BLOB PRIMARY KEY) WITHOUT ROWID",
            "CREATE TABLE headers (file INTEGER PRIMARY KEY, skipped TEXT, detail TEXT, content TEXT)",
            "CREATE TABLE series (series TEXT PRIMARY KEY, images INTEGER, given INTEGER, needed INTEGER)"
            " WITHOUT ROWID",
        ):
            self._connection.execute(statement)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        self._database.unlink(missing_ok=True)

    def files(self, progress: ListingProgress | None = None) -> Iterator[FoundFile]:
        """Every file of every input, candidates and skipped ones, in listing order. Walks when first asked."""
        progress = progress if progress is not None else NoListingProgress()
        self._collect(progress)
        if self._headers is not None:
            self._read_headers(self._headers, progress)
        rows = self._connection.execute(
            "SELECT input, path, size, mtime_ns, real, found.skipped, found.detail, look, fault,"
            " member, headers.*"
            " FROM found LEFT JOIN headers ON headers.file = found.rowid ORDER BY input, line, path, found.rowid"
        )
        for position, path, size, mtime_ns, real, skipped, detail, look, fault, member, *header in rows:
            if header[0] is not None:
                yield FoundFile(position, path, size, mtime_ns, *self._found_study(*header[1:]), fault, member)
                continue
            reason = SkipReason(skipped) if skipped else None
            if reason is None and look and self._headers is None:
                reason = SkipReason.SUFFIX
            if reason is None and not self._is_first(real):
                reason = SkipReason.DUPLICATE
            yield FoundFile(position, path, size, mtime_ns, reason, detail, fault=fault, member=member)

    def _is_first(self, real: bytes) -> bool:
        return self._connection.execute("INSERT OR IGNORE INTO seen VALUES (?)", (real,)).rowcount == 1

    def _found_study(
        self, skipped: str | None, detail: str | None, content: str
    ) -> tuple[SkipReason | None, str | None, FoundStudy | None]:
        if skipped is not None:
            return SkipReason(skipped), detail, None
        header = read_entry(content)
        return None, None, FoundStudy(header, self._sample(header))

    def _sample(self, header: StudyEntry) -> tuple[bool, ...]:
        """Whether each slice is among the images that the range of its series is taken from."""
        if header.status is not Status.OK or header.format is not StudyFormat.DICOM:
            return (False,) * len(header.slices)
        (images, given, needed) = self._connection.execute(
            "SELECT images, given, needed FROM series WHERE series = ?", (header.ids.series,)
        ).fetchone()
        if not needed or images == 1:  # a single image has its own range without being named
            return (False,) * len(header.slices)
        self._connection.execute(
            "UPDATE series SET given = ? WHERE series = ?", (given + len(header.slices), header.ids.series)
        )
        return tuple(is_sampled(given + place, images) for place in range(len(header.slices)))

    def _collect(self, progress: ListingProgress) -> None:
        for table in ("found", "seen", "headers", "series"):
            self._connection.execute(f"DELETE FROM {table}")
        self._connection.execute("BEGIN")
        self._connection.executemany("INSERT INTO found VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", self._rows(progress))
        self._connection.execute("COMMIT")

    def _read_headers(self, reader: HeaderReader, progress: ListingProgress) -> None:
        """Look into the files that may be DICOM or NIfTI, in listing order; what is found is kept in the database."""
        (total,) = self._connection.execute("SELECT count(*) FROM found WHERE look").fetchone()
        if not total:
            return
        self._connection.execute("BEGIN")
        for read, (file, found) in enumerate(reader.read_all(self._unread_files()), start=1):
            if isinstance(found, NotAnImage):
                self._keep_header(file.key, SkipReason(found.reason), found.detail, "")
            elif found is not None:
                (real,) = self._connection.execute("SELECT real FROM found WHERE rowid = ?", (file.key,)).fetchone()
                if self._is_first(real):
                    self._keep_header(file.key, None, None, found.text)
                    self._count_series(found)
                else:
                    self._keep_header(file.key, SkipReason.DUPLICATE, None, "")
            if read % _FILES_BETWEEN_CALLS == 0 or read == total:
                progress.read_headers(read, total)
        self._connection.execute("COMMIT")

    def _unread_files(self) -> Iterator[UnreadFile]:
        rows = self._connection.execute(
            "SELECT rowid, input, path, look, member FROM found WHERE look ORDER BY input, line, path, rowid"
        )
        for key, position, path, look, member in rows:
            yield _unread(key, self._inputs[position].root, path, Look(look), member)

    def _keep_header(self, key: int, skipped: SkipReason | None, detail: str | None, content: str) -> None:
        self._connection.execute("INSERT INTO headers VALUES (?, ?, ?, ?)", (key, skipped, detail, content))

    def _count_series(self, header: WrittenEntry) -> None:
        if header.ranged_series is not None:
            self._connection.execute(
                "INSERT INTO series VALUES (?, ?, 0, ?) ON CONFLICT (series) DO UPDATE"
                " SET images = images + excluded.images, needed = max(needed, excluded.needed)",
                (header.ranged_series, header.images, header.needs_range),
            )

    def _rows(self, progress: ListingProgress) -> Iterator[tuple[object, ...]]:
        seen = 0
        for position, item in enumerate(self._inputs):
            for line, entry in _walk_input(item, self._scope):
                yield (
                    position,
                    line,
                    entry.path,
                    _hash_path(entry.real),
                    entry.size,
                    entry.mtime_ns,
                    entry.skipped,
                    entry.detail,
                    entry.look,
                    entry.fault,
                    entry.member,
                )
                seen += 1
                if seen % _FILES_BETWEEN_CALLS == 0:
                    progress.listed(seen)
        progress.listed(seen)


def is_sampled(place: int, images: int) -> bool:
    """Whether one of at most 16 evenly spaced places of a series is this one."""
    if images <= RANGE_SAMPLES:
        return True
    step = -(-place * (RANGE_SAMPLES - 1) // (images - 1))
    return step < RANGE_SAMPLES and step * (images - 1) // (RANGE_SAMPLES - 1) == place


def has_candidate(
    inputs: Sequence[Input],
    excluded: Path | Address | None,
    patterns: PathPatterns = NO_PATTERNS,
    headers: HeaderReader | None = None,
) -> bool:
    """Whether any input holds at least one candidate; stops at the first. A list in a pipe is taken to."""
    scope = Scope.of(excluded, patterns)
    for item in inputs:
        if item.once:
            return True
        for _, entry in _walk_input(item, scope):
            if entry.look is Look.NO and entry.skipped is None:
                return True
            if entry.look is not Look.NO and headers is not None:
                unread = _unread(0, item.root, entry.path, entry.look, entry.member)
                if headers.is_candidate(unread):
                    return True
    return False


def _unread(key: int, root: bytes, path: bytes, look: Look, member: str | None) -> UnreadFile:
    return UnreadFile(key, join(root, path), look, locate(root, path, member))


def count_by_name(
    inputs: Sequence[Input], excluded: Path | Address | None, patterns: PathPatterns = NO_PATTERNS, *, most: int
) -> int:
    """Count the files that may be images by their names, at most `most`; none is opened.

    A list on stdin, which can be read only once, is taken to hold that many.
    """
    scope = Scope.of(excluded, patterns)
    found = 0
    for item in inputs:
        if item.kind is InputKind.LIST and item.name == b"-":
            return most
        for _, entry in _walk_input(item, scope):
            found += entry.skipped is None or entry.look is not Look.NO
            if found >= most:
                return found
    return found


@dataclass(frozen=True, slots=True)
class OtherFile:
    """What a walk found beside plain images: skipped for its name, or to be looked into."""

    location: bytes  # what to open
    path: bytes  # relative to its input
    reason: SkipReason | None
    look: Look


def other_files(
    inputs: Sequence[Input], excluded: Path | Address | None, patterns: PathPatterns = NO_PATTERNS
) -> Iterator[OtherFile]:
    """Yield everything that is not a plain image by its name, in the order of the file system.

    A list in a pipe is left out, since it can be read only once.
    """
    scope = Scope.of(excluded, patterns)
    for item in inputs:
        if not item.once:
            for _, entry in _walk_input(item, scope):
                if entry.skipped is not None or entry.look is not Look.NO:
                    location = locate(item.root, entry.path, entry.member)
                    yield OtherFile(location, entry.path, entry.skipped, entry.look)


def _hash_path(real: bytes) -> bytes:
    return blake2b(real, digest_size=16).digest()


def _resolve(name: bytes) -> Input:
    if is_address(name):
        return _resolve_address(Address.parse(name))
    text = decode_name(name)[0]
    absolute = os.path.abspath(name)
    if _is_folder_now(name):
        return Input(InputKind.FOLDER, text, absolute)
    if os.path.lexists(name):
        return Input(InputKind.FILE, text, os.path.dirname(absolute), os.path.basename(absolute))
    if glob.has_magic(name):
        if next(glob.iglob(absolute, recursive=True, include_hidden=True), None) is None:
            raise MribatchError(f"the pattern '{text}' matches nothing", "check the pattern and the current folder")
        return Input(InputKind.GLOB, text, _fixed_folder(absolute), absolute)
    raise MribatchError(f"there is no file or folder '{text}'", "check the path and the current folder")


def _is_folder_now(name: bytes) -> bool:
    """Whether it is a folder.

    Raises:
        MribatchError: The file system does not say; a run of it as of a file could not be resumed.
    """
    with reading(decode_name(name)[0]):
        try:
            return stat.S_ISDIR(ask_again(partial(os.stat, name)).st_mode)
        except OSError as error:
            if is_system_error(error):
                raise
            return False


def _resolve_address(address: Address) -> Input:
    try:
        facts = look_up(address, FIRST_PATIENCE_S)
        if facts is None:
            check_bucket(address)
    except StoreError as error:
        raise error.to_user(f"cannot read {address}") from error
    if facts is None:
        fix = "check the address; patterns are not tried in a store, name a folder and use --exclude"
        raise MribatchError(f"there is no object or folder '{address}'", fix)
    if facts.is_folder:
        return Input(InputKind.FOLDER, str(address), str(address).encode())
    return Input(InputKind.FILE, str(address), str(address.parent).encode(), address.name.encode())


def _resolve_list(name: str, *, null: bool) -> Input:
    name = os.fspath(local_path(name))
    if is_address(name):
        found = _resolve_address(Address.parse(name))
        if found.kind is InputKind.FOLDER:
            raise MribatchError(f"the list '{name}' is a folder", "give an object with one path per line")
        return Input(InputKind.LIST, found.text, os.fsencode(os.getcwd()), found.text.encode(), null)
    path = os.fsencode(name)
    once = path == _STDIN or _is_pipe(path)
    if not once and not os.path.isfile(path):
        raise MribatchError(f"there is no list '{name}'", "give a text file or a pipe with one path per line, or -")
    return Input(InputKind.LIST, decode_name(path)[0], os.fsencode(os.getcwd()), path, null, once)


def _is_pipe(path: bytes) -> bool:
    """Whether it is a pipe, such as /dev/fd/63 of `<(find …)`, or a device, such as a terminal."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def _fixed_folder(pattern: bytes) -> bytes:
    """The longest leading folder of a pattern that has no wildcard in it."""
    folder = os.path.dirname(pattern)
    while glob.has_magic(folder):
        folder = os.path.dirname(folder)
    return folder


def _walk_input(item: Input, scope: Scope) -> Iterator[tuple[int, Entry]]:
    """Yield (line, entry): line is the place in a list, 0 elsewhere."""
    scope = replace(scope, archives=item.archives)
    for line, entry in _walk_names(item, scope):
        if entry.is_archive:
            yield from ((line, one) for one in expand(item.root, entry, scope))
        else:
            yield line, entry


def _walk_names(item: Input, scope: Scope) -> Iterator[tuple[int, Entry]]:
    far = is_address(item.root)
    if item.kind is InputKind.FILE:
        yield 0, name_object(item.root, item.name, scope) if far else _named_file(item.root, item.name, scope)
    elif item.kind is InputKind.FOLDER:
        walk = walk_objects if far else _walk_folder
        yield from ((0, entry) for entry in walk(item.root, b"", scope))
    elif item.kind is InputKind.GLOB:
        yield from ((0, entry) for entry in _walk_matches(item, scope))
    else:
        with _open_list(item.name) as stream:
            yield from _walk_list(item, read_names(stream, item.text, null=item.null), scope)


def _walk_list(item: Input, names: Iterator[tuple[int, bytes]], scope: Scope) -> Iterator[tuple[int, Entry]]:
    """Addresses are looked up many at a time: each is a question to a server."""
    while some := list(islice(names, _NAMES_AT_ONCE)):
        far = name_objects([name for _, name in some if is_address(name)], scope)
        for number, name in some:
            if is_address(name):
                yield from ((number, entry) for entry in next(far))
            elif os.path.isdir(os.path.join(item.root, name)):
                yield from ((number, entry) for entry in _walk_named_folder(item.root, name.rstrip(b"/"), scope))
            else:
                yield number, _named_file(item.root, name, scope)


def _open_list(name: bytes) -> contextlib.AbstractContextManager[BinaryIO]:
    if name == _STDIN:
        import sys

        return contextlib.nullcontext(sys.stdin.buffer)
    if is_address(name):
        return contextlib.closing(open_object(Address.parse(name)))
    return Path(os.fsdecode(name)).open("rb")


def _walk_matches(item: Input, scope: Scope) -> Iterator[Entry]:
    spelled_out = frozenset(item.name.split(b"/"))
    for match in glob.iglob(item.name, recursive=True, include_hidden=True):
        relative = os.path.relpath(match, item.root)
        folder = os.path.isdir(match)
        if folder and b"**" in item.name:  # "**" already reaches what lies in a matching folder
            continue
        parts = relative.split(b"/") if folder else relative.split(b"/")[:-1]
        found = next((what for part in parts if part not in spelled_out and (what := describe_folder(part))), None)
        if found is not None:
            yield Entry(relative + b"/" * folder, b"", None, None, SkipReason.OTHER_PROGRAM, found)
        elif folder:
            yield from _walk_named_folder(item.root, relative, scope)
        else:
            yield _matching_file(item.root, relative, scope)


def _matching_file(root: bytes, relative: bytes, scope: Scope) -> Entry:
    entry = _named_file(root, relative, scope)
    if entry.skipped is not None:
        return entry
    reason, detail, look = judge_name(os.path.basename(relative), os.path.join(root, relative))
    return entry if entry.is_archive else replace(entry, skipped=reason, detail=detail, look=look)


def _named_file(root: bytes, name: bytes, scope: Scope) -> Entry:
    """A file named outright is a candidate whatever its suffix, also when it is not there: it earns its row."""
    if (pattern := scope.patterns.find_above(name)) is not None:
        return Entry(name, b"", None, None, SkipReason.EXCLUDED, pattern)
    full = os.path.join(root, name)
    size = mtime_ns = fault = None
    archive = False
    try:
        facts = ask_again(partial(os.stat, full))
        size, mtime_ns = facts.st_size, facts.st_mtime_ns
        archive = scope.archives and name.lower().endswith(ARCHIVE_SUFFIXES) and stat.S_ISREG(facts.st_mode)
    except OSError as error:
        fault = describe(error) if is_system_error(error) else None
    look = Look.NO if name.lower().endswith(IMAGE_SUFFIXES) else Look.NAMED
    return Entry(name, os.path.realpath(full), size, mtime_ns, look=look, fault=fault, is_archive=archive)


def _walk_named_folder(root: bytes, start: bytes, scope: Scope) -> Iterator[Entry]:
    """Walk a folder that a list or a pattern names, unless the user leaves it out."""
    if (pattern := scope.patterns.find_above(start, folder=True)) is not None:
        yield Entry(start + b"/", b"", None, None, SkipReason.EXCLUDED, pattern)
    else:
        yield from _walk_folder(root, start, scope)


def _walk_folder(root: bytes, start: bytes, scope: Scope) -> Iterator[Entry]:
    """Walk `root/start`; symbolic links are followed, a folder inside itself is not entered again."""
    start_real = os.path.realpath(os.path.join(root, start))
    waiting: list[tuple[bytes, bytes, tuple[bytes, ...]]] = [(start, start_real, ())]
    visits: dict[bytes, int] = {}
    while waiting:
        relative, real, linked_from = waiting.pop()
        if real == scope.own:
            continue
        loop = any(real == above or above.startswith(real.rstrip(b"/") + b"/") for above in linked_from)
        visits[real] = visits.get(real, 0) + 1
        if loop or visits[real] > _MAX_VISITS_OF_A_FOLDER:
            yield Entry(relative + b"/", real, None, None, SkipReason.SYMLINK_LOOP)
            continue
        try:
            here = os.path.join(root, relative) if relative else root
            with _scan(here) as entries:
                for entry in entries:
                    path = os.path.join(relative, entry.name)
                    kind = _kind_of_entry(entry)
                    if isinstance(kind, str):
                        yield Entry(path + b"/", b"", None, None, SkipReason.UNREADABLE_FOLDER, kind)
                    elif not kind:
                        yield _file_entry(entry, path, real, scope)
                    elif (left_out := left_out_folder(entry.name, path, scope)) is not None:
                        yield left_out
                    elif entry.is_symlink():
                        waiting.append((path, os.path.realpath(entry.path), (*linked_from, real)))
                    else:
                        waiting.append((path, os.path.join(real, entry.name), linked_from))
        except OSError as error:
            shown = describe(error)
            yield Entry(relative + b"/", real, None, None, SkipReason.UNREADABLE_FOLDER, shown)


def _scan(folder: bytes) -> contextlib.AbstractContextManager[Iterator[os.DirEntry[bytes]]]:
    return ask_again(lambda: os.scandir(folder))


def _kind_of_entry(entry: os.DirEntry[bytes]) -> bool | str:
    """Whether it is a folder; where the file system does not say, what it says instead."""
    try:
        return ask_again(entry.is_dir)
    except OSError as error:  # a link that cannot be followed is a file that cannot be read
        return describe(error) if is_system_error(error) else False


def _file_entry(entry: os.DirEntry[bytes], path: bytes, folder_real: bytes, scope: Scope) -> Entry:
    if (pattern := scope.patterns.find(path, folder=False)) is not None:
        return Entry(path, b"", None, None, SkipReason.EXCLUDED, pattern)
    reason, detail, look = judge_name(entry.name, entry.path)
    archive = scope.archives and reason is SkipReason.SUFFIX and entry.name.lower().endswith(SHARD_SUFFIXES)
    if reason is not None and look is Look.NO and not archive:
        return Entry(path, b"", None, None, reason, detail)
    real = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(folder_real, entry.name)
    size = mtime_ns = fault = None
    try:
        facts = ask_again(entry.stat)
        size, mtime_ns = (facts.st_size, facts.st_mtime_ns) if stat.S_ISREG(facts.st_mode) else (None, None)
    except OSError as error:
        fault = describe(error) if is_system_error(error) else None
    archive = archive and size is not None
    return Entry(path, real, size, mtime_ns, reason, detail, look, fault, is_archive=archive)
