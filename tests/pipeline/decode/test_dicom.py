"""Frames of DICOM files: every encoding gives the same samples, and no content can do worse than a verdict."""

import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mribatch.core.synthetic import draw_slice
from mribatch.pipeline.decode.dicom import DicomPixels, read_slices
from mribatch.pipeline.decode.values import StoredSlice, Window, to_grey
from mribatch.pipeline.records import Flag, Status, Verdict
from mribatch.pipeline.studies.voi import VoiFunction, VoiWindow
from tests.damaged_files import damaged
from tests.dicom_builder import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    HTJ2K,
    IMPLICIT,
    JPEG,
    JPEG_2000,
    JPEG_EXTENDED,
    JPEG_LOSSLESS,
    JPEG_LS,
    RLE,
    UNDEFINED,
    Item,
    Writer,
    compressed_file,
    file_of,
    fragments,
    meta,
    mr_elements,
    mr_file,
    ramp,
    rle_frame,
)
from tests.pipeline.studies.test_dicom_header import enhanced

MAX_PIXELS = 1_000_000
FILE = Window()


def stored(content: bytes, frame: int = 0) -> StoredSlice:
    (found,) = read_slices(content, [frame], MAX_PIXELS)
    assert isinstance(found, StoredSlice), found
    return found


def refused(content: bytes, frame: int = 0, max_pixels: int = MAX_PIXELS) -> Verdict:
    (found,) = read_slices(content, [frame], max_pixels)
    assert isinstance(found, Verdict)
    assert found.error
    return found


def native(pixels: NDArray[Any], syntax: str = EXPLICIT, **changes: Any) -> bytes:
    order = pixels.dtype.newbyteorder(">" if syntax == BIG_ENDIAN else "<")
    elements = mr_elements(pixels.shape[-2], pixels.shape[-1], **changes)
    return file_of(elements, pixels.astype(order).tobytes(), syntax)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED])
def test_a_slice_in_every_native_encoding(syntax: str) -> None:
    found = stored(mr_file(syntax))
    assert found.values.tolist() == ramp().tolist()
    verdict = DicomPixels(mr_file(syntax), MAX_PIXELS).verdict
    assert (verdict.status, verdict.format, verdict.width, verdict.height) == (Status.OK, "dicom", 6, 4)


@pytest.mark.parametrize("syntax", [EXPLICIT, BIG_ENDIAN])
def test_bits_around_the_stored_ones_do_not_matter(syntax: str) -> None:
    values = np.arange(-12, 12, dtype=np.int16).reshape(4, 6)
    cells = ((values.astype(np.uint16) & 0x3FF) << 3) | 0x8005  # ten bits, high bit 12, with an overlay around them
    content = native(
        cells,
        syntax,
        t00280101=("US", 10),
        t00280102=("US", 12),
        t00280103=("US", 1),
        t00281052=("DS", "-1.5"),
        t00281053=("DS", "0.25 "),
    )
    assert stored(content).values.tolist() == (values * 0.25 - 1.5).tolist()


@pytest.mark.parametrize("syntax", [EXPLICIT, BIG_ENDIAN])
@pytest.mark.parametrize("frame", [0, 1])
def test_samples_of_8_bits(syntax: str, frame: int) -> None:
    values = np.arange(30, dtype=np.uint8).reshape(2, 3, 5)  # an odd number of bytes a frame
    flat = values.reshape(-1)
    if syntax == BIG_ENDIAN:  # OW: the bytes of each word change places
        flat = flat.reshape(-1, 2)[:, ::-1].reshape(-1)
    changes: dict[str, Any] = {
        f"t{tag:08X}": ("US", bits) for tag, bits in ((0x00280100, 8), (0x00280101, 8), (0x00280102, 7))
    }
    elements = mr_elements(3, 5, t00280008=("IS", "2"), **changes)
    assert stored(file_of(elements, flat.tobytes(), syntax), frame).values.tolist() == values[frame].tolist()


def test_samples_of_32_bits() -> None:
    values = np.array([[-70_000, 0, 70_000]], dtype=np.int32)
    wide: dict[str, Any] = {
        "t00280100": ("US", 32),
        "t00280101": ("US", 32),
        "t00280102": ("US", 31),
    }
    content = native(values, t00280103=("US", 1), t00280120=("SS", 0), **wide)
    found = stored(content)
    assert found.values.tolist() == values.tolist()
    assert found.valid is not None
    assert found.valid.tolist() == [[True, False, True]]


