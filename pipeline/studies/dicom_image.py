"""What a DICOM header says of its pixels: shape, stored values, windows; checked before anything is allocated by it.

Image Pixel Module (PS3.3 C.7.6.3), Multi-frame Functional Groups (C.7.6.16), Modality LUT (C.11.1), VOI LUT (C.11.2).
"""

import struct
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from mribatch.pipeline.records import Status
from mribatch.pipeline.studies.dicom_elements import (
    UNDEFINED,
    DicomElements,
    DicomError,
    DicomFile,
    Element,
    Syntax,
    damaged,
    truncated,
    unsupported,
)
from mribatch.pipeline.studies.voi import Lut, ModalityLut, Rescale, Voi, VoiFunction, VoiWindow, is_sane

MAX_FRAMES = 1 << 16
ROWS, COLUMNS, FRAMES = 0x00280010, 0x00280011, 0x00280008
SAMPLES, PHOTOMETRIC, PLANAR = 0x00280002, 0x00280004, 0x00280006
ALLOCATED, STORED, HIGH_BIT, SIGNED = 0x00280100, 0x00280101, 0x00280102, 0x00280103
PADDING, PADDING_LIMIT = 0x00280120, 0x00280121
SLOPE, INTERCEPT, MODALITY_LUT = 0x00281053, 0x00281052, 0x00283000
CENTER, WIDTH, FUNCTION, VOI_LUT = 0x00281050, 0x00281051, 0x00281056, 0x00283010
DESCRIPTOR, LUT_DATA = 0x00283002, 0x00283006
PALETTE_DESCRIPTORS = (0x00281101, 0x00281102, 0x00281103)
PALETTES = (0x00281201, 0x00281202, 0x00281203)
SEGMENTED_PALETTE = 0x00281221
SHARED_GROUPS, FRAME_GROUPS = 0x52009229, 0x52009230
FRAME_VALUES, FRAME_VOI = 0x00289145, 0x00289132
FRAME_POSITION, FRAME_ORIENTATION, FRAME_CONTENT = 0x00209113, 0x00209116, 0x00209111
POSITION, ORIENTATION = 0x00200032, 0x00200037
OFFSETS, OFFSET_LENGTHS = 0x7FE00001, 0x7FE00002  # Extended Offset Table
URL = 0x00287FE0  # Pixel Data Provider URL

_VOI_TAGS = frozenset((CENTER, WIDTH, FUNCTION))
_LUT_TAGS = frozenset((DESCRIPTOR, LUT_DATA))
_GROUP_TAGS = frozenset((FRAME_VALUES, FRAME_VOI, FRAME_POSITION, FRAME_ORIENTATION, FRAME_CONTENT))
PIXEL_TAGS = (
    frozenset((ROWS, COLUMNS, FRAMES, SAMPLES, PHOTOMETRIC, PLANAR, ALLOCATED, STORED, HIGH_BIT, SIGNED))
    | frozenset((PADDING, PADDING_LIMIT, SLOPE, INTERCEPT, MODALITY_LUT, CENTER, WIDTH, FUNCTION, VOI_LUT))
    | frozenset((*PALETTE_DESCRIPTORS, *PALETTES, SHARED_GROUPS, FRAME_GROUPS, POSITION, ORIENTATION))
    | frozenset((SEGMENTED_PALETTE, OFFSETS, OFFSET_LENGTHS, URL))
)
_NATIVE = frozenset(Syntax)
_GREATEST_SLOPE, _GREATEST_INTERCEPT = 1e12, 1e15  # beyond these float32 has no room left


class Codec(StrEnum):
    """How a compressed frame is coded (PS3.5, A.4), by the name of what decodes it."""

    RLE = "RLE"
    JPEG = "JPEG"
    JPEG_LOSSLESS = "lossless JPEG"
    JPEG_LS = "JPEG-LS"
    JPEG_2000 = "JPEG 2000"


CODECS = {
    "1.2.840.10008.1.2.5": Codec.RLE,
    "1.2.840.10008.1.2.4.50": Codec.JPEG,  # baseline
    "1.2.840.10008.1.2.4.51": Codec.JPEG,  # extended, 8 or 12 bits
    "1.2.840.10008.1.2.4.57": Codec.JPEG_LOSSLESS,
    "1.2.840.10008.1.2.4.70": Codec.JPEG_LOSSLESS,  # selection value 1
    "1.2.840.10008.1.2.4.80": Codec.JPEG_LS,
    "1.2.840.10008.1.2.4.81": Codec.JPEG_LS,  # near-lossless
    "1.2.840.10008.1.2.4.90": Codec.JPEG_2000,
    "1.2.840.10008.1.2.4.91": Codec.JPEG_2000,
    "1.2.840.10008.1.2.4.201": Codec.JPEG_2000,  # high throughput
    "1.2.840.10008.1.2.4.202": Codec.JPEG_2000,
    "1.2.840.10008.1.2.4.203": Codec.JPEG_2000,
}


