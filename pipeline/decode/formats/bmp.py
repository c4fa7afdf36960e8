"""BMP (Microsoft's BITMAPCOREHEADER, BITMAPINFOHEADER, BITMAPV4HEADER and BITMAPV5HEADER): header and length."""

import struct

from mribatch.pipeline.decode.formats.container import Image, ceil_div, damaged, truncated, u32_little, unsupported
from mribatch.pipeline.records import Flag

SIGNATURE = b"BM"
# bytes of BITMAPCOREHEADER, BITMAPINFOHEADER (plain, with masks, with alpha mask), OS/2 2.x, V4 and V5
_HEADERS = (12, 40, 52, 56, 64, 108, 124)
_SAMPLE_BITS = {1: 1, 4: 4, 8: 8, 16: 5, 24: 8, 32: 8}  # bits per pixel -> bits per sample


def walk(image: Image) -> None:
    """Read the file header and the bitmap header; refuse what is compressed, contradicts itself or ends early."""
    content, size = image.content, len(image.content)
    offset, header = struct.unpack_from("<II", content, 10)
    if header not in _HEADERS:
        raise damaged(f"The BMP has an unknown header of {header:,} bytes.")
    if header == 12:
        width, height, planes, depth = struct.unpack_from("<HHHH", content, 18)
        coding = colours = 0
    else:
        width, height, planes, depth, coding, _, _, _, colours = struct.unpack_from("<iiHHIIiiI", content, 18)
    if depth not in _SAMPLE_BITS or planes != 1:
        raise damaged(f"The BMP header gives {depth} bits per pixel in {planes} planes.")
    image.bits = _SAMPLE_BITS[depth]
    image.set_size(width, abs(height))
    if coding in (1, 2, 4, 5):
        raise unsupported(f"This is a compressed BMP (method {coding}).")
    if coding not in (0, 3) or (coding == 3 and depth not in (16, 32)):
        raise damaged(f"The BMP header gives method {coding} with {depth} bits per pixel.")
    _layout(image, offset, header, depth, coding, colours)
    if size < offset + abs(height) * ceil_div(width * depth, 32) * 4:
        raise truncated(f"The BMP has {size:,} bytes of {offset + abs(height) * ceil_div(width * depth, 32) * 4:,}.")


def _layout(image: Image, offset: int, header: int, depth: int, coding: int, colours: int) -> None:
    """Check that palette and colour masks lie before the pixels; flag an alpha channel."""
    if colours > 1 << depth and depth <= 8:
        raise damaged(f"The BMP header gives {colours:,} colours for {depth} bits per pixel.")
    palette = (colours or 1 << depth) * (3 if header == 12 else 4) if depth <= 8 else 0
    masks = 12 if coding == 3 and header == 40 else 0
    least = 14 + header + masks + palette
    if offset < least:
        raise damaged(f"The BMP's pixels begin at byte {offset:,}, inside its header of {least:,} bytes.")
    if depth == 32 and header in (56, 108, 124) and u32_little(image.content, 66)[0]:
        image.flags.append(Flag.ALPHA_DROPPED)
