"""EXIF (CIPA DC-008), as JPEG, PNG and WebP carry it: a block with the header and the directories of a TIFF."""

import struct


def orientation_of(tiff: bytes) -> int:
    """Orientation (tag 0x112) in the first directory of an EXIF block; 1 where it is missing or invalid.

    The orientations are those of TIFF 6.0, section 8; the directory is laid out as in its section 2.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (at,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
            if tag == 0x112:
                return value if kind == 3 and 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
