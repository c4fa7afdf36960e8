"""JPEG (ITU-T T.81): every marker segment, and of every scan whether it can be whole."""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy import uint8

from mribatch.pipeline.decode.formats.container import Image, Refused, ceil_div, damaged, truncated, u16, unsupported
from mribatch.pipeline.decode.formats.exif import orientation_of
from mribatch.pipeline.records import Flag

SIGNATURE = b"\xff\xd8"

# A marker other than stuffing, fill and restart. The literal byte in front lets `re` search with memchr: 18 times
# faster than a pattern that begins with a repeat.
_SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_SOI, _EOI, _SOS, _DQT, _DRI = 0xD8, 0xD9, 0xDA, 0xDB, 0xDD
_APP0, _APP1, _APP2, _APP14, _COMMENT = 0xE0, 0xE1, 0xE2, 0xEE, 0xFE
_FRAMES = {  # start-of-frame markers (T.81, table B.1) -> what is not read of them
    0xC0: "",
    0xC1: "",
    0xC2: "",
    0xC3: "lossless",
    0xC5: "hierarchical",
    0xC6: "hierarchical",
    0xC7: "hierarchical",
    0xC9: "arithmetic",
    0xCA: "arithmetic",
    0xCB: "lossless",
    0xCD: "hierarchical",
    0xCE: "hierarchical",
    0xCF: "hierarchical",
}
_EXIF = b"Exif\0\0"
_TABLES = frozenset({0xC4, 0xDB, 0xDC, _DRI, 0xFE, *range(0xE0, 0xF0)})  # may stand between scans
_MAX_SCANS = 100  # a usual progressive file has ten; thousands of scans are an attack on the decoder's time
_PROGRESSIVE = 0xC2
_USUAL_SAMPLINGS = ((1, 1), (2, 1), (2, 2), (1, 2), (4, 1))  # of luma; chroma has one sample there


@dataclass(frozen=True, slots=True)
class JpegEncoding:
    """How a JPEG was written, by its headers. Nothing of the picture and no text of the file is in it.

    quantization: The steps of each table by its number, 64 in zigzag order. sampling: the factors of each component,
    (across, down). applications: the numbers of the APPn segments that are there, ascending.
    """

    quantization: tuple[tuple[int, ...], ...]
    sampling: tuple[tuple[int, int], ...]
    progressive: bool
    restarts: bool
    comments: int
    applications: tuple[int, ...]


class _Frame:
    """The frame header of a JPEG and what decides how many bytes a scan needs at least."""

    __slots__ = ("components", "height", "missing_bits", "progressive", "restart", "tallest", "widest", "width")

    def __init__(self, kind: int, width: int, height: int, components: dict[int, tuple[int, int]]) -> None:
        self.progressive = kind == _PROGRESSIVE
        self.width, self.height = width, height
        self.components = components  # id -> (horizontal, vertical) sampling factor
        self.widest = max(across for across, _ in components.values())
        self.tallest = max(down for _, down in components.values())
        self.restart = 0  # MCUs between two restart markers; 0 = none
        # Low bits of each coefficient that no scan has sent yet (T.81, G.1.2); 14 where nothing was sent.
        self.missing_bits = {one: [14] * 64 for one in components} if self.progressive else {}

    def add_scan(self, wanted: bytes, first: int, last: int, low: int) -> None:
        """Note what a progressive scan sends: the coefficients `first` to `last`, but for their `low` lowest bits."""
        for one in wanted if self.progressive else b"":
            self.missing_bits[one][first : last + 1] = [low] * (last + 1 - first)

    def unfinished(self) -> int:
        """How many coefficients of the components no scan has sent in full."""
        return sum(low > 0 for bits in self.missing_bits.values() for low in bits)

    def units(self, wanted: bytes) -> tuple[int, int]:
        """(MCUs, blocks) of a scan over the components `wanted` (T.81, A.2)."""
        if len(wanted) == 1:
            across, down = self.components[wanted[0]]
            blocks = ceil_div(ceil_div(self.width * across, self.widest), 8) * ceil_div(
                ceil_div(self.height * down, self.tallest), 8
            )
            return blocks, blocks
        mcus = ceil_div(self.width, 8 * self.widest) * ceil_div(self.height, 8 * self.tallest)
        return mcus, mcus * sum(across * down for across, down in (self.components[one] for one in wanted))


