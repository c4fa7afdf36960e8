"""What is in a tar or zip archive, read from its headers alone: names, and where the bytes are. Nothing is extracted.

An archive may be anyone's. A name is text for a row, never a path that something is written to; sizes that headers
claim are not believed before as many bytes are there; and what cannot be followed ends the list with an ArchiveDamage.
"""

import contextlib
import os
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast

from mribatch.core.regular_file import open_regular
from mribatch.pipeline.storage.address import (
    DEFLATED,
    ENCRYPTED,
    STORED,
    TAR,
    UNKNOWN,
    ZIP,
    Address,
    Member,
    is_address,
)
from mribatch.pipeline.storage.store import open_object

ARCHIVE_SUFFIXES = (b".tar", b".zip")
# Of archives that are read where a walk finds them, as shards lie. A zip file is read where it is named: it often lies
# beside what was unpacked from it, and each image would have two rows.
SHARD_SUFFIXES = (b".tar",)
_BLOCK = 512  # bytes; a tar archive is made of such
_MOST_AT_ONCE = 1 << 20  # bytes of one tar header with its long names; none that is meant well has more
_DRIVE = re.compile(rb"[A-Za-z]:")
_ENCRYPTED_BIT, _UTF8_BIT = 0x1, 0x800
_METHODS = {zipfile.ZIP_STORED: STORED, zipfile.ZIP_DEFLATED: DEFLATED}
_UNREADABLE = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RecursionError),
    *(ValueError, KeyError, IndexError, OverflowError, UnicodeError, EOFError, MemoryError),
)


class ArchiveDamage(Exception):
    """An archive cannot be listed, or not to its end; says why in a few words."""


@dataclass(frozen=True, slots=True)
class ArchiveEntry:
    """A member, or why it is none that can be read: a link, a device, a name that leads elsewhere."""

    name: bytes
    member: Member | None
    problem: str | None = None  # where there is no member


def list_archive(archive: bytes) -> Iterator[ArchiveEntry]:
    """Yield the files of an archive in its order; folders are left out.

    Args:
        archive: A path or an address that ends with .tar or .zip.

    Raises:
        ArchiveDamage: From here on it cannot be read.
        OSError: The file system or the store refuses.
    """
    with contextlib.closing(_open(archive)) as stream:
        read = _read_tar if archive.lower().endswith(b".tar") else _read_zip
        try:
            yield from read(stream)
        except _UNREADABLE as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ArchiveDamage(f"it is damaged, or no such archive: {reason[:120]}") from error


def _open(archive: bytes) -> BinaryIO:
    if is_address(archive):
        return open_object(Address.parse(archive))
    return cast(BinaryIO, open_regular(archive))


class _Careful:
    """A stream that gives no more than a header may have, so that a claimed size cannot fill the memory."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MOST_AT_ONCE:
            raise tarfile.ReadError(f"a header claims {size:,} bytes")
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


def _read_tar(stream: BinaryIO) -> Iterator[ArchiveEntry]:
    end = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    careful = cast(BinaryIO, _Careful(stream))
    with tarfile.open(fileobj=careful, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
        place = -1
        while (info := archive.next()) is not None:
            if archive.offset <= place:
                raise ArchiveDamage("a header leads back to where it came from")
            place = archive.offset
            archive.members.clear()  # type: ignore[attr-defined]  # it would keep all of them
            yield from _tar_entry(info)
        _check_end(stream, archive.offset, end)


def _tar_entry(info: tarfile.TarInfo) -> Iterator[ArchiveEntry]:
    name = info.name.encode("utf-8", "surrogateescape")
    if info.isdir():
        return
    problem = _problem_of_name(name)
    if info.islnk() or info.issym():
        problem = "a link in an archive, which is not followed"
    elif not info.isreg():
        problem = "neither a file nor a folder"
    elif info.issparse():
        problem = "a sparse file, which is not put together"
    member = None if problem else Member(TAR, info.offset_data, info.size, info.size)
    yield ArchiveEntry(_safe(name), member, problem)


def _check_end(stream: BinaryIO, offset: int, end: int) -> None:
    """tarfile takes a header that makes no sense for the end: the end is a block of zeros, or that of the file."""
    if offset > end:
        raise ArchiveDamage(f"it ends inside a member, after {end:,} bytes")
    stream.seek(offset)
    block = stream.read(_BLOCK)
    if any(block) and len(block) < _BLOCK:
        raise ArchiveDamage(f"it ends inside a header, after {end:,} bytes")
    if any(block):
        raise ArchiveDamage(f"there is no header where one should be, at byte {offset:,}")


def _read_zip(stream: BinaryIO) -> Iterator[ArchiveEntry]:
    with zipfile.ZipFile(stream) as archive:
        for info in archive.infolist():
            # As it is in the archive: ZipFile makes "/" of the system's separator, and ends a name at a NUL byte.
            name = info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8_BIT else "cp437", "surrogateescape")
            if not info.flag_bits & _UTF8_BIT:
                name = _utf8_if_it_is(name)
            if info.is_dir():
                continue
            problem = _problem_of_name(name)
            if (info.external_attr >> 16) & 0o170000 == 0o120000:
                problem = "a link in an archive, which is not followed"
            method = _METHODS.get(info.compress_type, UNKNOWN)
            if info.flag_bits & _ENCRYPTED_BIT:
                method = ENCRYPTED
            member = Member(ZIP, info.header_offset, info.file_size, info.compress_size, method, info.CRC)
            yield ArchiveEntry(_safe(name), None if problem else member, problem)


def _utf8_if_it_is(name: bytes) -> bytes:
    """Most programs of today write UTF-8 also where they do not say so; else the name is of DOS."""
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return name.decode("cp437").encode("utf-8")
    return name


def _problem_of_name(name: bytes) -> str | None:
    parts = name.replace(b"\\", b"/").split(b"/")
    if b"\0" in name or not name or name.endswith(b"/"):
        return "a name that no file can have"
    if not parts[0] or _DRIVE.match(name) or b".." in parts:
        return "a name that leads out of the archive"
    return None


def _safe(name: bytes) -> bytes:
    """The name as a row may show it: relative, without "./" at its beginning, and without NUL bytes."""
    name = name.replace(b"\0", b"\\x00").lstrip(b"/")
    while name.startswith(b"./"):
        name = name[2:].lstrip(b"/")
    return name or b"(no name)"
