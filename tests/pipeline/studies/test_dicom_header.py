"""Headers: what a file holds, how its slices lie, what is flagged, and what is nothing to classify."""

import math
from pathlib import Path
from typing import Any

import pytest

from mribatch.pipeline.records import Flag, Status
from mribatch.pipeline.storage.source import LocalSource
from mribatch.pipeline.studies.dicom_header import DicomReason, read_dicom_header
from mribatch.pipeline.studies.facts import NotAnImage, Plane, SliceFacts, StudyFile, StudyIds
from mribatch.pipeline.studies.options import HeaderOptions
from tests.dicom_builder import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    SECONDARY_CAPTURE,
    Item,
    Value,
    file_of,
    meta,
    mr_elements,
    mr_file,
    ramp,
    writer_of,
)

OPTIONS = HeaderOptions(max_pixels=1_000_000)
ANY = HeaderOptions(max_pixels=1_000_000, any_modality=True)
TEN = math.radians(10)


def read(tmp_path: Path, content: bytes, options: HeaderOptions = OPTIONS) -> StudyFile | NotAnImage:
    path = tmp_path / "file"
    path.write_bytes(content)
    return read_dicom_header(LocalSource(bytes(path)), options)


def read_file(tmp_path: Path, content: bytes, options: HeaderOptions = OPTIONS) -> StudyFile:
    found = read(tmp_path, content, options)
    assert isinstance(found, StudyFile)
    return found


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED])
def test_a_slice_in_every_native_encoding(tmp_path: Path, syntax: str) -> None:
    found = read_file(tmp_path, mr_file(syntax))
    verdict = found.verdict
    assert (verdict.status, verdict.width, verdict.height, verdict.bits) == (Status.OK, 6, 4, 12)
    assert found.slices == (SliceFacts(None, 7, Plane.AXIAL, 3.5),)
    assert found.ids == StudyIds("PLANTED-ID", "1.2.3.4", "1.2.3.4.5")
    assert (found.flags, found.needs_range) == ((), True)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN])
def test_a_data_set_without_preamble(tmp_path: Path, syntax: str) -> None:
    bare = mr_file(syntax)[len(meta(syntax)) :]
    assert read_file(tmp_path, bare).slices == (SliceFacts(None, 7, Plane.AXIAL, 3.5),)


@pytest.mark.parametrize(
    ("orientation", "plane"),
    [
        ("1\\0\\0\\0\\1\\0", Plane.AXIAL),
        ("1\\0\\0\\0\\0\\-1", Plane.CORONAL),
        ("0\\1\\0\\0\\0\\-1", Plane.SAGITTAL),
        (f"1\\0\\0\\0\\{math.cos(2 * TEN):.6f}\\{math.sin(2 * TEN):.6f}", Plane.AXIAL),
        (f"1\\0\\0\\0\\{math.cos(4 * TEN):.6f}\\{math.sin(4 * TEN):.6f}", Plane.OBLIQUE),
        ("0\\0\\0\\0\\0\\0", None),
        ("1\\0\\0\\1\\0\\0", None),
        ("1\\0\\0", None),
        ("nan\\0\\0\\0\\1\\0", None),
        ("", None),
    ],
)
def test_the_plane_follows_the_orientation(tmp_path: Path, orientation: str, plane: Plane | None) -> None:
    found = read_file(tmp_path, mr_file(t00200037=("DS", orientation)))
    assert found.slices[0].plane is plane
    assert (Flag.NO_ORIENTATION in found.flags) is (plane is None)


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"t00080008": ("CS", "ORIGINAL\\PRIMARY\\LOCALIZER")}, Flag.LOCALIZER),
        ({"t00080008": ("CS", "ORIGINAL\\PRIMARY\\M\\SURVEY")}, Flag.LOCALIZER),
        ({"t0008103E": ("LO", "3-plane_loc")}, Flag.LOCALIZER),
        ({"t00181030": ("LO", "AAHead_Scout_64ch")}, Flag.LOCALIZER),
        ({"t00080016": ("UI", SECONDARY_CAPTURE)}, Flag.SECONDARY_CAPTURE),
        ({"t00280301": ("CS", "YES")}, Flag.BURNED_IN),
    ],
)
def test_what_is_odd_is_flagged(tmp_path: Path, changes: dict[str, Any], flag: Flag) -> None:
    assert read_file(tmp_path, mr_file(**changes)).flags == (flag,)