def test_single_bits() -> None:
    bits = np.array([[1, 0, 1], [1, 1, 0], [0, 0, 1]], dtype=np.uint8)
    packed = np.packbits(np.concatenate([bits.reshape(-1), 1 - bits.reshape(-1)]), bitorder="little").tobytes()
    single: dict[str, Any] = {
        "t00280100": ("US", 1),
        "t00280101": ("US", 1),
        "t00280102": ("US", 0),
    }
    content = file_of(mr_elements(3, 3, t00280008=("IS", "2"), **single), packed)
    assert stored(content).values.tolist() == bits.tolist()
    assert stored(content, 1).values.tolist() == (1 - bits).tolist()


def test_a_modality_lut_sequence_goes_before_slope_and_intercept() -> None:
    table = Item({0x00283002: ("US", [4, 1, 16]), 0x00283006: ("US", [100, 200, 300, 400])})
    content = native(np.array([[0, 1, 2, 9]], dtype=np.uint16), t00283000=("SQ", [table]), t00281053=("DS", "5"))
    assert stored(content).values.tolist() == [[100, 100, 200, 400]]


def test_a_voi_lut_sequence_is_used_where_no_window_is() -> None:
    table = Item({0x00283002: ("US", [3, 1, 8]), 0x00283006: ("OW", bytes([0, 128, 255]))})
    pixels = np.array([[0, 1, 2, 9]], dtype=np.uint16)
    assert to_grey(stored(native(pixels, t00283010=("SQ", [table]))), FILE, None).tolist() == [[0, 0, 128, 255]]
    windowed = native(pixels, t00283010=("SQ", [table]), t00281050=("DS", "100"), t00281051=("DS", "200"))
    assert stored(windowed).voi == VoiWindow(100, 200)


def test_the_first_of_several_windows_and_its_function() -> None:
    changes: dict[str, Any] = {
        "t00281050": ("DS", "600\\40"),
        "t00281051": ("DS", "1200\\80"),
        "t00281056": ("CS", "SIGMOID"),
    }
    assert stored(mr_file(**changes)).voi == VoiWindow(600, 1200, VoiFunction.SIGMOID)


def test_monochrome1_is_inverted_after_the_window() -> None:
    window: dict[str, Any] = {"t00281050": ("DS", "2048"), "t00281051": ("DS", "4096")}
    grey = to_grey(stored(mr_file(**window)), FILE, None)
    inverse = to_grey(stored(mr_file(t00280004=("CS", "MONOCHROME1"), **window)), FILE, None)
    assert (grey.astype(int) + inverse == 255).all()
    assert grey.min() == 0
    assert grey.max() == 255


@pytest.mark.parametrize(("vr", "value"), [("US", 4095), ("SS", 4095)])
def test_padding_is_excluded(vr: str, value: int) -> None:
    found = stored(mr_file(t00280120=(vr, value), t00280121=(vr, 4000)))
    assert found.flags == (Flag.PADDING_EXCLUDED,)
    assert found.words is not None
    assert found.words.padding == (4000, 4095)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED])
def test_frames_have_their_own_slopes_and_windows(syntax: str) -> None:
    for frame in range(3):
        found = stored(enhanced(3, syntax), frame)
        assert found.values.tolist() == (ramp() * 2.0 - 10).tolist()
        assert found.voi == VoiWindow(4000, 8000)


COLORS = np.random.default_rng(1).integers(0, 256, (4, 6, 3), dtype=np.uint8)
LUMA = COLORS @ np.array([0.299, 0.587, 0.114])
COLOR_BITS: dict[str, Any] = {
    "t00280002": ("US", 3),
    "t00280100": ("US", 8),
    "t00280101": ("US", 8),
    "t00280102": ("US", 7),
}


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("color", ["RGB", "YBR_FULL"])
def test_colour_becomes_luma(color: str, planar: int) -> None:
    pixels = COLORS if planar == 0 else np.moveaxis(COLORS, -1, 0)
    elements = mr_elements(t00280004=("CS", color), t00280006=("US", planar), **COLOR_BITS)
    found = stored(file_of(elements, np.ascontiguousarray(pixels).tobytes()))
    expected = np.rint(LUMA) if color == "RGB" else COLORS[..., 0]
    assert np.abs(to_grey(found, FILE, None) - expected).max() <= (1 if color == "RGB" else 0)
    assert found.flags == (Flag.COLOR_REDUCED,)


