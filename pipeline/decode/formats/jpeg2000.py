"""JPEG 2000 (ITU-T T.800): the boxes of a JP2 file, and of a codestream the main header and every tile-part."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from mribatch.pipeline.decode.formats.container import (
    Image,
    Refused,
    ceil_div,
    damaged,
    truncated,
    u16,
    u32,
    unsupported,
)
from mribatch.pipeline.records import Flag, Status

JP2_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
CODESTREAM_SIGNATURE = b"\xff\x4f\xff\x51"
_COD, _COC, _CAP, _SOT, _SOD, _EOC = 0xFF52, 0xFF53, 0xFF50, 0xFF90, 0xFF93, b"\xff\xd9"
_POC, _PPM, _PPT = 0xFF5F, 0xFF60, 0xFF61
_SRGB, _GREY, _SYCC = 16, 17, 18  # enumerated colour spaces (T.800, table I.10)
_MAX_LAYERS = 1_000
_MAX_PRECINCTS = 1_000_000  # tiny precincts in a large image exhaust the decoder's memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Codestream:
    """What the main header says of tiles and packets.

    first_tile: position of the first tile-part. progression, layers, levels, block_wide, block_tall (exponents), style
    (of code-blocks): of the coding style (T.800, A.6.1). precincts: exponents of width and height by resolution.
    is_plain: components have no coding style of their own, the order of packets never changes, and packet headers stand
    with their packets.
    """

    width: int
    height: int
    components: int
    tile_width: int
    tile_height: int
    first_tile: int
    stop: int
    progression: int
    layers: int
    levels: int
    block_wide: int
    block_tall: int
    style: int
    precincts: tuple[tuple[int, int], ...]
    is_plain: bool

    def tile_box(self, tile: int) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) of a tile (T.800, B.3)."""
        row, column = divmod(tile, ceil_div(self.width, self.tile_width))
        left, top = column * self.tile_width, row * self.tile_height
        return left, top, min(left + self.tile_width, self.width), min(top + self.tile_height, self.height)


def walk_jp2(image: Image) -> None:
    """Walk the boxes of a JP2 file (T.800, I) up to its codestream, and that; both must give the same size."""
    content = image.content
    promised: tuple[int, int] | None = None
    channels = bits = 0
    for kind, start, end in _boxes(content, 12, len(content)):
        if kind == b"jp2h":
            for inner, first, last in _boxes(content, start, end):
                if inner in (b"pclr", b"cmap"):
                    raise unsupported(f"This is a JPEG 2000 file with a palette (at byte {first:,}).")
                if inner == b"colr" and content[first] == 1:
                    _colour_space(u32(content, first + 3)[0], channels, bits)
                if inner == b"cdef":
                    _channels(content, first, last)
                if inner == b"ihdr":
                    if last - first != 14:
                        raise damaged(f"The JPEG 2000 header has {last - first} bytes, not 14.")
                    promised = (u32(content, first + 4)[0], u32(content, first)[0])
                    channels, bits = u16(content, first + 8)[0], content[first + 10] + 1
        elif kind == b"jp2c":
            if promised is None:
                raise damaged(f"The JPEG 2000 data at byte {start:,} have no header before them.")
            _codestream(image, start, end)
            if promised != (image.width, image.height):
                raise damaged(
                    f"The JPEG 2000 header gives {promised[0]} x {promised[1]} pixels, "
                    f"its data {image.width} x {image.height}."
                )
            return
    raise truncated(f"The JPEG 2000 file of {len(content):,} bytes has no image data.")


def _colour_space(space: int, channels: int, bits: int) -> None:
    """Refuse a colour space (T.800, table I.10) of which grey is not made as of the others.

    Of sYCC, grey is the first channel; OpenCV gives that of 8 bits only.
    """
    wide_ycc = space == _SYCC and bits > 8
    if space not in (_SRGB, _GREY, _SYCC) or wide_ycc or (space == _GREY and channels > 2):
        raise unsupported(f"This is a JPEG 2000 file of {channels} x {bits} bits in colour space {space}.")


def _channels(content: bytes, first: int, last: int) -> None:
    """Refuse a channel definition (T.800, I.5.3.6) by which anything but the last channel is no colour."""
    (count,) = u16(content, first)
    if last - first != 2 + 6 * count:
        raise damaged(f"The JPEG 2000 channel definition has {last - first} bytes for {count} channels.")
    for channel, kind, _ in struct.iter_unpack(">HHH", content[first + 2 : last]):
        if kind != 0 and channel != count - 1:
            raise unsupported(f"This JPEG 2000 file has channel {channel} of kind {kind} before its colours.")


def walk_codestream(image: Image) -> None:
    """Walk a file that is a codestream without boxes (T.800, A)."""
    _codestream(image, 0, len(image.content))


