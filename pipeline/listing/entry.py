"""One file or folder as a walk sees it, and what its name alone says of it."""

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from mribatch.pipeline.listing.headers import STUDY_SUFFIXES, Look
from mribatch.pipeline.listing.other_programs import describe_file, describe_folder
from mribatch.pipeline.listing.patterns import PathPatterns
from mribatch.pipeline.storage.address import Address

# A name that ends so is taken for an image's; what it really is, the probe decides from the content. Longer lists of
# suffixes cost nothing, but opening every other file of a large folder would.
IMAGE_SUFFIXES = (
    *(b".jpg", b".jpeg", b".jpe", b".jif", b".jfi", b".jfif", b".pjpeg", b".pjpg", b".pjp"),
    *(b".jpg_large", b".jpg_orig", b".jpg-large", b".jpg-orig", b".jpg:large", b".jpg:orig", b".jpeg_large"),
    *(b".png", b".apng", b".png_large", b".png_orig"),
    *(b".bmp", b".dib", b".tif", b".tiff", b".tf8", b".btf", b".webp"),
    *(b".jp2", b".j2k", b".j2c", b".jpc", b".jpf", b".jpx"),
)
# A name that ends so is not opened. Any other name may be that of a DICOM or NIfTI file, which its content decides.
OTHER_SUFFIXES = (
    *(b".txt", b".md", b".rst", b".log", b".csv", b".tsv", b".json", b".jsonl", b".xml", b".yaml", b".yml", b".toml"),
    *(b".ini", b".cfg", b".conf", b".html", b".htm", b".css", b".js", b".ts", b".py", b".pyc", b".ipynb", b".m", b".r"),
    *(b".c", b".cc", b".cpp", b".h", b".hpp", b".java", b".sh", b".bat", b".cmd", b".ps1", b".exe", b".dll", b".so"),
    *(b".zip", b".tar", b".tgz", b".tar.gz", b".bz2", b".xz", b".7z", b".rar", b".zst", b".iso"),
    *(b".doc", b".docx", b".xls", b".xlsx", b".ppt", b".pptx", b".odt", b".ods", b".pdf", b".rtf", b".ps", b".eps"),
    *(b".gif", b".svg", b".ico", b".heic", b".heif", b".avif", b".psd", b".raw", b".npy", b".npz", b".mat", b".pkl"),
    *(b".mp4", b".avi", b".mov", b".mkv", b".webm", b".mp3", b".wav", b".flac", b".ogg"),
    *(b".parquet", b".h5", b".hdf5", b".onnx", b".pt", b".pth", b".keras", b".db", b".sqlite", b".lnk", b".url"),
    *(b".bval", b".bvec", b".trk", b".tck", b".mgz", b".mgh", b".nrrd", b".nhdr", b".mha", b".mhd", b".mnc", b".par"),
    *(b".cls", b".index", b".ten", b".msg", b".msgpack", b".pyd"),  # beside the images of a WebDataset
    *(b".tmp", b".bak", b".part", b".crdownload", b".sha256", b".md5"),
)


class SkipReason(StrEnum):
    """Why a file that was seen is not in the listing. Documented in docs/reference/parquet-schema.md."""

    SUFFIX = "suffix"  # its name does not end like an image's
    OTHER_PROGRAM = "other_program"  # thumbnails, companions, checkpoints, recycle bins; the detail says what
    EXCLUDED = "excluded"  # a pattern of the user leaves it out; the detail is the pattern
    DICOM_NO_PIXELS = "dicom_no_pixels"  # a report, a plan, a presentation state: there is no picture in it
    DICOM_DIRECTORY = "dicom_directory"  # a DICOMDIR, which lists other files
    DICOM_SEGMENTATION = "dicom_segmentation"  # a segmentation or a parametric map: derived from images
    DICOM_MODALITY = "dicom_modality"  # not MR; the detail is the modality
    DICOM_MOSAIC = "dicom_mosaic"  # many slices tiled into one picture, as functional series of Siemens have them
    NIFTI_DATA = "nifti_data"  # the voxels of a NIfTI pair, which is listed under its .hdr
    DUPLICATE = "duplicate"  # the same real path was listed under an earlier name
    SYMLINK_LOOP = "symlink_loop"  # a folder that contains itself through a link
    UNREADABLE_FOLDER = "unreadable_folder"  # its files could not be listed
    DAMAGED_ARCHIVE = "damaged_archive"  # it cannot be read, or not to its end; the detail says why
    ARCHIVE_MEMBER = "archive_member"  # a link, a device or a hostile name in an archive; the detail says which
    STUDY_ELSEWHERE = "study_elsewhere"  # a NIfTI pair in an archive or an object store, where it is not read
    UNREADABLE_FILE = "unreadable_file"  # its name does not tell what it is, and its first bytes could not be read


@dataclass(frozen=True, slots=True)
class Entry:
    """A file that may be an image, or whatever is left out and why."""

    path: bytes  # relative to the input's root, with "/"
    real: bytes  # without links; of two entries with the same, the second is a duplicate
    size: int | None
    mtime_ns: int | None
    skipped: SkipReason | None = None  # where `look` is not NO: what the file is unless it is DICOM or NIfTI
    detail: str | None = None
    look: Look = Look.NO
    fault: str | None = None  # of the file system, where it does not say how large the file is
    member: str | None = None  # where it is in its archive, as storage.address.place_in_archive writes it
    is_archive: bool = False  # to be replaced by what is in it


@dataclass(frozen=True, slots=True)
class Scope:
    """What a walk leaves out whatever its suffix, and whether it goes into archives."""

    own: bytes | None  # real path or address of the run's own output folder
    patterns: PathPatterns
    archives: bool = False

    @classmethod
    def of(cls, own: Path | Address | None, patterns: PathPatterns) -> Self:
        if isinstance(own, Address):
            return cls(str(own).encode(), patterns)
        return cls(os.path.realpath(os.fsencode(own)) if own is not None else None, patterns)


def left_out_folder(name: bytes, path: bytes, scope: Scope) -> Entry | None:
    if (what := describe_folder(name)) is not None:
        return Entry(path + b"/", b"", None, None, SkipReason.OTHER_PROGRAM, what)
    if (pattern := scope.patterns.find(path, folder=True)) is not None:
        return Entry(path + b"/", b"", None, None, SkipReason.EXCLUDED, pattern)
    return None


def judge_name(name: bytes, path: bytes) -> tuple[SkipReason | None, str | None, Look]:
    """What a file that was found in a folder or by a pattern is by its name.

    Returns:
        The reason why it is not an image, None where it may be one, and the detail; and whether to look into it.
    """
    if (what := describe_file(name, path)) is not None:
        return SkipReason.OTHER_PROGRAM, what, Look.NO
    lower = name.lower()
    if lower.endswith(IMAGE_SUFFIXES):
        return None, None, Look.NO
    if lower.endswith(STUDY_SUFFIXES):
        return None, None, Look.EXPECTED
    return SkipReason.SUFFIX, None, Look.NO if lower.endswith(OTHER_SUFFIXES) else Look.UNKNOWN