def test_luma_of_shared_colours() -> None:
    groups = COLORS[:, :, 0].reshape(-1, 2)
    pixels = np.concatenate([groups, np.full_like(groups, 99)], axis=1).tobytes()
    elements = mr_elements(t00280004=("CS", "YBR_FULL_422"), **COLOR_BITS)
    assert to_grey(stored(file_of(elements, pixels)), FILE, None).tolist() == COLORS[..., 0].tolist()


def test_a_palette_becomes_luma() -> None:
    changes: dict[str, Any] = {"t00280004": ("CS", "PALETTE COLOR")}
    for number in range(3):
        changes[f"t0028110{number + 1}"] = ("US", [4, 1, 16])
        changes[f"t0028120{number + 1}"] = ("OW", struct.pack("<4H", 0, 0x5555, 0xAAAA, 0xFFFF))
    grey = to_grey(stored(native(np.array([[0, 1, 2, 3, 4, 9]], dtype=np.uint16), **changes)), FILE, None)
    assert grey.tolist() == [[0, 0, 85, 170, 255, 255]]


SMOOTH = (np.add.outer(np.arange(40), np.arange(48)) * 40).astype(np.uint16)  # 0 to 3440, 12 bits


def coded(syntax: str, image: NDArray[Any]) -> bytes:
    codecs = pytest.importorskip("imagecodecs")
    if syntax == HTJ2K and not hasattr(codecs, "htj2k_encode"):
        pytest.skip("this imagecodecs cannot encode high-throughput JPEG 2000")
    encoders: dict[str, Any] = {
        JPEG: lambda: codecs.jpeg8_encode((image >> 4).astype(np.uint8), level=95),
        JPEG_EXTENDED: lambda: codecs.jpeg8_encode(image, level=98, bitspersample=12),
        JPEG_LOSSLESS: lambda: codecs.ljpeg_encode(image, bitspersample=12),
        JPEG_LS: lambda: codecs.jpegls_encode(image),
        JPEG_2000: lambda: codecs.jpeg2k_encode(image, codecformat="j2k", level=0, bitspersample=12),
        HTJ2K: lambda: codecs.htj2k_encode(image),
        RLE: lambda: rle_frame([(image >> 8).astype(np.uint8).tobytes(), (image & 255).astype(np.uint8).tobytes()]),
    }
    return bytes(encoders[syntax]())


def compressed(syntax: str, pixel_data: bytes, frames: int = 1, **changes: Any) -> bytes:
    elements = mr_elements(*SMOOTH.shape, t00280008=("IS", str(frames)), **changes)
    return compressed_file(elements, syntax, pixel_data)


@pytest.mark.parametrize(
    ("syntax", "tolerance"),
    [(RLE, 0), (JPEG, 32), (JPEG_EXTENDED, 24), (JPEG_LOSSLESS, 0), (JPEG_LS, 0), (JPEG_2000, 0), (HTJ2K, 0)],
)
def test_every_compressed_syntax(syntax: str, tolerance: int) -> None:
    changes: dict[str, Any] = {}
    if syntax == JPEG:
        changes = {"t00280100": ("US", 8), "t00280101": ("US", 8), "t00280102": ("US", 7), "t00281053": ("DS", "16")}
    data = coded(syntax, SMOOTH)
    in_one = stored(compressed(syntax, fragments([data]), **changes))
    assert np.abs(in_one.values - SMOOTH).max() <= tolerance
    half = len(data) // 4 * 2
    in_two = stored(compressed(syntax, fragments([data[:half], data[half:]]), **changes))
    assert (in_two.values == in_one.values).all()


