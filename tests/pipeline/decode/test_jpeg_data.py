"""Damage inside the data of a JPEG is a verdict; what changes no pixel is none."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from numpy import uint8
from numpy.typing import NDArray

from mribatch.pipeline.decode.grey import decode_grey
from mribatch.pipeline.decode.jpeg_data import is_without_warning
from mribatch.pipeline.decode.probe import probe
from mribatch.pipeline.records import Flag, Status, Verdict
from tests.broken_files import good_files, jpeg_segment, slice_pixels, with_exif
from tests.damaged_files import damaged_jpegs, scan_data, whole_jpegs

GREY = good_files()["grey.jpg"]
COLOUR = good_files()["colour.jpg"]
DATA, END = scan_data(GREY)


def decoded(content: bytes) -> tuple[Verdict, NDArray[uint8] | None]:
    verdict = probe(content)
    return decode_grey(content, verdict, verdict.height or 1, verdict.width or 1)


def before_the_end(jpeg: bytes, extra: bytes) -> bytes:
    return jpeg[:-2] + extra + jpeg[-2:]


def after_start(jpeg: bytes, marker: int, payload: bytes) -> bytes:
    return jpeg[:2] + jpeg_segment(marker, payload) + jpeg[2:]


def test_damage_in_the_data_is_found() -> None:
    """800 files. Codes find their place again by themselves, so that few files hold valid codes for all blocks."""
    seen: Counter[str] = Counter()
    missed = []
    for file in damaged_jpegs(25):
        verdict, pixels = decoded(file.damaged)
        seen[verdict.status] += 1
        if pixels is not None:
            missed.append(file.name)
            assert is_without_warning(file.damaged), "nothing that libjpeg warned of is ok"
    assert sum(seen.values()) == 800
    assert seen[Status.DECODE_FAILED] > 350 and set(seen) <= {"ok", "decode_failed", "truncated"}
    assert len(missed) <= 8 and all(name.startswith("swapped_halves") for name in missed), missed


def test_whole_jpegs_raise_no_alarm() -> None:
    for name, content in whole_jpegs(25):
        verdict, pixels = decoded(content)
        assert (verdict.status, verdict.flags) == (Status.OK, ()) and pixels is not None, name
        assert is_without_warning(content)


@pytest.mark.slow
def test_real_slices_raise_no_alarm() -> None:
    data = os.environ.get("MRIBATCH_DATA")
    if not data:
        pytest.skip("MRIBATCH_DATA is not set")
    paths = sorted((Path(data) / "brain-mri").rglob("*.jpg"))
    assert len(paths) > 2000
    for path in paths:
        content = path.read_bytes()
        verdict = decode_grey(content, probe(content), 8, 8)[0]
        assert (verdict.status, verdict.flags) == (Status.OK, ()), path
        assert is_without_warning(content), path


def files_of_each_damage() -> Iterator[tuple[str, bytes]]:
    restart, progressive = good_files()["restart.jpg"], good_files()["progressive.jpg"]
    second = restart.index(b"\xff\xd1", restart.index(b"\xff\xda"))
    approximation = next(at for at in _scans(progressive) if progressive[at - 1] >> 4)  # a refining scan
    yield "premature end of data segment", GREY[: (DATA + END) // 2] + b"\xff\xd9"
    yield "bad Huffman code", GREY[: END - 100] + b"\xff\0" * 40 + GREY[END - 20 :]  # 16 ones are no code
    yield "found marker 0xd3 instead of RST1", restart[: second + 1] + b"\xd3" + restart[second + 2 :]
    yield (
        "Inconsistent progression sequence",
        (progressive[: approximation - 1] + b"\x32" + progressive[approximation:]),
    )
    yield "39 extraneous bytes before marker 0xd9", before_the_end(GREY, bytes(range(1, 41)))
    yield "extraneous bytes before marker 0xd9", before_the_end(GREY, bytes(65))
    yield "extraneous bytes before marker 0xd9", before_the_end(GREY, b"\1\2\3\4\5\6\7\7\7")  # too few to be padding
    yield "Didn't expect more than one scan", GREY[:-2] + GREY[GREY.index(b"\xff\xda") :]


def _scans(jpeg: bytes) -> Iterator[int]:
    """Where the data of each scan begin."""
    at = jpeg.find(b"\xff\xda")
    while at >= 0:
        yield at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        at = jpeg.find(b"\xff\xda", at + 2)


@pytest.mark.parametrize(("words", "content"), list(files_of_each_damage()))
def test_damage_is_told_in_libjpegs_words(words: str, content: bytes) -> None:
    assert probe(content).status is Status.OK
    verdict, pixels = decoded(content)
    assert (verdict.status, pixels) == (Status.DECODE_FAILED, None)
    assert verdict.error is not None and verdict.error.startswith("The JPEG data are damaged: libjpeg says")
    assert words in verdict.error
    assert not is_without_warning(content)


def harmless_files() -> dict[str, tuple[bytes, tuple[Flag, ...], bytes]]:
    """Name -> content, flags, and the file without the oddity."""
    extra = (Flag.EXTRA_BYTES,)
    restart = good_files()["restart.jpg"]
    second = restart.index(b"\xff\xd1", restart.index(b"\xff\xda"))
    third = restart.index(b"\xff\xd2", second)
    padded = restart[:second] + bytes(16) + restart[second:third] + b"\x55" * 20 + restart[third:]
    sequential = GREY[: DATA - 3] + bytes(3) + GREY[DATA:]
    thumbnail = before_the_end(COLOUR, bytes(40))
    adobe = b"Adobe\0\x64\0\0\0\0"
    new = GREY.replace(b"JFIF\0\x01", b"JFIF\0\x07", 1)
    return {
        "zeros before the end": (before_the_end(GREY, bytes(40)), extra, GREY),
        "one value before the end": (before_the_end(COLOUR, b"\x12" * 64), extra, COLOUR),
        "before restarts": (padded, extra, restart),
        "behind the end": (GREY + b"\0", extra, GREY),
        "both": (before_the_end(GREY, bytes(40)) + b"more", extra, GREY),
        "the thumbnail ends alike": (before_the_end(with_exif(GREY, 1, thumbnail), bytes(40)), extra, GREY),
        "JFIF 7": (new, (), GREY),
        "JFIF 7 and padding": (before_the_end(new, bytes(40)), extra, GREY),
        "scan of no coefficient": (sequential, (), GREY),
        "colour transform": (after_start(COLOUR, 0xEE, adobe + b"\x09"), (), COLOUR),
        "profile": (after_start(COLOUR, 0xE2, b"ICC_PROFILE\0\x03\x02profile"), (), COLOUR),
    }


@pytest.mark.parametrize("name", sorted(harmless_files()))
def test_what_changes_no_pixel_is_ok(name: str) -> None:
    content, flags, plain = harmless_files()[name]
    verdict, pixels = decoded(content)
    expected = decoded(plain)[1]
    assert (verdict.status, verdict.flags) == (Status.OK, flags), verdict.error
    assert pixels is not None and expected is not None and np.array_equal(pixels, expected)
    opencv = cv2.imdecode(np.frombuffer(content, uint8), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    assert opencv is not None and np.array_equal(pixels[..., 0], opencv)


def test_a_harmless_warning_hides_no_damage() -> None:
    """libjpeg keeps the words of the first warning only."""
    half = GREY[: (DATA + END) // 2] + b"\xff\xd9"
    adobe = b"Adobe\0\x64\0\0\0\0\x09"
    for content in (half.replace(b"JFIF\0\x01", b"JFIF\0\x07", 1), after_start(half, 0xEE, adobe)):
        verdict, _ = decoded(content)
        assert verdict.status is Status.DECODE_FAILED and "premature end" in str(verdict.error)


def test_a_padded_sector_inside_the_data_is_damage() -> None:
    content = GREY[: DATA + 300] + bytes(512) + GREY[DATA + 812 :]
    assert decoded(content)[0].status is Status.DECODE_FAILED


def test_words_are_those_of_the_installed_library() -> None:
    """A new libjpeg-turbo with other words would pass damage on to the next decoder."""
    (library,) = Path(str(simplejpeg.__file__)).parent.glob("_jpeg*.so")
    binary = library.read_bytes()
    for words in (
        b"Corrupt JPEG data: premature end of data segment",
        b"Corrupt JPEG data: bad Huffman code",
        b"Corrupt JPEG data: bad arithmetic code",
        b"Corrupt JPEG data: found marker 0x%02x instead of RST%d",
        b"Corrupt JPEG data: %u extraneous bytes before marker 0x%02x",
        b"Corrupt JPEG data: bad ICC marker",
        b"Premature end of JPEG file",
        b"Inconsistent progression sequence for component %d coefficient %d",
        b"Unknown Adobe color transform code %d",
        b"Warning: unknown JFIF revision number %d.%02d",
        b"Invalid SOS parameters for sequential JPEG",
        b"Didn't expect more than one scan",
    ):
        assert words in binary, words


def test_odd_size_of_the_check_is_no_matter() -> None:
    for height, width in ((1, 1), (1, 700), (7, 9), (8, 8), (701, 3)):
        content = cv2.imencode(".jpg", slice_pixels(height, width))[1].tobytes()
        assert is_without_warning(content)
        assert decoded(content)[0].status is Status.OK
