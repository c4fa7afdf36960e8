"""The verdict on real files, whole, broken and mutated. What is ok must decode to the very pixels of the whole file."""

import errno
import os
import socket
import struct
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy import uint8
from numpy.typing import NDArray

from mribatch.core import regular_file
from mribatch.core.regular_file import read_file
from mribatch.pipeline.decode.formats import jpeg
from mribatch.pipeline.decode.grey import decode_grey
from mribatch.pipeline.decode.probe import DEFAULT_MAX_PIXELS, probe, unreadable
from mribatch.pipeline.records import Flag, Status, Verdict
from tests import broken_files as made
from tests.broken_files import broken_files, good_files

GOOD = sorted(good_files())
BROKEN = sorted(broken_files())

# What the decoder, not the walk, finds out: the container is whole and its checksums are right.
FOUND_BY_DECODER = {"no_zlib.png", "few_rows.png", "lzw_garbled.tif", "deflate_garbled.tif", "deflate_short.tif"}
FOUND_BY_DECODER |= {"packbits_short.tif"}

FORMATS = {
    "jpeg_named.png": "jpeg",
    "png_named.jpg": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".jpe": "jpeg",
    ".png": "png",
    ".bmp": "bmp",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".webp": "webp",
    ".jp2": "jp2",
}
FLAGS: dict[str, tuple[Flag, ...]] = {
    **{f"exif_{turn}.jpg": (Flag.EXIF_ROTATED,) for turn in range(2, 9)},
    "trailing_bytes.jpg": (Flag.EXTRA_BYTES,),
    "second_image_behind.jpg": (Flag.EXTRA_BYTES,),
    "exif.png": (Flag.EXIF_ROTATED,),
    "exif_behind.png": (Flag.EXIF_ROTATED,),
    "exif.webp": (Flag.EXIF_ROTATED,),
    "turned.tif": (Flag.EXIF_ROTATED,),
    "tiles_turned.tif": (Flag.EXIF_ROTATED,),
    "alpha.png": (Flag.ALPHA_DROPPED,),
    "grey_alpha.png": (Flag.ALPHA_DROPPED,),
    "palette_alpha.png": (Flag.ALPHA_DROPPED,),
    "alpha.bmp": (Flag.ALPHA_DROPPED,),
    "alpha.tif": (Flag.ALPHA_DROPPED,),
    "lossy_alpha.webp": (Flag.ALPHA_DROPPED,),
    "lossless_alpha.webp": (Flag.ALPHA_DROPPED,),
    "animated.png": (Flag.FIRST_PAGE,),
    "pages.tif": (Flag.FIRST_PAGE,),
    **dict.fromkeys(
        (
            "sixteen_bit.png",
            "sixteen_bit_colour.png",
            "big_endian.tif",
            "sixteen_bit.tif",
            "sixteen_bit_lzw.tif",
            "signed.tif",
            "half_float.tif",
            "float.tif",
            "double.tif",
            "not_finite.tif",
            "sixteen_bit.jp2",
        ),
        (Flag.SCALED_TO_8_BIT,),
    ),
}
BITS = {
    "one_bit.png": 1,
    "one_bit.tif": 1,
    "sixteen_bit.png": 16,
    "sixteen_bit_colour.png": 16,
    "big_endian.tif": 16,
    "sixteen_bit.tif": 16,
    "sixteen_bit_lzw.tif": 16,
    "sixteen_bit.jp2": 16,
    "signed.tif": 16,
    "half_float.tif": 16,
    "float.tif": 32,
    "not_finite.tif": 32,
    "double.tif": 64,
}


def decoded(content: bytes) -> tuple[Verdict, NDArray[uint8] | None]:
    """Probe and decoder in the stored size, so that a single wrong pixel shows."""
    return decode_grey(content, probe(content), made.HEIGHT, made.WIDTH)


@pytest.mark.parametrize("name", GOOD)
def test_whole_file_is_ok(name: str) -> None:
    image_format = FORMATS.get(name) or FORMATS[Path(name).suffix]
    expected = Verdict(Status.OK, None, image_format, made.WIDTH, made.HEIGHT, FLAGS.get(name, ()), BITS.get(name, 8))
    assert probe(good_files()[name]) == expected


@pytest.mark.parametrize("name", BROKEN)
def test_broken_file_gets_its_status(name: str) -> None:
    content, expected = broken_files()[name]
    verdict, pixels = decoded(content)
    assert (verdict.status, pixels) == (expected, None)
    assert probe(content).status is (Status.OK if name in FOUND_BY_DECODER else expected)


