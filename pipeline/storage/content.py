"""The bytes of a file wherever it is: on this machine, in an object store, or in an archive on either."""

import errno
import hashlib
import os
import struct
import zlib
from functools import partial

from mribatch.core.regular_file import MAX_FILE_BYTES, ask_again, digest_file, open_regular, read_file, read_head
from mribatch.pipeline.storage.address import (
    DEFLATED,
    ENCRYPTED,
    STORED,
    TAR,
    Address,
    Member,
    is_address,
    split_member,
)
from mribatch.pipeline.storage.store import Content, ObjectFacts, read_object

MAX_MEMBER_BYTES = 256 << 20  # of a compressed member; a few kilobytes could claim gigabytes
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")  # of a ZIP member: signature, ..., lengths of name and extra field
LOCAL_HEADER_BYTES = _LOCAL_HEADER.size  # a name and an extra field follow
_LOCAL_SIGNATURE = b"PK\x03\x04"
_LOCAL_GUESS = 512  # bytes of a local header with name and extra field, nearly always


class MemberError(OSError):
    """The bytes of a member cannot be had; says why. It has no errno: asking again does not help."""


def split_location(location: bytes) -> tuple[bytes, Member | None]:
    """The file or archive that a location leads to, and the member; None where it is no member.

    Raises:
        MemberError: What follows a NUL byte is no place in an archive, as in a run folder that somebody has changed.
    """
    try:
        return split_member(location)
    except ValueError as error:
        raise MemberError(str(error)) from None


def read_content(location: bytes, limit: int = MAX_FILE_BYTES) -> Content:
    """Read a file, an object or a member of an archive.

    Args:
        location: As `storage.address` writes them.
        limit: Bytes at most.

    Raises:
        OSError: It is gone, forbidden, damaged, or larger than `limit`.
    """
    if b"\0" in location:
        archive, member = split_location(location)
        assert member is not None, "there is a NUL byte"
        return _read_member(archive, member, limit)
    if is_address(location):
        return read_object(Address.parse(location), limit=limit)
    return Content(read_file(location, limit))


def read_beginning(location: bytes, size: int) -> bytes:
    """Read the first bytes of a file, an object or a member.

    Raises:
        OSError: As `read_content`.
    """
    if b"\0" in location:
        return read_content(location).data[:size]
    if is_address(location):
        return read_object(Address.parse(location), 0, size).data
    return read_head(location, size)


def digest_content(location: bytes) -> tuple[int, str]:
    """Size in bytes and sha256, hex, of a file, an object or a member.

    Raises:
        OSError: As `read_content`.
    """
    if b"\0" not in location and not is_address(location):
        return digest_file(location)
    data = read_content(location).data
    return len(data), hashlib.sha256(data).hexdigest()


def has_changed(location: bytes, listed: tuple[int, int]) -> bool:
    """Whether a file on this machine, or the archive that it is in, has changed since it was listed.

    Args:
        location: Of the file or the member; an object has told when it was read.
        listed: Bytes of the file, and the time of its last change, or its archive's.

    Raises:
        OSError: The file system does not say.
    """
    archive, member = split_location(location)
    if is_address(archive):
        return False
    facts = os.stat(archive)
    return facts.st_mtime_ns != listed[1] or (member is None and facts.st_size != listed[0])


def differs(facts: ObjectFacts | None, location: bytes, listed: tuple[int, int] | None) -> bool:
    """Whether what was said of an object when it was read is not what was listed. Files are asked elsewhere."""
    if facts is None or listed is None:
        return False
    is_member = b"\0" in location
    return facts.mtime_ns != listed[1] or (not is_member and facts.size != listed[0])


def can_be_seen(root: bytes) -> bool:
    """Whether this machine sees the folder that inputs lie in; a store tells when it is read."""
    return is_address(root) or os.path.isdir(root)


def check_method(member: Member) -> None:
    """Raises MemberError where a member is encrypted, or compressed by a method that is not read."""
    if member.method == ENCRYPTED:
        raise MemberError("it is encrypted in its archive")
    if member.method not in (STORED, DEFLATED):
        raise MemberError("it is compressed in its archive by a method that is not read")


def check_size(member: Member, limit: int = MAX_FILE_BYTES) -> None:
    """Raises OSError (EFBIG) where a member is larger than `limit`, or than the limit of compressed members."""
    limit = limit if member.method == STORED else min(limit, MAX_MEMBER_BYTES)
    size = max(member.size, member.stored)
    if size > limit:
        raise OSError(errno.EFBIG, f"it has {size:,} bytes; the limit in an archive is {limit:,}")


def find_data(local_header: bytes) -> int:
    """Bytes from the local header of a ZIP member to its data.

    Args:
        local_header: From its first byte; the first LOCAL_HEADER_BYTES are enough.

    Raises:
        MemberError: There is none.
    """
    try:
        signature, *_, name_bytes, extra_bytes = _LOCAL_HEADER.unpack_from(local_header)
    except struct.error as error:
        raise MemberError("its archive ends before it does") from error
    if signature != _LOCAL_SIGNATURE:
        raise MemberError("its archive has no such member where the directory says")
    return LOCAL_HEADER_BYTES + int(name_bytes) + int(extra_bytes)


def _read_member(archive: bytes, member: Member, limit: int) -> Content:
    check_method(member)
    check_size(member, limit)
    if member.kind == TAR:
        return _read_piece(archive, member.offset, member.size)
    return _read_zip_member(archive, member)


def _read_zip_member(archive: bytes, member: Member) -> Content:
    piece = _read_piece(archive, member.offset, _LOCAL_GUESS + member.stored)
    begin = find_data(piece.data)
    packed = piece.data[begin : begin + member.stored]
    if begin + member.stored > _LOCAL_GUESS + member.stored:
        packed = _read_piece(archive, member.offset + begin, member.stored).data
    if len(packed) < member.stored:
        raise MemberError("its archive ends before it does")
    data = packed if member.method == STORED else _inflate(packed, member.size)
    if len(data) != member.size or zlib.crc32(data) != member.crc:
        raise MemberError("its bytes are not those that its archive was made of (CRC-32)")
    return Content(data, piece.facts)


def _inflate(packed: bytes, size: int) -> bytes:
    decompressor = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = decompressor.decompress(packed, size + 1)  # not more, whatever it would become
    except zlib.error as error:
        raise MemberError(f"it is damaged in its archive: {error}") from error
    return data


def _read_piece(archive: bytes, begin: int, size: int) -> Content:
    if is_address(archive):
        return read_object(Address.parse(archive), begin, size)
    return ask_again(partial(_read_local_piece, archive, begin, size))


def _read_local_piece(archive: bytes, begin: int, size: int) -> Content:
    with open_regular(archive) as stream:
        stream.seek(begin)
        return Content(stream.read(size))
