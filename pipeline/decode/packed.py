"""LZW, PackBits and Deflate, as TIFF packs its strips and tiles: unpacked strictly, so that damage shows.

libtiff goes on after most damage, and leaves black what it does not get. Here a piece must unpack to the very number of
bytes that it stands for, with valid codes only.
"""

import zlib
from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy import intp, uint8
from numpy.typing import NDArray

_CLEAR, _END, _FIRST = 256, 257, 258  # LZW codes: begin a new table; the end; the first string of a table
_MOST_CODES = 5118  # of one table; it is full after 3,837, and encoders that go on for a while are understood
_PROVEN_ROWS = 3  # that end with a run although they are not flat: no coincidence
_INFLATED_AT_ONCE = 1 << 20


class Damaged(Exception):
    """A piece cannot be unpacked, or not to its size; the message says how."""


class Short(Damaged):
    """A piece ends before it has unpacked to its size."""


class OldLzw(Exception):
    """LZW as libtiff wrote it before TIFF 5.0, least significant bit first."""


def unpack_lzw(piece: bytes, most: int) -> NDArray[uint8]:
    """Unpack LZW (TIFF 6.0, section 13) to at most `most` bytes, uint8 (n,).

    Every string of the table is a run of bytes already unpacked, one longer than the string before it, so that a whole
    table is unpacked at once: lengths first, then where each byte comes from.

    Raises:
        Damaged: A code stands for nothing, or there are more than `most` bytes.
        OldLzw: The bits are in the other order.
    """
    if len(piece) > 1 and piece[0] == 0 and piece[1] & 1:
        raise OldLzw
    done, parts = 0, []
    for codes in _tables(np.frombuffer(piece + bytes(3), uint8), 8 * len(piece)):
        lengths = _lengths(codes)
        done += int(lengths.sum())
        if done > most:
            raise Damaged(f"unpacks to more than its {most:,} bytes")
        parts.append(_strings(codes, lengths))
    return np.concatenate(parts) if parts else np.zeros(0, uint8)


@cache
def _widths() -> tuple[NDArray[intp], NDArray[intp]]:
    """(bits of each code of a table, bits before it): 9 at first, one more once the strings need it, 12 at most."""
    widths = np.full(_MOST_CODES, 12, intp)
    widths[: 254 + 512 + 1024] = 11
    widths[: 254 + 512] = 10
    widths[:254] = 9
    return widths, np.concatenate([[0], np.cumsum(widths)]).astype(intp)


def _tables(data: NDArray[uint8], bits: int) -> Iterator[NDArray[intp]]:
    """The codes of each table, up to the end code or the end of the data; intp, possibly none.

    data: with three bytes behind its `bits` bits, so that every code lies in three bytes.
    """
    widths, before = _widths()
    if bits < 9 or (int(data[0]) << 1 | int(data[1]) >> 7) != _CLEAR:
        raise Damaged("does not begin as LZW data do")
    position = 9
    while True:
        count = int(np.searchsorted(before, bits - position, side="right")) - 1
        at = position + before[:count]
        first = at >> 3
        three = data[first].astype(intp) << 16 | data[first + 1].astype(intp) << 8 | data[first + 2]
        codes = three >> (24 - (at & 7) - widths[:count]) & ((1 << widths[:count]) - 1)
        marks = np.flatnonzero((codes == _CLEAR) | (codes == _END))
        if not len(marks):
            if count == _MOST_CODES:
                raise Damaged(f"has more than {_MOST_CODES:,} codes without a new table")
            yield codes
            return
        yield codes[: marks[0]]
        if codes[marks[0]] == _END:
            return
        position += int(before[marks[0] + 1])


def _lengths(codes: NDArray[intp]) -> NDArray[intp]:
    """How many bytes each code of a table stands for.

    A string is known once the code after its first part is read: the n-th code (from 0) may name the strings 0 to n-1.
    """
    steps = np.arange(len(codes), dtype=intp)
    string = codes - _FIRST
    if (string >= steps).any():
        raise Damaged(f"has an LZW code for a string that is not there, in a table of {len(codes):,} codes")
    parent = np.where(string >= 0, string, steps)  # a string is one byte longer than the code that it was made after
    lengths = (string >= 0).astype(intp)
    while (lengths.take(parent) > 0).any():
        lengths += lengths.take(parent)
        parent = parent.take(parent)
    return lengths + 1


def _strings(codes: NDArray[intp], lengths: NDArray[intp]) -> NDArray[uint8]:
    """The bytes of a table's codes, uint8 (n,)."""
    starts = np.cumsum(lengths, dtype=intp) - lengths
    string = codes - _FIRST
    total = int(lengths.sum())
    back = np.where(string >= 0, starts - starts[np.maximum(string, 0)], 0)
    source = np.arange(total, dtype=intp) - np.repeat(back, lengths)
    while True:
        further = source.take(source)
        if np.array_equal(further, source):
            break
        source = further
    literal = np.zeros(total, uint8)
    single = string < 0
    literal[starts[single]] = codes[single]
    found: NDArray[uint8] = literal.take(source)
    return found


def unpack_packbits(piece: bytes, most: int, row_bytes: int) -> NDArray[uint8]:
    """Unpack PackBits (TIFF 6.0, section 9) to at most `most` bytes, uint8 (n,).

    Rows are to be packed separately. Some writers let runs cross the ends of rows; where the first rows show that a
    writer does not, a run that does is damage.

    Raises:
        Damaged: There are more than `most` bytes, or a run crosses the end of a row after some that none did.
        Short: The last run is cut.
    """
    made = bytearray()
    position, size, row_end = 0, len(piece), row_bytes
    separate, literal = 0, False  # rows that are not flat and end with a run; whether the row in hand has a literal run
    while position < size:
        code = piece[position]
        if code < 128:
            made += piece[position + 1 : position + 2 + code]
            position += 2 + code
            literal = True
        elif code > 128:
            made += piece[position + 1 : position + 2] * (257 - code)
            position += 2
        else:
            position += 1
        if len(made) > most:
            raise Damaged(f"unpacks to more than its {most:,} bytes")
        if len(made) < row_end:
            continue
        if len(made) > row_end and separate >= _PROVEN_ROWS:
            raise Damaged(f"has a run over the end of row {row_end // row_bytes:,}, after rows without")
        separate = -most if len(made) > row_end else separate + literal
        row_end, literal = len(made) - len(made) % row_bytes + row_bytes, False
    if position > size:
        raise Short("ends inside a run")
    return np.frombuffer(made, uint8)


def unpack_deflate(piece: bytes, most: int) -> NDArray[uint8]:
    """Unpack a zlib stream (RFC 1950) with its checksum to at most `most` bytes, uint8 (n,).

    A stream that lacks its end is accepted here: its bytes are counted by the caller.

    Raises:
        Damaged: zlib refuses the data, or there are more than `most` bytes.
    """
    inflate, made = zlib.decompressobj(), bytearray()
    try:
        while not inflate.eof:
            part = inflate.decompress(piece, _INFLATED_AT_ONCE)
            if not part and not inflate.unconsumed_tail:
                break
            made += part
            if len(made) > most:
                raise Damaged(f"unpacks to more than its {most:,} bytes")
            piece = inflate.unconsumed_tail
    except zlib.error as error:
        raise Damaged(f"holds no valid Deflate data: {error}") from None
    return np.frombuffer(made, uint8)