@pytest.mark.parametrize("name", BROKEN)
def test_error_is_one_plain_sentence(name: str) -> None:
    verdict, _ = decoded(broken_files()[name][0])
    assert verdict.error is not None
    assert verdict.error.endswith(".") and verdict.error[0].isupper() and "\n" not in verdict.error
    assert any(letter.isdigit() for letter in verdict.error), verdict.error


def test_kinds_are_many() -> None:
    assert len(BROKEN) >= 25
    statuses = {status for _, status in broken_files().values()}
    assert statuses == {Status.EMPTY, Status.UNSUPPORTED, Status.TRUNCATED, Status.DECODE_FAILED, Status.TOO_LARGE}


@pytest.mark.parametrize("name", ["dicom.jpg", "page.jpg", "animation.jpg", "nifti.png", "archive.jpg", "text.jpg"])
def test_foreign_format_is_named(name: str) -> None:
    words = {"dicom": "DICOM", "page": "HTML", "animation": "GIF", "nifti": "NIfTI", "archive": "ZIP", "text": "text"}
    assert words[Path(name).stem] in str(probe(broken_files()[name][0]).error)


def test_size_is_known_where_the_header_was_read() -> None:
    verdict = probe(broken_files()["no_eoi.jpg"][0])
    assert (verdict.format, verdict.width, verdict.height) == ("jpeg", made.WIDTH, made.HEIGHT)


def test_pixel_limit() -> None:
    content = good_files()["grey.png"]
    pixels = made.WIDTH * made.HEIGHT
    assert probe(content, max_pixels=pixels).status is Status.OK
    verdict = probe(content, max_pixels=pixels - 1)
    assert verdict.status is Status.TOO_LARGE
    assert f"{pixels:,}" in str(verdict.error) and f"{pixels - 1:,}" in str(verdict.error)
    assert DEFAULT_MAX_PIXELS == 100_000_000


def test_side_that_opencv_refuses_is_too_large() -> None:
    rows = np.zeros((1, (1 << 20) // 8 + 1), dtype=uint8)
    assert probe(made.png(rows, (1 << 20) + 1, 1, 0)).status is Status.TOO_LARGE
    assert probe(made.png(rows[:, :-1], 1 << 20, 1, 0)).status is Status.OK


# ------------------------------------------------------------------------------------------------------------------ laws


@pytest.mark.parametrize("name", GOOD)
def test_every_cut_is_refused_or_loses_nothing(name: str) -> None:
    """At every length near both ends, and at every seventh between."""
    content = good_files()[name]
    _, whole = decoded(content)
    assert whole is not None
    size, ends = len(content), 800
    lengths = sorted({*range(min(ends, size)), *range(0, size, 7), *range(max(0, size - ends), size)})
    for length in lengths:
        if probe(content[:length]).status is Status.OK:
            verdict, pixels = decoded(content[:length])
            assert verdict.status is Status.OK, length
            assert pixels is not None
            assert np.array_equal(pixels, whole), length


@given(name=st.sampled_from(GOOD), data=st.data())
def test_flipped_bytes_never_raise(name: str, data: st.DataObject) -> None:
    content = bytearray(good_files()[name])
    places = st.integers(0, len(content) - 1) | st.integers(0, min(len(content), 300) - 1)
    for at, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=8)):
        content[at] = value
    verdict, pixels = decoded(bytes(content))
    assert (pixels is not None) == (verdict.status is Status.OK) == (verdict.error is None)


STARTS = [
    b"",
    b"\xff\xd8\xff\xe0",
    b"\x89PNG\r\n\x1a\n",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"II+\0\x08\0\0\0",
    b"RIFF\x40\0\0\0WEBP",
]
STARTS += [
    b"\0\0\0\x0cjP  \r\n\x87\n",
    b"\xff\x4f\xff\x51",
    b"RIFF\x40\0\0\0WEBPVP8X",
    b"\xff\xd8\xff\xe1\0\x20Exif\0\0II*\0",
]


