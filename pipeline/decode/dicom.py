"""Frames of a DICOM file -> stored slices. The header is walked once, however many frames are read.

content --parse_dicom--> header --read_pixels--> checked shape --read--> samples of one frame, with how they are to be
understood; `values.to_grey` makes them grey.
"""

import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy import uint8
from numpy.typing import NDArray

from mribatch.pipeline.decode.dicom_codecs import DecodedFrame, decode_frame
from mribatch.pipeline.decode.values import StoredSlice, Words
from mribatch.pipeline.records import Flag, Status, Verdict
from mribatch.pipeline.studies.dicom_elements import (
    MAX_ELEMENTS,
    MAX_HEADER_BYTES,
    UNDEFINED,
    DicomError,
    DicomFile,
    NeedMore,
    Syntax,
    damaged,
    parse_dicom,
    truncated,
    unsupported,
)
from mribatch.pipeline.studies.dicom_image import (
    CODECS,
    GREY,
    OFFSET_LENGTHS,
    OFFSETS,
    PALETTE_DESCRIPTORS,
    PALETTES,
    PIXEL_TAGS,
    SEGMENTED_PALETTE,
    Color,
    Pixels,
    Shading,
    frame_groups,
    is_subsampled,
    read_lut,
    read_pixels,
    shading,
)
from mribatch.pipeline.studies.facts import StudyFormat
from mribatch.pipeline.studies.voi import Lut, VoiWindow

_MAX_FRAGMENTS = 1 << 18
_FIRST_INFLATED = 1 << 16
_ITEM, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE0DD
_AS_IT_IS = VoiWindow(128, 256)  # LINEAR: 0 to 255 stay what they are
_LUMA = (0.299, 0.587, 0.114)  # of red, green, blue (ITU-R BT.601), as in YBR_FULL (PS3.3 C.7.6.3.1.2)
_CODESTREAM_STARTS = (b"\xff\xd8", b"\xff\x4f\xff\x51")


