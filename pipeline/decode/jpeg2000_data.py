"""Whether the packets of a JPEG 2000 fill its data exactly (ITU-T T.800, annex B).

Every packet has a header with the lengths of what follows, so that all packets form a chain from the first byte to the
last. Bytes that are gone, moved or others break it, unless they lie between two headers and are as many as before.
OpenJPEG, as OpenCV uses it, goes on after a break and decodes what it finds.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mribatch.pipeline.decode.formats.container import Refused, ceil_div, damaged, truncated
from mribatch.pipeline.decode.formats.jpeg2000 import Codestream, codestream, has_simple_grid, tile_parts, walk_tiles
from mribatch.pipeline.records import Status

_SOP, _EPH = b"\xff\x91", b"\xff\x92"  # marker segments that packets may begin with, and their headers end with
_BYPASS, _TERMINATE_ALL = 0x01, 0x04  # styles of code-blocks that cut them into segments (table A.19)
_SEGMENT_PASSES = 109  # of a code-block that has a single segment
_NOT_CODED = bytes(64)  # the arithmetic coder gives no such run: each byte of it is as good as random


def check_packets(content: bytes) -> None:
    """Follow the packets of every tile.

    Args:
        content: A JPEG 2000 file that `probe` called ok.

    Raises:
        Refused: The packets end before the data or the data before the packets; or a stretch of zeros lies in data that
            an arithmetic coder made.
    """
    stream = codestream(content)
    if not stream.is_plain:
        return
    for tile, parts in tile_parts(content, stream).items():
        data = b"".join(content[start:end] for start, end in parts)
        if not stream.style & _BYPASS and _NOT_CODED in data:
            raise damaged(
                f"The JPEG 2000 data of tile {tile:,} hold a stretch of {len(_NOT_CODED)} zero bytes or more."
            )
        _follow(stream, tile, data)


def check_bare_packets(content: bytes) -> None:
    """Follow the packets of a codestream that no probe has seen, as it stands in a DICOM file.

    Nothing is said of what cannot be followed: high-throughput coding, subsampled components, and an image that does
    not begin at 0, 0.

    Raises:
        Refused: As `check_packets`, or the chain of tile-parts is broken.
    """
    try:
        if not has_simple_grid(content):
            return
        walk_tiles(content)
        check_packets(content)
    except Refused as refused:
        if refused.status is not Status.UNSUPPORTED:
            raise
    except (struct.error, IndexError):
        raise damaged(f"The JPEG 2000 data of {len(content):,} bytes have no valid tile-parts.") from None


def _follow(stream: Codestream, tile: int, data: bytes) -> None:
    position, size = 0, len(data)
    try:
        for precinct, layer in _packets(stream, tile):
            position = _packet(stream, precinct, layer, data, position)
    except IndexError:
        position = size + 1
    if position > size:
        raise truncated(f"The JPEG 2000 data of tile {tile:,}, {size:,} bytes, end before their last packet.")
    if position < size:
        raise damaged(f"The JPEG 2000 packets of tile {tile:,} end at byte {position:,} of {size:,}.")


# ---------------------------------------------------------------------------------------------- packets in their order


@dataclass(slots=True)
class _Block:
    """A code-block. passes: so far in its last segment, `most` of which it may have; length_bits: Lblock (B.10.7.1)."""

    included: bool = False
    length_bits: int = 3
    passes: int = 0
    most: int = 0


class _TagTree:
    """Values of a grid of code-blocks, coded as a tree of minima (B.10.2)."""

    __slots__ = ("known", "levels", "low")

    def __init__(self, wide: int, tall: int) -> None:
        self.levels = [(wide, tall)]
        while wide * tall > 1:
            wide, tall = ceil_div(wide, 2), ceil_div(tall, 2)
            self.levels.append((wide, tall))
        self.low = [[0] * (across * down) for across, down in self.levels]
        self.known = [[False] * (across * down) for across, down in self.levels]

    def reaches(self, bits: "_Bits", column: int, row: int, limit: int) -> bool:
        """Read until the value at a place is known or is known to be `limit` or more; whether it is below `limit`."""
        least = 0
        for level in range(len(self.levels) - 1, -1, -1):
            at = (row >> level) * self.levels[level][0] + (column >> level)
            low, known = self.low[level], self.known[level]
            low[at] = max(low[at], least)
            while low[at] < limit and not known[at]:
                if bits.one():
                    known[at] = True
                else:
                    low[at] += 1
            least = low[at]
        return least < limit and self.known[0][row * self.levels[0][0] + column]


@dataclass(slots=True)
class _Band:
    """The code-blocks of one subband in one precinct."""

    wide: int
    blocks: list[_Block]
    inclusion: _TagTree
    zero_planes: _TagTree


@dataclass(slots=True)
class _Precinct:
    """A precinct of one resolution of one component. order: what its place among the packets depends on."""

    component: int
    resolution: int
    top: int
    left: int
    boxes: Sequence[tuple[int, int, int, int]]  # (left, top, right, bottom) of each subband, in code-blocks
    bands: list[_Band] = field(default_factory=list)


def _packets(stream: Codestream, tile: int) -> Iterator[tuple[_Precinct, int]]:
    """(precinct, layer) of every packet of a tile (B.12)."""
    precincts = [
        precinct
        for component in range(stream.components)
        for resolution in range(stream.levels + 1)
        for precinct in _precincts(stream, tile, component, resolution)
    ]
    keys = {
        2: lambda one: (one.resolution, one.top, one.left, one.component),  # RPCL
        3: lambda one: (one.top, one.left, one.component, one.resolution),  # PCRL
        4: lambda one: (one.component, one.top, one.left, one.resolution),  # CPRL
    }
    if stream.progression in keys:
        precincts.sort(key=keys[stream.progression])
        return ((precinct, layer) for precinct in precincts for layer in range(stream.layers))
    precincts.sort(key=lambda one: (one.resolution, one.component))  # stable: precincts keep their order
    if stream.progression == 0:  # LRCP
        return ((precinct, layer) for layer in range(stream.layers) for precinct in precincts)
    return _by_resolution(precincts, stream)


def _by_resolution(precincts: Sequence[_Precinct], stream: Codestream) -> Iterator[tuple[_Precinct, int]]:
    """RLCP: resolution, layer, component, precinct."""
    for resolution in range(stream.levels + 1):
        these = [precinct for precinct in precincts if precinct.resolution == resolution]
        for layer in range(stream.layers):
            yield from ((precinct, layer) for precinct in these)


def _precincts(stream: Codestream, tile: int, component: int, resolution: int) -> Iterator[_Precinct]:
    """The precincts of a resolution, from left to right and top to bottom (B.6, B.7)."""
    left, top, right, bottom = stream.tile_box(tile)
    shift = stream.levels - resolution
    wide, tall = stream.precincts[resolution]  # exponents of their size
    box = tuple(ceil_div(side, 1 << shift) for side in (left, top, right, bottom))
    if box[0] >= box[2] or box[1] >= box[3]:
        return
    bands = [(0, 0)] if resolution == 0 else [(1, 0), (0, 1), (1, 1)]
    halved = 0 if resolution == 0 else 1
    level = shift + halved
    block_wide, block_tall = min(stream.block_wide, wide - halved), min(stream.block_tall, tall - halved)
    for row in range(box[1] >> tall, ceil_div(box[3], 1 << tall)):
        for column in range(box[0] >> wide, ceil_div(box[2], 1 << wide)):
            boxes = []
            for across, down in bands:
                x0, x1 = _part(left, right, level, across, column, wide - halved)
                y0, y1 = _part(top, bottom, level, down, row, tall - halved)
                empty = x0 >= x1 or y0 >= y1
                boxes.append(
                    (0, 0, 0, 0)
                    if empty
                    else (
                        x0 >> block_wide,
                        y0 >> block_tall,
                        ceil_div(x1, 1 << block_wide),
                        ceil_div(y1, 1 << block_tall),
                    )
                )
            yield _Precinct(
                component, resolution, max(top, row << tall + shift), max(left, column << wide + shift), boxes
            )


def _part(first: int, last: int, level: int, high: int, index: int, exponent: int) -> tuple[int, int]:
    """One side of a subband (B.5, equation B-15) within the precinct `index`."""
    offset = (1 << level >> 1) * high
    begin, end = ceil_div(first - offset, 1 << level), ceil_div(last - offset, 1 << level)
    return max(begin, index << exponent), min(end, (index + 1) << exponent)


# -------------------------------------------------------------------------------------------------------- one packet


class _Bits:
    """Bits of a packet header, in which a byte of ones is followed by seven bits (B.10.1)."""

    __slots__ = ("byte", "data", "left", "position")

    def __init__(self, data: bytes, position: int) -> None:
        self.data, self.position, self.byte, self.left = data, position, 0, 0

    def one(self) -> int:
        if not self.left:
            self.left = 7 if self.byte == 0xFF else 8
            self.byte = self.data[self.position]
            self.position += 1
        self.left -= 1
        return self.byte >> self.left & 1

    def number(self, count: int) -> int:
        value = 0
        for _ in range(count):
            value = value << 1 | self.one()
        return value

    def end(self) -> int:
        """Where the bytes behind the header begin."""
        return self.position + 1 if self.byte == 0xFF else self.position


def _packet(stream: Codestream, precinct: _Precinct, layer: int, data: bytes, position: int) -> int:
    """Where the packet at `position` ends (B.9, B.10). IndexError: behind the data."""
    if data.startswith(_SOP, position):
        position += 6
    if position >= len(data):
        raise IndexError
    if not precinct.bands:
        precinct.bands = [_band(*box) for box in precinct.boxes]
    bits, length = _Bits(data, position), 0
    if bits.one():
        for band in precinct.bands:
            for number, block in enumerate(band.blocks):
                length += _block_length(stream, band, number, block, layer, bits)
    position = bits.end()
    if data.startswith(_EPH, position):
        position += 2
    if position + length > len(data):
        raise IndexError
    return position + length


def _band(left: int, top: int, right: int, bottom: int) -> _Band:
    wide, tall = right - left, bottom - top
    blocks = [_Block() for _ in range(wide * tall)]
    return _Band(wide, blocks, _TagTree(wide, tall), _TagTree(wide, tall))


def _block_length(stream: Codestream, band: _Band, number: int, block: _Block, layer: int, bits: _Bits) -> int:
    """Bytes that a packet holds of a code-block (B.10.3 to B.10.7)."""
    row, column = divmod(number, band.wide)
    if block.included:
        if not bits.one():
            return 0
    else:
        if not band.inclusion.reaches(bits, column, row, layer + 1):
            return 0
        block.included = True
        planes = 1
        while not band.zero_planes.reaches(bits, column, row, planes):
            planes += 1
            if planes > 80:  # T.800 has 38 bit planes at most, with those of a region of interest 75
                raise IndexError
    passes = _passes(bits)
    while bits.one():
        block.length_bits += 1
    length = 0
    while passes:
        if block.passes == block.most:
            block.most, block.passes = _next_segment(block.most, stream.style), 0
        part = min(passes, block.most - block.passes)
        length += bits.number(block.length_bits + part.bit_length() - 1)
        block.passes += part
        passes -= part
    return length


def _passes(bits: _Bits) -> int:
    """The number of coding passes (table B.4)."""
    if not bits.one():
        return 1
    if not bits.one():
        return 2
    for width, first in ((2, 3), (5, 6)):
        value = bits.number(width)
        if value < (1 << width) - 1:
            return first + value
    return 37 + bits.number(7)


def _next_segment(most: int, style: int) -> int:
    """How many passes the next segment of a code-block may have (D.4, D.6)."""
    if style & _TERMINATE_ALL:
        return 1
    if not style & _BYPASS:
        return _SEGMENT_PASSES if not most else 1 << 30
    return 10 if not most else 2 if most in (1, 10) else 1