@dataclass(frozen=True, slots=True)
class Coding:
    """What decides how the samples of a JPEG become colours.

    components: (id, horizontal, vertical sampling factor), in the order of the frame header. jfif: it has JFIF's marker
    (ITU-T T.871). adobe: colour transform of Adobe's marker (APP14); None without it. scanned: components of the first
    scan.
    """

    components: tuple[tuple[int, int, int], ...]
    jfif: bool
    adobe: int | None
    scanned: int

    @property
    def is_grey_or_ycc(self) -> bool:
        """Whether no decoder takes it for RGB or inks."""
        if len(self.components) == 1:
            return self.adobe in (None, 0)
        ids = tuple(name for name, _, _ in self.components)
        return ids == (1, 2, 3) and (self.adobe is None or self.adobe == 1)

    @property
    def is_usually_sampled(self) -> bool:
        """Whether the sampling is one that every decoder knows: 4:4:4, 4:2:2, 4:2:0, 4:4:0 or 4:1:1."""
        (_, across, down), *others = self.components
        if not others:
            return (across, down) == (1, 1)
        return (across, down) in _USUAL_SAMPLINGS and all(factor[1:] == (1, 1) for factor in others)

    @property
    def is_interleaved(self) -> bool:
        """Whether the first scan has all components, as most files do."""
        return self.scanned == len(self.components)


def walk(image: Image) -> None:
    """Walk the segments from SOI to EOI (T.81, B.1 and B.2); refuse what cannot be a whole image that is read."""
    content = image.content
    frame: _Frame | None = None
    exif: list[bytes] = []
    position, restart, scans = 2, 0, 0
    while True:
        marker, start, end = _segment(content, position)
        position = end
        if marker == _SOS:
            if frame is None:
                raise damaged(f"A JPEG scan begins at byte {start:,} before any frame header.")
            scans += 1
            if scans > _MAX_SCANS:
                raise unsupported(f"The JPEG has more than {_MAX_SCANS} scans.")
            frame.restart = restart
            position = _scan(content, frame, start, end)
        elif marker == _APP1:
            if not scans and content.startswith(_EXIF, start):
                exif.append(content[start + len(_EXIF) : end])
        elif marker in _FRAMES:
            if frame is not None:
                raise damaged(f"The JPEG has a second frame header at byte {start:,}.")
            frame = _frame_header(image, marker, start, end)
        elif marker == _EOI:
            if frame is not None and scans:
                _check_finished(frame, scans)
                image.set_orientation(orientation_of(exif))
                if end < len(content):
                    image.flags.append(Flag.EXTRA_BYTES)
                return
            raise truncated(f"The JPEG ends at byte {start:,} without any image data.")
        elif marker == _DRI:
            restart = u16(content, start)[0]
        elif marker not in _TABLES:
            raise damaged(f"The JPEG has an unexpected marker 0x{marker:02X} before byte {start:,}.")


def coding(content: bytes) -> Coding:
    """How the colours of a JPEG that `walk` let through are coded."""
    position, jfif, adobe, components = 2, False, None, list[tuple[int, int, int]]()
    while True:
        marker, start, end = _segment(content, position)
        position = end
        if marker == _SOS:
            return Coding(tuple(components), jfif, adobe, content[start])
        if marker == _APP0 and content.startswith(b"JFIF\0", start):
            jfif = True
        elif marker == _APP14 and content.startswith(b"Adobe", start) and end - start >= 12:
            adobe = content[start + 11]
        elif marker in _FRAMES:
            components = [(content[at], content[at + 1] >> 4, content[at + 1] & 15) for at in range(start + 6, end, 3)]


def exif_blocks(content: bytes) -> Iterator[bytes]:
    """The EXIF blocks before the first scan: APP1 segments that begin with Exif (CIPA DC-008)."""
    position = 2
    while True:
        marker, start, end = _segment(content, position)
        if marker in (_SOS, _EOI):
            return
        if marker == _APP1 and content.startswith(_EXIF, start):
            yield content[start + len(_EXIF) : end]
        position = end


