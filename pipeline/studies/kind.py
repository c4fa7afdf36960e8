"""Is this file one of a study? Told by its first bytes, since DICOM files often have no suffix."""

import zlib
from typing import Literal

from mribatch.pipeline.studies.dicom_elements import PREFIX, PREFIX_AT, begins_like_dicom
from mribatch.pipeline.studies.facts import StudyFormat

HEAD_BYTES = 1024  # enough for `tell_kind`

_GZIP = b"\x1f\x8b"
_GZIP_WINDOW = 16 + zlib.MAX_WBITS
# (bytes of the header as its first field says, where the magic is, what it may be)
_NIFTI = ((348, 344, (b"n+1\0", b"ni1\0")), (540, 4, (b"n+2\0\r\n\x1a\n", b"ni2\0\r\n\x1a\n")))
_NIFTI_HEAD = 348
_ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")


def tell_kind(head: bytes, name: bytes, *, dicom_anywhere: bool = False) -> StudyFormat | None:
    """The format of a study's file, or None for anything else.

    DICOM is told by its prefix (PS3.10, 7.1); NIfTI by its magic, also behind gzip. The voxels of a NIfTI pair have no
    magic: a name in .img or .img.gz is believed. So are other names of NIfTI where the file is gzip or begins with the
    size of a header, so that ANALYZE 7.5, a wrong magic and a cut header are refused for what they are.

    Args:
        head: The first `HEAD_BYTES` bytes of the file, or all of a shorter one.
        name: Of the file.
        dicom_anywhere: Whether a data set without preamble and prefix counts, too.
    """
    if head[PREFIX_AT : PREFIX_AT + 4] == PREFIX:
        return StudyFormat.DICOM
    start = _unpack(head) if head.startswith(_GZIP) else head
    if _is_nifti(start) or _is_nifti_by_name(name.lower(), head, start):
        return StudyFormat.NIFTI
    if dicom_anywhere and begins_like_dicom(head):
        return StudyFormat.DICOM
    return None


def _unpack(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(_GZIP_WINDOW).decompress(head, _NIFTI_HEAD)
    except zlib.error:
        return b""


def _is_nifti(start: bytes) -> bool:
    return any(
        int.from_bytes(start[:4], order) == size and start[at : at + len(magics[0])] in magics
        for size, at, magics in _NIFTI
        for order in _ORDERS
    )


def _is_nifti_by_name(name: bytes, head: bytes, start: bytes) -> bool:
    if name.endswith((b".img", b".img.gz")):
        return True
    if name.endswith((b".nii.gz", b".hdr.gz")):
        return head.startswith(_GZIP)
    sizes = [size for size, *_ in _NIFTI]
    begins_like_one = any(int.from_bytes(start[:4], order) in sizes for order in _ORDERS)
    return name.endswith((b".nii", b".hdr")) and begins_like_one
