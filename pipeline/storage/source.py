"""One file for a reader of its format, which knows of no store and no archive: it opens a ByteSource like a file.

Of a header only the first bytes are wanted: `in_pieces` reads what is asked for, and not the rest. `as_a_whole` reads
an object or a member once, and keeps it while the source is kept. Files of this machine are opened anew each time.
"""

import errno
import hashlib
import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeAlias

from mribatch.core.regular_file import MAX_FILE_BYTES, digest_file, open_regular, read_head
from mribatch.pipeline.storage.address import DEFLATED, TAR, Address, Member, is_address
from mribatch.pipeline.storage.content import (
    LOCAL_HEADER_BYTES,
    MemberError,
    check_method,
    check_size,
    find_data,
    read_content,
    split_location,
)
from mribatch.pipeline.storage.raw_stream import RawStream
from mribatch.pipeline.storage.store import Content, ObjectFacts, open_object, read_object

_FIRST_PIECE = 64 << 10  # bytes; most headers are shorter
_BUFFER = _FIRST_PIECE + (4 << 10)  # bytes of an archive in a store that are read at once: a header before them
_MOST_BEFORE_DATA = LOCAL_HEADER_BYTES + 2 * 0xFFFF  # bytes from the local header of a ZIP member to its data

ByteStream: TypeAlias = io.BufferedReader | io.BytesIO


class ByteSource(Protocol):
    """The bytes of one file. All of it raises OSError where there are none to be had."""

    @property
    def location(self) -> bytes:
        """As `storage.address` writes it."""
        ...

    @property
    def facts(self) -> ObjectFacts | None:
        """What a store said when the bytes were read; None for a file of this machine."""
        ...

    def open(self) -> ByteStream:
        """A stream of its own that stands at the first byte, and can be moved to any other."""
        ...

    def beginning(self, size: int) -> bytes:
        """The first `size` bytes, or fewer where there are no more."""
        ...

    def size_and_sha256(self) -> tuple[int, str]:
        """Bytes, and the hash of them in hex."""
        ...


@dataclass(frozen=True, slots=True)
class LocalSource:
    """A file of this machine, of any size."""

    location: bytes

    @property
    def facts(self) -> None:
        return None

    def open(self) -> ByteStream:
        return open_regular(self.location)

    def beginning(self, size: int) -> bytes:
        return read_head(self.location, size)

    def size_and_sha256(self) -> tuple[int, str]:
        return digest_file(self.location)


class HeldSource:
    """A file whose bytes are in memory."""

    def __init__(self, location: bytes, content: Content) -> None:
        self.location, self.facts = location, content.facts
        self._data = content.data

    def open(self) -> ByteStream:
        return io.BytesIO(self._data)  # which copies nothing

    def beginning(self, size: int) -> bytes:
        return self._data[:size]

    def size_and_sha256(self) -> tuple[int, str]:
        return self._size_and_sha256

    @cached_property
    def _size_and_sha256(self) -> tuple[int, str]:
        return len(self._data), hashlib.sha256(self._data).hexdigest()


class PiecedSource:
    """A file of which no more is read than is asked for; its first 64 KiB are read once.

    More than these are given only of what could be read as a whole, too.

    Args:
        location: Of an object or a member.
    """

    def __init__(self, location: bytes) -> None:
        self.location = location
        archive, member = split_location(location)
        if member is None:
            self._take_object(Address.parse(archive))
        else:
            self._take_member(archive, member)

    def _take_object(self, address: Address) -> None:
        content = read_object(address, 0, _FIRST_PIECE)
        if content.facts is None:
            raise OSError(errno.ENOENT, "there is no such object")
        size = content.facts.size
        self.facts: ObjectFacts | None = content.facts
        self._first, self._size = content.data, size
        self._check_size: Callable[[], None] = lambda: _check_object(size)
        self._open_all: Callable[[], io.BufferedReader] = lambda: open_object(address, size, _FIRST_PIECE)

    def _take_member(self, archive: bytes, member: Member) -> None:
        check_method(member)
        self._check_size = lambda: check_size(member)
        self._open_all = lambda: _open_member(archive, member)
        with _open_member(archive, member) as stream:
            self._first = stream.read(_FIRST_PIECE)
        self.facts, self._size = None, member.size

    def open(self) -> ByteStream:
        self._check_size()
        return io.BufferedReader(_Continued(self._first, self._size, self._open_all), _FIRST_PIECE)

    def beginning(self, size: int) -> bytes:
        if size <= len(self._first):
            return self._first[:size]
        with self.open() as stream:
            return stream.read(size)

    def size_and_sha256(self) -> tuple[int, str]:
        with self.open() as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            return stream.tell(), digest


