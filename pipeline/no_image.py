"""What the inputs hold where there is nothing to classify."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mribatch.core.errors import MribatchError
from mribatch.core.text import decode_name
from mribatch.pipeline.decode.formats.foreign import what_else
from mribatch.pipeline.decode.probe import probe, read_head
from mribatch.pipeline.listing.discover import Input, SkipReason, skipped_files
from mribatch.pipeline.listing.patterns import PathPatterns

_FILES_OPENED = 200  # files without a telling name that are looked into
_HEAD = 1024  # bytes; the mark of a NIfTI volume is the last to come, at 344
_SUFFIXES_SHOWN = 4
_IMAGES = "images"
_NAMES = {  # kind -> one, several, remark
    _IMAGES: ("image", "images", "without a suffix that says so"),
    SkipReason.DICOM: ("DICOM file", "DICOM files", "not supported yet"),
    SkipReason.NIFTI: ("NIfTI file", "NIfTI files", "not supported yet"),
    SkipReason.OTHER_PROGRAM: ("entry", "entries", "of other programs, such as thumbnails and recycle bins"),
    SkipReason.EXCLUDED: ("file or folder", "files or folders", "excluded"),
    SkipReason.SYMLINK_LOOP: ("folder", "folders", "linked into itself"),
    SkipReason.UNREADABLE_FOLDER: ("folder", "folders", "that cannot be read"),
}
_FIXES = {  # the first kind that was found counts
    _IMAGES: "give them the suffix of their format, or name them outright in a list for --from-file",
    SkipReason.UNREADABLE_FOLDER: "check the permissions of the folder",
    SkipReason.DICOM: "convert the DICOM files to PNG or TIFF",
    SkipReason.NIFTI: "convert the slices of the NIfTI files to PNG or TIFF",
    SkipReason.EXCLUDED: "check the patterns of --exclude",
}
_GENERAL_FIX = "check the folder, or name the files outright to read them whatever they are called"
_KIND_OF = {
    "a DICOM file": SkipReason.DICOM,
    "a NIfTI volume": SkipReason.NIFTI,
    "a NIfTI header": SkipReason.NIFTI,
    "a NIfTI-2 volume": SkipReason.NIFTI,
}


def no_image_error(inputs: Sequence[Input], own: Path | None, patterns: PathPatterns) -> MribatchError:
    """Return the error for inputs that hold no candidate at all; it names what they hold, with counts.

    Args:
        inputs: Walked again; files whose name says nothing are looked into, up to 200 of them.
        own: The run's own output folder, which is not entered.
        patterns: What the user leaves out.
    """
    kinds: Counter[str] = Counter()
    suffixes: Counter[str] = Counter()
    opened = 0
    for path, reason in skipped_files(inputs, own, patterns):
        kind: str | None = reason
        if reason is SkipReason.SUFFIX:
            opened += 1
            kind = _kind_by_content(path) if opened <= _FILES_OPENED else None
        if kind is None:
            suffixes[decode_name(os.path.splitext(path)[1].lower())[0] or "no suffix"] += 1
        else:
            kinds[kind] += 1
    parts = [_describe(kind, count) for kind, count in kinds.most_common()]
    parts += [_describe_others(suffixes)] if suffixes else []
    return MribatchError(
        f"there is no image in the inputs: {', '.join(parts) or 'no file at all'}",
        next((fix for kind, fix in _FIXES.items() if kinds[kind]), _GENERAL_FIX),
    )


def _kind_by_content(path: bytes) -> str | None:
    try:
        head = read_head(path, _HEAD)
    except OSError:
        return None
    return _IMAGES if probe(head).format is not None else _KIND_OF.get(what_else(head))


def _describe(kind: str, count: int) -> str:
    one, several, remark = _NAMES[kind]
    return f"{count:,} {one if count == 1 else several} ({remark})"


def _describe_others(suffixes: Counter[str]) -> str:
    ordered = sorted(suffixes.items(), key=lambda item: (-item[1], item[0]))
    listed = [f"{suffix} {count:,}" for suffix, count in ordered[:_SUFFIXES_SHOWN]]
    listed += ["..."] if len(suffixes) > _SUFFIXES_SHOWN else []
    return f"{suffixes.total():,} other file{'' if suffixes.total() == 1 else 's'} ({', '.join(listed)})"
