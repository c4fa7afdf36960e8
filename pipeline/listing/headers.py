"""Looks into files that may be DICOM or NIfTI: their kind by content, then their header, on threads.

Whatever identifies a patient is replaced by a pseudonym here, on the thread that read it.
"""

import errno
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import islice

from mribatch.core.system_errors import describe, is_system_error
from mribatch.pipeline.records import Flag, Status, Verdict
from mribatch.pipeline.storage.address import is_address
from mribatch.pipeline.storage.content import MemberError
from mribatch.pipeline.storage.source import ByteSource, in_pieces
from mribatch.pipeline.storage.store import StoreError
from mribatch.pipeline.studies.dicom_header import read_dicom_header
from mribatch.pipeline.studies.facts import NotAnImage, Plane, SliceFacts, StudyFile, StudyFormat, StudyIds
from mribatch.pipeline.studies.kind import HEAD_BYTES, tell_kind
from mribatch.pipeline.studies.nifti_files import header_of_pair
from mribatch.pipeline.studies.nifti_header import read_nifti_header
from mribatch.pipeline.studies.options import HeaderOptions
from mribatch.pipeline.studies.pseudonyms import Pseudonyms
from mribatch.pipeline.threads import WorkerThreads

DICOM_SUFFIXES = (b".dcm", b".dicom", b".ima")
PAIR_SUFFIXES = (b".hdr", b".hdr.gz", b".img", b".img.gz")
NIFTI_SUFFIXES = (b".nii", b".nii.gz", *PAIR_SUFFIXES)
STUDY_SUFFIXES = (*DICOM_SUFFIXES, *NIFTI_SUFFIXES)
NIFTI_DATA, UNREADABLE_FILE = "nifti_data", "unreadable_file"  # values of SkipReason

_GROUP = 16  # files handed to the threads together
_GROUPS_AHEAD = 2
_LEAST_THREADS = 8  # reading a header is mostly waiting for the file system
_UNKNOWN = StudyIds()


class Look(IntEnum):
    """Whether a file is opened while the inputs are walked, and what its name has promised."""

    NO = 0  # a plain image by its suffix, or skipped for its name
    UNKNOWN = 1  # its name says nothing
    EXPECTED = 2  # its suffix is that of DICOM or NIfTI
    NAMED = 3  # named outright: it earns a row whatever is in it


@dataclass(frozen=True, slots=True)
class StudyEntry:
    """What the header of one file says, under pseudonyms."""

    format: StudyFormat
    slices: tuple[SliceFacts, ...]
    status: Status = Status.OK
    error: str | None = None
    flags: tuple[Flag, ...] = ()
    needs_range: bool = False  # the range of the series is taken from some of its images
    ids: StudyIds = _UNKNOWN  # pseudonyms


@dataclass(frozen=True, slots=True)
class UnreadFile:
    """A file to look into."""

    key: int  # whatever the caller knows it by
    path: bytes  # absolute: its name, also where it is in an archive
    look: Look
    location: bytes  # what to open


@dataclass(frozen=True, slots=True)
class WrittenEntry:
    """An entry as text, which takes a tenth of the memory where a file holds very many slices."""

    text: str  # for `read_entry`
    images: int
    ranged_series: str | None  # the series, where its images count for a range of values
    needs_range: bool


Found = StudyEntry | NotAnImage | None  # None: neither DICOM nor NIfTI


