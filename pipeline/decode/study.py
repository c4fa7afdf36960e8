"""Slices of DICOM files and NIfTI volumes as grey pixels of the model's size.

file --_OpenFiles--> StoredSlice --values.to_grey--> uint8 --is it blank?--> uint8 of the model's size

A file with several slices is read once, wherever it is: the last two stay open while their slices follow each other; of
a store or an archive they are in memory, as they are stored. Where grey values follow the range of a series, that range
is measured once, on the images that the listing names.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from hashlib import sha256
from typing import Generic, Protocol, TypeVar

from numpy import uint8
from numpy.typing import NDArray

from mribatch.pipeline.decode.grey import stretch
from mribatch.pipeline.decode.probe import unreadable
from mribatch.pipeline.decode.values import StoredSlice, ValueRange, Window, is_blank, to_grey, uses_range, value_range
from mribatch.pipeline.records import DecodedFile, Flag, ImageFile, SliceSource, Status, StudyImage, Verdict
from mribatch.pipeline.storage.content import MemberError, differs, read_content
from mribatch.pipeline.storage.source import as_a_whole
from mribatch.pipeline.storage.store import ObjectFacts
from mribatch.pipeline.studies.facts import StudyFormat
from mribatch.pipeline.studies.options import HeaderOptions

_FILES_KEPT = 2  # two, since the threads are at the border of two files now and then
_RANGES_KEPT = 1024  # series whose slices come in turns
_BLANK = "The slice shows nothing but background."

Decoded = tuple[DecodedFile, NDArray[uint8] | None]
Key = TypeVar("Key")
Value = TypeVar("Value")


class StudyDecoder:
    """Decodes single images of DICOM and NIfTI files, for several threads.

    Args:
        height, width: Pixels that every slice is stretched to.
        window: What becomes black and white.
        options: How headers are read.
    """

    def __init__(self, *, height: int, width: int, window: Window, options: HeaderOptions) -> None:
        self._height = height
        self._width = width
        self._window = window
        self._files = _OpenFiles(options)
        self._ranges: _Once[tuple[SliceSource, ...], ValueRange] = _Once(_RANGES_KEPT)

    def close(self) -> None:
        """Let go of the files that are kept open."""
        self._files.close()

    def decode(self, file: ImageFile, study: StudyImage) -> Decoded:
        """Decode one image. A bad file is a verdict, never an exception.

        Returns:
            What is known of the file; and uint8 (height, width, 1), grey 0..255, C-contiguous, or None where its
            status is not ok.
        """
        begin = time.thread_time()
        try:
            if study.refused is not None:
                return _refuse(file, study.refused), None
            with self._files.using(SliceSource(file.file, study.slice), study.format) as opened:
                verdict, pixels = self._grey(opened, study)
                size, digest = opened.size_and_sha256
                verdict = _flag_changed(verdict, opened.facts, file)
        except OSError as error:
            return DecodedFile(file, unreadable(error)), None
        except MemoryError:
            reason = "The file does not fit into memory."
            return DecodedFile(file, Verdict(Status.DECODE_FAILED, reason, study.format)), None
        return DecodedFile(file, verdict, size, digest, time.thread_time() - begin), pixels

    def _grey(self, opened: "_OpenFile", study: StudyImage) -> tuple[Verdict, NDArray[uint8] | None]:
        verdict, stored = opened.slice(study.slice)
        if stored is None:
            return verdict, None
        by_range = uses_range(stored, self._window)
        grey = to_grey(stored, self._window, self._range(opened, study) if by_range else None)
        flags = (*study.flags, *verdict.flags, *stored.flags, *((Flag.WINDOWED_BY_RANGE,) if by_range else ()))
        verdict = _with_flags(verdict, tuple(dict.fromkeys(flags)))
        if is_blank(grey):
            return _with_status(verdict, Status.BLANK, _BLANK), None
        return verdict, stretch(grey, self._height, self._width)

    def _range(self, opened: "_OpenFile", study: StudyImage) -> ValueRange | None:
        """The range of the series; None where only the slice itself is left to take it from."""
        if not study.range_from:
            return opened.range_of(study.slice)
        return self._ranges.get(study.range_from, lambda: self._measure(study))

    def _measure(self, study: StudyImage) -> ValueRange:
        return value_range(self._samples(study))

    def _samples(self, study: StudyImage) -> Iterator[StoredSlice]:
        """The images that the range is taken from; one that cannot be read has no say."""
        for source in study.range_from:
            try:
                with self._files.using(source, study.format) as opened:
                    stored = opened.slice(source.slice)[1]
            except OSError:
                continue
            if stored is not None:
                yield stored


def _refuse(file: ImageFile, verdict: Verdict) -> DecodedFile:
    """What the header alone refused; the file is read only to tell which one it was."""
    if verdict.status in (Status.TIMEOUT, Status.UNREADABLE):
        return DecodedFile(file, verdict)
    source = as_a_whole(file.file)
    size, digest = source.size_and_sha256()
    return DecodedFile(file, _flag_changed(verdict, source.facts, file), size, digest)


def _flag_changed(verdict: Verdict, facts: ObjectFacts | None, file: ImageFile) -> Verdict:
    """Flag an object that is not what was listed; a file of this machine is asked later."""
    changed = differs(facts, file.file, file.listed)
    return _with_flags(verdict, (*verdict.flags, Flag.CHANGED_SINCE_LISTING)) if changed else verdict


def _with_flags(verdict: Verdict, flags: tuple[Flag, ...]) -> Verdict:
    return Verdict(verdict.status, verdict.error, verdict.format, verdict.width, verdict.height, flags, verdict.bits)


def _with_status(verdict: Verdict, status: Status, error: str) -> Verdict:
    return Verdict(status, error, verdict.format, verdict.width, verdict.height, verdict.flags, verdict.bits)


class _OpenFile(Protocol):
    """A file whose slices can be asked for, by several threads."""

    @property
    def size_and_sha256(self) -> tuple[int, str]: ...

    @property
    def facts(self) -> ObjectFacts | None:
        """What a store said when the file was read; None for a file of this machine."""
        ...

    def slice(self, number: int | None) -> tuple[Verdict, StoredSlice | None]: ...

    def range_of(self, number: int | None) -> ValueRange | None:
        """The range of the volume that a slice belongs to; None where the file tells none."""
        ...

    def close(self) -> None: ...


class _Once(Generic[Key, Value]):
    """Values that are made once each, while other threads wait for them; the ones used last are kept."""

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._lock = threading.Lock()
        self._entries: OrderedDict[Key, tuple[threading.Lock, list[Value]]] = OrderedDict()

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        with self._lock:
            lock, made = self._entries.setdefault(key, (threading.Lock(), []))
            self._entries.move_to_end(key)
            while len(self._entries) > self._kept:
                self._entries.popitem(last=False)
        with lock:
            if not made:
                made.append(make())
            return made[0]


class _Entry:
    """A file that is kept open, with the threads that use it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # while it is opened
        self.file: _OpenFile | None = None
        self.refused: MemberError | None = None  # reading it again would take as long, and give as little
        self.users = 0
        self.dropped = False

    def open(self, make: Callable[[], _OpenFile]) -> _OpenFile:
        """The file, opened by whoever comes first.

        Raises:
            OSError: It gives no bytes.
        """
        with self.lock:
            if self.refused is not None:
                raise MemberError(*self.refused.args)
            if self.file is None:
                try:
                    self.file = make()
                except MemberError as error:
                    self.refused = error
                    raise
            return self.file


