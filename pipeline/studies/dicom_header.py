"""A DICOM file's header: whether it holds images to classify, how many, whose, and how they lie; no pixel is read."""

import math
import os
import re
from enum import StrEnum
from typing import TypeAlias

from mribatch.pipeline.records import Flag, Status, Verdict
from mribatch.pipeline.storage.source import ByteSource
from mribatch.pipeline.studies.dicom_elements import (
    MAX_HEADER_BYTES,
    PIXEL_DATA,
    DicomElements,
    DicomError,
    DicomFile,
    NeedMore,
    damaged,
    parse_dicom,
    truncated,
    unsupported,
)
from mribatch.pipeline.studies.dicom_image import (
    FRAME_ORIENTATION,
    FRAME_POSITION,
    GREY,
    ORIENTATION,
    PIXEL_TAGS,
    POSITION,
    ROWS,
    URL,
    FrameGroups,
    Pixels,
    frame_groups,
    read_pixels,
    shading,
)
from mribatch.pipeline.studies.facts import NotAnImage, Plane, SliceFacts, StudyFile, StudyFormat, StudyIds
from mribatch.pipeline.studies.options import HeaderOptions

_FIRST_READ = 64 << 10  # bytes; most headers are shorter, and those that are not are read again, longer
_GROWTH = 16

_SOP_CLASS, _IMAGE_TYPE, _MODALITY, _BURNED_IN = 0x00080016, 0x00080008, 0x00080060, 0x00280301
_PATIENT, _ISSUER, _STUDY, _SERIES = 0x00100020, 0x00100021, 0x0020000D, 0x0020000E
_INSTANCE, _DESCRIPTION, _PROTOCOL = 0x00200013, 0x0008103E, 0x00181030
_WANTED = PIXEL_TAGS | frozenset(
    (_SOP_CLASS, _IMAGE_TYPE, _MODALITY, _BURNED_IN, _PATIENT, _ISSUER, _STUDY, _SERIES, _INSTANCE)
    + (_DESCRIPTION, _PROTOCOL)
)

# SOP classes by UID (PS3.4, B.5; PS3.6, annex A)
_DIRECTORY = "1.2.840.10008.1.3.10"
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_MR_CLASSES = tuple(_STORAGE + number for number in ("4", "4.1", "4.3", "4.4"))
_SEGMENTATIONS = tuple(_STORAGE + number for number in ("66.4", "66.5", "66.7"))
_WITHOUT_PIXELS = tuple(_STORAGE + number for number in ("4.2", "66"))  # MR spectra, raw data
_PARAMETRIC_MAP = _STORAGE + "30"
_SECONDARY_CAPTURES = tuple(_STORAGE + number for number in ("7", "7.1", "7.2", "7.3", "7.4"))

# Modality (0008,0060), PS3.3 C.7.3.1.1.1: a code of this list may be shown, anything else may be a text.
_MODALITIES = frozenset(
    ("AR", "AU", "BDUS", "BI", "BMD", "CFM", "CR", "CT", "CTPROTOCOL", "DG", "DMS", "DOC", "DX", "ECG")
    + ("EEG", "EMG", "EOG", "EPS", "ES", "FID", "GM", "HC", "HD", "IO", "IOL", "IVOCT", "IVUS", "KER")
    + ("KO", "LEN", "LS", "M3D", "MG", "MR", "NM", "OAM", "OCT", "OP", "OPM", "OPT", "OPV", "OSS")
    + ("OT", "PLAN", "POS", "PR", "PT", "PX", "REG", "RESP", "RF", "RG", "RTDOSE", "RTIMAGE", "RTPLAN", "RTRECORD")
    + ("RTSTRUCT", "RWV", "SEG", "SM", "SMR", "SR", "SRF", "STAIN", "TG", "US", "VA", "XA", "XC")
)
_LOCALIZER_TYPES = frozenset(("LOCALIZER", "LOCALISER", "SCOUT", "SURVEY", "PLAN_SCAN", "PLANSCAN"))
_LOCALIZER_WORDS = re.compile(
    r"(?<![a-z])(localizer|localiser|scout|survey|plan ?scan|(3|three)[- ]?plane[- ]?loc)", re.I
)
Place: TypeAlias = tuple[Plane | None, float | None]
_COS_30_DEGREES = math.sqrt(0.75)