def in_pieces(location: bytes) -> ByteSource:
    """Return a source for whoever wants the first bytes of a file.

    Raises:
        OSError: As `read_content`; the check sum of a member is not looked at.
    """
    return PiecedSource(location) if is_far(location) else LocalSource(location)


def as_a_whole(location: bytes) -> ByteSource:
    """Return a source for whoever wants all of a file; an object or a member is read now.

    Raises:
        OSError: As `read_content`.
    """
    return HeldSource(location, read_content(location)) if is_far(location) else LocalSource(location)


def is_far(location: bytes) -> bool:
    """Whether it is no file of its own on this machine: an object, or a member of an archive."""
    return b"\0" in location or is_address(location)


def _check_object(size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise OSError(errno.EFBIG, f"it has {size:,} bytes; the limit is {MAX_FILE_BYTES:,}")


class _Continued(RawStream):
    """The first bytes from memory, and what follows from a stream that is opened when it is asked for."""

    def __init__(self, first: bytes, size: int, open_all: Callable[[], io.BufferedReader]) -> None:
        super().__init__(size)
        self._first, self._open_all = first, open_all
        self._all: io.BufferedReader | None = None

    def read_at(self, place: int, size: int) -> bytes:
        if place < len(self._first):
            return self._first[place : place + size]
        if self._all is None:
            self._all = self._open_all()
        self._all.seek(place)
        return self._all.read(size)

    def close(self) -> None:
        if self._all is not None:
            self._all.close()
        super().close()


class _Window(RawStream):
    """A part of another stream, which is closed with it."""

    def __init__(self, stream: io.BufferedReader, begin: int, size: int) -> None:
        super().__init__(size)
        self._stream, self._begin = stream, begin

    def read_at(self, place: int, size: int) -> bytes:
        self._stream.seek(self._begin + place)
        return self._stream.read1(size)  # what is in its buffer, before another request

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Inflated(RawStream):
    """What a deflated stream becomes, piece by piece; a place before the last one is reached from the beginning."""

    def __init__(self, packed: _Window, size: int) -> None:
        super().__init__(size)
        self._packed = packed
        self._begin()

    def _begin(self) -> None:
        self._packed.seek(0)
        self._decompressor = zlib.decompressobj(-zlib.MAX_WBITS)
        self._done = 0

    def read_at(self, place: int, size: int) -> bytes:
        if place < self._done:
            self._begin()
        while self._done < place:
            if not self._next(min(place - self._done, _FIRST_PIECE)):
                return b""
        return self._next(size)

    def _next(self, size: int) -> bytes:
        piece, left = b"", self._decompressor.unconsumed_tail
        while not piece and not self._decompressor.eof:
            packed = left or self._packed.read(_FIRST_PIECE)
            try:
                piece = self._decompressor.decompress(packed, size)
            except zlib.error as error:
                raise MemberError(f"it is damaged in its archive: {error}") from error
            left = self._decompressor.unconsumed_tail
            if not packed:
                break
        self._done += len(piece)
        return piece

    def close(self) -> None:
        self._packed.close()
        super().close()


def _open_member(archive: bytes, member: Member) -> io.BufferedReader:
    end = member.offset + _MOST_BEFORE_DATA + member.stored  # or before
    stream = open_object(Address.parse(archive), end, _BUFFER) if is_address(archive) else open_regular(archive)
    try:
        window = _Window(stream, _find_data(stream, member), member.stored)
    except OSError:
        stream.close()
        raise
    whole = _Inflated(window, member.size) if member.method == DEFLATED else window
    return io.BufferedReader(whole, _FIRST_PIECE)


def _find_data(stream: io.BufferedReader, member: Member) -> int:
    if member.kind == TAR:
        return member.offset
    stream.seek(member.offset)
    return member.offset + find_data(stream.read(LOCAL_HEADER_BYTES))