def codestream(content: bytes) -> Codestream:
    """The main header of a file that `walk_jp2` or `walk_codestream` let through."""
    start, stop = 0, len(content)
    if content.startswith(JP2_SIGNATURE):
        start, stop = next((first, last) for kind, first, last in _boxes(content, 12, stop) if kind == b"jp2c")
    position, markers, coding = start + 2, set[int](), 0
    while (marker := u16(content, position)[0]) != _SOT:
        markers.add(marker)
        if marker == _COD:
            coding = position + 4
        position += 2 + u16(content, position + 2)[0]
    _, right, bottom, _, _, across, down, _, _, count = struct.unpack_from(">HIIIIIIIIH", content, start + 6)
    style, progression, layers, _, levels, wide, tall, blocks, _ = struct.unpack_from(">BBHBBBBBB", content, coding)
    sizes = content[coding + 10 : coding + 11 + levels] if style & 1 else b"\xff" * (levels + 1)
    return Codestream(
        width=right,
        height=bottom,
        components=count,
        tile_width=across,
        tile_height=down,
        first_tile=position,
        stop=stop,
        progression=progression,
        layers=layers,
        levels=levels,
        block_wide=wide + 2,
        block_tall=tall + 2,
        style=blocks,
        precincts=tuple((size & 15, size >> 4) for size in sizes),
        is_plain=progression <= 4 and not markers & {_COC, _POC, _PPM},
    )


def tile_parts(content: bytes, stream: Codestream) -> dict[int, list[tuple[int, int]]]:
    """Tile -> (start, end) of the data of each of its parts; without tiles that have a coding style of their own."""
    found: dict[int, list[tuple[int, int]]] = {}
    special: set[int] = set()
    position = stream.first_tile
    while position < stream.stop and u16(content, position)[0] == _SOT:
        tile, length = struct.unpack_from(">HI", content, position + 4)
        end = position + length if length else content.rfind(_EOC, position + 12, stream.stop)
        at = position + 12
        while (marker := u16(content, at)[0]) != _SOD:
            if marker in (_COD, _COC, _POC, _PPT):
                special.add(tile)
            at += 2 + u16(content, at + 2)[0]
        found.setdefault(tile, []).append((at + 2, end))
        position = end
    return {tile: parts for tile, parts in found.items() if tile not in special}