def read_encoding(head: bytes) -> JpegEncoding:
    """Read how a JPEG was written, from its first bytes up to the first scan; what they do not hold is not reported."""
    tables: dict[int, tuple[int, ...]] = {}
    sampling: tuple[tuple[int, int], ...] = ()
    seen: list[int] = []
    position = 2
    while True:
        try:
            marker, start, position = _segment(head, position)
        except (Refused, struct.error, IndexError):  # the head ends here, or is damaged
            break
        if marker in (_SOS, _EOI):
            break
        seen.append(marker)
        if marker == _DQT:
            tables |= _quantization(head[start:position])
        elif marker in _FRAMES:
            sampling = tuple((factors >> 4, factors & 15) for factors in head[start + 7 : position : 3])
    return JpegEncoding(
        quantization=tuple(tables[number] for number in sorted(tables)),
        sampling=sampling,
        progressive=_PROGRESSIVE in seen,
        restarts=_DRI in seen,
        comments=seen.count(_COMMENT),
        applications=tuple(sorted({marker - _APP0 for marker in seen if _APP0 <= marker <= _APP0 + 15})),
    )


def _quantization(payload: bytes) -> dict[int, tuple[int, ...]]:
    """The tables of a DQT segment (T.81, B.2.4.1): number -> 64 steps."""
    found: dict[int, tuple[int, ...]] = {}
    position = 0
    while position < len(payload):
        wide, number = payload[position] >> 4, payload[position] & 15
        steps = payload[position + 1 : position + (129 if wide else 65)]
        if len(steps) != (128 if wide else 64):
            break
        found[number] = struct.unpack(">64H", steps) if wide else tuple(steps)
        position += 1 + len(steps)
    return found


def first_scan(content: bytes) -> int:
    """Where the data of the first scan begin, in a JPEG that `walk` let through."""
    position = 2
    while True:
        marker, _, position = _segment(content, position)
        if marker == _SOS:
            return position


def normalized(content: bytes) -> bytes:
    """A copy of a JPEG that `walk` let through, with the same pixels and without headers that libjpeg warns of.

    JFIF is of version 1 (ITU-T T.871, 10.1), Adobe's colour transform is the one that libjpeg takes an unknown one for,
    colour profiles are comments, and the scans of a sequential image are of all coefficients (T.81, table B.3).
    """
    copy = bytearray(content)
    position, adobe, sequential = 2, 0, True
    while True:
        marker, start, end = _segment(content, position)
        position = end
        if marker == _EOI:
            return bytes(copy)
        if marker == _SOS:
            if sequential:
                copy[end - 3 : end] = b"\0\x3f\0"
            found = _find_scan_end(content, end)
            position = len(content) if found is None else found
        elif marker == _APP0 and content.startswith(b"JFIF\0", start) and end - start > 5:
            copy[start + 5] = 1
        elif marker == _APP2:
            copy[start - 3] = _COMMENT
        elif marker == _APP14 and content.startswith(b"Adobe", start) and end - start >= 12:
            adobe = start + 11
        elif marker in _FRAMES:
            sequential = marker != _PROGRESSIVE
            ycc = 2 if content[start + 5] == 4 else 1
            if adobe and copy[adobe] not in (0, ycc):
                copy[adobe] = ycc


def _segment(content: bytes, position: int) -> tuple[int, int, int]:
    """(marker, first byte of its payload, end) of the segment at `position` (T.81, B.1.1.4).

    Fill bytes before the marker are skipped (B.1.1.2).
    """
    size = len(content)
    if position >= size:
        raise truncated(f"The JPEG ends after {size:,} bytes without an end-of-image marker.")
    if content[position] != 0xFF:
        raise damaged(f"The JPEG has no marker where one must be, at byte {position:,}.")
    marker = content[position + 1]
    while marker == 0xFF:
        position += 1
        marker = content[position + 1]
    if marker in (_EOI, _SOI):
        return marker, position + 2, position + 2
    end = position + 2 + u16(content, position + 2)[0]
    if end < position + 4:
        raise damaged(f"The JPEG segment at byte {position:,} has a length under 2.")
    if end > size:
        raise truncated(f"The JPEG ends after {size:,} bytes, inside a segment that runs to byte {end:,}.")
    return marker, position + 4, end


