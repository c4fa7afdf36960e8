"""DICOM files made byte by byte, whole ones and broken ones, without the code under test and without pydicom."""

import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
RLE, JPEG, JPEG_EXTENDED, JPEG_LOSSLESS = (f"1.2.840.10008.1.2.{end}" for end in ("5", "4.50", "4.51", "4.70"))
JPEG_LS, JPEG_2000, HTJ2K = (f"1.2.840.10008.1.2.4.{end}" for end in ("80", "90", "201"))
MR_IMAGE, SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.7"
UNDEFINED = 0xFFFFFFFF

PREAMBLE = bytes(128) + b"DICM"

_LONG = ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "UC", "UN", "UR", "UT")
_BINARY = {"US": "H", "SS": "h", "UL": "I", "FD": "d"}

Value: TypeAlias = "str | bytes | int | float | Sequence[int] | Sequence[float] | Sequence[Item]"
Elements: TypeAlias = "dict[int, tuple[str, Value]]"


@dataclass(frozen=True)
class Item:
    """An item of a sequence; `open_end` writes it with undefined length."""

    elements: "Elements"
    open_end: bool = False


@dataclass(frozen=True)
class Writer:
    implicit: bool = False
    order: str = "<"
    open_sequences: bool = False  # undefined length

    def element(self, tag: int, vr: str, value: "Value") -> bytes:
        if vr == "SQ":
            content = b"".join(self.item(item) for item in value)  # type: ignore[union-attr, arg-type]
            if self.open_sequences:
                return self.header(tag, vr, UNDEFINED) + content + struct.pack(f"{self.order}HHI", 0xFFFE, 0xE0DD, 0)
        else:
            content = self.value(vr, value)
        return self.header(tag, vr, len(content)) + content

    def header(self, tag: int, vr: str, length: int) -> bytes:
        group, element = tag >> 16, tag & 0xFFFF
        if self.implicit:
            return struct.pack(f"{self.order}HHI", group, element, length)
        if vr in _LONG:
            return struct.pack(f"{self.order}HH2s2xI", group, element, vr.encode(), length)
        return struct.pack(f"{self.order}HH2sH", group, element, vr.encode(), length)

    def value(self, vr: str, value: "Value") -> bytes:
        if isinstance(value, bytes):
            return value + b"\0" * (len(value) % 2)
        if vr in _BINARY:
            numbers = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
            return b"".join(struct.pack(f"{self.order}{_BINARY[vr]}", number) for number in numbers)
        text = str(value).encode()
        return text + (b"\0" if vr == "UI" else b" ") * (len(text) % 2)

    def item(self, item: Item) -> bytes:
        content = self.data_set(item.elements)
        if item.open_end:
            begin = struct.pack(f"{self.order}HHI", 0xFFFE, 0xE000, UNDEFINED)
            return begin + content + struct.pack(f"{self.order}HHI", 0xFFFE, 0xE00D, 0)
        return struct.pack(f"{self.order}HHI", 0xFFFE, 0xE000, len(content)) + content

    def data_set(self, elements: "Elements") -> bytes:
        return b"".join(self.element(tag, *elements[tag]) for tag in sorted(elements))


def writer_of(syntax: str, *, open_sequences: bool = False) -> Writer:
    return Writer(syntax == IMPLICIT, ">" if syntax == BIG_ENDIAN else "<", open_sequences)


def meta(syntax: str | None, sop_class: str = MR_IMAGE) -> bytes:
    """Preamble, prefix and file meta information."""
    elements: Elements = {0x00020002: ("UI", sop_class)}
    if syntax is not None:
        elements[0x00020010] = ("UI", syntax)
    content = Writer().data_set(elements)
    return PREAMBLE + Writer().element(0x00020000, "UL", len(content)) + content