def _boxes(content: bytes, position: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of every box's payload in content[position:stop] (T.800, I.4)."""
    while position < stop:
        length, kind = struct.unpack_from(">I4s", content, position)
        start = position + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", content, start)
            start += 8
        end = stop if length == 0 else position + length
        if end < start:
            raise damaged(f"The JPEG 2000 box at byte {position:,} has a length of {length:,}.")
        if end > stop:
            raise truncated(f"The JPEG 2000 file has {len(content):,} bytes; a box runs to byte {end:,}.")
        yield kind, start, end
        position = end


def _codestream(image: Image, start: int, stop: int) -> None:
    """Walk a codestream: main header, every tile-part, end marker (T.800, A)."""
    content = image.content
    if stop - start < 4 or content[start : start + 4] != CODESTREAM_SIGNATURE:
        raise damaged(f"The JPEG 2000 data at byte {start:,} do not begin with their header.")
    _walk_tiles(content, start, stop, _size(image, start + 4))


def has_simple_grid(content: bytes) -> bool:
    """Whether the image and its tiles begin at 0, 0 and every component has a sample for every pixel.

    Args:
        content: A codestream.

    Raises:
        struct.error: It ends inside its size marker.
    """
    count, *offsets = (struct.unpack_from(layout, content, at)[0] for layout, at in _GRID)
    steps = content[42 : 42 + 3 * count]
    return not any(offsets) and all(step == 1 for step in (*steps[1::3], *steps[2::3]))


_GRID = ((">H", 40), (">Q", 16), (">Q", 32))  # Csiz, XOsiz and YOsiz, XTOsiz and YTOsiz (T.800, A.5.1)


def walk_tiles(content: bytes) -> None:
    """Walk a codestream with a simple grid whose samples are described elsewhere, as DICOM does it.

    Raises:
        Refused: The main header or the chain of tile-parts is damaged, or not supported.
        struct.error: It ends inside a marker segment.
    """
    right, bottom, _, _, across, down = struct.unpack_from(">6I", content, 8)
    if across < 1 or down < 1:
        raise damaged(f"The JPEG 2000 header gives tiles of {across} x {down} pixels.")
    tiles = ceil_div(right, across) * ceil_div(bottom, down)
    _walk_tiles(content, 0, len(content), (tiles, min(across, right), min(down, bottom)))


def _walk_tiles(content: bytes, start: int, stop: int, grid: tuple[int, int, int]) -> None:
    """Walk what follows the size marker. grid: number of tiles, width and height of a tile."""
    tiles, across, down = grid
    position = start + 4 + u16(content, start + 4)[0]
    coded = False
    while True:
        marker, length = struct.unpack_from(">HH", content, position)
        if marker == _SOT:
            break
        if marker <= _CAP or marker > _SOT or length < 2:
            what = "high-throughput JPEG 2000" if marker == _CAP else f"marker 0x{marker:04X}"
            status = Status.UNSUPPORTED if marker == _CAP else Status.DECODE_FAILED
            raise Refused(status, f"The JPEG 2000 header has an unexpected {what} at byte {position:,}.")
        if position + 2 + length > stop:
            raise truncated(f"The JPEG 2000 file ends after {len(content):,} bytes, inside its header.")
        if marker == _COD:
            coded = True
            _coding_style(content, position + 4, position + 2 + length, across, down, tiles)
        position += 2 + length
    if not coded:
        raise damaged(f"The JPEG 2000 header, {position - start:,} bytes, lacks its coding style.")
    _tile_parts(content, position, stop, tiles)


def _size(image: Image, at: int) -> tuple[int, int, int]:
    """Read SIZ (T.800, A.5.1): (number of tiles, width and height of a tile). Refuse what OpenCV does not read."""
    content = image.content
    length, _, right, bottom, left, top, across, down, tile_left, tile_top, count = struct.unpack_from(
        ">HHIIIIIIIIH", content, at
    )
    if length != 38 + 3 * count:
        raise damaged(f"The JPEG 2000 size marker has {length} bytes for {count} components.")
    parts = content[at + 38 : at + 38 + 3 * count]
    if len(parts) < 3 * count:
        raise truncated(f"The JPEG 2000 file ends after {len(content):,} bytes, inside its header.")
    image.bits = (parts[0] & 0x7F) + 1 if parts else None
    image.set_size(right - left, bottom - top)
    if left or top or tile_left or tile_top:
        raise unsupported(f"The JPEG 2000 image begins at {left}, {top}, not at 0, 0.")
    if across < 1 or down < 1:
        raise damaged(f"The JPEG 2000 header gives tiles of {across} x {down} pixels.")
    if count not in (1, 3, 4) or len({bytes(parts[n : n + 3]) for n in range(0, 3 * count, 3)}) != 1:
        raise unsupported(f"This JPEG 2000 file has {count} components, or components that differ.")
    if parts[0] & 0x80 or not 7 <= parts[0] <= 15 or parts[1:3] != b"\x01\x01":
        raise unsupported(
            f"This is a JPEG 2000 file of {image.bits} {'signed ' if parts[0] & 0x80 else ''}bits, "
            f"sampled every {parts[1]} x {parts[2]} pixels."
        )
    if parts[0] > 7:
        image.flags.append(Flag.SCALED_TO_8_BIT)
    if count == 4:
        image.flags.append(Flag.ALPHA_DROPPED)
    return ceil_div(right, across) * ceil_div(bottom, down), min(across, right), min(down, bottom)


def _coding_style(content: bytes, at: int, stop: int, across: int, down: int, tiles: int) -> None:
    """Check the coding style (T.800, A.6.1) against what would cost the decoder memory or time without end."""
    style, _, layers, _, levels, wide, tall = struct.unpack_from(">BBHBBBB", content, at)
    if levels > 32 or wide > 8 or tall > 8 or wide + tall > 8 or layers < 1:
        raise damaged(
            f"The JPEG 2000 coding style is invalid: {levels} levels, blocks {wide} x {tall}, {layers} layers."
        )
    if layers > _MAX_LAYERS:
        raise unsupported(f"The JPEG 2000 file has {layers:,} quality layers.")
    if not style & 1:
        return
    sizes = content[at + 10 : stop]
    if len(sizes) < levels + 1:
        raise damaged(f"The JPEG 2000 coding style gives {len(sizes)} precincts for {levels} levels.")
    if any(not size & 15 or not size >> 4 for size in sizes[1 : levels + 1]):
        raise damaged("The JPEG 2000 coding style gives precincts of one sample above the lowest resolution.")
    precincts = 0
    for level, size in enumerate(sizes[: levels + 1]):
        shift = levels - level
        precincts += ceil_div(across, 1 << shift + (size & 15)) * ceil_div(down, 1 << shift + (size >> 4))
    if precincts * tiles > _MAX_PRECINCTS:
        raise unsupported(f"The JPEG 2000 file has {precincts * tiles:,} precincts.")


def _tile_parts(content: bytes, position: int, stop: int, tiles: int) -> None:
    """Step from tile-part to tile-part up to the end marker; every tile must have begun (T.800, A.4.2)."""
    seen: set[int] = set()
    while content[position : position + 2] != _EOC or position + 2 > stop:
        if position >= stop:
            raise truncated(f"The JPEG 2000 file ends after {len(content):,} bytes without an end marker.")
        marker, size, tile, length = struct.unpack_from(">HHHI", content, position)
        if marker != _SOT or size != 10 or tile >= tiles or 0 < length < 14:
            raise damaged(f"The JPEG 2000 file has no valid tile-part at byte {position:,}.")
        seen.add(tile)
        if length == 0:  # the last tile-part: up to the end marker
            position = content.rfind(_EOC, position + 12, stop)
            if position < 0:
                raise truncated(f"The JPEG 2000 file ends after {len(content):,} bytes without an end marker.")
            break
        position += length
        if position > stop:
            raise truncated(f"The JPEG 2000 file has {len(content):,} bytes; a tile-part runs to byte {position:,}.")
    if len(seen) < tiles:
        raise truncated(f"The JPEG 2000 file has {len(seen):,} of {tiles:,} tiles.")