def _find_scan_end(content: bytes, start: int) -> int | None:
    """Where the first marker that ends a scan is, from `start` on; None where there is none.

    NumPy looks at many bytes at once, and without the interpreter's lock: in 80 kB of data three times as fast as the
    expression, which has a beginning at every 256th byte. It stops at restart markers and fill bytes, too, where there
    are any; from there on the expression looks.
    """
    if start >= len(content) - 1:
        return None
    data = np.frombuffer(content, uint8, offset=start)
    marks = data[:-1] == 0xFF
    marks &= data[1:] != 0
    place = int(marks.argmax())
    if not marks[place]:
        return None
    first = start + place
    if content[first + 1] != 0xFF and not 0xD0 <= content[first + 1] <= 0xD7:
        return first
    found = _SCAN_END.search(content, first)
    return None if found is None else found.start()


def _frame_header(image: Image, marker: int, start: int, end: int) -> _Frame:
    """Read the frame header (T.81, B.2.2) and refuse what is not 8-bit, Huffman-coded, sequential or progressive."""
    content = image.content
    if _FRAMES[marker]:
        raise unsupported(f"This JPEG uses {_FRAMES[marker]} coding (marker 0x{marker:02X}).")
    bits, height, width, count = struct.unpack_from(">BHHB", content, start)
    if end - start != 6 + 3 * count:
        raise damaged(f"The JPEG frame header has {end - start + 2} bytes for {count} components.")
    image.bits = bits
    if bits == 12:
        raise unsupported("This is a JPEG of 12 bits per sample; only 8 are supported.")
    if bits != 8:
        raise damaged(f"The JPEG header gives {bits} bits per sample.")
    image.set_size(width, height)
    if count not in (1, 3, 4):
        raise unsupported(f"This is a JPEG of {count} components.")
    components: dict[int, tuple[int, int]] = {}
    for at in range(start + 6, end, 3):
        across, down = content[at + 1] >> 4, content[at + 1] & 15
        if not (1 <= across <= 4 and 1 <= down <= 4) or content[at + 2] > 3 or content[at] in components:
            raise damaged(f"The JPEG frame header is invalid at byte {at:,}.")
        components[content[at]] = across, down
    return _Frame(marker, width, height, components)


def _check_finished(frame: _Frame, scans: int) -> None:
    """Refuse a progressive JPEG whose last scans are missing: a decoder would show it less sharp."""
    unfinished = frame.unfinished()
    if unfinished:
        raise truncated(
            f"The progressive JPEG ends after {scans} scans, with {unfinished} of "
            f"{64 * len(frame.components)} coefficients unfinished."
        )


def _scan(content: bytes, frame: _Frame, start: int, end: int) -> int:
    """Position of the marker that ends the scan whose header (T.81, B.2.3) is content[start:end]."""
    count = content[start]
    wanted = content[start + 1 : start + 1 + 2 * count : 2]
    known = frame.components
    if not 1 <= count <= 4 or end - start != 4 + 2 * count or any(one not in known for one in wanted):
        raise damaged(f"The JPEG scan header at byte {start:,} is invalid.")
    first, last = content[end - 3], content[end - 2]
    if frame.progressive and not first <= last <= 63:
        raise damaged(f"The JPEG scan header at byte {start:,} gives coefficients {first} to {last}.")
    frame.add_scan(wanted, first, last, content[end - 1] & 15)
    stop = _find_scan_end(content, end)
    if stop is None:
        raise truncated(f"The JPEG ends after {len(content):,} bytes without an end-of-image marker.")
    mcus, blocks = frame.units(wanted)
    # A Huffman code has at least one bit: a sequential block is a DC and an end-of-block code, a first progressive scan
    # has one DC code or bit a block, and later progressive scans may cover any number of blocks with one code.
    bits = 2 * blocks if not frame.progressive else blocks if content[end - 3] == 0 else 0
    if stop - end < ceil_div(bits, 8):
        raise truncated(
            f"A JPEG scan of {blocks:,} blocks has {stop - end:,} bytes, fewer than the {ceil_div(bits, 8):,} it needs."
        )
    if frame.restart:
        expected = ceil_div(mcus, frame.restart) - 1
        have = len(_RESTART.findall(content, end, stop))
        if have < expected:
            raise truncated(f"A JPEG scan has {have:,} restart markers of {expected:,}.")
    return stop