class Color(StrEnum):
    """Photometric Interpretation (0028,0004), PS3.3 C.7.6.3.1.2."""

    MONOCHROME1 = "MONOCHROME1"
    MONOCHROME2 = "MONOCHROME2"
    PALETTE = "PALETTE COLOR"
    RGB = "RGB"
    YBR_FULL = "YBR_FULL"
    YBR_FULL_422 = "YBR_FULL_422"
    YBR_PARTIAL_420 = "YBR_PARTIAL_420"
    YBR_PARTIAL_422 = "YBR_PARTIAL_422"
    YBR_ICT = "YBR_ICT"
    YBR_RCT = "YBR_RCT"


GREY = (Color.MONOCHROME1, Color.MONOCHROME2)
_SINGLE = (*GREY, Color.PALETTE)


@dataclass(frozen=True, slots=True)
class Pixels:
    """The shape of the pixel data and of one sample, as checked."""

    width: int
    height: int
    frames: int
    color: Color
    samples: int  # 1 or 3
    by_plane: bool  # planar configuration 1: all red samples first
    allocated: int  # 1, 8, 16 or 32 bits
    stored: int
    high_bit: int
    signed: bool
    element: Element

    @property
    def is_compressed(self) -> bool:
        return self.element.length == UNDEFINED

    @property
    def frame_bits(self) -> int:
        return self.width * self.height * self.samples * self.allocated

    @property
    def lowest(self) -> int:
        return -(1 << (self.stored - 1)) if self.signed else 0

    @property
    def highest(self) -> int:
        return (1 << (self.stored - self.signed)) - 1


def read_pixels(file: DicomFile, max_pixels: int) -> Pixels:
    """Read and check the Image Pixel Module.

    Raises:
        DicomError: It contradicts itself or the file's size, is not read, or has more than `max_pixels` pixels a frame.
    """
    data, element = file.data, file.pixels
    if element is None:
        raise damaged("The DICOM file has no pixel data.")
    if file.syntax not in _NATIVE and file.syntax not in CODECS:
        raise unsupported("The DICOM file has a transfer syntax that is not read.")
    width, height = _size(data, max_pixels)
    color = _color(data)
    samples = _whole(data, SAMPLES, "samples per pixel", 1 if color in _SINGLE else 3)
    if samples != (1 if color in _SINGLE else 3):
        raise damaged(f"The DICOM header gives {samples} samples per pixel for {color}.")
    allocated, stored, high_bit = _bits(data)
    frames = data.integer(FRAMES)
    if frames is None:
        if data.raw(FRAMES):
            raise damaged("The DICOM header gives a number of frames that is no number.")
        frames = 1
    if not 1 <= frames <= MAX_FRAMES:
        raise damaged(f"The DICOM header gives {frames:,} frames; 1 to {MAX_FRAMES:,} are read.")
    pixels = Pixels(
        width=width,
        height=height,
        frames=frames,
        color=color,
        samples=samples,
        by_plane=samples > 1 and data.integer(PLANAR, "H") == 1,
        allocated=allocated,
        stored=stored,
        high_bit=high_bit,
        signed=data.integer(SIGNED, "H") == 1,
        element=element,
    )
    _check_length(file, pixels, max_pixels)
    return pixels


def _size(data: DicomElements, max_pixels: int) -> tuple[int, int]:
    width, height = _whole(data, COLUMNS, "columns"), _whole(data, ROWS, "rows")
    if width < 1 or height < 1:
        raise damaged(f"The DICOM header gives a size of {width} x {height} pixels.")
    if width * height > max_pixels:
        raise DicomError(
            Status.TOO_LARGE,
            f"The image has {width} x {height} = {width * height:,} pixels; the limit is {max_pixels:,}.",
        )
    return width, height


def _whole(data: DicomElements, tag: int, name: str, default: int | None = None) -> int:
    value = data.integer(tag, "H")
    if value is None:
        value = default
    if value is None:
        raise damaged(f"The DICOM header does not give the number of {name}.")
    return value


def _color(data: DicomElements) -> Color:
    code = data.code(PHOTOMETRIC)
    if code is None:
        raise damaged("The DICOM header does not give the photometric interpretation.")
    try:
        return Color(code)
    except ValueError:
        raise unsupported("The DICOM image has a photometric interpretation that is not read.") from None