class DicomReason(StrEnum):
    """Why a whole file holds no image to classify; the values are those of SkipReason."""

    NO_PIXELS = "dicom_no_pixels"
    DIRECTORY = "dicom_directory"
    SEGMENTATION = "dicom_segmentation"
    MODALITY = "dicom_modality"
    MOSAIC = "dicom_mosaic"


def read_dicom_header(source: ByteSource, options: HeaderOptions) -> StudyFile | NotAnImage:
    """Read the header of one DICOM file.

    Only the first 64 KiB are read where the header is no longer. A file without the preamble is read as well; whether
    it is to be, the caller decides.

    Args:
        source: Of the file.
        options: How headers are read.

    Returns:
        The file's images; one image with a verdict that is not ok where the header is cut, damaged or of a kind that
        is not read; or why the file holds none.

    Raises:
        OSError: The file is gone, forbidden or no regular file.
    """
    try:
        return _describe(_parse_start(source), options)
    except DicomError as error:
        verdict = Verdict(error.status, error.error, StudyFormat.DICOM)
        return StudyFile(StudyFormat.DICOM, verdict, (SliceFacts(None),))


def _parse_start(source: ByteSource) -> DicomFile:
    with source.open() as file:
        whole = file.seek(0, os.SEEK_END)
        known = _FIRST_READ
        while True:
            file.seek(0)
            content = file.read(known)
            size = max(whole, len(content)) if len(content) == known else len(content)
            try:
                return parse_dicom(content, size, _WANTED, known)
            except NeedMore:
                if known >= MAX_HEADER_BYTES:
                    raise damaged("The DICOM header is longer than 64 MiB.") from None
                known = min(known * _GROWTH, MAX_HEADER_BYTES)


def _describe(file: DicomFile, options: HeaderOptions) -> StudyFile | NotAnImage:
    data = file.data
    sop_class = data.text(_SOP_CLASS) or file.media_class
    if (other := _other_kind(file, sop_class, options)) is not None:
        return other
    flags = _flags(data, sop_class, options)
    try:
        pixels = read_pixels(file, options.max_pixels)
        groups = frame_groups(data, pixels.frames)
        needs_range = any(pixels.color in GREY and shading(pixels, group).voi is None for group in groups)
        places = [_place(group) for group in groups]
    except DicomError as error:
        verdict = Verdict(error.status, error.error, StudyFormat.DICOM, flags=tuple(flags))
        return StudyFile(StudyFormat.DICOM, verdict, (SliceFacts(None),), _ids(data), tuple(flags))
    if pixels.color not in GREY:
        flags.append(Flag.COLOR_REDUCED)
    if any(plane is None for plane, _ in places):
        flags.append(Flag.NO_ORIENTATION)
    verdict = Verdict(Status.OK, None, StudyFormat.DICOM, pixels.width, pixels.height, tuple(flags), pixels.stored)
    slices = _slices(data, pixels, places)
    return StudyFile(StudyFormat.DICOM, verdict, slices, _ids(data), tuple(flags), needs_range)


def _other_kind(file: DicomFile, sop_class: str | None, options: HeaderOptions) -> NotAnImage | None:
    """Why the file is nothing to classify, or None. A file that was cut before its pixel data raises."""
    data = file.data
    code = data.code(_MODALITY)
    shown = code if code in _MODALITIES else "none given" if code is None else "another"
    if sop_class == _DIRECTORY:
        return NotAnImage(DicomReason.DIRECTORY, "a list of other files")
    if sop_class in _SEGMENTATIONS or code == "SEG":
        return NotAnImage(DicomReason.SEGMENTATION, "a segmentation")
    if sop_class == _PARAMETRIC_MAP or file.pixel_tag not in (None, PIXEL_DATA):
        return NotAnImage(DicomReason.SEGMENTATION, "a parametric map")
    if file.pixels is None:
        if URL in data:
            raise unsupported("The DICOM file names a server in place of its pixel data.")
        if ROWS in data and sop_class not in _WITHOUT_PIXELS:
            raise truncated("The DICOM file ends before its pixel data.")
        return NotAnImage(DicomReason.NO_PIXELS, f"modality {shown}")
    if not options.any_modality and not _is_mr(code, sop_class):
        return NotAnImage(DicomReason.MODALITY, f"modality {shown}")
    if "MOSAIC" in data.codes(_IMAGE_TYPE):
        return NotAnImage(DicomReason.MOSAIC, "many slices in one picture")
    return None


