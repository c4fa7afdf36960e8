"""TIFF (6.0, with Adobe's supplements) and BigTIFF: the first directory and every strip or tile that it lists."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from mribatch.pipeline.decode.formats.container import Image, ceil_div, damaged, truncated, unsupported
from mribatch.pipeline.records import Flag

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # little and big endian; 43, the plus sign, is BigTIFF
_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # field type -> struct code
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIP_AT, _ORIENTATION, _SAMPLES, _ROWS, _STRIP_BYTES, _PLANAR = 273, 274, 277, 278, 279, 284
_PREDICTOR, _COLOUR_MAP, _TILE_WIDTH, _TILE_HEIGHT, _TILE_AT, _TILE_BYTES = 317, 320, 322, 323, 324, 325
_INK_SET, _FORMAT = 332, 339
_WANTED = frozenset(
    (_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _STRIP_AT, _ORIENTATION, _SAMPLES, _ROWS)
    + (_STRIP_BYTES, _PLANAR, _PREDICTOR, _COLOUR_MAP, _TILE_WIDTH, _TILE_HEIGHT, _TILE_AT, _TILE_BYTES, _INK_SET)
    + (_FORMAT,)
)
_ONE_STRIP = 0xFFFFFFFF  # the default of rows per strip
_MAX_VALUES = 1 << 22  # strips or tiles; more than this is an attack on memory
_ORIENTATION_TYPES = (3, 4)  # SHORT and LONG, as in EXIF


class Compression(IntEnum):
    """The ways to pack a strip or tile that are read (tag 259)."""

    NONE = 1
    LZW = 5
    DEFLATE = 8
    PACKBITS = 32773
    OLD_DEFLATE = 32946


class Photometric(IntEnum):
    """What samples mean, of those meanings that are read (tag 262)."""

    WHITE_IS_ZERO = 0
    BLACK_IS_ZERO = 1
    RGB = 2
    PALETTE = 3
    CMYK = 5


class SampleFormat(IntEnum):
    """How samples are stored (tag 339)."""

    UNSIGNED = 1
    SIGNED = 2
    FLOAT = 3


_Kinds = dict[SampleFormat, tuple[int, ...]]  # -> bits per sample
_WIDE: _Kinds = {SampleFormat.UNSIGNED: (8, 16, 32), SampleFormat.FLOAT: (16, 32, 64)}
_GREY: _Kinds = _WIDE | {SampleFormat.UNSIGNED: (1, 2, 4, 8, 10, 12, 14, 16, 32), SampleFormat.SIGNED: (8, 16, 32)}
_READ: dict[Photometric, tuple[int, _Kinds]] = {  # -> samples without the extra ones, and how they may be stored
    Photometric.WHITE_IS_ZERO: (1, {SampleFormat.UNSIGNED: _GREY[SampleFormat.UNSIGNED]}),
    Photometric.BLACK_IS_ZERO: (1, _GREY),
    Photometric.RGB: (3, _WIDE),
    Photometric.PALETTE: (1, {SampleFormat.UNSIGNED: (1, 2, 4, 8)}),
    Photometric.CMYK: (4, {SampleFormat.UNSIGNED: (8,)}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TiffLayout:
    """Where the pixels of a TIFF's first image are and how they are stored.

    byte_order: "<" or ">". samples: stored per pixel, of which the first `colours` count. piece_height, piece_width: of
    a strip or tile, in pixels; a strip is as wide as the image, and the last may be lower. planar: each sample has
    pieces of its own. pieces: (start, length in bytes), from left to right and top to bottom, plane after plane.
    colour_map: of a palette, 16-bit red values, then green, then blue; else empty. orientation: 1 to 8.
    """

    byte_order: Literal["<", ">"]
    width: int
    height: int
    bits: int
    samples: int
    colours: int
    form: SampleFormat
    photometric: Photometric
    compression: Compression
    predictor: int
    reversed_bits: bool
    tiled: bool
    piece_height: int
    piece_width: int
    planar: bool
    pieces: tuple[tuple[int, int], ...]
    colour_map: tuple[int, ...]
    orientation: int
    more_pages: bool

    @property
    def samples_in_piece(self) -> int:
        """Samples per pixel that a piece holds."""
        return 1 if self.planar else self.samples

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of a piece; a row ends at a byte."""
        return ceil_div(self.piece_width * self.samples_in_piece * self.bits, 8)

    def places(self) -> Iterator[tuple[int, int, int, int]]:
        """(plane, top, left, rows that are stored at least) of every piece, in the order of `pieces`."""
        for plane in range(self.samples if self.planar else 1):
            for top in range(0, self.height, self.piece_height):
                rows = self.piece_height if self.tiled else min(self.piece_height, self.height - top)
                for left in range(0, self.width, self.piece_width):
                    yield plane, top, left, rows


