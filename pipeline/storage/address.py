"""How a file is named wherever it is: a path, an address such as s3://bucket/key, or a member of an archive.

All three are bytes, so that they travel as paths do. A member is its archive's name, a NUL byte, which no name has, and
where it lies in there.
"""

import os
import re
from dataclasses import dataclass
from typing import Self

from mribatch.core.errors import OptionError

_ADDRESS = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]+):(/{1,3})([^/].*)?", re.DOTALL)  # a drive of Windows has one letter
_PARAMETERS = re.compile(r"\?[A-Za-z_]+=[^/]")
_LOCAL = "file"
_NUL = b"\0"

STORED, DEFLATED, ENCRYPTED, UNKNOWN = "stored", "deflated", "encrypted", "unknown"
TAR, ZIP = "tar", "zip"
_MEMBER = re.compile(rf"({TAR}|{ZIP}) ([0-9]+) ([0-9]+) ([0-9]+) ({STORED}|{DEFLATED}|{ENCRYPTED}|{UNKNOWN}) ([0-9]+)")


@dataclass(frozen=True, slots=True)
class Address:
    """A place in an object store or a distributed file system.

    Raises:
        OptionError: It names no bucket, or holds a password or parameters.
    """

    scheme: str  # lower case
    authority: str  # the bucket, or the host
    key: str  # without "/" at either end; empty: the whole bucket

    @classmethod
    def parse(cls, text: str | os.PathLike[str] | bytes) -> Self:
        """Read s3://bucket/key; what pathlib makes of it, s3:/bucket/key, is the same."""
        name = os.fsencode(text)
        found = _ADDRESS.fullmatch(name)
        shown = name.decode("utf-8", "backslashreplace")
        if found is None:
            raise OptionError(f"{shown} is not an address", "write it like s3://bucket/folder")
        try:
            scheme, rest = found[1].decode().lower(), (found[3] or b"").decode("utf-8")
        except UnicodeDecodeError as error:
            raise OptionError(f"the address {shown} is not UTF-8", "write it in UTF-8") from error
        authority, _, key = rest.partition("/")
        if found[2] == b"///":  # hdfs:///data: the host is that of the configuration
            authority, key = "", rest
        elif not authority:
            raise OptionError(f"the address {shown} names no bucket", "write it like s3://bucket/folder")
        if "@" in authority:
            raise OptionError(
                f"an address of {scheme}:// holds a name or a password, which would be recorded",
                "leave it out and give credentials by the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE, ...)",
            )
        if _PARAMETERS.search(rest):
            raise OptionError(
                f"the address {shown} has parameters, which are not read",
                "leave them out and set the environment, e.g. AWS_ENDPOINT_URL and AWS_REGION",
            )
        return cls(scheme, authority, key.strip("/"))

    def __str__(self) -> str:
        begin = f"{self.scheme}://{self.authority}"
        if not self.authority:
            return f"{begin}/{self.key}"
        return f"{begin}/{self.key}" if self.key else begin

    def __truediv__(self, name: str) -> "Address":
        return Address(self.scheme, self.authority, f"{self.key}/{name}".strip("/"))

    @property
    def name(self) -> str:
        """The last part of the key, or the bucket."""
        return self.key.rpartition("/")[2] or self.authority

    @property
    def parent(self) -> "Address":
        """The folder above."""
        return Address(self.scheme, self.authority, self.key.rpartition("/")[0])


def is_address(path: object) -> bool:
    """Whether text, bytes or a path is an address such as s3://bucket/x; file:///x is a path."""
    return _is_address(path if isinstance(path, bytes) else os.fsencode(str(path)))


def _is_address(name: bytes) -> bool:
    found = _ADDRESS.match(name)
    return found is not None and found[1].lower() != _LOCAL.encode()


def local_path(path: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """Turn file:///x into /x; everything else stays as it is.

    Raises:
        OptionError: It names another host.
    """
    found = _ADDRESS.fullmatch(os.fsencode(path))
    if found is None or found[1].lower() != _LOCAL.encode():
        return path
    if found[2] == b"//":
        raise OptionError(f"{os.fspath(path)} names a file of another host", "write it like file:///data/x")
    return "/" + os.fsdecode(found[3] or b"")


def join(root: bytes, name: bytes) -> bytes:
    """The file `name` below a root; a name that is an address or an absolute path stands for itself."""
    return name if _is_address(name) else os.path.join(root, name)


@dataclass(frozen=True, slots=True)
class Member:
    """Where a file lies in an archive."""

    kind: str  # TAR or ZIP
    offset: int  # TAR: of its bytes; ZIP: of its local header
    size: int  # bytes of the file
    stored: int  # bytes that it takes in the archive
    method: str = STORED
    crc: int = 0  # ZIP: CRC-32 of the file

    def __str__(self) -> str:
        return f"{self.kind} {self.offset} {self.size} {self.stored} {self.method} {self.crc}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` gives.

        Raises:
            ValueError: It is something else.
        """
        found = _MEMBER.fullmatch(text)
        if found is None:
            raise ValueError(f"'{text[:80]}' is no place in an archive")
        return cls(found[1], int(found[2]), int(found[3]), int(found[4]), found[5], int(found[6]))


def of_member(archive: bytes, member: Member) -> bytes:
    """What to open for a member of an archive."""
    return archive + _NUL + str(member).encode()


def place_in_archive(archive: bytes, member: Member) -> str:
    """Write down where a member is, for the listing: how long its archive's part of the path is, and the place."""
    return f"{len(archive)} {member}"


def locate(root: bytes, name: bytes, place: str | None = None) -> bytes:
    """What to open for a listed file.

    Args:
        root: Of its input.
        name: Relative to that.
        place: Where it is in its archive; None: it is in none.

    Raises:
        ValueError: The place is no place in an archive.
    """
    if place is None:
        return join(root, name)
    length, _, member = place.partition(" ")
    if not length.isdecimal() or int(length) >= len(name):
        raise ValueError(f"'{place[:80]}' is no place in an archive")
    return of_member(join(root, name[: int(length)]), Member.parse(member))


def split_member(location: bytes) -> tuple[bytes, Member | None]:
    """The file or archive that a location leads to, and the member; None where it is no member.

    Raises:
        ValueError: What follows the NUL byte is no place in an archive.
    """
    archive, nul, text = location.partition(_NUL)
    return archive, Member.parse(text.decode("ascii", "replace")) if nul else None