def _is_mr(code: str | None, sop_class: str | None) -> bool:
    return code == "MR" or (code is None and sop_class in _MR_CLASSES)


def _flags(data: DicomElements, sop_class: str | None, options: HeaderOptions) -> list[Flag]:
    flags = []
    types = data.codes(_IMAGE_TYPE)[2:]  # value 3 and those of the modality, PS3.3 C.8.3.1.1.1 and C.8.16.1
    texts = " ".join(filter(None, (data.text(_DESCRIPTION), data.text(_PROTOCOL)))).replace("_", " ")
    if _LOCALIZER_TYPES.intersection(types) or _LOCALIZER_WORDS.search(texts):
        flags.append(Flag.LOCALIZER)
    if sop_class in _SECONDARY_CAPTURES:
        flags.append(Flag.SECONDARY_CAPTURE)
    if data.code(_BURNED_IN) == "YES":
        flags.append(Flag.BURNED_IN)
    if options.any_modality and not _is_mr(data.code(_MODALITY), sop_class):
        flags.append(Flag.ANY_MODALITY)
    return flags


def _ids(data: DicomElements) -> StudyIds:
    patient, issuer = data.text(_PATIENT), data.text(_ISSUER)
    if patient is not None and issuer is not None:
        patient = f"{patient}^^^{issuer}"
    return StudyIds(patient, data.text(_STUDY), data.text(_SERIES))


def _slices(
    data: DicomElements, pixels: Pixels, places: list[tuple[Plane | None, float | None]]
) -> tuple[SliceFacts, ...]:
    if pixels.frames > 1:  # frames are counted from 1, PS3.3 C.7.6.6
        return tuple(SliceFacts(index, index + 1, plane, position) for index, (plane, position) in enumerate(places))
    instance = data.integer(_INSTANCE)
    if instance is not None and not -(1 << 31) <= instance < 1 << 31:
        instance = None
    return (SliceFacts(None, instance, *places[0]),)


def _place(groups: FrameGroups) -> Place:
    """The plane and the position along its normal in mm (Image Plane Module, PS3.3 C.7.6.2.1.1)."""
    normal = _normal(groups.numbers(FRAME_ORIENTATION, ORIENTATION))
    if normal is None:
        return None, None
    place = groups.numbers(FRAME_POSITION, POSITION)
    position = sum(a * b for a, b in zip(normal, place, strict=True)) if len(place) == 3 else None
    if position is not None and not math.isfinite(position):
        position = None
    return _plane(normal), position


def _normal(orientation: tuple[float, ...]) -> tuple[float, float, float] | None:
    """The unit vector across rows and columns; None where these are no directions at right angles."""
    if len(orientation) != 6:
        return None
    row, column = orientation[:3], orientation[3:]
    lengths = math.hypot(*row), math.hypot(*column)
    if (
        not all(0.9 < length < 1.1 for length in lengths)
        or abs(sum(a * b for a, b in zip(row, column, strict=True))) > 0.1
    ):
        return None
    (a, b, c), (d, e, f) = row, column
    across = (b * f - c * e, c * d - a * f, a * e - b * d)
    length = math.hypot(*across)
    return across[0] / length, across[1] / length, across[2] / length


def _plane(normal: tuple[float, float, float]) -> Plane:
    """The plane across the patient's axis (x to the left, y to the back, z to the head) within 30 degrees."""
    planes = (Plane.SAGITTAL, Plane.CORONAL, Plane.AXIAL)
    nearest = max(range(3), key=lambda axis: abs(normal[axis]))
    return planes[nearest] if abs(normal[nearest]) >= _COS_30_DEGREES else Plane.OBLIQUE
