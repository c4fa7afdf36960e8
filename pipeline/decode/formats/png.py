"""PNG (W3C, third edition): every chunk, with its checksum where the pixels depend on it."""

import struct
import zlib
from collections.abc import Iterator

from mribatch.pipeline.decode.formats.container import Image, damaged, truncated, u32, unsupported
from mribatch.pipeline.decode.formats.exif import orientation_of
from mribatch.pipeline.records import Flag

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # by colour type
_CRITICAL = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_ANIMATION = frozenset({b"acTL", b"fcTL", b"fdAT"})


def walk(image: Image) -> None:
    """Walk the chunks from IHDR to IEND; refuse what lacks a part that its pixels need (sections 5 and 11)."""
    content = image.content
    colour, seen, exif = -1, set[bytes](), list[bytes]()
    for kind, start, end in _chunks(content):
        if colour < 0:
            colour = _header(image, kind, start, end)
        elif kind == b"IHDR":
            raise damaged(f"The PNG has a second header at byte {start:,}.")
        elif kind == b"tRNS" and b"IDAT" not in seen:
            image.flags.append(Flag.ALPHA_DROPPED)
        elif kind == b"acTL" and b"IDAT" not in seen and u32(content, start)[0] > 1:
            image.flags.append(Flag.FIRST_PAGE)
        elif kind == b"eXIf":
            exif.append(content[start:end])
        seen.add(kind)
    if b"IDAT" not in seen:
        raise truncated(f"The PNG of {len(content):,} bytes has no image data.")
    if colour == 3 and b"PLTE" not in seen:
        raise damaged("The PNG has palette colour (type 3) but no palette.")
    image.set_orientation(orientation_of(exif))


def only_pixels(content: bytes) -> bytes:
    """The PNG without the chunks that no pixel depends on, by the rule of docs/reference/pixels.md.

    Of those, decoders apply gAMA and sRGB when they make grey of colour, and turn by eXIf; tRNS gives an alpha channel,
    and acTL another first picture. What stays is the header, the palette, the data and the end.

    Args:
        content: A PNG that `walk` let through.
    """
    pixels = [(start, end) for kind, start, end in _chunks(content, check=False) if kind in _CRITICAL]
    return SIGNATURE + b"".join(content[start - 8 : end + 4] for start, end in pixels)


def exif_blocks(content: bytes) -> Iterator[bytes]:
    """The EXIF blocks: chunks eXIf (section 11.3)."""
    return (content[start:end] for kind, start, end in _chunks(content, check=False) if kind == b"eXIf")


def _chunks(content: bytes, *, check: bool = True) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of every chunk's data up to IEND, checked by CRC where the pixels depend on it (section 5.3).

    A chunk whose type begins with a capital must be understood (section 5.4).
    """
    size, position = len(content), 8
    while True:
        if position == size:
            raise truncated(f"The PNG ends after {size:,} bytes without an IEND chunk.")
        (length,) = u32(content, position)
        kind = content[position + 4 : position + 8]
        start, end = position + 8, position + 8 + length
        if len(kind) == 4 and not (kind.isalpha() and kind.isascii()):
            raise damaged(f"The PNG has no chunk where one must be, at byte {position:,}.")
        if end + 4 > size:
            raise truncated(f"The PNG ends after {size:,} bytes, inside a chunk that runs to byte {end + 4:,}.")
        if kind in _CRITICAL or kind in _ANIMATION:
            if check and zlib.crc32(memoryview(content)[position + 4 : end]) != u32(content, end)[0]:
                raise damaged(f"The PNG chunk {kind.decode()} at byte {position:,} fails its checksum.")
        elif not kind[0] & 0x20:
            raise unsupported(f"The PNG needs an unknown chunk {kind.decode()} at byte {position:,}.")
        yield kind, start, end
        if kind == b"IEND":
            return
        position = end + 4


def _header(image: Image, kind: bytes, start: int, end: int) -> int:
    """Read IHDR (section 11.2) and return the colour type."""
    if kind != b"IHDR" or end - start != 13:
        raise damaged(f"The PNG begins with a chunk {kind.decode()} of {end - start:,} bytes.")
    width, height, bits, colour, compression, filtering, interlace = struct.unpack_from(
        ">IIBBBBB", image.content, start
    )
    if bits not in _DEPTHS.get(colour, ()):
        raise damaged(f"The PNG header gives {bits} bits for colour type {colour}.")
    if compression or filtering or interlace > 1:
        raise damaged(f"The PNG header gives methods {compression}, {filtering}, {interlace}, which do not exist.")
    image.bits = bits
    image.set_size(width, height)
    if bits == 16:
        image.flags.append(Flag.SCALED_TO_8_BIT)
    if colour in (4, 6):
        image.flags.append(Flag.ALPHA_DROPPED)
    return int(colour)
