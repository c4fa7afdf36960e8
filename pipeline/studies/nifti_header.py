"""The header of a NIfTI-1 or NIfTI-2 file: what slices the file holds, where the voxels are and how they are stored.

Follows https://nifti.nimh.nih.gov/nifti-1 (nifti1.h) and nifti-2 (nifti2.h). Nothing is believed that the size of the
file contradicts. Extension blocks, which may hold a patient's DICOM header, lie before the voxels and are never read.
"""

import os
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from mribatch.pipeline.records import Flag, Status, Verdict
from mribatch.pipeline.storage.source import ByteSource
from mribatch.pipeline.studies.facts import SliceFacts, StudyFile, StudyFormat
from mribatch.pipeline.studies.gzip_stream import MAX_RATIO
from mribatch.pipeline.studies.nifti_files import (
    NiftiError,
    NiftiFiles,
    is_packed,
    nifti_files,
    read_start,
)
from mribatch.pipeline.studies.nifti_slicing import Slicing, slice_volume
from mribatch.pipeline.studies.options import HeaderOptions

MAX_SLICES = 1 << 18  # of one file: more are no MRI, and every slice is a row

_SIZES = (348, 540)  # bytes of the headers of NIfTI-1 and NIfTI-2, which are also their first field
_MAGIC = {348: (344, b"n+1\0", b"ni1\0"), 540: (4, b"n+2\0\r\n\x1a\n", b"ni2\0\r\n\x1a\n")}  # offset, one file, pair
_TYPES = dict(
    zip(
        (2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280),
        ["u1", "i2", "i4", "f4", "f8", "i1", "u2", "u4", "i8", "u8"],
        strict=True,
    )
)
_TYPES_REFUSED = {
    1: "single bits",
    32: "complex numbers (complex64)",
    128: "colours (RGB24)",
    1536: "128-bit floating-point numbers (float128)",
    1792: "complex numbers (complex128)",
    2048: "complex numbers (complex256)",
    2304: "colours (RGBA32)",
}
# Intents whose "voxels" are no grey values: matrices, vectors, points, meshes, colours, and those of CIFTI-2.
_INTENTS_REFUSED = {1004, 1005, 1006, 1007, 1008, 1009, 1010, 2002, 2003, 2004, 2005, *range(3000, 3100)}


@dataclass(frozen=True, slots=True)
class NiftiLayout:
    """Where the voxels of a file are, how they are stored and which of them are used.

    shape: Voxels along the stored axes, the first of which changes fastest.
    numbers: Of the volumes that are used, from 0.
    slope, intercept: A value is slope * stored + intercept.
    """

    voxels: ByteSource
    packed: bool  # by gzip
    offset: int  # bytes before the first voxel, unpacked
    dtype: str  # NumPy's letters, with the byte order
    shape: tuple[int, int, int]
    volumes: int  # in the file
    numbers: range
    slope: float
    intercept: float
    slicing: Slicing

    @property
    def itemsize(self) -> int:
        return int(self.dtype[-1])

    @property
    def volume_bytes(self) -> int:
        return prod(self.shape) * self.itemsize

    @property
    def total_bytes(self) -> int:
        """Of the file that holds the voxels, unpacked, up to the last one."""
        return self.offset + self.volume_bytes * self.volumes

    def place(self, number: int) -> tuple[int, int]:
        """Return the volume of a slice of the file and its number within that volume."""
        return divmod(number, self.slicing.count)


def read_nifti_header(source: ByteSource, options: HeaderOptions) -> StudyFile:
    """Read what a NIfTI file holds. Reads headers only; never raises for bad content.

    Slices are numbered through all volumes of the file: slice s of volume v has the number v * slices + s, whichever
    volumes are used. Their order within a volume is told in `nifti_slicing`.

    Args:
        source: Of a .nii or .nii.gz file, or of either file of a pair .hdr and .img.
        options: Those for NIfTI count: plane, volume and max_pixels, which limits the voxels of one volume.

    Raises:
        OSError: The file is gone, forbidden or no regular file.
    """
    layout, verdict = read_layout(source, options)
    if layout is None:
        return StudyFile(StudyFormat.NIFTI, verdict, (SliceFacts(None),))
    slicing = layout.slicing
    facts = (
        SliceFacts(number, number + 1, slicing.plane, slicing.position(number % slicing.count))
        for volume in layout.numbers
        for number in range(volume * slicing.count, (volume + 1) * slicing.count)
    )
    return StudyFile(StudyFormat.NIFTI, verdict, tuple(facts), flags=verdict.flags, needs_range=True)