def _bits(data: DicomElements) -> tuple[int, int, int]:
    """(bits allocated, bits stored, high bit), PS3.5 8.1.1."""
    allocated = _whole(data, ALLOCATED, "bits allocated")
    stored = _whole(data, STORED, "bits stored", allocated)
    high_bit = _whole(data, HIGH_BIT, "the high bit", stored - 1)
    if not 1 <= stored <= allocated or not stored - 1 <= high_bit < allocated:
        raise damaged(
            f"The DICOM header gives {stored} bits stored of {allocated} allocated, with high bit {high_bit}."
        )
    if allocated not in (1, 8, 16, 32):
        raise unsupported(f"The DICOM image has {allocated} bits allocated per sample; 1, 8, 16 and 32 are read.")
    return allocated, stored, high_bit


def _check_length(file: DicomFile, pixels: Pixels, max_pixels: int) -> None:
    """Compare the pixel data with what rows, columns and frames need (PS3.5, 8.1.1 and A.4)."""
    element, source = pixels.element, file.data.source
    native = file.syntax in _NATIVE
    if native == pixels.is_compressed:
        kind = "of undefined length" if native else "not in fragments"
        raise damaged(f"The DICOM pixel data are {kind}, which their transfer syntax forbids (PS3.5, A.4).")
    if not native:
        if pixels.frames * 10 > source.size:  # a fragment has a header of 8 bytes and at least 2 of content
            raise damaged(f"The DICOM header gives {pixels.frames:,} frames; the file has {source.size:,} bytes.")
        return
    if element.at + element.length > source.size:
        raise truncated(
            f"The DICOM file ends after {source.size:,} bytes; its pixel data run to {element.at + element.length:,}."
        )
    total = pixels.width * pixels.height * pixels.frames
    if file.syntax == Syntax.DEFLATED and total > max_pixels:
        raise DicomError(
            Status.TOO_LARGE,
            f"The deflated DICOM file has {total:,} pixels in all frames; the limit is {max_pixels:,}.",
        )
    need = least_length(pixels)
    if element.length < need:
        raise damaged(
            f"The DICOM pixel data have {element.length:,} bytes; {pixels.frames:,} frames of {pixels.width} x"
            f" {pixels.height} pixels need {need:,}."
        )
    if element.length - need >= max(need // pixels.frames, 2):
        raise damaged(
            f"The DICOM pixel data have {element.length:,} bytes, more than the {need:,} of {pixels.frames:,} frames."
        )


def is_subsampled(pixels: Pixels) -> bool:
    """Whether two pixels share their colour: YBR_FULL_422, unless the length says that it is none."""
    return pixels.color is Color.YBR_FULL_422 and pixels.element.length < pixels.frames * pixels.frame_bits // 8


def least_length(pixels: Pixels) -> int:
    """Bytes of native pixel data."""
    bits = pixels.frames * pixels.frame_bits
    if is_subsampled(pixels):
        bits = bits * 2 // 3
    return -(-bits // 8)


@dataclass(frozen=True)
class FrameGroups:
    """What holds for one frame: its own functional groups before the shared ones before the data set."""

    data: DicomElements
    shared: DicomElements | None
    own: DicomElements | None

    def group(self, group: int, wanted: frozenset[int]) -> DicomElements:
        """The item of a functional group, or the data set where there is none."""
        for place in (self.own, self.shared):
            if place is not None and (item := place.first(group, wanted)) is not None:
                return item
        return self.data

    def numbers(self, group: int, tag: int) -> tuple[float, ...]:
        return self.group(group, frozenset((tag,))).numbers(tag)


def frame_groups(data: DicomElements, frames: int) -> list[FrameGroups]:
    """The functional groups of every frame (PS3.3 C.7.6.16.1.1 and 1.2)."""
    shared = data.first(SHARED_GROUPS, _GROUP_TAGS)
    own: list[DicomElements | None] = list(islice(data.items(FRAME_GROUPS, _GROUP_TAGS), frames + 1))
    if own and len(own) != frames:
        raise damaged(f"The DICOM header gives {frames:,} frames and functional groups of more or fewer.")
    return [FrameGroups(data, shared, item) for item in own or [None] * frames]


@dataclass(frozen=True, slots=True)
class Shading:
    """How the stored values of a frame become grey."""

    modality: ModalityLut
    voi: Voi | None  # None where the header brings none that can be believed
    padding: tuple[int, int] | None


def shading(pixels: Pixels, groups: FrameGroups) -> Shading:
    """Read the Modality LUT, the first VOI window or table, and the padding of a frame.

    A window comes before a VOI LUT where there are both: PS3.3 C.11.2.1 has them as alternatives.

    Raises:
        DicomError: The Modality LUT or a table is damaged.
    """
    if pixels.color not in GREY:
        return Shading(Rescale(), None, None)
    modality = _modality(pixels, groups)
    return Shading(
        modality, _window(pixels, groups, modality) or _voi_lut(pixels, groups, modality), _padding(pixels, groups.data)
    )


def _modality(pixels: Pixels, groups: FrameGroups) -> ModalityLut:
    if (item := groups.data.first(MODALITY_LUT, _LUT_TAGS)) is not None:
        return read_lut(item, DESCRIPTOR, LUT_DATA, signed=pixels.signed)
    place = groups.group(FRAME_VALUES, frozenset((SLOPE, INTERCEPT)))
    slope, intercept = place.number(SLOPE), place.number(INTERCEPT)
    slope = 1.0 if slope is None else slope
    intercept = intercept or 0.0
    if not 1 / _GREATEST_SLOPE <= abs(slope) <= _GREATEST_SLOPE or abs(intercept) > _GREATEST_INTERCEPT:
        raise damaged(f"The DICOM header gives a rescale slope of {slope:g} and an intercept of {intercept:g}.")
    return Rescale(slope, intercept)


def _window(pixels: Pixels, groups: FrameGroups, modality: ModalityLut) -> VoiWindow | None:
    place = groups.group(FRAME_VOI, _VOI_TAGS)
    center, width = place.number(CENTER), place.number(WIDTH)
    if center is None or width is None:
        return None
    try:
        function = VoiFunction(place.code(FUNCTION) or VoiFunction.LINEAR)
    except ValueError:
        return None
    window = VoiWindow(center, width, function)
    return window if is_sane(window, *value_bounds(pixels, modality)) else None


def value_bounds(pixels: Pixels, modality: ModalityLut) -> tuple[float, float, float]:
    """(lowest value, highest, distance of neighbours) that the stored bits can hold, after the Modality LUT."""
    if isinstance(modality, Lut):
        return 0, (1 << modality.bits) - 1, 1
    ends = [modality.slope * stored + modality.intercept for stored in (pixels.lowest, pixels.highest)]
    return min(ends), max(ends), abs(modality.slope)


def _voi_lut(pixels: Pixels, groups: FrameGroups, modality: ModalityLut) -> Lut | None:
    item = groups.data.first(VOI_LUT, _LUT_TAGS)
    if item is None:
        return None
    signed = pixels.signed if not isinstance(modality, Lut) else False
    if isinstance(modality, Rescale) and modality.intercept < 0:  # PS3.3 C.11.2.1.1: as the Modality LUT's output
        signed = True
    return read_lut(item, DESCRIPTOR, LUT_DATA, signed=signed)


def _padding(pixels: Pixels, data: DicomElements) -> tuple[int, int] | None:
    """Pixel Padding Value and Range Limit, in either order (PS3.3 C.7.5.1.1.2)."""
    kind = "h" if pixels.signed else "H"
    value, limit = data.integer(PADDING, kind), data.integer(PADDING_LIMIT, kind)
    if value is None:
        return None
    if not pixels.signed and value < 0:  # written with the VR SS for unsigned pixels
        value &= 0xFFFF
    if pixels.signed and value > pixels.highest:
        value -= 1 << 16
    limit = value if limit is None else limit
    return min(value, limit), max(value, limit)


def read_lut(item: DicomElements, descriptor_tag: int, data_tag: int, *, signed: bool) -> Lut:
    """Read a table: number of entries, the first value mapped, bits of an entry (PS3.3 C.11.1.1.1, C.7.6.3.1.5).

    Raises:
        DicomError: The table has not the entries that its descriptor says.
    """
    descriptor = item.numbers(descriptor_tag, "H")
    content = item.raw(data_tag)
    if len(descriptor) != 3 or not content:
        raise damaged("The DICOM header has a lookup table without descriptor or data.")
    count, first, bits = (int(number) for number in descriptor)
    count = (count & 0xFFFF) or 1 << 16
    first = _as_signed(first) if signed else first & 0xFFFF
    if not 8 <= bits <= 16:
        raise damaged(f"The DICOM header has a lookup table with entries of {bits} bits.")
    order = "<" if item.encoding.little else ">"
    if len(content) >= 2 * count:
        entries = struct.unpack(f"{order}{count}H", content[: 2 * count])
    elif bits == 8 and len(content) >= count:  # two entries in each word, the first in its lower byte
        entries = tuple(content[:count])
    else:
        raise damaged(f"The DICOM header has a lookup table of {count:,} entries in {len(content):,} bytes.")
    highest = (1 << bits) - 1
    return Lut(first, bits, struct.pack(f"={count}H", *(min(entry, highest) for entry in entries)))


def _as_signed(number: int) -> int:
    number &= 0xFFFF
    return number - (1 << 16) if number >= 1 << 15 else number
