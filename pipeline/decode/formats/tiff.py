"""TIFF (6.0, with Adobe's supplements) and BigTIFF: the first directory and every strip or tile that it lists."""

import struct
import zlib
from collections.abc import Callable

from mribatch.pipeline.decode.formats.container import Image, ceil_div, damaged, truncated, unsupported
from mribatch.pipeline.records import Flag

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # little and big endian; 43, the plus sign, is BigTIFF
_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # field type -> struct code
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _STRIP_AT, _ORIENTATION = 256, 257, 258, 259, 262, 273, 274
_SAMPLES, _ROWS, _STRIP_BYTES, _PLANAR, _TILE_WIDTH, _TILE_HEIGHT = 277, 278, 279, 284, 322, 323
_TILE_AT, _TILE_BYTES, _EXTRA, _FORMAT = 324, 325, 338, 339
_WANTED = frozenset(
    (_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _STRIP_AT, _ORIENTATION, _SAMPLES, _ROWS)
    + (_STRIP_BYTES, _PLANAR, _TILE_WIDTH, _TILE_HEIGHT, _TILE_AT, _TILE_BYTES, _EXTRA, _FORMAT)
)
_ONE_STRIP = 0xFFFFFFFF  # rows per strip where there is a single strip, and the tag's default
_MAX_VALUES = 1 << 22  # strips or tiles; more than this is an attack on memory
_PLAIN, _LZW, _DEFLATE, _PACKBITS = 1, 5, (8, 32946), 32773
_COMPRESSIONS_READ = frozenset({_PLAIN, _LZW, *_DEFLATE, _PACKBITS})
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK = 0, 1, 2, 3, 5
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
# What OpenCV reads right, by trial: (photometric, samples) -> {sample format: bits per sample}
_GREY = {_UNSIGNED: (1, 8, 10, 12, 14, 16, 32), _SIGNED: (8, 16, 32), _FLOAT: (32, 64)}
_SAMPLES_READ: dict[tuple[int, int], dict[int, tuple[int, ...]]] = {
    (_WHITE_IS_ZERO, 1): {_UNSIGNED: (1, 8)},
    (_BLACK_IS_ZERO, 1): _GREY,
    (_BLACK_IS_ZERO, 2): {_UNSIGNED: (8,)},
    (_RGB, 3): {_UNSIGNED: (8, 16)},
    (_RGB, 4): {_UNSIGNED: (8, 16)},
    (_PALETTE, 1): {_UNSIGNED: (8,)},
    (_CMYK, 4): {_UNSIGNED: (8,)},
}


class _Directory:
    """The first directory of a TIFF: the values of the tags that decide about the pixels (TIFF 6.0, section 2)."""

    __slots__ = ("next_at", "tags")

    def __init__(self, content: bytes) -> None:
        order = "<" if content[:2] == b"II" else ">"
        (magic,) = struct.unpack_from(f"{order}H", content, 2)
        big = magic == 43
        if big and struct.unpack_from(f"{order}HH", content, 4) != (8, 0):
            raise damaged("The BigTIFF header does not give offsets of 8 bytes.")
        word = "Q" if big else "I"
        (at,) = struct.unpack_from(f"{order}{word}", content, 8 if big else 4)
        if at >= len(content):
            raise truncated(f"The TIFF ends after {len(content):,} bytes; its directory is at byte {at:,}.")
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), content, at)
        first, step = at + (8 if big else 2), 20 if big else 12
        if first + count * step + struct.calcsize(f"={word}") > len(content):
            raise truncated(f"The TIFF ends after {len(content):,} bytes, inside a directory of {count:,} entries.")
        self.tags: dict[int, tuple[int, ...]] = {}
        for entry in range(first, first + count * step, step):
            (tag,) = struct.unpack_from(f"{order}H", content, entry)
            if tag in _WANTED and tag not in self.tags:
                self.tags[tag] = _values(content, entry, order, word, tag)
        (self.next_at,) = struct.unpack_from(f"{order}{word}", content, first + count * step)

    def one(self, tag: int, default: int | None = None) -> int:
        """The single value of a tag; of several equal ones (bits of each sample) any."""
        values = self.tags.get(tag)
        if values is None and default is not None:
            return default
        if not values:
            raise damaged(f"The TIFF directory lacks tag {tag}.")
        if any(value != values[0] for value in values):
            raise unsupported(f"The TIFF has samples that differ in tag {tag}: {values[:4]}.")
        return values[0]


