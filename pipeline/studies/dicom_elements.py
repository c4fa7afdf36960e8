"""Data elements of a DICOM data set: where each value lies, found by one walk that never recurses.

The walk covers DICOM PS3.5, chapter 7 (data elements, sequences of items) and PS3.10, 7.1 (preamble and file meta
information). It proves that each element lies inside the file, costs time in proportion to the bytes and allocates
nothing by a length that the file states. Values are read only for the tags that are asked for.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Self

from mribatch.pipeline.records import Status

PREFIX_AT = 128  # the preamble's length; "DICM" follows
PREFIX = b"DICM"
PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_PIXEL_DATA = 0x7FE00010, 0x7FE00008, 0x7FE00009
UNDEFINED = 0xFFFFFFFF
MAX_HEADER_BYTES = 64 << 20  # before the pixel data; what is longer is not read
MAX_ELEMENTS = 1 << 22  # likewise: some seconds of walking
_MAX_DEPTH = 64  # sequences inside each other; the standard's own reach about six
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_NUMBERS = {b"US": "H", b"SS": "h", b"UL": "I", b"SL": "i", b"FD": "d", b"FL": "f", b"AT": "H"}
_SHORT = frozenset(
    (b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH")
    + (b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US")
)
_VRS = _SHORT | _LONG
_EXPLICIT = {order: struct.Struct(f"{order}HH2sH").unpack_from for order in "<>"}
_IMPLICIT = {order: struct.Struct(f"{order}HHI").unpack_from for order in "<>"}
_U32 = {order: struct.Struct(f"{order}I").unpack_from for order in "<>"}
_MAX_TEXT = 0xFFFE  # bytes of a numeric string
_UNKNOWN_SIZE = 1 << 62  # of a deflated data set that is not unpacked to its end
_TRANSFER_SYNTAX, _MEDIA_SOP_CLASS = 0x00020010, 0x00020002
_PIXELS = frozenset((PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_PIXEL_DATA))


class Syntax(StrEnum):
    """Transfer syntaxes that change how elements are read; all others are explicit, little endian (PS3.5, annex A)."""

    IMPLICIT = "1.2.840.10008.1.2"
    EXPLICIT = "1.2.840.10008.1.2.1"
    DEFLATED = "1.2.840.10008.1.2.1.99"
    BIG_ENDIAN = "1.2.840.10008.1.2.2"


class DicomError(Exception):
    """The file is not read; the text is the reason, as a sentence without a word of the header."""

    def __init__(self, status: Status, error: str) -> None:
        super().__init__(error)
        self.status = status
        self.error = error


class NeedMore(Exception):
    """Not an error: the walk left the bytes that were read so far, and the file goes on."""


def damaged(error: str) -> DicomError:
    return DicomError(Status.DECODE_FAILED, error)


def truncated(error: str) -> DicomError:
    return DicomError(Status.TRUNCATED, error)


def unsupported(error: str) -> DicomError:
    return DicomError(Status.UNSUPPORTED, error)


class Element(NamedTuple):
    vr: bytes  # empty where the encoding is implicit
    at: int  # where the value begins
    length: int  # of the value in bytes, or UNDEFINED


@dataclass(frozen=True, slots=True)
class Encoding:
    implicit: bool = False
    little: bool = True


_EXPLICIT_LITTLE = Encoding()
_IMPLICIT_LITTLE = Encoding(implicit=True)


@dataclass(slots=True)
class HeaderBytes:
    """The bytes known so far of a file of `size` bytes, and how many elements may still be walked."""

    content: bytes
    size: int
    elements_left: int = MAX_ELEMENTS

    def past_end(self, what: str) -> DicomError | NeedMore:
        """What to raise where the walk needs bytes beyond those known."""
        if len(self.content) < self.size:
            return NeedMore()
        return truncated(f"The DICOM file ends after {self.size:,} bytes, {what}.")


@dataclass(frozen=True, slots=True)
class DicomElements:
    """The wanted elements of one data set or item."""

    source: HeaderBytes
    encoding: Encoding
    elements: dict[int, Element]

    def __contains__(self, tag: int) -> bool:
        return tag in self.elements

    def raw(self, tag: int) -> bytes | None:
        """The value's bytes; None where the element is missing."""
        element = self.elements.get(tag)
        if element is None or element.length == UNDEFINED:
            return None
        if element.at + element.length > len(self.source.content):
            raise self.source.past_end(f"inside the element {_show(tag)}")
        return self.source.content[element.at : element.at + element.length]

    def text(self, tag: int) -> str | None:
        """A text of the header as it is, without padding; None where missing or empty. For identifiers only."""
        value = self.raw(tag)
        return (value.decode("latin-1").strip(" \0") or None) if value else None

    def codes(self, tag: int) -> tuple[str, ...]:
        """Values of a code string or UID, upper case."""
        value = self.text(tag)
        return tuple(part.strip(" \0").upper() for part in value.split("\\")) if value else ()

    def code(self, tag: int) -> str | None:
        return next(iter(self.codes(tag)), None)

    def numbers(self, tag: int, binary: str = "") -> tuple[float, ...]:
        """The values of a numeric element; empty where missing, empty or not finite numbers.

        Args:
            binary: Format of `struct` where the encoding is implicit and the VR a binary one; "" for DS and IS.
        """
        value = self.raw(tag)
        if not value:
            return ()
        code = _NUMBERS.get(self.elements[tag].vr, binary)
        if not code or self.elements[tag].vr in (b"DS", b"IS"):
            return _decimals(value)
        count = len(value) // struct.calcsize(code)
        found = struct.unpack_from(f"{'<' if self.encoding.little else '>'}{count}{code}", value)
        return found if all(map(math.isfinite, found)) else ()

    def number(self, tag: int, binary: str = "") -> float | None:
        return next(iter(self.numbers(tag, binary)), None)

    def integer(self, tag: int, binary: str = "") -> int | None:
        value = self.number(tag, binary)
        return None if value is None else int(value)

    def items(self, tag: int, wanted: frozenset[int]) -> Iterator[Self]:
        """The items of a sequence, each walked for `wanted`; none where it is missing."""
        element = self.elements.get(tag)
        if element is None:
            return
        encoding = _IMPLICIT_LITTLE if element.vr == b"UN" else self.encoding  # PS3.5, 6.2.2, note 2
        source = self.source
        at = element.at
        end = source.size if element.length == UNDEFINED else element.at + element.length
        while at < end:
            item, length = _item_header(source, at, encoding)
            source.elements_left -= 1
            if item != _ITEM:
                return
            stop = end if length == UNDEFINED else at + 8 + length
            elements, at = _walk(source, at + 8, stop, encoding, wanted)
            yield type(self)(source, encoding, elements)

    def first(self, tag: int, wanted: frozenset[int]) -> Self | None:
        """The first item of a sequence, or None."""
        return next(self.items(tag, wanted), None)