class _Directory:
    """The first directory of a TIFF: the values of the tags that decide about the pixels (TIFF 6.0, section 2)."""

    __slots__ = ("next_at", "order", "tags", "types")

    def __init__(self, content: bytes) -> None:
        order: Literal["<", ">"] = "<" if content[:2] == b"II" else ">"
        self.order = order
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
        self.types: dict[int, int] = {}
        for entry in range(first, first + count * step, step):
            (tag,) = struct.unpack_from(f"{order}H", content, entry)
            if tag in _WANTED and tag not in self.tags:
                self.tags[tag] = _values(content, entry, order, word, tag)
                self.types[tag] = struct.unpack_from(f"{order}H", content, entry + 2)[0]
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
    """Read the first directory, refuse the kinds of pixels that are not read, check all strips or tiles."""
    found = _layout(image.content, image)
    if found.bits > 8 or found.form != SampleFormat.UNSIGNED:
        image.flags.append(Flag.SCALED_TO_8_BIT)
    if found.samples > found.colours:
        image.flags.append(Flag.ALPHA_DROPPED)
    if found.more_pages:
        image.flags.append(Flag.FIRST_PAGE)
    image.set_orientation(found.orientation)
    _check_pieces(image, found)


def layout(content: bytes) -> TiffLayout:
    """The layout of a TIFF that `walk` let through."""
    return _layout(content, None)


def _layout(content: bytes, image: Image | None) -> TiffLayout:
    """Read the first directory; what is known of the image goes into `image`, so that a refusal still carries it."""
    tiff = _Directory(content)
    bits, samples = tiff.one(_BITS, 1), tiff.one(_SAMPLES, 1)
    width, height = tiff.one(_WIDTH), tiff.one(_HEIGHT)
    if image is not None:
        image.bits = bits
        image.set_size(width, height)
    compression, photometric = tiff.one(_COMPRESSION, 1), tiff.one(_PHOTOMETRIC)
    form, planar = tiff.one(_FORMAT, SampleFormat.UNSIGNED), tiff.one(_PLANAR, 1) == 2 and samples > 1
    if compression not in tuple(Compression):
        raise unsupported(f"This is a TIFF with compression {compression}.")
    colours, kinds = _READ.get(photometric, (0, {})) if photometric in tuple(Photometric) else (0, {})  # type: ignore[call-overload]
    if bits not in kinds.get(form, ()) or not colours <= samples <= colours + 1:
        raise unsupported(
            f"This TIFF has {samples} x {bits} bits per pixel (photometric {photometric}, sample format {form})."
        )
    if photometric == Photometric.CMYK and tiff.one(_INK_SET, 1) != 1:
        raise unsupported(f"This is a TIFF of {samples} inks that are not cyan, magenta, yellow and black.")
    tiled = _TILE_WIDTH in tiff.tags
    down, across = _piece_size(tiff, width, height, image)
    at_tag, bytes_tag = (_TILE_AT, _TILE_BYTES) if tiled else (_STRIP_AT, _STRIP_BYTES)
    return TiffLayout(
        byte_order=tiff.order,
        width=width,
        height=height,
        bits=bits,
        samples=samples,
        colours=colours,
        form=SampleFormat(form),
        photometric=Photometric(photometric),
        compression=Compression(compression),
        predictor=_predictor(tiff, bits, form, compression),
        reversed_bits=tiff.one(_FILL_ORDER, 1) == 2,
        tiled=tiled,
        piece_height=down,
        piece_width=across,
        planar=planar,
        pieces=_listed(
            tiff, at_tag, bytes_tag, ceil_div(height, down) * ceil_div(width, across) * (samples if planar else 1)
        ),
        colour_map=_colour_map(tiff, bits) if photometric == Photometric.PALETTE else (),
        orientation=_orientation(tiff),
        more_pages=0 < tiff.next_at < len(content),
    )