class DicomPixels:
    """The frames of one file. Nothing here raises for bad content.

    verdict: Ok, with size, bits and flags as the header gives them; or why no frame can be read.
    """

    def __init__(self, content: bytes, max_pixels: int) -> None:
        self.verdict = Verdict(Status.OK, None, StudyFormat.DICOM)
        try:
            self._open(content, max_pixels)
        except DicomError as error:
            self.verdict = self._refused(error)

    def __len__(self) -> int:
        """Frames; 0 where none can be read."""
        return self._pixels.frames if self.verdict.status is Status.OK else 0

    def read(self, frame: int) -> StoredSlice | Verdict:
        """Read one frame, counted from 0; a Verdict says why it cannot be read."""
        if self.verdict.status is not Status.OK:
            return self.verdict
        try:
            if not 0 <= frame < self._pixels.frames:
                raise damaged(f"The DICOM file has {self._pixels.frames:,} frames; there is no frame {frame:,}.")
            self._file.data.source.elements_left = MAX_ELEMENTS
            return self._stored(frame)
        except DicomError as error:
            return self._refused(error)
        except MemoryError:
            return self._refused(damaged("The DICOM frame does not fit into memory."))

    def _open(self, content: bytes, max_pixels: int) -> None:
        self._file, self._pixels = _parse(content, max_pixels)
        pixels = self._pixels
        flags = () if pixels.color in GREY else (Flag.COLOR_REDUCED,)
        self.verdict = Verdict(Status.OK, None, StudyFormat.DICOM, pixels.width, pixels.height, flags, pixels.stored)
        self._groups = frame_groups(self._file.data, pixels.frames)
        self._fragments: list[tuple[int, ...]] | None = None
        self._palette: NDArray[uint8] | None = None

    def _refused(self, error: DicomError) -> Verdict:
        known = self.verdict
        return Verdict(error.status, error.error, known.format, known.width, known.height, known.flags, known.bits)

    def _stored(self, frame: int) -> StoredSlice:
        pixels = self._pixels
        how = shading(pixels, self._groups[frame])
        if pixels.is_compressed:
            decoded = decode_frame(CODECS[self._file.syntax], self._coded(frame), pixels)
        else:
            decoded = DecodedFrame(self._native(frame), pixels.stored, pixels.high_bit)
        if pixels.color in GREY:
            return self._grey(decoded, how)
        grey = self._through_palette(decoded) if pixels.color is Color.PALETTE else _reduce(decoded, pixels)
        return StoredSlice(grey, Words(8, 7), voi=_AS_IT_IS, flags=(Flag.COLOR_REDUCED,))

    def _grey(self, decoded: DecodedFrame, how: Shading) -> StoredSlice:
        pixels = self._pixels
        words = Words(decoded.bits, decoded.high_bit, pixels.signed, how.modality, how.padding)
        inverted = pixels.color is Color.MONOCHROME1
        flags = () if how.padding is None else (Flag.PADDING_EXCLUDED,)
        if decoded.samples.dtype.itemsize > 2:
            values, valid = _wide_values(decoded.samples, words)
            return StoredSlice(values, None, valid, how.voi, inverted, flags)
        return StoredSlice(decoded.samples, words, None, how.voi, inverted, flags)

    def _through_palette(self, decoded: DecodedFrame) -> NDArray[uint8]:
        """The luma of palette colours (PS3.3 C.7.6.3.1.5 and 1.6)."""
        pixels = self._pixels
        if decoded.samples.dtype.itemsize > 2:
            raise unsupported(f"The DICOM image has palette indices of {pixels.allocated} bits.")
        words = Words(decoded.bits, decoded.high_bit, pixels.signed)
        if self._palette is None:
            data = self._file.data
            if SEGMENTED_PALETTE in data and PALETTES[0] not in data:
                raise unsupported("The DICOM image has a segmented palette, which is not read.")
            pairs = zip(PALETTE_DESCRIPTORS, PALETTES, strict=True)
            tables = [read_lut(data, *tags, signed=pixels.signed) for tags in pairs]
            self._palette = _palette_grey(tables, words)
        return words.spread(self._palette, decoded.samples.dtype.itemsize * 8).take(decoded.samples)

    def _native(self, frame: int) -> NDArray[Any]:
        """The samples of an uncompressed frame (PS3.5, 8.1.1), (rows, cols) or (rows, cols, 3)."""
        pixels, content = self._pixels, self._file.data.source.content
        if is_subsampled(pixels):
            return self._luma_of_422(frame)
        count = pixels.width * pixels.height * pixels.samples
        if pixels.allocated == 1:
            flat = _bits_of(content, pixels.element.at * 8 + frame * count, count)
        else:
            size = pixels.allocated // 8
            at = pixels.element.at + frame * count * size
            if size == 1 and not self._file.data.encoding.little and pixels.element.vr == b"OW":
                flat = _swapped_bytes(content, pixels.element.at, frame * count, count)
            else:
                order = "<" if self._file.data.encoding.little else ">"
                flat = np.frombuffer(content, f"{order}u{size}", count, at).astype(f"u{size}", copy=False)
        if pixels.samples == 1:
            return flat.reshape(pixels.height, pixels.width)
        if pixels.by_plane:
            return np.moveaxis(flat.reshape(3, pixels.height, pixels.width), 0, -1)
        return flat.reshape(pixels.height, pixels.width, 3)

    def _luma_of_422(self, frame: int) -> NDArray[Any]:
        """The luma of YBR_FULL_422: Y1 Y2 CB CR for every two pixels (PS3.3 C.7.6.3.1.2)."""
        pixels = self._pixels
        count = pixels.width * pixels.height
        if pixels.width % 2 or pixels.allocated != 8:
            raise unsupported(
                f"The DICOM image has {pixels.color} of {pixels.width} columns x {pixels.allocated} bits."
            )
        at = pixels.element.at + frame * 2 * count
        groups = np.frombuffer(self._file.data.source.content, uint8, 2 * count, at).reshape(-1, 4)
        luma = np.ascontiguousarray(groups[:, :2]).reshape(pixels.height, pixels.width)
        return np.broadcast_to(luma[..., None], (*luma.shape, 3))

    def _coded(self, frame: int) -> bytes:
        """All fragments of a compressed frame, joined (PS3.5, A.4)."""
        if self._fragments is None:
            self._fragments = _frames_of_fragments(self._file, self._pixels.frames)
        content = self._file.data.source.content
        places = self._fragments[frame]
        return b"".join(content[at : at + length] for at, length in zip(places[::2], places[1::2], strict=True))