def _values(content: bytes, entry: int, order: str, word: str, tag: int) -> tuple[int, ...]:
    """The integers of a directory entry, which lie in the entry itself or where it points."""
    kind, count = struct.unpack_from(f"{order}H{word}", content, entry + 2)
    code = _INTEGERS.get(kind)
    if code is None:
        raise damaged(f"The TIFF tag {tag} has type {kind}, which is no integer.")
    if count > _MAX_VALUES:
        raise damaged(f"The TIFF tag {tag} has {count:,} values.")
    inline = struct.calcsize(f"={word}")
    at = entry + 4 + inline
    total = count * struct.calcsize(f"={code}")
    if total > inline:
        (at,) = struct.unpack_from(f"{order}{word}", content, at)
    if at + total > len(content):
        raise truncated(f"The TIFF ends after {len(content):,} bytes; the values of tag {tag} run to {at + total:,}.")
    return struct.unpack_from(f"{order}{count}{code}", content, at)


def walk(image: Image) -> None:
    """Read the first directory, refuse the kinds of pixels that OpenCV reads wrongly, check all strips or tiles."""
    content = image.content
    tiff = _Directory(content)
    bits, samples = tiff.one(_BITS, 1), tiff.one(_SAMPLES, 1)
    image.bits = bits
    image.set_size(tiff.one(_WIDTH), tiff.one(_HEIGHT))
    compression, photometric = tiff.one(_COMPRESSION, 1), tiff.one(_PHOTOMETRIC)
    form = tiff.one(_FORMAT, _UNSIGNED)
    planar = tiff.one(_PLANAR, 1) == 2 and samples > 1
    if compression not in _COMPRESSIONS_READ:
        raise unsupported(f"This is a TIFF with compression {compression}.")
    if bits not in _SAMPLES_READ.get((photometric, samples), {}).get(form, ()) or (planar and bits != 8):
        raise unsupported(
            f"This TIFF has {samples} x {bits} bits per pixel{' in separate planes' if planar else ''} "
            f"(photometric {photometric}, sample format {form})."
        )
    if bits > 8 or form != _UNSIGNED:
        image.flags.append(Flag.SCALED_TO_8_BIT)
    if (photometric, samples) in ((_BLACK_IS_ZERO, 2), (_RGB, 4)):
        image.flags.append(Flag.ALPHA_DROPPED)
    if 0 < tiff.next_at < len(content):
        image.flags.append(Flag.FIRST_PAGE)
    orientation = tiff.one(_ORIENTATION, 1)
    image.set_orientation(orientation if 1 <= orientation <= 8 else 1)
    if _TILE_WIDTH in tiff.tags and Flag.EXIF_ROTATED in image.flags:  # OpenCV mirrors each tile, not the image
        raise unsupported(f"This TIFF is stored in tiles with orientation {orientation}.")
    _check_data(image, tiff, bits * (1 if planar else samples), samples if planar else 1, compression)