def read_layout(source: ByteSource, options: HeaderOptions) -> tuple[NiftiLayout | None, Verdict]:
    """Read where the voxels are. The layout is None where the verdict is not ok.

    Raises:
        OSError: As `read_nifti_header`.
    """
    try:
        with np.errstate(all="ignore"):  # headers may hold any number; what comes of it is checked
            layout = _layout(source, options)
    except NiftiError as error:
        return None, Verdict(error.status, str(error), format=StudyFormat.NIFTI.value)
    first = options.volume == 0 and layout.volumes > 1
    flags = (
        *((Flag.FIRST_VOLUME,) if first else ()),
        *(() if layout.slicing.oriented else (Flag.NO_ORIENTATION,)),
    )
    width, height = layout.slicing.width, layout.slicing.height
    return layout, Verdict(Status.OK, None, StudyFormat.NIFTI.value, width, height, flags, layout.itemsize * 8)


def _layout(source: ByteSource, options: HeaderOptions) -> NiftiLayout:
    files = nifti_files(source)
    header_path = files.header.location
    if source.location != header_path and not os.path.exists(header_path):
        raise NiftiError(Status.UNSUPPORTED, "This .img file has no .hdr file beside it that says what it holds.")
    header, one_file, order = _parse(read_start(files.header, max(_SIZES)))
    if not one_file and not files.is_pair:
        raise NiftiError(Status.UNSUPPORTED, "The header is one of two files, but the name does not end in .hdr.")
    where = NiftiFiles(files.header, files.header) if one_file else files
    shape, volumes = _shape(header)
    dtype = order + _type(header)
    _check_size(shape, options)
    size, packed = _voxel_file(where)
    slope, intercept = _scaling(header)
    layout = NiftiLayout(
        voxels=where.voxels,
        packed=packed,
        offset=_offset(header, one_file),
        dtype=dtype,
        shape=shape,
        volumes=volumes,
        numbers=_volumes_used(volumes, options.volume),
        slope=slope,
        intercept=intercept,
        slicing=slice_volume(header, shape, options.plane),
    )
    _check_against_file(layout, size)
    slices = len(layout.numbers) * layout.slicing.count
    if slices > MAX_SLICES:
        raise NiftiError(Status.TOO_LARGE, f"The file holds {slices:,} slices; the limit is {MAX_SLICES:,}.")
    return layout