@given(start=st.sampled_from(STARTS), rest=st.binary(max_size=200))
@example(start=b"\xff\xd8", rest=b"\xff" * 50)
@example(start=b"II+\0\x08\0\0\0", rest=b"\xff" * 60)
@example(start=b"II*\0", rest=struct.pack("<IHHHII", 8, 1, 273, 4, 0xFFFFFFFF, 0) + bytes(4))
def test_arbitrary_bytes_never_raise(start: bytes, rest: bytes) -> None:
    verdict = probe(start + rest)
    assert (verdict.error is None) == (verdict.status is Status.OK)


def test_a_hostile_offset_table_costs_no_memory() -> None:
    """Four thousand million strips in 40 bytes: refused by the count, not by running out of memory."""
    entry = struct.pack("<HHII", 273, 4, 0xFFFFFFFF, 0)
    verdict = probe(b"II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4))
    assert verdict.status is Status.DECODE_FAILED
    assert "4,294,967,295" in str(verdict.error)


def test_a_progressive_jpeg_of_too_many_scans_is_refused() -> None:
    content = good_files()["progressive.jpg"]
    last = content.rindex(b"\xff\xda")
    assert probe(content[:-2] + content[last:-2] * 20 + b"\xff\xd9").status is Status.OK
    assert probe(content[:-2] + content[last:-2] * 100 + b"\xff\xd9").status is Status.UNSUPPORTED


def test_a_small_jpeg_takes_microseconds() -> None:
    """The probe must be lost in the decoder's time (1 ms and more). The bound allows for a busy machine."""
    content = made.encode(".jpg", made.slice_pixels(512, 512))
    spent = []
    for _ in range(50):
        begin = time.perf_counter()
        probe(content)
        spent.append(time.perf_counter() - begin)
    assert min(spent) < 300e-6


# --------------------------------------------------------------------------------------------------------------- reading


def test_read_file_gives_all_bytes(tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(300_000)
    (tmp_path / "file").write_bytes(content)
    (tmp_path / "empty").write_bytes(b"")
    assert read_file(os.fsencode(tmp_path / "file")) == content
    assert read_file(os.fsencode(tmp_path / "empty")) == b""


def test_read_file_takes_names_that_are_not_utf8(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    with open(path, "wb") as stream:
        stream.write(b"bytes")
    assert read_file(path) == b"bytes"


def test_a_fifo_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    problems: list[OSError] = []

    def read() -> None:
        try:
            read_file(os.fsencode(tmp_path / "fifo"))
        except OSError as error:
            problems.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert "FIFO" in str(problems[0])


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="folder, not a regular file"):
        read_file(os.fsencode(tmp_path))
    with pytest.raises(OSError, match="character device"):
        read_file(b"/dev/null")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        with pytest.raises(OSError):
            read_file(os.fsencode(tmp_path / "socket"))


def test_a_refused_file_leaves_no_descriptor_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(OSError):
            read_file(os.fsencode(tmp_path))
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_size_cap_comes_before_the_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "sparse").open("wb") as stream:
        stream.truncate((2 << 30) + 1)
    with pytest.raises(OSError, match=r"2,147,483,649 bytes; the limit is 2,147,483,648"):
        read_file(os.fsencode(tmp_path / "sparse"))
    monkeypatch.setattr(regular_file, "MAX_FILE_BYTES", 10)
    (tmp_path / "ten").write_bytes(b"0123456789")
    assert read_file(os.fsencode(tmp_path / "ten")) == b"0123456789"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), "No such file or directory (errno 2)"),
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied (errno 13)"),
        (OSError("read timed out"), "read timed out"),
        (OSError(), "OSError"),
    ],
)
def test_unreadable_names_the_reason(error: OSError, words: str) -> None:
    verdict = unreadable(error)
    assert verdict.status is Status.UNREADABLE
    assert verdict.error == f"The file cannot be read: {words}."


_SCAN_BYTES = st.sampled_from(
    [b"\xff\x00", b"\xff\xff", b"\xff\xd0", b"\xff\xd7", b"\xff\xd9", b"\xff", b"\x00", b"abc"]
)


@given(st.lists(_SCAN_BYTES, max_size=30).map(b"".join), st.integers(0, 8))
def test_the_end_of_a_scan_is_the_first_marker_that_is_no_restart(data: bytes, start: int) -> None:
    content = b"\xff\xd8" + data
    ends = [
        place
        for place in range(start, len(content) - 1)
        if content[place] == 0xFF and content[place + 1] not in (0x00, 0xFF, *range(0xD0, 0xD8))
    ]
    assert jpeg._find_scan_end(content, start) == (ends[0] if ends else None)