def read_slices(content: bytes, frames: Iterable[int], max_pixels: int) -> list[StoredSlice | Verdict]:
    """Read several frames of one file, counted from 0; a Verdict in place of each that cannot be read."""
    pixels = DicomPixels(content, max_pixels)
    return [pixels.read(frame) for frame in frames]


def _parse(content: bytes, max_pixels: int) -> tuple[DicomFile, Pixels]:
    """Walk the header; unpack a deflated file no further than its checked pixel data reach."""
    limit = _FIRST_INFLATED
    while True:
        try:
            file = parse_dicom(content, len(content), PIXEL_TAGS, limit)
            break
        except NeedMore:  # of a deflated data set only: the file itself is whole
            if limit >= MAX_HEADER_BYTES:
                raise damaged("The DICOM header is longer than 64 MiB.") from None
            limit = min(limit * 16, MAX_HEADER_BYTES)
    pixels = read_pixels(file, max_pixels)
    end = pixels.element.at + pixels.element.length
    if file.syntax == Syntax.DEFLATED and end > len(file.data.source.content):
        file = parse_dicom(content, len(content), PIXEL_TAGS, end)
        if len(file.data.source.content) < end:
            raise truncated(f"The DICOM file ends after {len(content):,} bytes, inside its deflated pixel data.")
    return file, pixels


def _frames_of_fragments(file: DicomFile, frames: int) -> list[tuple[int, ...]]:
    """For each frame (place, length, place, length, ...) of its fragments."""
    content = file.data.source.content
    table, fragments = _fragments(file)
    if frames == 1:
        return [tuple(number for fragment in fragments for number in fragment)]
    if len(fragments) == frames:
        return [*fragments]
    starts = _extended_offsets(file, frames) or table
    if len(starts) == frames:  # offsets from the first byte after the offset table to an item's header
        base = fragments[0][0] - 8 if fragments else 0
        begins = [base + start + 8 for start in starts]
    else:
        begins = [at for at, _ in fragments if content.startswith(_CODESTREAM_STARTS, at)]
    if len(begins) != frames:
        raise damaged(f"The DICOM header gives {frames:,} frames; the pixel data have {len(fragments):,} fragments.")
    return _group(fragments, begins)


def _group(fragments: list[tuple[int, int]], begins: list[int]) -> list[tuple[int, ...]]:
    """Join the fragments from each beginning to the next one."""
    number_of = {at: number for number, at in enumerate(begins)}
    groups: list[list[int]] = [[] for _ in begins]
    current = -1
    for at, length in fragments:
        current = number_of.get(at, current)
        if current >= 0:
            groups[current] += (at, length)
    if not all(groups):
        raise damaged("The offset table of the DICOM pixel data does not point at fragments.")
    return [tuple(group) for group in groups]


def _fragments(file: DicomFile) -> tuple[tuple[int, ...], list[tuple[int, int]]]:
    """(the Basic Offset Table, place and length of every fragment)."""
    source, element = file.data.source, file.pixels
    content = source.content
    found: list[tuple[int, int]] = []
    at = element.at if element is not None else len(content)
    while True:
        if at + 8 > len(content):
            raise truncated(f"The DICOM file ends after {len(content):,} bytes, inside its pixel data.")
        group, number, length = struct.unpack_from("<HHI", content, at)
        tag = group << 16 | number
        if tag == _SEQUENCE_END:
            break
        if tag != _ITEM or length == UNDEFINED:
            raise damaged("The DICOM pixel data hold something other than fragments.")
        if at + 8 + length > len(content):
            raise truncated(
                f"The DICOM file ends after {len(content):,} bytes; a fragment of its pixel data runs to"
                f" {at + 8 + length:,}."
            )
        found.append((at + 8, length))
        if len(found) > _MAX_FRAGMENTS:
            raise damaged(f"The DICOM pixel data have more than {_MAX_FRAGMENTS:,} fragments.")
        at += 8 + length
    if len(found) < 2:
        raise damaged("The DICOM pixel data have no fragments.")
    table_at, table_bytes = found[0]
    return struct.unpack_from(f"<{table_bytes // 4}I", content, table_at), found[1:]