class HeaderReader:
    """Tells studies from other files.

    Args:
        options: What the user asks of headers.
        pseudonyms: What stands for patients, studies and series.
        threads: Cores to use.
        timeout_s: Seconds for one file.
        always_range: Whether grey values follow the range of the series also where a file has a window.
    """

    def __init__(
        self,
        options: HeaderOptions,
        pseudonyms: Pseudonyms,
        *,
        threads: int,
        timeout_s: float,
        always_range: bool = False,
    ) -> None:
        self.pseudonyms = pseudonyms
        self._options = options
        self._threads = max(threads, _LEAST_THREADS)
        self._timeout_s = timeout_s
        self._always_range = always_range

    def read_all(self, files: Iterable[UnreadFile]) -> Iterator[tuple[UnreadFile, WrittenEntry | NotAnImage | None]]:
        """Yield every file with what was found, in the order given; some files are read ahead."""
        waiting = iter(files)
        groups = iter(lambda: list(islice(waiting, _GROUP)), [])
        with WorkerThreads(self._read_one, self._threads, self._timeout_s, self._late) as pool:
            for group in pool.in_groups(groups, _GROUPS_AHEAD):
                yield from group

    def find(self, file: UnreadFile) -> Found:
        """Look into one file. Never raises for a bad one."""
        try:
            source = in_pieces(file.location)
            kind = self._tell_kind(file, source)
            if kind is None:
                return None
            read = read_dicom_header if kind is StudyFormat.DICOM else read_nifti_header
            header = read(source, self._options)
        except OSError as error:
            return _judge_unread(file, error)
        if isinstance(header, StudyFile):
            return self._entry(file.path, header)
        if file.look is not Look.NAMED or header.reason == NIFTI_DATA:
            return header
        return StudyEntry(kind, (SliceFacts(None),), Status.UNSUPPORTED, header.detail)

    def is_candidate(self, file: UnreadFile) -> bool:
        """Whether the file may hold an image; only its first bytes are read, and none over a network."""
        if file.look is not Look.UNKNOWN or self._options.dicom_anywhere or is_address(file.location):
            return True
        try:
            return self._tell_kind(file, in_pieces(file.location)) is not None
        except OSError as error:
            return is_system_error(error) or isinstance(error, MemberError)

    def _tell_kind(self, file: UnreadFile, source: ByteSource) -> StudyFormat | None:
        head = source.beginning(HEAD_BYTES)
        lenient = self._options.dicom_anywhere or file.look is Look.NAMED
        lenient = lenient or file.path.lower().endswith(DICOM_SUFFIXES)
        return tell_kind(head, file.path, dicom_anywhere=lenient)

    def _read_one(self, file: UnreadFile) -> tuple[UnreadFile, WrittenEntry | NotAnImage | None]:
        if file.look is not Look.NAMED and is_data_of_pair(file.location):
            return file, NotAnImage(NIFTI_DATA, "listed under its .hdr")
        found = self.find(file)
        return file, write_entry(found) if isinstance(found, StudyEntry) else found

    def _late(self, file: UnreadFile) -> tuple[UnreadFile, WrittenEntry | NotAnImage]:
        error = f"reading the header took longer than {self._timeout_s:g} s"
        if file.look is Look.UNKNOWN:
            return file, NotAnImage(UNREADABLE_FILE, error)
        return file, write_entry(StudyEntry(_expected_format(file), (SliceFacts(None),), Status.TIMEOUT, error))

    def _entry(self, path: bytes, header: StudyFile) -> StudyEntry:
        verdict, ids = header.verdict, self.pseudonyms.of_ids(header.ids)
        if verdict.status is Status.OK and ids.series is None:
            ids = replace(ids, series=self.pseudonyms.of_file(path))
        return StudyEntry(
            format=header.format,
            slices=header.slices,
            status=verdict.status,
            error=verdict.error,
            flags=tuple(dict.fromkeys((*header.flags, *verdict.flags))),
            needs_range=self._follows_range(header),
            ids=ids,
        )

    def _follows_range(self, header: StudyFile) -> bool:
        """The values of a NIfTI volume are scaled by its own range, for which no other file is needed."""
        of_series = header.format is StudyFormat.DICOM and header.verdict.status is Status.OK
        return of_series and (self._always_range or header.needs_range)


def _judge_unread(file: UnreadFile, error: OSError) -> Found:
    """What is said of a file whose header could not be read.

    None where it is not there or not a regular file: where it earns a row, that says so. A file whose name does not
    tell what it is may be an image also where it is forbidden, encrypted or damaged in its archive, or too large.
    """
    large = error.errno == errno.EFBIG  # which no later time changes
    system = is_system_error(error) and not large
    ours = large or isinstance(error, StoreError)
    said = (error.strerror if ours else None) or describe(error)
    if file.look is Look.UNKNOWN:
        closed = large or isinstance(error, MemberError) or error.errno in (errno.EACCES, errno.EPERM)
        return NotAnImage(UNREADABLE_FILE, said) if system or closed else None
    if not system or not file.path.lower().endswith(STUDY_SUFFIXES):
        return None
    text = f"The header cannot be read: {said} (errno {error.errno})."
    return StudyEntry(_expected_format(file), (SliceFacts(None),), Status.UNREADABLE, text)


def _expected_format(file: UnreadFile) -> StudyFormat:
    return StudyFormat.DICOM if file.path.lower().endswith(DICOM_SUFFIXES) else StudyFormat.NIFTI


def is_data_of_pair(location: bytes) -> bool:
    """Whether a file holds the voxels of a NIfTI pair whose header is there, too."""
    return header_of_pair(location) is not None


def refusal(entry: StudyEntry) -> Verdict | None:
    """The verdict that the header alone gives; None where it is ok."""
    return None if entry.status is Status.OK else Verdict(entry.status, entry.error, entry.format.value)


def write_entry(entry: StudyEntry) -> WrittenEntry:
    """Write an entry as JSON, for the database of a walk."""
    slices = [[one.slice, one.instance, one.plane, one.position] for one in entry.slices]
    ids = [entry.ids.patient, entry.ids.study, entry.ids.series]
    content = [entry.format, slices, entry.status, entry.error, entry.flags, entry.needs_range, ids]
    counts = entry.status is Status.OK and entry.format is StudyFormat.DICOM
    return WrittenEntry(
        text=json.dumps(content, separators=(",", ":")),
        images=len(slices),
        ranged_series=entry.ids.series if counts else None,
        needs_range=entry.needs_range,
    )


def read_entry(text: str) -> StudyEntry:
    """Read what `write_entry` wrote."""
    image_format, slices, status, error, flags, needs_range, ids = json.loads(text)
    return StudyEntry(
        format=StudyFormat(image_format),
        slices=tuple(
            SliceFacts(place, instance, plane and Plane(plane), position) for place, instance, plane, position in slices
        ),
        status=Status(status),
        error=error,
        flags=tuple(map(Flag, flags)),
        needs_range=needs_range,
        ids=StudyIds(*ids),
    )