def test_a_usual_series_is_no_localizer(tmp_path: Path) -> None:
    assert read_file(tmp_path, mr_file(t0008103E=("LO", "t2 tse tra location 1"))).flags == ()


@pytest.mark.parametrize(
    ("changes", "reason", "detail"),
    [
        ({"t00080060": ("CS", "CT")}, DicomReason.MODALITY, "modality CT"),
        ({"t00080060": ("CS", "DOE^JANE")}, DicomReason.MODALITY, "modality another"),
        ({"t00080060": None, "t00080016": ("UI", SECONDARY_CAPTURE)}, DicomReason.MODALITY, "modality none given"),
        ({"t00080060": ("CS", "SEG")}, DicomReason.SEGMENTATION, "a segmentation"),
        ({"t00080016": ("UI", "1.2.840.10008.5.1.4.1.1.66.4")}, DicomReason.SEGMENTATION, "a segmentation"),
        ({"t00080016": ("UI", "1.2.840.10008.5.1.4.1.1.30")}, DicomReason.SEGMENTATION, "a parametric map"),
        ({"t00080008": ("CS", "ORIGINAL\\PRIMARY\\M\\MOSAIC")}, DicomReason.MOSAIC, "many slices in one picture"),
        ({"t00080016": ("UI", "1.2.840.10008.1.3.10")}, DicomReason.DIRECTORY, "a list of other files"),
    ],
)
def test_what_is_nothing_to_classify(tmp_path: Path, changes: dict[str, Any], reason: DicomReason, detail: str) -> None:
    assert read(tmp_path, mr_file(**changes)) == NotAnImage(reason, detail)


def test_another_modality_is_flagged_when_asked_for(tmp_path: Path) -> None:
    assert read_file(tmp_path, mr_file(t00080060=("CS", "CT")), ANY).flags == (Flag.ANY_MODALITY,)


def test_no_modality_is_mr_where_the_class_says_so(tmp_path: Path) -> None:
    assert read_file(tmp_path, mr_file(t00080060=None)).verdict.status is Status.OK


@pytest.mark.parametrize("modality", ["SR", "PR", "KO", "RTSTRUCT", "DOC"])
def test_a_file_without_pixels_is_no_image(tmp_path: Path, modality: str) -> None:
    report = {tag: value for tag, value in mr_elements().items() if tag < 0x00280000}
    report[0x00080060] = ("CS", modality)
    assert read(tmp_path, file_of(report, None)) == NotAnImage(DicomReason.NO_PIXELS, f"modality {modality}")


def test_an_image_without_pixels_was_cut(tmp_path: Path) -> None:
    assert read_file(tmp_path, file_of(mr_elements(), None)).verdict.status is Status.TRUNCATED


def frame_item(number: int, *, own_plane: bool, slope: str = "2") -> Item:
    groups: dict[int, tuple[str, Value]] = {
        0x00209113: ("SQ", [Item({0x00200032: ("DS", f"0\\0\\{number * 3}")})]),
        0x00289145: ("SQ", [Item({0x00281052: ("DS", "-10"), 0x00281053: ("DS", slope)})]),
        0x00289132: ("SQ", [Item({0x00281050: ("DS", "4000"), 0x00281051: ("DS", "8000")})]),
    }
    if own_plane:
        groups[0x00209116] = ("SQ", [Item({0x00200037: ("DS", "0\\1\\0\\0\\0\\-1")})])
    return Item(groups, open_end=number % 2 == 1)


