"""What the headers of a JPEG say of how it was written."""

import cv2
import pytest

from mribatch.core.synthetic import draw_slice
from mribatch.pipeline.decode.formats.jpeg import JpegEncoding, read_encoding
from tests.broken_files import jpeg_segment

_SAMPLING = {"444": ((1, 1),) * 3, "420": ((2, 2), (1, 1), (1, 1)), "422": ((2, 1), (1, 1), (1, 1))}


def encode(*options: int, colour: bool = True) -> bytes:
    grey = draw_slice(1, 64, 64)
    image = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR) if colour else grey
    return bytes(cv2.imencode(".jpg", image, list(options))[1])


def test_tables_are_those_of_the_quality() -> None:
    half = read_encoding(encode(cv2.IMWRITE_JPEG_QUALITY, 50))
    assert half.quantization[0][:8] == (16, 11, 12, 14, 12, 10, 16, 14)  # T.81, table K.1, in zigzag order
    assert half.quantization[1][:4] == (17, 18, 18, 24)  # table K.2
    assert [len(table) for table in half.quantization] == [64, 64]
    fine = read_encoding(encode(cv2.IMWRITE_JPEG_QUALITY, 95))
    assert sum(fine.quantization[0]) < sum(half.quantization[0]) / 5


@pytest.mark.parametrize("name", _SAMPLING)
def test_sampling_progression_and_restarts(name: str) -> None:
    factor = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{name}")
    plain = read_encoding(encode(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor))
    assert (plain.sampling, plain.progressive, plain.restarts) == (_SAMPLING[name], False, False)
    other = read_encoding(encode(cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 2))
    assert (other.progressive, other.restarts) == (True, True)


def test_comments_and_applications_are_counted_and_not_kept() -> None:
    jpeg = encode(colour=False)
    secret = jpeg_segment(0xFE, b"Doe^Jane") + jpeg_segment(0xE1, b"Exif\0\0Doe^Jane") + jpeg_segment(0xEE, b"Adobe")
    found = read_encoding(jpeg[:2] + secret + jpeg[2:])
    assert (found.comments, found.applications, found.sampling) == (1, (0, 1, 14), ((1, 1),))
    assert "Doe" not in repr(found)


def test_a_cut_or_damaged_head_gives_what_it_holds() -> None:
    jpeg = encode()
    whole = read_encoding(jpeg)
    for size in range(len(jpeg)):
        found = read_encoding(jpeg[:size])
        assert found.quantization in ((), whole.quantization[:1], whole.quantization)
        assert found.sampling in ((), whole.sampling)
    assert read_encoding(b"\xff\xd8\xff\xdb\0\x05\x13abc") == JpegEncoding((), (), False, False, 0, ())