@dataclass(frozen=True, slots=True)
class DicomFile:
    """A whole header."""

    syntax: str  # UID of the transfer syntax; guessed where the file has no meta information
    media_class: str | None  # SOP class by the meta information
    data: DicomElements
    pixel_tag: int | None  # of the pixel data; None where the file has none
    inflated: bool  # `data.source` holds unpacked bytes

    @property
    def pixels(self) -> Element | None:
        return None if self.pixel_tag is None else self.data.elements[self.pixel_tag]


def parse_dicom(content: bytes, size: int, wanted: frozenset[int], inflate_limit: int) -> DicomFile:
    """Walk a file up to its pixel data.

    Args:
        content: The file, or its beginning.
        size: Of the whole file in bytes.
        wanted: Tags of the top level to keep.
        inflate_limit: Most bytes that a deflated data set is unpacked to; what comes after is not looked at.

    Raises:
        NeedMore: `content` is shorter than `size` and too short.
        DicomError: The header is cut, damaged or of a kind that is not read.
    """
    source = HeaderBytes(content, size)
    if not size:
        raise DicomError(Status.EMPTY, "The file is empty (0 bytes).")
    meta_at = _meta_at(content)
    if meta_at == 0 and not begins_like_dicom(content):
        raise unsupported("This file does not begin as DICOM does (PS3.10, 7.1).")
    syntax, media_class, at = _read_meta(source, meta_at)
    if syntax is None:
        if at > meta_at:
            raise damaged("The DICOM file's meta information does not name a transfer syntax (PS3.10, 7.1).")
        encoding = _guess(content, at)
        syntax = Syntax.IMPLICIT if encoding.implicit else Syntax.EXPLICIT if encoding.little else Syntax.BIG_ENDIAN
    else:
        # Some writers promise the implicit encoding and use the explicit one.
        implicit = syntax == Syntax.IMPLICIT and content[at + 4 : at + 6] not in _VRS
        encoding = Encoding(implicit, syntax != Syntax.BIG_ENDIAN)
    inflated = syntax == Syntax.DEFLATED
    if inflated:
        source, at = _inflate(source, at, inflate_limit), 0
    elements, _ = _walk(source, at, source.size, encoding, wanted | _PIXELS, stop_at_pixels=True)
    pixel_tag = next((tag for tag in _PIXELS if tag in elements), None)
    return DicomFile(syntax, media_class, DicomElements(source, encoding, elements), pixel_tag, inflated)