def _parse(start: bytes) -> tuple[Any, bool, str]:
    """nibabel's header, whether voxels follow it in the same file, and the byte order, "<" or ">"."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    if not start:
        raise NiftiError(Status.EMPTY, "The file is empty (0 bytes).")
    order, size = _kind(start)
    if len(start) < size:
        raise NiftiError(Status.TRUNCATED, f"The file ends inside the NIfTI header, after {len(start)} bytes.")
    at, single, pair = _MAGIC[size]
    magic = start[at : at + len(single)]
    if magic not in (single, pair):
        if size == 348:
            reason = (
                "This is an ANALYZE 7.5 header, or a NIfTI header of a wrong magic; it does not say left from right."
            )
            raise NiftiError(Status.UNSUPPORTED, reason)
        raise NiftiError(Status.DECODE_FAILED, "The magic of the NIfTI-2 header is wrong.")
    kind = Nifti1Header if size == 348 else Nifti2Header
    return kind(start[:size], endianness=order, check=False), magic == single, order


def _kind(start: bytes) -> tuple[str, int]:
    """Byte order and size of the header, by its first field."""
    for order, name in (("<", "little"), (">", "big")):
        size = int.from_bytes(start[:4], "little" if name == "little" else "big")
        if size in _SIZES:
            return order, size
    if len(start) < 4:
        raise NiftiError(Status.TRUNCATED, f"The file ends inside the NIfTI header, after {len(start)} bytes.")
    raise NiftiError(Status.UNSUPPORTED, "This is no NIfTI file: its first number is neither 348 nor 540.")


def _shape(header: Any) -> tuple[tuple[int, int, int], int]:
    """Voxels along the first three axes, and volumes."""
    dimensions = int(header["dim"][0])
    if not 1 <= dimensions <= 7:
        raise NiftiError(Status.DECODE_FAILED, f"The header gives {dimensions} dimensions; NIfTI has 1 to 7.")
    sides = [int(side) for side in header["dim"][1 : dimensions + 1]]
    if min(sides) < 1:
        raise NiftiError(Status.DECODE_FAILED, f"The header gives {min(sides)} voxels along an axis.")
    if int(header["intent_code"]) in _INTENTS_REFUSED or dimensions == 1:
        raise NiftiError(
            Status.UNSUPPORTED, "The file holds no picture: its header announces vectors, points or a matrix."
        )
    x, y, z = [*sides, 1][:3]
    return (x, y, z), prod(sides[3:])


def _type(header: Any) -> str:
    code = int(header["datatype"])
    if code in _TYPES_REFUSED:
        raise NiftiError(Status.UNSUPPORTED, f"The voxels are {_TYPES_REFUSED[code]}, not grey values.")
    if code not in _TYPES:
        raise NiftiError(Status.DECODE_FAILED, f"The header gives the type of the voxels as {code}, which NIfTI lacks.")
    return _TYPES[code]


def _offset(header: Any, one_file: bool) -> int:
    """Bytes before the first voxel. 0 in a file that holds everything means right after the header."""
    offset = float(header["vox_offset"])
    least = int(header.single_vox_offset) if one_file else 0
    if offset == 0:
        return least
    if not offset.is_integer() or offset < least:
        raise NiftiError(
            Status.DECODE_FAILED, f"The header lets the voxels begin at byte {offset:g}; {least} is the least."
        )
    return int(header["vox_offset"])


def _scaling(header: Any) -> tuple[float, float]:
    """Slope and intercept; a slope of 0 or NaN means none of both (nifti1.h)."""
    from nibabel.spatialimages import HeaderDataError

    try:
        slope, intercept = header.get_slope_inter()
    except HeaderDataError:
        raise NiftiError(Status.DECODE_FAILED, "The header gives a slope for the values but no intercept.") from None
    return (1.0, 0.0) if slope is None else (slope, intercept)


def _volumes_used(volumes: int, wanted: int | None) -> range:
    if wanted is None:
        return range(volumes)
    if wanted >= volumes:
        raise NiftiError(Status.UNSUPPORTED, f"There is no volume {wanted}: the file has {volumes:,}, counted from 0.")
    return range(wanted, wanted + 1)


def _check_size(shape: tuple[int, int, int], options: HeaderOptions) -> None:
    voxels = prod(shape)
    if voxels > options.max_pixels:
        sides = " x ".join(str(side) for side in shape)
        reason = f"A volume has {sides} = {voxels:,} voxels; the limit is {options.max_pixels:,}."
        raise NiftiError(Status.TOO_LARGE, reason)


def _voxel_file(files: NiftiFiles) -> tuple[int, bool]:
    """Bytes of the file with the voxels as it is stored, and whether it is gzip."""
    try:
        with files.voxels.open() as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            return size, is_packed(file)
    except OSError as error:
        if not files.is_pair:
            raise
        raise NiftiError(Status.UNREADABLE, f"The .img file of this header cannot be read: {error.strerror}.") from None


def _check_against_file(layout: NiftiLayout, size: int) -> None:
    if not layout.packed and layout.total_bytes > size:
        reason = f"The header promises {layout.total_bytes:,} bytes; the file has {size:,}."
        raise NiftiError(Status.TRUNCATED, reason)
    if layout.packed and layout.total_bytes > size * MAX_RATIO:
        reason = f"The header promises {layout.total_bytes:,} bytes; gzip cannot pack them into {size:,}."
        raise NiftiError(Status.TRUNCATED, reason)