def _piece_size(tiff: _Directory, width: int, height: int, image: Image | None) -> tuple[int, int]:
    """(rows, columns) of a strip (TIFF 6.0, section 3) or tile (section 15)."""
    if _TILE_WIDTH not in tiff.tags:
        rows = tiff.one(_ROWS, _ONE_STRIP)
        if rows < 1:
            raise damaged(f"The TIFF has strips of {rows:,} rows.")
        return min(rows, height), width
    across, down = tiff.one(_TILE_WIDTH), tiff.one(_TILE_HEIGHT)
    largest = max(image.max_pixels, 1 << 16) if image is not None else across * down
    if across < 1 or down < 1 or across % 16 or down % 16 or across * down > largest:
        raise damaged(f"The TIFF has tiles of {across:,} x {down:,} pixels.")
    return down, across


def _predictor(tiff: _Directory, bits: int, form: int, compression: int) -> int:
    """1: none, 2: differences along a row (TIFF 6.0, section 14), 3: of floating-point numbers (Adobe's note 3)."""
    predictor = tiff.one(_PREDICTOR, 1)
    if predictor == 1 or compression in (Compression.NONE, Compression.PACKBITS):  # these have none
        return 1
    if (predictor == 2 and bits >= 8 and bits % 8 == 0) or (predictor == 3 and form == SampleFormat.FLOAT):
        return predictor
    raise unsupported(f"This TIFF has predictor {predictor} with {bits} bits per sample.")


def _colour_map(tiff: _Directory, bits: int) -> tuple[int, ...]:
    colours = tiff.tags.get(_COLOUR_MAP, ())
    if len(colours) != 3 << bits:
        raise damaged(f"The TIFF has {len(colours):,} values in its palette, not {3 << bits:,}.")
    return colours


def _orientation(tiff: _Directory) -> int:
    """1 to 8; 1 where the tag is missing, is out of range or has another type than in EXIF."""
    if tiff.types.get(_ORIENTATION) not in _ORIENTATION_TYPES:
        return 1
    orientation = tiff.one(_ORIENTATION)
    return orientation if 1 <= orientation <= 8 else 1


def _listed(tiff: _Directory, at_tag: int, bytes_tag: int, pieces: int) -> tuple[tuple[int, int], ...]:
    """(start, length) of every strip or tile."""
    starts, lengths = tiff.tags.get(at_tag, ()), tiff.tags.get(bytes_tag, ())
    if len(starts) != pieces or len(lengths) != pieces:
        raise damaged(f"The TIFF lists {len(starts):,} offsets and {len(lengths):,} lengths for {pieces:,} pieces.")
    return tuple(zip(starts, lengths, strict=True))


def _check_pieces(image: Image, found: TiffLayout) -> None:
    """Check that every strip or tile lies inside the file, and where it is not packed that it is long enough."""
    size = len(image.content)
    for number, ((start, length), (_, _, _, rows)) in enumerate(zip(found.pieces, found.places(), strict=True)):
        if start + length > size:
            raise truncated(f"The TIFF ends after {size:,} bytes; piece {number:,} runs to byte {start + length:,}.")
        if length == 0 or start < 8:
            raise damaged(f"The TIFF piece {number:,} has {length:,} bytes at byte {start:,}.")
        if found.compression == Compression.NONE and length < rows * found.row_bytes:
            raise truncated(f"The TIFF piece {number:,} holds {length:,} bytes of {rows * found.row_bytes:,}.")