def begins_like_dicom(head: bytes) -> bool:
    """Whether a file without the preamble begins as a DICOM data set does, with a small element of group 2 or 8."""
    if len(head) < 12:
        return False
    group, element, vr, short = struct.unpack_from("<HH2sH", head)
    if group == 0x0800:  # big endian
        group, element, vr, short = struct.unpack_from(">HH2sH", head)
        return bool(element < 0x0100 and vr in _SHORT and short < 256)
    if group not in (0x0002, 0x0008) or element >= 0x0100:
        return False
    return bool(vr in _LONG or (vr in _SHORT and short < 256) or int.from_bytes(head[4:8], "little") < 256)


def _meta_at(content: bytes) -> int:
    return PREFIX_AT + 4 if content[PREFIX_AT : PREFIX_AT + 4] == PREFIX else 0


def _read_meta(source: HeaderBytes, at: int) -> tuple[str | None, str | None, int]:
    """(transfer syntax, SOP class, where the data set begins). The meta group is always explicit, little endian."""
    wanted = frozenset((_TRANSFER_SYNTAX, _MEDIA_SOP_CLASS))
    begin = at
    content = source.content
    while content[at : at + 2] == b"\2\0":
        vr = content[at + 4 : at + 6]
        if not (vr.isalpha() and vr.isupper()):  # some writers encode this group implicitly, too
            break
        wide = vr in _LONG
        if at + 12 > len(content):
            raise source.past_end("inside the meta information")
        (length,) = struct.unpack_from("<I" if wide else "<H", content, at + (8 if wide else 6))
        at += (12 if wide else 8) + length
        if at > source.size:
            raise source.past_end("inside the meta information")
    if at > len(content):
        raise source.past_end("inside the meta information")
    elements, _ = _walk(source, begin, at, _EXPLICIT_LITTLE, wanted)
    meta = DicomElements(source, _EXPLICIT_LITTLE, elements)
    return meta.text(_TRANSFER_SYNTAX), meta.text(_MEDIA_SOP_CLASS), at


def _guess(content: bytes, at: int) -> Encoding:
    """How a data set without meta information is encoded, by its first element."""
    vr = content[at + 4 : at + 6]
    implicit = not (vr.isalpha() and vr.isupper())
    return Encoding(implicit, not (content[at] == 0 and content[at + 1] != 0) if len(content) > at + 1 else True)


