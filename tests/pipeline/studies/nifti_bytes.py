"""NIfTI files made field by field, whole and broken, as nifti1.h and nifti2.h lay them out."""

import gzip
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mribatch.pipeline.records import Status

CODES = dict(
    zip(
        ["u1", "i2", "i4", "f4", "f8", "i1", "u2", "u4", "i8", "u8"],
        (2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280),
        strict=True,
    )
)
SHAPE = (6, 5, 4)  # stored axes: along rows of the pictures, along columns, slices

# name: (offset, struct's letters) of NIfTI-1 and of NIfTI-2
_FIELDS = {
    "sizeof_hdr": ((0, "i"), (0, "i")),
    "dim_info": ((39, "B"), (524, "B")),
    "dim": ((40, "8h"), (16, "8q")),
    "intent_code": ((68, "h"), (504, "i")),
    "datatype": ((70, "h"), (12, "h")),
    "bitpix": ((72, "h"), (14, "h")),
    "pixdim": ((76, "8f"), (104, "8d")),
    "vox_offset": ((108, "f"), (168, "q")),
    "scl_slope": ((112, "f"), (176, "d")),
    "scl_inter": ((116, "f"), (184, "d")),
    "qform_code": ((252, "h"), (344, "i")),
    "sform_code": ((254, "h"), (348, "i")),
    "quatern": ((256, "3f"), (352, "3d")),
    "qoffset": ((268, "3f"), (376, "3d")),
    "srow": ((280, "12f"), (400, "12d")),
    "magic": ((344, "4s"), (4, "8s")),
}
_MAGIC = {1: {True: b"n+1\0", False: b"ni1\0"}, 2: {True: b"n+2\0\r\n\x1a\n", False: b"ni2\0\r\n\x1a\n"}}
_SIZE = {1: 348, 2: 540}


def voxels(shape: Sequence[int] = SHAPE, dtype: str = "<i2") -> NDArray[Any]:
    """Different values, at most 199."""
    return (np.arange(np.prod(shape)) % 200).reshape(shape, order="F").astype(dtype)


def header(array: NDArray[np.generic], version: int = 1, *, one_file: bool = True, **fields: Any) -> bytes:
    """A header for an array that is stored from right to left, posterior to anterior, inferior to superior ("LAS").

    Args:
        array: Its dtype gives type and byte order.
        version: 1 or 2.
        one_file: Voxels follow in the same file.
        fields: Numbers, several or bytes, in place of what fits the array; names as in `_FIELDS`.
    """
    order = ">" if array.dtype.byteorder == ">" else "<"
    standard: dict[str, Any] = {
        "sizeof_hdr": _SIZE[version],
        "dim": [array.ndim, *array.shape, *[1] * (7 - array.ndim)],
        "datatype": CODES.get(array.dtype.str[1:], 0),
        "bitpix": array.dtype.itemsize * 8,
        "pixdim": [1, 1, 1, 3, 1, 1, 1, 1],
        "vox_offset": _SIZE[version] + 4 if one_file else 0,
        "sform_code": 1,
        "srow": [-1, 0, 0, 10, 0, 1, 0, 20, 0, 0, 3, 30],
        "magic": _MAGIC[version][one_file],
    }
    packed = bytearray(_SIZE[version])
    for name, value in {**standard, **fields}.items():
        offset, letters = _FIELDS[name][version - 1]
        values = value if isinstance(value, Sequence) and not isinstance(value, bytes) else [value]
        struct.pack_into(order + letters, packed, offset, *values)
    return bytes(packed)


def nifti(
    array: NDArray[np.generic] | None = None, *, version: int = 1, extension: bytes = b"", **fields: Any
) -> bytes:
    """A whole .nii file; `extension` is put before the voxels."""
    array = voxels() if array is None else array
    if extension:
        fields = {"vox_offset": _SIZE[version] + 4 + len(extension), **fields}
    flag = b"\1\0\0\0" if extension else bytes(4)
    return header(array, version, **fields) + flag + extension + array.tobytes(order="F")


