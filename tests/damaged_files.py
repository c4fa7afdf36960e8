"""Files with damage inside their data, made by code: what the markers, lengths and offsets of a container do not show.

    whole_jpegs(count), damaged_jpegs(count)       drawn slices as JPEGs of eight kinds
    whole_files(kind, pixels), damaged(kind, ...)  any pixels as a file of any kind of KINDS

A file is damaged in four ways: a hole, zeros, an early end, swapped halves. Its container is made to fit what is left of
the data, as if the damage had come before the file was written: that is the hardest to find.
"""

import io
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import cv2
import numpy as np
from numpy import uint8
from numpy.typing import NDArray
from PIL import Image

from mribatch.core.synthetic import draw_slice
from tests.broken_files import encode, png_chunk

Pixels = NDArray[uint8]  # (height, width), or (height, width, 3) in the order red, green, blue


@dataclass(frozen=True)
class DamagedFile:
    """A whole file and the same with damage inside its data; name: the damage, then the file's own name."""

    name: str
    whole: bytes
    damaged: bytes


@dataclass(frozen=True)
class Data:
    """The packed pixels of a file, and how a file of this kind is made of others."""

    packed: bytes
    with_packed: Callable[[bytes], bytes]


# ---------------------------------------------------------------------------------------------------------- damage


def _hole(data: bytes, dice: random.Random) -> bytes:
    """Some bytes are gone: a tenth to a third of the data."""
    begin, end = _part(data, dice)
    return data[:begin] + data[end:]


def _zeros(data: bytes, dice: random.Random) -> bytes:
    begin, end = _part(data, dice)
    return data[:begin] + bytes(end - begin) + data[end:]


def _early_end(data: bytes, dice: random.Random) -> bytes:
    return data[: int(len(data) * dice.uniform(0.3, 0.9))]


def _swapped_halves(data: bytes, dice: random.Random) -> bytes:
    middle = int(len(data) * dice.uniform(0.4, 0.6))
    return data[middle:] + data[:middle]


def _part(data: bytes, dice: random.Random) -> tuple[int, int]:
    start, size = dice.uniform(0.2, 0.6), dice.uniform(0.1, 0.3)
    return int(len(data) * start), int(len(data) * (start + size))


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "hole": _hole,
    "zeros": _zeros,
    "early_end": _early_end,
    "swapped_halves": _swapped_halves,
}


def damaged(name: str, whole: bytes) -> Iterator[DamagedFile]:
    """A file with each kind of damage, the same on every call with the same name."""
    data = data_of(whole)
    for kind, damage in DAMAGES.items():
        content = data.with_packed(damage(data.packed, random.Random(f"{name} {kind}")))
        yield DamagedFile(f"{kind}_{name}", whole, content)


# ------------------------------------------------------------------------------------------------------ whole files


def _jpeg(pixels: Pixels, progressive: int, restart: int = 0) -> bytes:
    options = (cv2.IMWRITE_JPEG_PROGRESSIVE, progressive, cv2.IMWRITE_JPEG_RST_INTERVAL, restart)
    return encode(".jpg", pixels[..., ::-1] if pixels.ndim == 3 else pixels, *options, cv2.IMWRITE_JPEG_QUALITY, 90)


def _pillow(pixels: Pixels, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, **options)
    return stream.getvalue()


def _tiff(compression: str) -> Callable[[Pixels], bytes]:
    return lambda pixels: _pillow(pixels, format="TIFF", compression=compression, strip_size=1 << 30)


KINDS: dict[str, Callable[[Pixels], bytes]] = {
    "jpeg-baseline": lambda pixels: _jpeg(pixels, 0),
    "jpeg-progressive": lambda pixels: _jpeg(pixels, 1),
    "jpeg-restarts": lambda pixels: _jpeg(pixels, 0, 8),
    "png": lambda pixels: _pillow(pixels, format="PNG"),
    "tiff-lzw": _tiff("tiff_lzw"),
    "tiff-deflate": _tiff("tiff_adobe_deflate"),
    "tiff-packbits": _tiff("packbits"),
    "webp-lossy": lambda pixels: _pillow(pixels, format="WEBP", quality=80),
    "webp-lossless": lambda pixels: _pillow(pixels, format="WEBP", lossless=True),
    "jpeg2000-lossy": lambda pixels: _pillow(
        pixels, format="JPEG2000", irreversible=True, quality_mode="rates", quality_layers=[10]
    ),
    "jpeg2000-lossless": lambda pixels: _pillow(pixels, format="JPEG2000"),
}