@pytest.mark.parametrize("seed", range(6))
def test_damage_inside_jpeg_2000_data_is_told(seed: int) -> None:
    """OpenJPEG decodes most of these without a word."""
    image = (draw_slice(seed, *SMOOTH.shape).astype(np.uint16) << 4) + np.random.default_rng(seed).integers(
        0, 16, SMOOTH.shape, dtype=np.uint16
    )
    whole = coded(JPEG_2000, image)
    assert (stored(compressed(JPEG_2000, fragments([whole + bytes(len(whole) % 2)]))).values == image).all()
    for one in damaged(f"{seed}", whole):
        padded = one.damaged + bytes(len(one.damaged) % 2)
        verdict = refused(compressed(JPEG_2000, fragments([padded])))
        assert verdict.status in (Status.DECODE_FAILED, Status.TRUNCATED), one.name
        assert "JPEG 2000 data of the DICOM file" in str(verdict.error)


def test_damage_inside_jpeg_data_is_decode_failed() -> None:
    data = coded(JPEG, SMOOTH)
    scan = data.index(b"\xff\xda")
    cut = data[: scan + 14 + (len(data) - scan - 14) // 2 // 2 * 2] + b"\xff\xd9"
    changes: dict[str, Any] = {"t00280100": ("US", 8), "t00280101": ("US", 8), "t00280102": ("US", 7)}
    verdict = refused(compressed(JPEG, fragments([cut + b"\0" * (len(cut) % 2)]), **changes))
    assert verdict.status is Status.DECODE_FAILED and "libjpeg says" in str(verdict.error)


def test_frames_are_found_by_fragments_by_the_offset_table_and_by_their_beginnings() -> None:
    frames = [coded(JPEG_LS, SMOOTH // divisor) for divisor in (1, 2, 4)]
    frames = [frame + b"\0" * (len(frame) % 2) for frame in frames]
    pieces = [piece for frame in frames for piece in (frame[:100], frame[100:])]
    starts = [0, len(frames[0]) + 16, len(frames[0]) + len(frames[1]) + 32]
    extended = struct.pack("<3Q", *starts)
    for content in (
        compressed(JPEG_LS, fragments(frames), 3),
        compressed(JPEG_LS, fragments(pieces, starts), 3),
        compressed(JPEG_LS, fragments(pieces), 3),
        compressed(JPEG_LS, fragments(pieces), 3, t7FE00001=("OV", extended), t7FE00002=("OV", extended)),
    ):
        for frame, divisor in enumerate((1, 2, 4)):
            assert (stored(content, frame).values == SMOOTH // divisor).all()
    wrong = refused(compressed(JPEG_LS, fragments(pieces, [0, 2, 4]), 3))
    assert wrong.status is Status.DECODE_FAILED
    assert refused(compressed(RLE, fragments(pieces), 5)).status is Status.DECODE_FAILED


def test_a_missing_decoder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from mribatch.pipeline.decode.dicom_codecs import imagecodecs

    data = coded(JPEG_LS, SMOOTH)
    imagecodecs.cache_clear()
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    found = refused(compressed(JPEG_LS, fragments([data])))
    assert found.status is Status.UNSUPPORTED
    assert "the package imagecodecs, which the extra dicom of mribatch installs" in str(found.error)
    assert stored(compressed(RLE, fragments([coded_rle()])))  # needs none


def coded_rle() -> bytes:
    return rle_frame([(SMOOTH >> 8).astype(np.uint8).tobytes(), (SMOOTH & 255).astype(np.uint8).tobytes()])


def nested(depth: int, *, closed: bool = True) -> bytes:
    begin = Writer().header(0x00081140, "SQ", UNDEFINED) + struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
    end = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    head = len(meta(EXPLICIT))
    return mr_file()[:head] + begin * depth + (end * depth if closed else b"") + mr_file()[head:]


def with_length(tag: int, vr: str, length: int) -> bytes:
    """A slice with one more element that says it has `length` bytes and has none."""
    return with_element(Writer().header(tag, vr, length), before=0x00100020)


def with_element(element: bytes, before: int) -> bytes:
    content = mr_file()
    at = content.index(struct.pack("<HH", before >> 16, before & 0xFFFF))
    return content[:at] + element + content[at:]


def bomb(fill: int = 0) -> bytes:
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    rows = 3_000
    elements = mr_elements(rows, rows)
    data = Writer().data_set(elements) + Writer().header(0x7FE00010, "OW", rows * rows * 2)
    packed = packer.compress(data) + b"".join(packer.compress(bytes([fill]) * (1 << 20)) for _ in range(18))
    return meta(DEFLATED) + packed + packer.flush()


def items_bomb() -> bytes:
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 1_000_000
    return with_element(Writer().header(0x52009230, "SQ", len(items)) + items, before=0x7FE00010)


WHOLE = mr_file()
HOSTILE: "dict[str, tuple[bytes, Status]]" = {
    "no bytes": (b"", Status.EMPTY),
    "cut in the preamble": (WHOLE[:100], Status.UNSUPPORTED),
    "cut in the meta information": (WHOLE[:150], Status.TRUNCATED),
    "cut in the header": (WHOLE[:300], Status.TRUNCATED),
    "cut before the pixels": (WHOLE[: WHOLE.index(b"\xe0\x7f\x10\0")], Status.DECODE_FAILED),
    "cut in the pixels": (WHOLE[:-5], Status.TRUNCATED),
    "deflated and cut": (mr_file(DEFLATED)[:-9], Status.TRUNCATED),
    "deflated and damaged": (meta(DEFLATED) + b"\x07" * 60, Status.DECODE_FAILED),
    "fewer pixels than the header says": (mr_file(t00280010=("US", 5)), Status.DECODE_FAILED),
    "more pixels than the header says": (mr_file(t00280010=("US", 2)), Status.DECODE_FAILED),
    "fewer frames than the header says": (mr_file(t00280008=("IS", "3")), Status.DECODE_FAILED),
    "2,147,483,647 frames": (mr_file(t00280008=("IS", "2147483647")), Status.DECODE_FAILED),
    "0 frames": (mr_file(t00280008=("IS", "0")), Status.DECODE_FAILED),
    "frames that are no number": (mr_file(t00280008=("IS", "1A")), Status.DECODE_FAILED),
    "bits stored over bits allocated": (mr_file(t00280101=("US", 17)), Status.DECODE_FAILED),
    "high bit over bits allocated": (mr_file(t00280102=("US", 16)), Status.DECODE_FAILED),
    "high bit below bits stored": (mr_file(t00280102=("US", 3)), Status.DECODE_FAILED),
    "0 bits stored": (mr_file(t00280101=("US", 0)), Status.DECODE_FAILED),
    "12 bits allocated": (mr_file(t00280100=("US", 12)), Status.UNSUPPORTED),
    "0 rows": (mr_file(t00280010=("US", 0)), Status.DECODE_FAILED),
    "no columns": (mr_file(t00280011=None), Status.DECODE_FAILED),
    "empty rows": (mr_file(t00280010=("US", b"")), Status.DECODE_FAILED),
    "65,535 rows and columns": (mr_file(t00280010=("US", 65535), t00280011=("US", 65535)), Status.TOO_LARGE),
    "no photometric interpretation": (mr_file(t00280004=None), Status.DECODE_FAILED),
    "an unknown one": (mr_file(t00280004=("CS", "HSV")), Status.UNSUPPORTED),
    "3 samples of grey": (mr_file(t00280002=("US", 3)), Status.DECODE_FAILED),
    "a slope of 0": (mr_file(t00281053=("DS", "0")), Status.DECODE_FAILED),
    "a slope without end": (mr_file(t00281053=("DS", "1e300")), Status.DECODE_FAILED),
    "no transfer syntax": (meta(None) + WHOLE[len(meta(EXPLICIT)) :], Status.DECODE_FAILED),
    "an unknown transfer syntax": (meta("1.2.3") + WHOLE[len(meta(EXPLICIT)) :], Status.UNSUPPORTED),
    "native pixels by a compressed syntax": (meta(JPEG) + WHOLE[len(meta(EXPLICIT)) :], Status.DECODE_FAILED),
    "fragments by a native syntax": (compressed(EXPLICIT, fragments([b"1234"])), Status.DECODE_FAILED),
    "a sequence never closed": (nested(1, closed=False), Status.TRUNCATED),
    "100,000 nested sequences": (nested(100_000), Status.DECODE_FAILED),
    "100,000 never closed": (nested(100_000, closed=False), Status.DECODE_FAILED),
    "a length of 4 GiB": (with_length(0x00091010, "OB", 0xFFFFFFFE), Status.TRUNCATED),
    "a text of 4 GiB": (with_length(0x00091010, "UT", 0xFFFFFFF0), Status.TRUNCATED),
    "an item outside of a sequence": (with_length(0xFFFEE000, "", 0), Status.DECODE_FAILED),
    "a million items in place of one frame's": (items_bomb(), Status.DECODE_FAILED),
    "a deflated bomb": (bomb(), Status.TOO_LARGE),
    "fragments never closed": (compressed(RLE, fragments([coded_rle()], closed=False)), Status.TRUNCATED),
    "no fragments": (compressed(RLE, fragments([])), Status.DECODE_FAILED),
    "RLE that is cut": (compressed(RLE, fragments([coded_rle()[:-600]])), Status.TRUNCATED),
    "RLE without a header": (compressed(RLE, fragments([b"12"])), Status.TRUNCATED),
    "RLE of many segments": (compressed(RLE, fragments([struct.pack("<16I", *[99] * 16)])), Status.DECODE_FAILED),
    "JPEG that is none": (compressed(JPEG, fragments([b"no JPEG, but text"])), Status.DECODE_FAILED),
    "JPEG 2000 that is none": (compressed(JPEG_2000, fragments([b"\xff\x4f\xff\x51"])), Status.DECODE_FAILED),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files_get_a_status_and_a_reason(what: str) -> None:
    content, status = HOSTILE[what]
    assert refused(content).status is status


@pytest.mark.parametrize("what", HOSTILE)
def test_nothing_is_allocated_by_a_number_in_the_header(what: str) -> None:
    content, _ = HOSTILE[what]
    tracemalloc.start()
    try:
        refused(content)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(content) + 2_000_000


@pytest.mark.parametrize("syntax", [JPEG_LOSSLESS, JPEG_LS, JPEG_2000, HTJ2K])
def test_coded_data_of_another_size_are_not_decoded(syntax: str) -> None:
    data = coded(syntax, np.tile(SMOOTH, (2, 2)))
    found = refused(compressed(syntax, fragments([data])))
    assert found.status is Status.DECODE_FAILED
    assert "96 x 80" in str(found.error)


@pytest.mark.parametrize("syntax", [JPEG, JPEG_EXTENDED, JPEG_LOSSLESS, JPEG_LS, JPEG_2000, HTJ2K])
def test_coded_data_that_are_cut_are_not_decoded(syntax: str) -> None:
    data = coded(syntax, SMOOTH)
    found = refused(compressed(syntax, fragments([data[: len(data) // 2]])))
    assert found.status in (Status.TRUNCATED, Status.DECODE_FAILED)


def test_a_frame_that_is_not_there() -> None:
    assert refused(mr_file(), 1).status is Status.DECODE_FAILED
    assert refused(mr_file(), -1).status is Status.DECODE_FAILED


def test_larger_than_the_limit() -> None:
    assert refused(mr_file(), max_pixels=23).status is Status.TOO_LARGE
    assert isinstance(read_slices(mr_file(), [0], 24)[0], StoredSlice)


SEEDS = (
    mr_file(),
    mr_file(IMPLICIT),
    mr_file(BIG_ENDIAN),
    mr_file(DEFLATED),
    enhanced(2),
    enhanced(2, IMPLICIT, open_sequences=True),
    compressed(RLE, fragments([coded_rle()])),
)


@given(
    seed=st.sampled_from(SEEDS),
    places=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, 1 << 20) | st.none(),
)
@settings(max_examples=300, deadline=None)
def test_no_change_of_bytes_raises(seed: bytes, places: "list[tuple[int, int]]", cut: int | None) -> None:
    changed = bytearray(seed if cut is None else seed[: cut % len(seed)])
    for at, value in places:
        if changed:
            changed[132 + at % max(len(changed) - 132, 1) if len(changed) > 132 else 0] = value
    pixels = DicomPixels(bytes(changed), MAX_PIXELS)
    for frame in range(min(len(pixels), 3)):
        found = pixels.read(frame)
        if isinstance(found, StoredSlice):
            assert to_grey(found, FILE, None).shape == (pixels.verdict.height, pixels.verdict.width)