def broken() -> dict[str, tuple[bytes, Status]]:
    """Name, content and the one status that each must get, by its header or at its first slice."""
    whole, nan, inf = nifti(), float("nan"), float("inf")
    packed = gzip.compress(whole)
    damaged = bytearray(packed)
    damaged[-6] ^= 1
    failed, unsupported, truncated, too_large = (
        *(Status.DECODE_FAILED, Status.UNSUPPORTED, Status.TRUNCATED, Status.TOO_LARGE),
    )
    return {
        "empty.nii": (b"", Status.EMPTY),
        "two_bytes.nii": (whole[:2], truncated),
        "cut_in_header.nii": (whole[:300], truncated),
        "cut_in_voxels.nii": (whole[:-1], truncated),
        "header_alone.nii": (whole[:352], truncated),
        "text.nii": (b"not an image" * 50, unsupported),
        "analyze.nii": (nifti(magic=b"\0\0\0\0"), unsupported),
        "wrong_magic.nii": (nifti(magic=b"n+9\0"), unsupported),
        "wrong_magic_2.nii": (nifti(version=2, magic=b"n+2\0\n\n\n\n"), failed),
        "pair_without_name.nii": (nifti(magic=b"ni1\0"), unsupported),
        "no_dimension.nii": (nifti(dim=[0] * 8), failed),
        "one_dimension.nii": (nifti(dim=[1, 6, 1, 1, 1, 1, 1, 1]), unsupported),
        "eight_dimensions.nii": (nifti(dim=[8, 6, 5, 4, 1, 1, 1, 1]), failed),
        "negative_dimensions.nii": (nifti(dim=[-3, 6, 5, 4, 1, 1, 1, 1]), failed),
        "negative_side.nii": (nifti(dim=[3, 6, -5, 4, 1, 1, 1, 1]), failed),
        "no_slices.nii": (nifti(dim=[3, 6, 5, 0, 1, 1, 1, 1]), failed),
        "no_volumes.nii": (nifti(dim=[4, 6, 5, 4, 0, 1, 1, 1]), failed),
        "many_voxels.nii": (nifti(dim=[3, 32767, 32767, 4, 1, 1, 1, 1]), too_large),
        "many_voxels_2.nii": (nifti(version=2, dim=[3, 1 << 62, 1 << 62, 1 << 62, 1, 1, 1, 1]), too_large),
        "many_volumes.nii": (nifti(dim=[7, 6, 5, 4, 32767, 32767, 32767, 32767]), truncated),
        "many_volumes.nii.gz": (gzip.compress(nifti(dim=[4, 6, 5, 4, 32767, 1, 1, 1])), truncated),
        "promises_more.nii.gz": (gzip.compress(nifti(dim=[4, 6, 5, 4, 3, 1, 1, 1])), truncated),
        "binary.nii": (nifti(datatype=1), unsupported),
        "rgb.nii": (nifti(datatype=128), unsupported),
        "rgba.nii": (nifti(datatype=2304), unsupported),
        "complex.nii": (nifti(datatype=32), unsupported),
        "complex128.nii": (nifti(datatype=1792), unsupported),
        "complex256.nii": (nifti(datatype=2048), unsupported),
        "float128.nii": (nifti(datatype=1536), unsupported),
        "no_type.nii": (nifti(datatype=0), failed),
        "unknown_type.nii": (nifti(datatype=77), failed),
        "vectors.nii": (nifti(intent_code=1007), unsupported),
        "connectivity.nii": (nifti(version=2, intent_code=3001), unsupported),
        "offset_in_header.nii": (nifti(vox_offset=100), failed),
        "offset_negative.nii": (nifti(vox_offset=-352), failed),
        "offset_nan.nii": (nifti(vox_offset=nan), failed),
        "offset_infinite.nii": (nifti(vox_offset=inf), failed),
        "offset_fraction.nii": (nifti(vox_offset=352.5), failed),
        "offset_behind_the_end.nii": (nifti(vox_offset=1e9), truncated),
        "no_intercept.nii": (nifti(scl_slope=2, scl_inter=nan), failed),
        "nan_alone.nii": (nifti(np.full(SHAPE, nan, "<f4")), failed),
        "cut.nii.gz": (packed[:-30], truncated),
        "cut_in_header.nii.gz": (packed[:30], truncated),
        "cut_trailer.nii.gz": (packed[:-5], truncated),
        "damaged.nii.gz": (bytes(damaged), failed),
        "short.nii.gz": (gzip.compress(whole[:-8]), truncated),
        "surplus.nii.gz": (gzip.compress(whole + bytes(1 << 17)), failed),
        "bomb.nii.gz": (gzip.compress(whole + bytes(1 << 25)), failed),
        "lonely.img": (whole[352:], unsupported),
        "lonely.hdr": (header(voxels(), one_file=False), Status.UNREADABLE),
    }