def in_colour(grey: NDArray[uint8]) -> NDArray[uint8]:
    """A slice in false colours, uint8 (height, width, 3), red, green, blue."""
    return np.dstack([255 - grey, grey // 2 + 40, grey])


def whole_jpegs(count: int) -> Iterator[tuple[str, bytes]]:
    """`count` slices in each of eight kinds: grey and colour, baseline and progressive, without and with restarts."""
    for seed in range(count):
        grey = draw_slice(seed, 180 + 3 * seed, 200 - seed)
        for colour, progressive, restart in product((0, 1), (0, 1), (0, 8)):
            name = f"{seed}_{'colour' if colour else 'grey'}_{'progressive' if progressive else 'baseline'}_{restart}"
            yield name, _jpeg(in_colour(grey) if colour else grey, progressive, restart)


def damaged_jpegs(count: int) -> Iterator[DamagedFile]:
    """Each of `whole_jpegs(count)` with each kind of damage; 32 times `count` files, the same on every call."""
    for name, whole in whole_jpegs(count):
        yield from damaged(name, whole)


# ------------------------------------------------------------------------------------------------------- their data


def scan_data(jpeg: bytes) -> tuple[int, int]:
    """(first byte of the first scan's data, position of the end marker)."""
    scan = jpeg.index(b"\xff\xda")
    return scan + 2 + int.from_bytes(jpeg[scan + 2 : scan + 4], "big"), jpeg.rindex(b"\xff\xd9")


def data_of(content: bytes) -> Data:
    """The data of a file of one of KINDS."""
    if content.startswith(b"\xff\xd8"):
        begin, end = scan_data(content)
        return Data(content[begin:end], lambda packed: content[:begin] + packed + content[end:])
    if content.startswith(b"\x89PNG"):
        return _png_data(content)
    if content.startswith(b"II"):
        return _tiff_data(content)
    return _webp_data(content) if content.startswith(b"RIFF") else _jpeg2000_data(content)


def _png_data(content: bytes) -> Data:
    """Of all IDAT chunks; the new file has one, whose checksum is right."""
    position, packed, first, last = 8, b"", 0, 0
    while position < len(content):
        (length,) = struct.unpack_from(">I", content, position)
        end = position + 12 + length
        if content[position + 4 : position + 8] == b"IDAT":
            packed += content[position + 8 : end - 4]
            first, last = first or position, end
        position = end
    return Data(packed, lambda data: content[:first] + png_chunk(b"IDAT", data) + content[last:])


def _tiff_data(content: bytes) -> Data:
    """Of the single strip of a little-endian TIFF; the new file has it at its end."""
    (at,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, at)
    entries = {struct.unpack_from("<H", content, one)[0]: one for one in range(at + 2, at + 2 + 12 * count, 12)}
    values = {tag: struct.unpack_from("<HHII", content, one) for tag, one in entries.items()}
    assert values[273][2] == values[279][2] == 1, "one strip"
    start, length = (values[tag][3] & (0xFFFF if values[tag][1] == 3 else 0xFFFFFFFF) for tag in (273, 279))

    def with_packed(data: bytes) -> bytes:
        made = bytearray(content)
        struct.pack_into("<HHII", made, entries[273], 273, 4, 1, len(content))
        struct.pack_into("<HHII", made, entries[279], 279, 4, 1, len(data))
        return bytes(made) + data

    return Data(content[start : start + length], with_packed)


def _webp_data(content: bytes) -> Data:
    """Of a simple WebP, behind the header of its picture."""
    kind = content[12:16]
    (length,) = struct.unpack_from("<I", content, 16)
    header = 10 if kind == b"VP8 " else 5
    picture = content[20 : 20 + length]

    def with_packed(data: bytes) -> bytes:
        made = picture[:header] + data
        body = b"WEBP" + kind + struct.pack("<I", len(made)) + made + bytes(len(made) & 1)
        return b"RIFF" + struct.pack("<I", len(body)) + body

    return Data(picture[header:], with_packed)


def _jpeg2000_data(content: bytes) -> Data:
    """Of the single tile-part of a JP2 file, or of a codestream without boxes."""
    box = content.find(b"jp2c") - 4
    part = content.index(b"\xff\x90", max(box, 0))
    data, end = content.index(b"\xff\x93", part) + 2, content.rindex(b"\xff\xd9")

    def with_packed(packed: bytes) -> bytes:
        made = bytearray(content[:data] + packed + b"\xff\xd9")
        struct.pack_into(">I", made, part + 6, len(made) - 2 - part)
        if box >= 0:
            struct.pack_into(">I", made, box, len(made) - box)
        return bytes(made)

    return Data(content[data:end], with_packed)
