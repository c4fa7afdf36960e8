"""Files of studies are told by content."""

import gzip
import struct

import pytest

from mribatch.pipeline.studies.facts import StudyFormat
from mribatch.pipeline.studies.kind import HEAD_BYTES, tell_kind
from tests.dicom_builder import mr_elements, mr_file, writer_of

NIFTI_1 = struct.pack("<i", 348).ljust(344, b"\0") + b"n+1\0"
NIFTI_1_BIG = struct.pack(">i", 348).ljust(344, b"\0") + b"ni1\0"
NIFTI_2 = struct.pack("<i", 540) + b"n+2\0\r\n\x1a\n" + bytes(528)


@pytest.mark.parametrize(
    ("head", "name", "kind"),
    [
        (mr_file(), b"IM0001", StudyFormat.DICOM),
        (mr_file(), b"picture.jpg", StudyFormat.DICOM),
        (NIFTI_1, b"anything", StudyFormat.NIFTI),
        (NIFTI_1_BIG, b"brain.hdr", StudyFormat.NIFTI),
        (NIFTI_2, b"brain.nii", StudyFormat.NIFTI),
        (gzip.compress(NIFTI_1 + bytes(100), mtime=0), b"brain.nii.gz", StudyFormat.NIFTI),
        (bytes(500), b"brain.img", StudyFormat.NIFTI),  # its header is another file
        (gzip.compress(b"text", mtime=0), b"text.gz", None),
        (gzip.compress(b"text", mtime=0), b"brain.nii.gz", StudyFormat.NIFTI),  # which is told to be none
        (b"\x1f\x8b", b"cut.nii.gz", StudyFormat.NIFTI),
        (b"\x1f\x8bno deflate at all", b"damaged.nii.gz", StudyFormat.NIFTI),
        (NIFTI_1[:300], b"cut.nii", StudyFormat.NIFTI),
        (NIFTI_1[:344] + bytes(4), b"analyze.hdr", StudyFormat.NIFTI),
        (NIFTI_1[:344] + bytes(4), b"anything", None),
        (b"ENVI\nsamples = 3", b"satellite.hdr", None),
        (b"\xff\xd8\xff\xe0", b"picture.nii", None),
        (b"", b"brain.nii", None),
        (b"\xff\xd8\xff\xe0", b"slice.dcm", None),
        (writer_of("").data_set(mr_elements()), b"no preamble", None),
    ],
)
def test_the_first_bytes_decide(head: bytes, name: bytes, kind: StudyFormat | None) -> None:
    assert tell_kind(head[:HEAD_BYTES], name) is kind


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"])
def test_a_data_set_without_preamble_is_told_when_asked_for(syntax: str) -> None:
    head = writer_of(syntax).data_set(mr_elements())[:HEAD_BYTES]
    assert tell_kind(head, b"x", dicom_anywhere=True) is StudyFormat.DICOM


@pytest.mark.parametrize(
    "head", [b"", b"\x08\0", b"\x08\0\x05\0text of some kind", b"plain text", b"\x89PNG\r\n\x1a\n" * 4]
)
def test_other_files_do_not_pass_for_one_without_preamble(head: bytes) -> None:
    assert tell_kind(head, b"x", dicom_anywhere=True) is None