def _extended_offsets(file: DicomFile, frames: int) -> tuple[int, ...]:
    """The Extended Offset Table (PS3.3 C.7.6.3.1.8), or nothing."""
    table = file.data.raw(OFFSETS)
    if table is None or OFFSET_LENGTHS not in file.data or len(table) != 8 * frames:
        return ()
    return struct.unpack(f"<{frames}Q", table)


def _bits_of(content: bytes, at: int, count: int) -> NDArray[uint8]:
    """Single bits, the first in the lowest bit of its byte (PS3.5, 8.1.1 and D); `at` counts bits."""
    first, skipped = divmod(at, 8)
    packed = np.frombuffer(content, uint8, -(-(skipped + count) // 8), first)
    return np.unpackbits(packed, bitorder="little")[skipped : skipped + count]


def _swapped_bytes(content: bytes, begin: int, skipped: int, count: int) -> NDArray[uint8]:
    """Samples of 8 bits in big-endian words of 16 (PS3.5, D.2)."""
    from_word, to_word = skipped // 2, -(-(skipped + count) // 2)
    available = len(content) - begin - 2 * from_word
    words = np.frombuffer(content, ">u2", min(to_word - from_word, available // 2), begin + 2 * from_word)
    return words.astype("<u2").view(uint8)[skipped - 2 * from_word :][:count]


def _wide_values(cells: NDArray[Any], words: Words) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    """Samples of 32 bits -> (values after the Modality LUT, which of them are no padding)."""
    stored = (cells.astype(np.int64) >> (words.high_bit + 1 - words.bits)) & ((1 << words.bits) - 1)
    if words.signed:
        stored -= (stored >> (words.bits - 1)) << words.bits
    valid = None
    if words.padding is not None:
        valid = (stored < words.padding[0]) | (stored > words.padding[1])
    if isinstance(words.modality, Lut):
        raise unsupported("The DICOM image has a Modality LUT for samples of 32 bits.")
    return (stored * words.modality.slope + words.modality.intercept).astype(np.float32), valid


def _reduce(decoded: DecodedFrame, pixels: Pixels) -> NDArray[uint8]:
    """Colour -> luma of 8 bits (PS3.3 C.7.6.3.1.2)."""
    samples, highest = decoded.samples, (1 << decoded.bits) - 1
    if samples.ndim == 2:  # the decoder has done it
        return samples.astype(uint8, copy=False)
    if pixels.color is Color.RGB or decoded.is_rgb:
        luma: NDArray[Any] = samples.astype(np.float32) @ np.array(_LUMA, dtype=np.float32)
    else:
        luma = samples[..., 0].astype(np.float32)
    levels = luma * np.float32(255 / highest)
    if pixels.color in (Color.YBR_PARTIAL_420, Color.YBR_PARTIAL_422):  # black is 16, white 235
        levels = (levels - 16) * np.float32(255 / 219)
    return _eight_bits(levels)


def _palette_grey(tables: list[Lut], words: Words) -> NDArray[uint8]:
    """The grey of every palette index, by code."""
    stored = words.stored()
    luma = np.zeros(stored.shape)
    for table, weight in zip(tables, _LUMA, strict=True):
        entries = np.frombuffer(table.entries, dtype=np.uint16)
        luma += entries[np.clip(stored - table.first, 0, len(entries) - 1)] * (weight * 255 / ((1 << table.bits) - 1))
    return _eight_bits(luma)


def _eight_bits(levels: NDArray[Any]) -> NDArray[uint8]:
    grey: NDArray[uint8] = np.rint(np.clip(levels, 0, 255)).astype(uint8)
    return grey
