"""BMP (Microsoft's BITMAPCOREHEADER, BITMAPINFOHEADER, BITMAPV4HEADER and BITMAPV5HEADER): header and length."""

import struct
from dataclasses import dataclass

from mribatch.pipeline.decode.formats.container import Image, ceil_div, damaged, truncated, u32_little, unsupported
from mribatch.pipeline.records import Flag

SIGNATURE = b"BM"
# bytes of BITMAPCOREHEADER, BITMAPINFOHEADER (plain, with masks, with alpha mask), OS/2 2.x, V4 and V5
_HEADERS = (12, 40, 52, 56, 64, 108, 124)
_SAMPLE_BITS = {1: 1, 4: 4, 8: 8, 16: 5, 24: 8, 32: 8}  # bits per pixel -> bits per sample
_USUAL_MASKS = {16: (0x7C00, 0x3E0, 0x1F), 24: (0xFF0000, 0xFF00, 0xFF), 32: (0xFF0000, 0xFF00, 0xFF)}
_MASKS_AT = 54  # behind BITMAPINFOHEADER, or in the place of a longer header that is theirs


@dataclass(frozen=True, slots=True, kw_only=True)
class BmpLayout:
    """Where the pixels of a BMP are and how they are stored.

    depth: bits per pixel. offset: of the first row. top_down: the first row is the uppermost. palette_at,
    palette_entry, colours: where the palette begins, bytes of an entry and their number; none of a depth over 8. masks:
    of red, green and blue in a little-endian number of a pixel; each is a run of ones, or zero.
    """

    width: int
    height: int
    depth: int
    offset: int
    top_down: bool
    palette_at: int
    palette_entry: int
    colours: int
    masks: tuple[int, int, int]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row, which is filled up to four."""
        return ceil_div(self.width * self.depth, 32) * 4


def walk(image: Image) -> None:
    """Read the file header and the bitmap header; refuse what is compressed, contradicts itself or ends early."""
    found = _layout(image.content, image)
    size, needed = len(image.content), found.offset + found.height * found.row_bytes
    if size < needed:
        raise truncated(f"The BMP has {size:,} bytes of {needed:,}.")


def layout(content: bytes) -> BmpLayout:
    """The layout of a BMP that `walk` let through."""
    return _layout(content, None)


def _layout(content: bytes, image: Image | None) -> BmpLayout:
    """Read the headers; what is known of the image goes into `image`, so that a refusal still carries it."""
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
    if image is not None:
        image.bits = _SAMPLE_BITS[depth]
        image.set_size(width, abs(height))
    if coding in (1, 2, 4, 5):
        raise unsupported(f"This is a compressed BMP (method {coding}).")
    if coding not in (0, 3) or (coding == 3 and depth not in (16, 32)):
        raise damaged(f"The BMP header gives method {coding} with {depth} bits per pixel.")
    masked = 12 if coding == 3 and header == 40 else 0
    count = (colours or 1 << depth) if depth <= 8 else 0
    if count > 1 << depth:
        raise damaged(f"The BMP header gives {colours:,} colours for {depth} bits per pixel.")
    entry = 3 if header == 12 else 4
    least = 14 + header + masked + count * entry
    if offset < least:
        raise damaged(f"The BMP's pixels begin at byte {offset:,}, inside its header of {least:,} bytes.")
    if image is not None and depth == 32 and header in (56, 108, 124) and u32_little(content, 66)[0]:
        image.flags.append(Flag.ALPHA_DROPPED)
    return BmpLayout(
        width=width,
        height=abs(height),
        depth=depth,
        offset=offset,
        top_down=height < 0,
        palette_at=14 + header + masked,
        palette_entry=entry,
        colours=count,
        masks=_masks(content, depth) if coding == 3 else _USUAL_MASKS.get(depth, (0, 0, 0)),
    )


def _masks(content: bytes, depth: int) -> tuple[int, int, int]:
    red, green, blue = struct.unpack_from("<III", content, _MASKS_AT)
    for mask in (red, green, blue):
        lowest = mask & -mask
        if mask >> depth or (mask and (mask // lowest) & (mask // lowest + 1)):
            raise unsupported(f"This BMP has a colour mask of 0x{mask:X} for {depth} bits per pixel.")
    return red, green, blue
