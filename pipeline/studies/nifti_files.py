"""The one or two files of a NIfTI volume: which they are, how they are opened, and the first bytes of the header."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from mribatch.pipeline.records import Status
from mribatch.pipeline.storage.source import ByteSource, ByteStream, LocalSource, is_far
from mribatch.pipeline.studies.gzip_stream import MAGIC, GzipError, GzipStream

# An image of two files: the header's suffix and what the voxels' may be, in the order in which they are looked for.
_VOXELS = {b".hdr": (b".img", b".img.gz"), b".hdr.gz": (b".img.gz", b".img")}
_HEADERS = {b".img": (b".hdr", b".hdr.gz"), b".img.gz": (b".hdr.gz", b".hdr")}


class NiftiError(Exception):
    """The file is not read; the text is the reason, as a sentence without a word of the header."""

    def __init__(self, status: Status, error: str) -> None:
        super().__init__(error)
        self.status = status


@dataclass(frozen=True, slots=True)
class NiftiFiles:
    """Where header and voxels are; both are the same where one file holds everything."""

    header: ByteSource
    voxels: ByteSource

    @property
    def is_pair(self) -> bool:
        return self.header.location != self.voxels.location


def nifti_files(source: ByteSource) -> NiftiFiles:
    """Return the files that belong to one: .hdr and .img of one name, in either direction, else that file alone.

    Pairs are looked for on this machine only.
    """
    path = source.location
    if is_far(path):
        return NiftiFiles(source, source)
    if voxels := _partner(path, _VOXELS):
        return NiftiFiles(source, LocalSource(voxels))
    if header := _partner(path, _HEADERS):
        return NiftiFiles(LocalSource(header), source)
    return NiftiFiles(source, source)


def header_of_pair(path: bytes) -> bytes | None:
    """Where the header of a file with voxels alone is, by its name; None where it is no such file, or has no header."""
    header = None if is_far(path) else _partner(path, _HEADERS)
    return header if header is not None and os.path.exists(header) else None


def is_packed(file: ByteStream) -> bool:
    """Whether the file is gzip, by its first bytes, whatever its name. Leaves the file at its start."""
    packed = file.read(len(MAGIC)) == MAGIC
    file.seek(0)
    return packed


def read_start(source: ByteSource, size: int) -> bytes:
    """Read the first bytes of a file, unpacked where it is gzip.

    Returns:
        Up to `size` bytes; fewer only where the file ends before.

    Raises:
        OSError: There are none to be had.
        NiftiError: The gzip data are cut or damaged before `size` bytes.
    """
    with source.open() as file:
        if not is_packed(file):
            return file.read(size)
        start = bytearray(size)
        try:
            return bytes(start[: GzipStream(file).read_into(memoryview(start))])
        except GzipError as error:
            raise of_gzip(error) from None


def of_gzip(error: GzipError) -> NiftiError:
    """Return the refusal that a broken gzip stream means."""
    return NiftiError(Status.TRUNCATED if error.cut else Status.DECODE_FAILED, str(error))


def _partner(path: bytes, suffixes: Mapping[bytes, tuple[bytes, ...]]) -> bytes | None:
    """The other file of a pair, preferably one that exists; None where the name is of no such pair."""
    for suffix, others in suffixes.items():
        if path.lower().endswith(suffix):
            stem, written = path[: -len(suffix)], path[-len(suffix) :]
            partners = [stem + (other.upper() if written.isupper() else other) for other in others]
            return next((partner for partner in partners if os.path.exists(partner)), partners[0])
    return None
