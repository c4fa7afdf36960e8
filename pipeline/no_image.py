"""What the inputs hold where there is nothing to classify."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mribatch.core.errors import MribatchError
from mribatch.core.text import decode_name
from mribatch.pipeline.decode.probe import probe
from mribatch.pipeline.listing.discover import Input, OtherFile, other_files
from mribatch.pipeline.listing.entry import SkipReason
from mribatch.pipeline.listing.headers import HeaderReader, Look, UnreadFile
from mribatch.pipeline.listing.patterns import PathPatterns
from mribatch.pipeline.storage.address import Address
from mribatch.pipeline.storage.content import read_beginning
from mribatch.pipeline.studies.facts import NotAnImage

_FILES_OPENED = 200  # files without a telling name that are looked into
_HEAD = 1024  # bytes
_SUFFIXES_SHOWN = 4
_IMAGES = "images"
_NAMES = {  # kind -> one, several, remark
    _IMAGES: ("image", "images", "without a suffix that says so"),
    SkipReason.DICOM_NO_PIXELS: ("DICOM file", "DICOM files", "without a picture, such as reports"),
    SkipReason.DICOM_DIRECTORY: ("DICOMDIR", "DICOMDIRs", "which list other files"),
    SkipReason.DICOM_SEGMENTATION: ("DICOM file", "DICOM files", "segmentations or parametric maps"),
    SkipReason.DICOM_MODALITY: ("DICOM file", "DICOM files", "of another modality than MR"),
    SkipReason.DICOM_MOSAIC: ("DICOM file", "DICOM files", "mosaics of many slices"),
    SkipReason.NIFTI_DATA: ("file", "files", "with the voxels of NIfTI headers"),
    SkipReason.OTHER_PROGRAM: ("entry", "entries", "of other programs, such as thumbnails and recycle bins"),
    SkipReason.EXCLUDED: ("file or folder", "files or folders", "excluded"),
    SkipReason.SYMLINK_LOOP: ("folder", "folders", "linked into itself"),
    SkipReason.UNREADABLE_FOLDER: ("folder", "folders", "that cannot be read"),
    SkipReason.UNREADABLE_FILE: ("file", "files", "that cannot be read"),
    SkipReason.DAMAGED_ARCHIVE: ("archive", "archives", "that cannot be read to the end"),
    SkipReason.ARCHIVE_MEMBER: ("member of an archive", "members of archives", "that are links or have hostile names"),
    SkipReason.STUDY_ELSEWHERE: ("file of a NIfTI pair", "files of NIfTI pairs", "in an archive or an object store"),
}
_FIXES = {  # the first kind that was found counts
    _IMAGES: "give them the suffix of their format, or name them outright in a list for --from-file",
    SkipReason.UNREADABLE_FOLDER: "check the permissions of the folder",
    SkipReason.UNREADABLE_FILE: "check the permissions of the files",
    SkipReason.DICOM_MODALITY: "add --any-modality to classify them all the same",
    SkipReason.DICOM_MOSAIC: "convert the mosaics to NIfTI",
    SkipReason.DAMAGED_ARCHIVE: "pack the archive again, as an uncompressed tar or a zip, or unpack it into a folder",
    SkipReason.STUDY_ELSEWHERE: "copy them into a folder, and unpack archives there",
    SkipReason.EXCLUDED: "check the patterns of --exclude",
}
_GENERAL_FIX = "check the folder, or name the files outright to read them whatever they are called"


def no_image_error(
    inputs: Sequence[Input], own: Path | Address | None, patterns: PathPatterns, headers: HeaderReader
) -> MribatchError:
    """Return the error for inputs that hold no candidate at all; it names what they hold, with counts.

    Args:
        inputs: Walked again; files whose name says nothing are looked into, up to 200 of them.
        own: The run's own output folder, which is not entered.
        patterns: What the user leaves out.
        headers: Tells what a DICOM file holds.
    """
    kinds: Counter[str] = Counter()
    suffixes: Counter[str] = Counter()
    opened = 0
    for file in other_files(inputs, own, patterns):
        kind: str | None = file.reason
        if file.reason in (SkipReason.SUFFIX, None):
            opened += 1
            kind = _kind_by_content(file, headers) if opened <= _FILES_OPENED else None
        if kind is None:
            suffixes[decode_name(os.path.splitext(file.path)[1].lower())[0] or "no suffix"] += 1
        else:
            kinds[kind] += 1
    parts = [_describe(kind, count) for kind, count in kinds.most_common()]
    parts += [_describe_others(suffixes)] if suffixes else []
    return MribatchError(
        f"there is no image in the inputs: {', '.join(parts) or 'no file at all'}",
        next((fix for kind, fix in _FIXES.items() if kinds[kind]), _GENERAL_FIX),
    )


def _kind_by_content(file: OtherFile, headers: HeaderReader) -> str | None:
    try:
        head = read_beginning(file.location, _HEAD)
    except OSError:
        return None
    if probe(head).format is not None:
        return _IMAGES
    found = headers.find(UnreadFile(0, file.path, file.look, file.location)) if file.look is not Look.NO else None
    return found.reason if isinstance(found, NotAnImage) else None


def _describe(kind: str, count: int) -> str:
    one, several, remark = _NAMES[kind]
    return f"{count:,} {one if count == 1 else several} ({remark})"


def _describe_others(suffixes: Counter[str]) -> str:
    ordered = sorted(suffixes.items(), key=lambda item: (-item[1], item[0]))
    listed = [f"{suffix} {count:,}" for suffix, count in ordered[:_SUFFIXES_SHOWN]]
    listed += ["..."] if len(suffixes) > _SUFFIXES_SHOWN else []
    return f"{suffixes.total():,} other file{'' if suffixes.total() == 1 else 's'} ({', '.join(listed)})"
