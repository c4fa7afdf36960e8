"""EXIF (CIPA DC-008), as JPEG, PNG and WebP carry it: a block with the header and the directories of a TIFF."""

import struct
from collections.abc import Iterable

_ORIENTATION = 0x112
_TYPES = {3: "H", 4: "I"}  # SHORT, as the standard has it, and LONG, as some programs write it -> struct code
_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}


def orientation_of(blocks: Iterable[bytes]) -> int:
    """Orientation (tag 0x112) in the first directory of the first block that has one; 1 where it is missing or invalid.

    The orientations are those of TIFF 6.0, section 8; the directory is laid out as in its section 2. Blocks without the
    header of a TIFF are passed over; one that has a directory without the tag ends the search.
    """
    for block in blocks:
        if block[:4] in _ORDERS:
            return _in_first_directory(block, _ORDERS[block[:4]])
    return 1


def _in_first_directory(block: bytes, order: str) -> int:
    try:
        (at,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind, values = struct.unpack_from(f"{order}HHI", block, entry)
            if tag == _ORIENTATION:
                if kind not in _TYPES or values != 1:
                    return 1
                (orientation,) = struct.unpack_from(order + _TYPES[kind], block, entry + 8)
                return orientation if 1 <= orientation <= 8 else 1
    except struct.error:
        pass
    return 1