def mr_elements(rows: int = 4, columns: int = 6, **changes: Any) -> "Elements":
    """The header of an axial MR slice of 12 bits in 16; `changes` are keyed by tag, e.g. t00280010=("US", 0)."""
    elements: Elements = {
        0x00080008: ("CS", "ORIGINAL\\PRIMARY\\M"),
        0x00080016: ("UI", MR_IMAGE),
        0x00080060: ("CS", "MR"),
        0x00100020: ("LO", "PLANTED-ID"),
        0x0020000D: ("UI", "1.2.3.4"),
        0x0020000E: ("UI", "1.2.3.4.5"),
        0x00200013: ("IS", "7"),
        0x00200032: ("DS", "1\\2\\3.5"),
        0x00200037: ("DS", "1\\0\\0\\0\\1\\0"),
        0x00280002: ("US", 1),
        0x00280004: ("CS", "MONOCHROME2"),
        0x00280010: ("US", rows),
        0x00280011: ("US", columns),
        0x00280100: ("US", 16),
        0x00280101: ("US", 12),
        0x00280102: ("US", 11),
        0x00280103: ("US", 0),
    }
    for name, change in changes.items():
        tag = int(name[1:], 16)
        if change is None:
            elements.pop(tag, None)
        else:
            elements[tag] = change
    return elements


def file_of(
    elements: "Elements", pixels: bytes | None, syntax: str = EXPLICIT, *, open_sequences: bool = False
) -> bytes:
    """A whole file with native pixel data, as bytes in the order that the syntax wants."""
    if pixels is not None:
        elements = {**elements, 0x7FE00010: ("OW", pixels)}
    data = writer_of(syntax, open_sequences=open_sequences).data_set(elements)
    if syntax == DEFLATED:
        data = deflated(data)
    return meta(syntax) + data


def fragments(parts: Iterable[bytes], offsets: Sequence[int] = (), *, closed: bool = True) -> bytes:
    """Encapsulated pixel data: the offset table and the fragments (PS3.5, A.4)."""
    begin = Writer().header(0x7FE00010, "OB", UNDEFINED)
    items = [struct.pack(f"<{len(offsets)}I", *offsets), *(part + b"\0" * (len(part) % 2) for part in parts)]
    body = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items)
    return begin + body + (struct.pack("<HHI", 0xFFFE, 0xE0DD, 0) if closed else b"")


def compressed_file(elements: "Elements", syntax: str, pixel_data: bytes) -> bytes:
    return meta(syntax) + Writer().data_set(elements) + pixel_data


def ramp(rows: int = 4, columns: int = 6, highest: int = 4095) -> NDArray[np.uint16]:
    return np.linspace(0, highest, rows * columns).astype(np.uint16).reshape(rows, columns)


def mr_file(syntax: str = EXPLICIT, **changes: Any) -> bytes:
    """A whole slice of 4 rows and 6 columns, 0 to 4095."""
    pixels = ramp().astype(">u2" if syntax == BIG_ENDIAN else "<u2").tobytes()
    return file_of(mr_elements(**changes), pixels, syntax)


def rle_frame(planes: Iterable[bytes]) -> bytes:
    """One RLE frame of literal runs (PS3.5, annex G)."""
    segments = []
    for plane in planes:
        runs = [plane[at : at + 128] for at in range(0, len(plane), 128)]
        segment = b"".join(bytes([len(run) - 1]) + run for run in runs)
        segments.append(segment + b"\x80" * (len(segment) % 2))
    places = [64 + sum(map(len, segments[:index])) for index in range(len(segments))]
    return struct.pack("<16I", len(segments), *places, *[0] * (15 - len(segments))) + b"".join(segments)


def repacked(content: bytes) -> bytes:
    """A file of `meta(EXPLICIT)` with its data set deflated; any other content unchanged."""
    head = meta(EXPLICIT)
    return meta(DEFLATED) + deflated(content[len(head) :]) if content.startswith(head) else content


def deflated(data: bytes) -> bytes:
    """A deflated data set (PS3.5, A.5)."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()