def enhanced(frames: int, syntax: str = EXPLICIT, *, groups: int | None = None, open_sequences: bool = False) -> bytes:
    shared = Item({0x00209116: ("SQ", [Item({0x00200037: ("DS", "1\\0\\0\\0\\1\\0")})])})
    elements = mr_elements(
        t00280008=("IS", str(frames)),
        t00200037=None,
        t52009229=("SQ", [shared]),
        t52009230=("SQ", [frame_item(n, own_plane=n == 1) for n in range(frames if groups is None else groups)]),
    )
    order = ">u2" if syntax == BIG_ENDIAN else "<u2"
    return file_of(elements, ramp().astype(order).tobytes() * frames, syntax, open_sequences=open_sequences)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED])
@pytest.mark.parametrize("open_sequences", [False, True])
def test_functional_groups_of_a_frame_go_before_shared_ones(tmp_path: Path, syntax: str, open_sequences: bool) -> None:
    found = read_file(tmp_path, enhanced(3, syntax, open_sequences=open_sequences))
    assert found.slices == (
        SliceFacts(0, 1, Plane.AXIAL, 0.0),
        SliceFacts(1, 2, Plane.SAGITTAL, 0.0),
        SliceFacts(2, 3, Plane.AXIAL, 6.0),
    )
    assert not found.needs_range


def test_groups_of_another_number_of_frames_are_refused(tmp_path: Path) -> None:
    found = read_file(tmp_path, enhanced(3, groups=2))
    assert (found.verdict.status, len(found.slices)) == (Status.DECODE_FAILED, 1)


def test_a_long_header_is_read_to_its_end(tmp_path: Path) -> None:
    long = mr_file(t00091010=("OB", bytes(3_000_000)), t0009103E=("UN", bytes(200)))
    assert read_file(tmp_path, long).verdict.status is Status.OK


def test_a_window_that_cannot_be_believed_needs_the_range(tmp_path: Path) -> None:
    for width, needs_range in (("1200", False), ("1", True), ("0", True), ("x", True)):
        found = read_file(tmp_path, mr_file(t00281050=("DS", "600\\40"), t00281051=("DS", f"{width}\\80")))
        assert found.needs_range is needs_range


def test_nothing_of_the_header_is_in_an_answer(tmp_path: Path) -> None:
    planted = "PLANTED"
    broken: list[dict[str, Any]] = [
        {"t00280004": ("CS", planted)},
        {"t00280008": ("IS", planted)},
        {"t00080060": ("CS", planted)},
        {"t00281053": ("DS", planted)},
        {"t00080008": ("CS", planted)},
        {"t00280010": ("US", 0)},
    ]
    for changes in broken:
        found = read(tmp_path, mr_file(**changes))
        shown = found.detail if isinstance(found, NotAnImage) else str(found.verdict)
        assert planted not in shown.upper()


def test_a_folder_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="not a regular file"):
        read_dicom_header(LocalSource(bytes(tmp_path)), OPTIONS)


def test_text_is_not_dicom(tmp_path: Path) -> None:
    found = read_file(tmp_path, b"no picture at all, only words" * 10)
    assert found.verdict.status is Status.UNSUPPORTED
    assert read_file(tmp_path, b"").verdict.status is Status.EMPTY


def test_an_explicit_data_set_that_was_promised_to_be_implicit(tmp_path: Path) -> None:
    content = meta(IMPLICIT) + mr_file()[len(meta(EXPLICIT)) :]
    assert read_file(tmp_path, content).slices == (SliceFacts(None, 7, Plane.AXIAL, 3.5),)


def test_spectra_are_no_images_though_they_have_rows(tmp_path: Path) -> None:
    spectrum = mr_elements(t00080016=("UI", "1.2.840.10008.5.1.4.1.1.4.2"))
    assert read(tmp_path, file_of(spectrum, None)) == NotAnImage(DicomReason.NO_PIXELS, "modality MR")


def test_elements_of_a_later_edition_are_passed_over(tmp_path: Path) -> None:
    content = mr_file()
    begin = len(meta(EXPLICIT))
    unknown = b"\x04\x00\x01\x00ZZ\x04\x00abcd"
    assert read_file(tmp_path, content[:begin] + unknown + content[begin:]).verdict.status is Status.OK
    implicit = writer_of(IMPLICIT).element(0x00040001, "LO", "abcd")
    assert read_file(tmp_path, content[:begin] + implicit + content[begin:]).verdict.status is Status.OK