class _OpenFiles:
    """The files opened last. A file of a single image is not kept."""

    def __init__(self, options: HeaderOptions) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()

    @contextmanager
    def using(self, source: SliceSource, study_format: str) -> Iterator[_OpenFile]:
        """Open the file of an image, or take it as it is open already.

        Raises:
            OSError: The operating system gives no bytes of it.
        """
        if source.slice is None:
            opened = _open(source.file, study_format, self._options)
            try:
                yield opened
            finally:
                opened.close()
            return
        entry = self._take(source.file)
        try:
            yield entry.open(lambda: _open(source.file, study_format, self._options))
        finally:
            self._give_back(entry)

    def close(self) -> None:
        with self._lock:
            while self._entries:
                self._drop(self._entries.popitem()[1])

    def _take(self, path: bytes) -> _Entry:
        with self._lock:
            entry = self._entries.setdefault(path, _Entry())
            entry.users += 1
            self._entries.move_to_end(path)
            while len(self._entries) > _FILES_KEPT:
                self._drop(self._entries.popitem(last=False)[1])
            return entry

    def _give_back(self, entry: _Entry) -> None:
        with self._lock:
            entry.users -= 1
            if entry.dropped:
                self._drop(entry)

    def _drop(self, entry: _Entry) -> None:
        entry.dropped = True
        if not entry.users and entry.file is not None:
            entry.file.close()


class _DicomFile:
    """A DICOM file. It is hashed only where a row is made of it."""

    def __init__(self, location: bytes, options: HeaderOptions) -> None:
        from mribatch.pipeline.decode.dicom import DicomPixels

        content = read_content(location)
        self._content, self.facts = content.data, content.facts
        self._pixels = DicomPixels(self._content, options.max_pixels)

    @cached_property
    def size_and_sha256(self) -> tuple[int, str]:
        return len(self._content), sha256(self._content).hexdigest()

    def slice(self, number: int | None) -> tuple[Verdict, StoredSlice | None]:
        found = self._pixels.read(number or 0)
        return (found, None) if isinstance(found, Verdict) else (self._pixels.verdict, found)

    def range_of(self, number: int | None) -> None:
        return None

    def close(self) -> None: ...


class _NiftiFile:
    """A NIfTI file, or the verdict on one that cannot be read."""

    def __init__(self, location: bytes, options: HeaderOptions) -> None:
        from mribatch.pipeline.decode.nifti import open_nifti

        source = as_a_whole(location)
        self.facts = source.facts
        self._verdict, self._volume = open_nifti(source, options)
        hashed = source if self._volume is None else self._volume
        self._size_and_sha256 = hashed.size_and_sha256()

    @property
    def size_and_sha256(self) -> tuple[int, str]:
        return self._size_and_sha256

    def slice(self, number: int | None) -> tuple[Verdict, StoredSlice | None]:
        return (self._verdict, None) if self._volume is None else self._volume.slice(number or 0)

    def range_of(self, number: int | None) -> ValueRange | None:
        return None if self._volume is None else self._volume.range_of(number or 0)

    def close(self) -> None:
        if self._volume is not None:
            self._volume.close()


def _open(location: bytes, study_format: str, options: HeaderOptions) -> _OpenFile:
    return _NiftiFile(location, options) if study_format == StudyFormat.NIFTI else _DicomFile(location, options)
