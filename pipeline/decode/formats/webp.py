"""WebP (RFC 9649; lossy pictures: RFC 6386): every chunk of the RIFF container, and the header of the first picture."""

import struct
from collections.abc import Iterator

from mribatch.pipeline.decode.formats.container import Image, damaged, truncated, u16_little, u32_little
from mribatch.pipeline.decode.formats.exif import orientation_of
from mribatch.pipeline.records import Flag

_ALPHA = 0x10  # among the features of VP8X
_PICTURES = (b"VP8 ", b"VP8L")


def walk(image: Image) -> None:
    """Walk the chunks (RFC 9649, 2.3 to 2.7); check the picture, or of an animation the first frame."""
    content = image.content
    stop = _container_end(content)
    extended, frames, pictures = False, 0, 0
    for kind, start, end in _chunks(content, 12, stop):
        if kind == b"VP8X" and not pictures:
            extended = True
            _canvas(image, start, end)
        elif kind == b"ANMF":
            frames += 1
            if frames == 1:
                _first_frame(image, start, end)
        elif kind in _PICTURES and not pictures:
            pictures += 1
            size = _picture(image, kind, start, end)
            if extended and size != (image.width, image.height):
                raise damaged(
                    f"The WebP picture has {size[0]} x {size[1]} pixels, its canvas {image.width} x {image.height}."
                )
            image.set_size(*size)
    if not pictures and not frames:
        raise truncated(f"The WebP of {len(content):,} bytes has no image data.")
    image.bits = 8
    image.set_orientation(orientation_of(exif_blocks(content)))
    if frames > 1:
        image.flags.append(Flag.FIRST_PAGE)


def exif_blocks(content: bytes) -> Iterator[bytes]:
    """The EXIF blocks: chunks EXIF (RFC 9649, 2.7), some of which repeat the prefix that JPEG needs."""
    blocks = (
        content[start:end] for kind, start, end in _chunks(content, 12, _container_end(content)) if kind == b"EXIF"
    )
    return (block.removeprefix(b"Exif\0\0") for block in blocks)


def first_picture(content: bytes) -> tuple[bytes, bytes]:
    """(chunk type, data) of the first picture of a WebP that `walk` let through: VP8 is lossy, VP8L lossless."""
    pending = [(12, _container_end(content))]
    while pending:
        position, stop = pending.pop()
        for kind, start, end in _chunks(content, position, stop):
            if kind in _PICTURES:
                return kind, content[start:end]
            if kind == b"ANMF":
                pending.append((start + 16, end))
                break
    raise damaged(f"The WebP of {len(content):,} bytes has no picture.")


def simple_file(kind: bytes, picture: bytes) -> bytes:
    """A WebP of nothing but a picture (RFC 9649, 2.5 and 2.6)."""
    body = b"WEBP" + kind + struct.pack("<I", len(picture)) + picture + bytes(len(picture) & 1)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _container_end(content: bytes) -> int:
    """Where the RIFF container ends, by its header."""
    end = 8 + int(u32_little(content, 4)[0])
    if end > len(content):
        raise truncated(f"The WebP has {len(content):,} bytes of {end:,}.")
    return end


def _chunks(content: bytes, position: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of every chunk in content[position:stop] (RFC 9649, 2.3)."""
    while position < stop:
        kind = content[position : position + 4]
        (length,) = u32_little(content, position + 4)
        start = position + 8
        if start + length > stop:
            raise damaged(f"The WebP chunk at byte {position:,} runs past its container, which ends at {stop:,}.")
        yield kind, start, start + length
        position = start + length + (length & 1)


def _canvas(image: Image, start: int, end: int) -> None:
    """Read the VP8X header: features and canvas (RFC 9649, 2.7)."""
    if end - start < 10:
        raise damaged(f"The WebP header VP8X has {end - start} bytes, not 10.")
    features = image.content[start]
    if features & _ALPHA:
        image.flags.append(Flag.ALPHA_DROPPED)
    width = int.from_bytes(image.content[start + 4 : start + 7], "little") + 1
    height = int.from_bytes(image.content[start + 7 : start + 10], "little") + 1
    image.set_size(width, height)


def _first_frame(image: Image, start: int, end: int) -> None:
    """Check the first frame of an animation: its picture is whole and lies on the canvas."""
    if image.width is None or image.height is None or end - start < 16:
        raise damaged(f"The WebP has an animation frame at byte {start:,} without a canvas.")
    left = 2 * int.from_bytes(image.content[start : start + 3], "little")
    top = 2 * int.from_bytes(image.content[start + 3 : start + 6], "little")
    for kind, first, last in _chunks(image.content, start + 16, end):
        if kind in _PICTURES:
            width, height = _picture(image, kind, first, last)
            if left + width > image.width or top + height > image.height:
                raise damaged(f"The WebP frame of {width} x {height} pixels at {left}, {top} leaves the canvas.")
            return
    raise damaged(f"The WebP frame at byte {start:,} has no picture.")


def _picture(image: Image, kind: bytes, start: int, end: int) -> tuple[int, int]:
    """Width and height of a lossy (RFC 6386, 9.1) or lossless (RFC 9649, 3.4) bitstream."""
    content = image.content
    if end - start < (10 if kind == b"VP8 " else 5):
        raise truncated(f"The WebP image data have {end - start} bytes.")
    if kind == b"VP8L":
        (packed,) = u32_little(content, start + 1)
        if content[start] != 0x2F or packed >> 29:
            raise damaged(f"The lossless WebP header at byte {start:,} is invalid.")
        if packed >> 28 & 1:
            image.flags.append(Flag.ALPHA_DROPPED)
        return (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    tag = int.from_bytes(content[start : start + 3], "little")
    if tag & 1 or content[start + 3 : start + 6] != b"\x9d\x01\x2a":
        raise damaged(f"The lossy WebP header at byte {start:,} is invalid.")
    if 10 + (tag >> 5) > end - start:
        raise truncated(
            f"The WebP image data have {end - start:,} bytes; their first part alone needs {10 + (tag >> 5):,}."
        )
    return u16_little(content, start + 6)[0] & 0x3FFF, u16_little(content, start + 8)[0] & 0x3FFF
