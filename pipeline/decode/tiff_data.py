"""The pixels of a TIFF: strips and tiles unpacked strictly, and what their samples mean.

libtiff, as OpenCV uses it, hides damage inside packed data (the rest of a strip stays black), refuses tiles of small
images, mirrors tiles one by one, and mixes colour with alpha. docs/reference/pixels.md says what is done here instead.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy import uint8, uint32
from numpy.typing import NDArray

from mribatch.pipeline.decode.formats.container import Refused, damaged, truncated, unsupported
from mribatch.pipeline.decode.formats.tiff import Compression, Photometric, SampleFormat, TiffLayout, layout
from mribatch.pipeline.decode.packed import (
    Damaged,
    OldLzw,
    Short,
    unpack_deflate,
    unpack_lzw,
    unpack_packbits,
)
from mribatch.pipeline.decode.pixel_rule import full_scale, luma, luma_of_inks, luma_of_table

_Unpack = Callable[[bytes, int, int], NDArray[uint8]]  # of a piece, its bytes at most, bytes of a row
_UNPACK: dict[Compression, _Unpack] = {
    Compression.LZW: lambda piece, most, _: unpack_lzw(piece, most),
    Compression.PACKBITS: unpack_packbits,
    Compression.DEFLATE: lambda piece, most, _: unpack_deflate(piece, most),
    Compression.OLD_DEFLATE: lambda piece, most, _: unpack_deflate(piece, most),
}
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_BITS_AT_ONCE = 1 << 23  # of samples that are no bytes; bounds the memory
_CODES = {SampleFormat.UNSIGNED: "u", SampleFormat.SIGNED: "i", SampleFormat.FLOAT: "f"}


def decode_tiff(content: bytes) -> tuple[NDArray[Any], int]:
    """Decode the first image.

    Args:
        content: A whole TIFF that `probe` called ok.

    Returns:
        Grey as stored, (height, width), and the orientation, 1 to 8. Grey is uint8 where it needs no scaling; else the
        samples as numbers, for `eight_bits`.

    Raises:
        Refused: The data of a strip or tile are damaged, cut or of an old kind.
    """
    found = layout(content)
    samples = np.empty((found.height, found.width, found.samples), _sample_type(found))
    for number, ((start, length), (plane, top, left, rows)) in enumerate(
        zip(found.pieces, found.places(), strict=True)
    ):
        piece = _unpacked(content[start : start + length], number, rows, found)
        part = samples[top : top + rows, left : left + found.piece_width, plane if found.planar else slice(None)]
        values = _values(piece, rows, found)[: part.shape[0], : part.shape[1]]
        part[...] = values[..., 0] if found.planar else values
    return _grey(samples, found), found.orientation


def _sample_type(found: TiffLayout) -> np.dtype[Any]:
    """The type that holds a sample, in the machine's byte order."""
    size = 1 if found.bits <= 8 else 2 if found.bits <= 16 else found.bits // 8
    return np.dtype(f"{_CODES[found.form]}{size}")


def _unpacked(piece: bytes, number: int, rows: int, found: TiffLayout) -> NDArray[uint8]:
    """The bytes of a strip or tile, uint8 (rows, bytes of a row)."""
    if found.reversed_bits:
        piece = piece.translate(_REVERSED)
    wanted, most = rows * found.row_bytes, found.piece_height * found.row_bytes
    unpack = _UNPACK.get(found.compression)
    try:
        data = np.frombuffer(piece, uint8) if unpack is None else unpack(piece, most, found.row_bytes)
    except OldLzw:
        raise unsupported(f"The TIFF piece {number:,} is packed with LZW as before TIFF 5.0.") from None
    except Short as short:
        raise truncated(f"The TIFF piece {number:,} {short}.") from None
    except Damaged as damage:
        raise damaged(f"The TIFF piece {number:,} {damage}.") from None
    if len(data) < wanted:
        raise truncated(f"The TIFF piece {number:,} holds {len(data):,} bytes of {wanted:,}.")
    if unpack is not None and len(data) not in (wanted, most):  # the last strip may have rows below the image
        raise _too_long(number, len(data), wanted)
    return data[:wanted].reshape(rows, found.row_bytes)


def _too_long(number: int, have: int, wanted: int) -> Refused:
    return damaged(f"The TIFF piece {number:,} unpacks to {have:,} bytes, not {wanted:,}.")


def _values(rows_of_bytes: NDArray[uint8], rows: int, found: TiffLayout) -> NDArray[Any]:
    """Samples of a strip or tile, (rows, columns, samples), with the predictor undone."""
    shape = rows, found.piece_width, found.samples_in_piece
    if found.predictor == 3:
        return _float_differences(rows_of_bytes, shape, found.bits // 8)
    if found.bits % 8:
        return _odd_bits(rows_of_bytes, shape, found.bits)
    stored = rows_of_bytes.view(_sample_type(found).newbyteorder(found.byte_order)).reshape(shape)
    if found.predictor == 1:
        return stored
    unsigned = np.dtype(f"u{found.bits // 8}")  # sums wrap around, whatever the samples mean
    bits = stored.astype(stored.dtype.newbyteorder("=")).view(unsigned)
    samples: NDArray[Any] = np.cumsum(bits, axis=1, dtype=unsigned).view(_sample_type(found))
    return samples


def _odd_bits(rows_of_bytes: NDArray[uint8], shape: tuple[int, int, int], bits: int) -> NDArray[Any]:
    """Samples of 1 to 14 bits that do not fill bytes, most significant bit first whatever the byte order."""
    rows, columns, samples = shape
    values = np.empty(shape, np.uint16)
    weights = (1 << np.arange(bits - 1, -1, -1)).astype(np.uint16)
    step = max(1, _BITS_AT_ONCE // max(1, columns * samples * bits))
    for start in range(0, rows, step):
        unpacked = np.unpackbits(rows_of_bytes[start : start + step], axis=1)[:, : columns * samples * bits]
        values[start : start + step] = unpacked.reshape(-1, columns, samples, bits) @ weights
    return values


def _float_differences(rows_of_bytes: NDArray[uint8], shape: tuple[int, int, int], size: int) -> NDArray[Any]:
    """Undo the floating-point predictor: bytes are differences, and stand most significant ones of the row first."""
    rows, columns, samples = shape
    sums = np.cumsum(rows_of_bytes.reshape(rows, columns * size, samples), axis=1, dtype=uint8)
    planes = sums.reshape(rows, size, columns * samples)
    restored: NDArray[Any] = np.ascontiguousarray(np.moveaxis(planes, 1, 2)).view(f">f{size}").reshape(shape)
    return restored


def _grey(samples: NDArray[Any], found: TiffLayout) -> NDArray[Any]:
    """Samples (height, width, samples) -> grey."""
    kind = found.photometric
    if kind == Photometric.RGB:
        return luma(samples)
    if kind == Photometric.CMYK:
        return luma_of_inks(~samples[..., :4])
    first: NDArray[Any] = samples[..., 0]
    if kind == Photometric.PALETTE:
        return np.asarray(luma_of_table(_palette(found.colour_map))[first])
    if kind == Photometric.WHITE_IS_ZERO:
        first = uint32((1 << found.bits) - 1).astype(first.dtype) - first
    return np.asarray(full_scale(found.bits)[first]) if found.bits < 8 else first


def _palette(colour_map: tuple[int, ...]) -> NDArray[uint8]:
    """The colours of a palette, uint8 (n, 3); values are 16-bit, but some writers leave them at 8 bits."""
    values = np.array(colour_map, np.uint16)
    if values.max() > 255:
        values >>= 8
    return values.astype(uint8).reshape(3, -1).T