def _inflate(source: HeaderBytes, at: int, limit: int) -> HeaderBytes:
    """Unpack a deflated data set (PS3.5, A.5) up to `limit` bytes."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        unpacked = stream.decompress(source.content[at:], limit)
    except zlib.error:
        raise damaged("The deflated DICOM data set cannot be unpacked.") from None
    all_known = stream.eof or (len(source.content) == source.size and len(unpacked) < limit)
    return HeaderBytes(unpacked, len(unpacked) if all_known else _UNKNOWN_SIZE, source.elements_left)


def _walk(
    source: HeaderBytes, at: int, stop: int, encoding: Encoding, wanted: frozenset[int], *, stop_at_pixels: bool = False
) -> tuple[dict[int, Element], int]:
    """(the wanted elements, where the data set or item ends). Pixel data are not gone into, nor looked behind."""
    found: dict[int, Element] = {}
    left = source.elements_left
    while at < stop:
        if source.size - at < 8 and not source.content[at:].strip(b"\0"):
            break  # padding
        left -= 1
        if left < 0 or at > MAX_HEADER_BYTES:
            raise damaged("The DICOM header is too long: over 64 MiB, or over 4 million elements.")
        tag, vr, value_at, length = _element(source, at, encoding)
        if tag >> 16 == 0xFFFE:
            if tag == _ITEM_END:
                at += 8
                break
            raise damaged("The DICOM header has an item outside of a sequence.")
        if stop_at_pixels and tag in _PIXELS:
            found[tag] = Element(vr, value_at, length)
            break
        if length == UNDEFINED:
            source.elements_left = left
            end = _skip(source, value_at, encoding if vr != b"UN" else _IMPLICIT_LITTLE)
            left = source.elements_left
        else:
            end = value_at + length
        if end > stop:
            raise _too_long(source, tag, stop)
        if tag in wanted:
            found[tag] = Element(vr, value_at, length)
        at = end
    source.elements_left = left
    return found, at


def _skip(source: HeaderBytes, at: int, encoding: Encoding) -> int:
    """Where a sequence of undefined length ends; `at` is where its first item begins (PS3.5, 7.5)."""
    open_parts = [(encoding, False)]  # from the outside to the inside; True for an item, False for a sequence
    while open_parts:
        inside, is_item = open_parts[-1]
        source.elements_left -= 1
        if source.elements_left < 0 or len(open_parts) > 2 * _MAX_DEPTH:
            raise damaged(f"The DICOM header nests sequences over {_MAX_DEPTH} deep, or has over 4 million elements.")
        if is_item:
            tag, vr, at, length = _element(source, at, inside)
            end_of_part = tag == _ITEM_END
            opened = (_IMPLICIT_LITTLE if vr == b"UN" else inside, False)
        else:
            tag, length = _item_header(source, at, inside)
            at += 8
            end_of_part = tag == _SEQUENCE_END
            opened = (inside, True)
            if not end_of_part and tag != _ITEM:
                raise damaged("The DICOM header has a sequence that holds something other than items.")
        if end_of_part:
            open_parts.pop()
        elif length == UNDEFINED:
            open_parts.append(opened)
        else:
            at += length
            if at > source.size:
                raise _too_long(source, tag, source.size)
    return at


def _element(source: HeaderBytes, at: int, encoding: Encoding) -> tuple[int, bytes, int, int]:
    """(tag, VR, where the value begins, its length) of the element at a place (PS3.5, 7.1)."""
    order = "<" if encoding.little else ">"
    try:
        if not encoding.implicit:
            group, element, vr, length = _EXPLICIT[order](source.content, at)
            if vr in _SHORT:
                return group << 16 | element, vr, at + 8, length
            if vr in _LONG:
                return group << 16 | element, vr, at + 12, _U32[order](source.content, at + 8)[0]
            if group != 0xFFFE and vr.isalpha() and vr.isupper():  # a VR of a later edition: PS3.5, 7.1.2
                return group << 16 | element, vr, at + 8, length
        # Some writers switch to the implicit encoding inside an explicit one.
        group, element, length = _IMPLICIT[order](source.content, at)
    except struct.error:
        raise source.past_end("before its pixel data") from None
    return group << 16 | element, b"", at + 8, length


def _item_header(source: HeaderBytes, at: int, encoding: Encoding) -> tuple[int, int]:
    """(tag, length) of an item or a delimitation item, which have no VR in any encoding."""
    try:
        group, element, length = _IMPLICIT["<" if encoding.little else ">"](source.content, at)
    except struct.error:
        raise source.past_end("inside a sequence") from None
    return group << 16 | element, length


def _too_long(source: HeaderBytes, tag: int, stop: int) -> DicomError:
    if stop >= source.size:
        return truncated(f"The DICOM file ends after {source.size:,} bytes, inside the element {_show(tag)}.")
    return damaged(f"The DICOM element {_show(tag)} is longer than the item that holds it.")


def _decimals(value: bytes) -> tuple[float, ...]:
    """Numbers of a decimal or integer string; empty where any is none."""
    if len(value) > _MAX_TEXT:
        return ()
    try:
        found = tuple(float(part.strip(b" \0")) for part in value.split(b"\\"))
    except ValueError:
        return ()
    return found if all(map(math.isfinite, found)) else ()


def _show(tag: int) -> str:
    """A tag as the standard writes it, e.g. (0028,0010); a private one could hold anything, and is not named."""
    return "(private)" if tag >> 16 & 1 else f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