def _check_data(image: Image, tiff: _Directory, pixel_bits: int, planes: int, compression: int) -> None:
    """Check that every strip or tile lies inside the file and is long enough."""
    content, size = image.content, len(image.content)
    at_tag, bytes_tag = (_TILE_AT, _TILE_BYTES) if _TILE_WIDTH in tiff.tags else (_STRIP_AT, _STRIP_BYTES)
    pieces, least = _pieces(image, tiff, pixel_bits)
    pieces *= planes
    starts = tiff.tags.get(at_tag, ())
    lengths = tiff.tags.get(bytes_tag, ())
    if len(starts) != pieces or len(lengths) != pieces:
        raise damaged(f"The TIFF lists {len(starts):,} offsets and {len(lengths):,} lengths for {pieces:,} pieces.")
    for number, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        if start + length > size:
            raise truncated(f"The TIFF ends after {size:,} bytes; piece {number:,} runs to byte {start + length:,}.")
        if length == 0 or start < 8:
            raise damaged(f"The TIFF piece {number:,} has {length:,} bytes at byte {start:,}.")
        _check_piece(content[start : start + length], number, least(number % (pieces // planes)), compression)


def _pieces(image: Image, tiff: _Directory, pixel_bits: int) -> tuple[int, Callable[[int], int]]:
    """(number of strips or tiles of one plane, bytes that the n-th needs where it is not compressed).

    Strips are of TIFF 6.0, section 3, tiles of section 15.
    """
    width, height = image.width or 0, image.height or 0
    largest = max(image.max_pixels, 1 << 16)
    if _TILE_WIDTH in tiff.tags:
        across, down = tiff.one(_TILE_WIDTH), tiff.one(_TILE_HEIGHT)
        if across < 1 or down < 1 or across % 16 or down % 16 or across * down > largest:
            raise damaged(f"The TIFF has tiles of {across:,} x {down:,} pixels.")
        tile_bytes = ceil_div(across * pixel_bits, 8) * down
        return ceil_div(width, across) * ceil_div(height, down), lambda _: tile_bytes
    rows = tiff.one(_ROWS, _ONE_STRIP)
    if rows < 1 or (height < rows < _ONE_STRIP and rows * width > largest):  # OpenCV's buffer has as many rows
        raise damaged(f"The TIFF has strips of {rows:,} rows.")
    rows = min(rows, height)
    row_bytes = ceil_div(width * pixel_bits, 8)
    return ceil_div(height, rows), lambda number: row_bytes * min(rows, height - number * rows)


def _check_piece(piece: bytes, number: int, least: int, compression: int) -> None:
    """Check that a strip or tile yields the bytes it must: libtiff leaves the rest black without an error."""
    if compression == _LZW:
        # Its length is known only by decoding it, which Python does too slowly; it must at least begin with ClearCode.
        if piece[0] != 0x80 or len(piece) < 2 or piece[1] & 0x80:
            raise damaged(f"The TIFF piece {number:,} does not begin as LZW data do.")
        return
    if compression == _PLAIN:
        have = len(piece)
    elif compression == _PACKBITS:
        have = _packbits_size(piece, least)
    else:
        have = _deflated_size(piece, number, least)
    if have < least:
        raise truncated(f"The TIFF piece {number:,} holds {have:,} bytes of {least:,}.")


def _packbits_size(piece: bytes, least: int) -> int:
    """Bytes that a PackBits piece unpacks to, counted up to `least` (TIFF 6.0, section 9)."""
    position = have = 0
    while have < least and position < len(piece):
        code = piece[position]
        position += 2 + code if code < 128 else 1 if code == 128 else 2
        if position > len(piece):
            break
        have += code + 1 if code < 128 else 0 if code == 128 else 257 - code
    return have


def _deflated_size(piece: bytes, number: int, least: int) -> int:
    """Bytes that a Deflate piece inflates to, counted up to `least`."""
    inflate = zlib.decompressobj()
    have = 0
    try:
        while have < least:
            part = inflate.decompress(piece, min(least - have, 1 << 20))
            if not part:
                break
            have += len(part)
            piece = inflate.unconsumed_tail
    except zlib.error as error:
        raise damaged(f"The TIFF piece {number:,} is no Deflate data: {error}.") from None
    return have
