"""Pixels against the source they were made from, or against a plain decode and resize written here independently."""

import importlib.metadata
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy import uint8
from numpy.typing import NDArray

from mribatch.pipeline.decode.formats.jpeg import coding
from mribatch.pipeline.decode.grey import decode_grey, decoder_versions, opencv_version
from mribatch.pipeline.decode.probe import probe
from mribatch.pipeline.records import Flag, Status, Verdict
from tests import broken_files as made
from tests.broken_files import broken_files, colour_pixels, good_files, slice_pixels
from tests.pipeline.decode.test_fuzz import mutated

# Orientation -> how a viewer must show the stored array (CIPA DC-008, tag 0x112)
UPRIGHT = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.T,
    6: lambda image: np.rot90(image, -1),
    7: lambda image: np.rot90(image.T, 2),
    8: lambda image: np.rot90(image),
}


def pixels_of(content: bytes, height: int = made.HEIGHT, width: int = made.WIDTH) -> NDArray[uint8]:
    verdict, pixels = decode_grey(content, probe(content), height, width)
    assert verdict == probe(content)
    assert pixels is not None
    return pixels[..., 0]


def stretched(image: NDArray[np.generic], height: int, width: int) -> NDArray[np.generic]:
    return np.asarray(cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=cv2.INTER_LINEAR))


ROUNDED = ("alpha.bmp", "cmyk.jpg")  # of these OpenCV rounds products down
# OpenCV shows transparent parts on black, and refuses the others.
OPENCV_CANNOT = ("alpha.tif", "half_float.tif", "tiles_turned.tif")


@pytest.mark.parametrize("name", sorted(set(good_files()) - {*OPENCV_CANNOT}))
def test_every_good_file_is_a_plain_decode_and_resize(name: str) -> None:
    content = good_files()[name]
    plain = np.asarray(cv2.imdecode(np.frombuffer(content, uint8), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH))
    if name == "exif.webp" and plain.shape == (made.HEIGHT, made.WIDTH):  # OpenCV 4.10 does not turn a WebP
        plain = UPRIGHT[6](plain)
    if plain.dtype != uint8:
        values = plain.astype(np.longdouble)
        finite = values[np.isfinite(values)]
        values = np.where(np.isnan(values), finite.min(), values).clip(finite.min(), finite.max())
        plain = np.rint((values - finite.min()) / (finite.max() - finite.min()) * 255).astype(uint8)
    got = pixels_of(content, 50, 70)
    difference = np.abs(got.astype(int) - stretched(plain, 50, 70).astype(int))
    rounds = Flag.SCALED_TO_8_BIT in probe(content).flags
    assert difference.max() <= (2 if name in ROUNDED else 1 if rounds else 0)  # rounding of a half


@pytest.mark.parametrize(
    "name",
    [
        "grey.png",
        "grey_alpha.png",
        "palette.png",
        "palette_alpha.png",
        "animated.png",
        "trailing.png",
        "grey.bmp",
        "top_down.bmp",
        "grey.tif",
        "lzw.tiff",
        "deflate.tif",
        "packbits.tif",
        "big.tif",
        "tiles.tif",
        "white_is_zero.tif",
        "pages.tif",
    ],
)
def test_lossless_grey_is_exact(name: str) -> None:
    assert (pixels_of(good_files()[name]) == slice_pixels()).all()


@pytest.mark.parametrize(
    "name", ["colour.png", "alpha.png", "colour.bmp", "masks.bmp", "lossless.webp", "planes.tif", "alpha.tif"]
)
def test_colour_is_luma(name: str) -> None:
    blue, green, red = (colour_pixels()[..., channel].astype(float) for channel in range(3))
    luma = 0.299 * red + 0.587 * green + 0.114 * blue  # ITU-R BT.601
    assert np.abs(pixels_of(good_files()[name]) - luma).max() < 1.5


def test_colour_jpeg_is_libjpegs_luma() -> None:
    for name in ("colour.jpg", "progressive.jpg", "full_chroma.jpg", "restart.jpg"):
        content = good_files()[name]
        straight = cv2.imdecode(np.frombuffer(content, uint8), cv2.IMREAD_GRAYSCALE)
        assert (pixels_of(content) == straight).all()


@pytest.mark.parametrize(
    "name",
    [
        "sixteen_bit.png",
        "sixteen_bit.tif",
        "sixteen_bit_lzw.tif",
        "sixteen_bit.jp2",
        "big_endian.tif",
        "signed.tif",
        "float.tif",
        "double.tif",
    ],
)
def test_more_than_eight_bits_are_scaled_by_their_own_range(name: str) -> None:
    grey = slice_pixels().astype(float)
    expected = (grey - grey.min()) / (grey.max() - grey.min()) * 255
    tolerance = 2 if name.endswith(".jp2") else 0.51  # OpenCV's JPEG 2000 files are lossy
    assert np.abs(pixels_of(good_files()[name]) - expected).max() <= tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int) -> None:
    grey = slice_pixels()
    expected = UPRIGHT[orientation](grey)
    height, width = expected.shape
    exact = made.png(grey, made.WIDTH, 8, 0, before=made.png_chunk(b"eXIf", made.exif_block(orientation)))
    assert (pixels_of(exact, height, width) == expected).all()
    webp = made.webp_with_exif(good_files()["lossless.webp"], orientation)
    plain = UPRIGHT[orientation](pixels_of(good_files()["lossless.webp"]))
    assert (pixels_of(webp, height, width) == plain).all()
    jpeg = made.with_exif(good_files()["grey.jpg"], orientation)
    assert (pixels_of(jpeg, height, width) == UPRIGHT[orientation](pixels_of(good_files()["grey.jpg"]))).all()
    assert (Flag.EXIF_ROTATED in probe(jpeg).flags) == (orientation != 1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("rows", [made.HEIGHT, 10])
@pytest.mark.parametrize("kind", [uint8, np.uint16])
def test_tiff_orientation(orientation: int, rows: int, kind: type) -> None:
    grey = slice_pixels()
    turned = [(274, 3, 1, orientation, True)]
    content = made.tiff(grey.astype(kind), extratags=turned, compression="zlib", rowsperstrip=rows)
    expected = UPRIGHT[orientation](grey)
    if kind is not uint8:
        expected = np.rint(expected / expected.max() * 255)
    assert (pixels_of(content, *expected.shape) == expected).all()


@pytest.mark.parametrize("kind", [np.uint16, np.int16, np.int32, np.float32, np.float64, np.int8])
def test_constant_image_is_black_only_where_it_is_zero(kind: type) -> None:
    assert (pixels_of(made.tiff(np.full((20, 30), 5, kind)), 8, 8) == 255).all()
    assert (pixels_of(made.tiff(np.zeros((20, 30), kind)), 8, 8) == 0).all()


def test_twelve_bits_in_sixteen_are_not_dark() -> None:
    pixels = pixels_of(made.tiff(np.linspace(0, 4095, 600).astype(np.uint16).reshape(20, 30)), 20, 30)
    assert (pixels.min(), pixels.max()) == (0, 255)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_packed_samples(bits: int) -> None:
    values = np.arange(made.HEIGHT * made.WIDTH).reshape(made.HEIGHT, made.WIDTH) % (1 << bits)
    rows = (values[..., None] >> np.arange(bits - 1, -1, -1) & 1).astype(uint8).reshape(made.HEIGHT, -1)
    content = made.plain_tiff(np.packbits(rows, axis=1).tobytes(), {258: bits})
    assert np.abs(pixels_of(content) - values / values.max() * 255).max() <= 0.51


def test_not_finite_samples() -> None:
    values = np.array([[np.nan, -np.inf, np.inf], [-2.0, 0.0, 2.0]], dtype=np.float32)
    assert pixels_of(made.tiff(values), 2, 3).tolist() == [[0, 0, 255], [0, 128, 255]]
    verdict, pixels = decode_grey(content := made.tiff(np.full((4, 4), np.nan, np.float32)), probe(content), 4, 4)
    assert (verdict.status, pixels) == (Status.DECODE_FAILED, None)
    assert "finite" in str(verdict.error)


@given(low=st.floats(allow_nan=False, allow_infinity=False), high=st.floats(allow_nan=False, allow_infinity=False))
def test_any_range_of_doubles_fills_zero_to_255(low: float, high: float) -> None:
    pixels = pixels_of(made.tiff(np.array([[low, high]] * 2)), 2, 2)
    if low == high:
        assert (pixels == (0 if low == 0 else 255)).all()
    else:
        assert sorted(pixels[0].tolist()) == [0, 255]


def test_first_frame_of_a_webp_animation() -> None:
    first = good_files()["lossless.webp"]
    content = made.animated_webp(first, good_files()["lossy.webp"])
    verdict, pixels = decode_grey(content, probe(content), made.HEIGHT, made.WIDTH)
    assert verdict.flags == (Flag.FIRST_PAGE,)
    if opencv_version() < "4.11":
        assert verdict.status is Status.DECODE_FAILED
    else:
        assert pixels is not None
        assert (pixels[..., 0] == pixels_of(first)).all()


def test_result_is_ready_for_the_batch() -> None:
    content = good_files()["exif_6.jpg"]
    verdict, pixels = decode_grey(content, probe(content), 160, 128)
    assert pixels is not None
    assert (pixels.shape, pixels.dtype.name, pixels.flags.c_contiguous) == ((160, 128, 1), "uint8", True)
    assert verdict == probe(content)


def test_size_of_the_image_itself_is_not_resampled() -> None:
    assert (pixels_of(good_files()["grey.png"]) == slice_pixels()).all()


def test_a_verdict_that_is_not_ok_is_handed_back() -> None:
    verdict = Verdict(Status.EMPTY, "The file is empty (0 bytes).")
    assert decode_grey(b"", verdict, 8, 8) == (verdict, None)


def test_a_decoder_that_contradicts_the_header_is_not_believed() -> None:
    content = good_files()["grey.png"]
    promised = Verdict(Status.OK, None, "png", made.HEIGHT, made.WIDTH, (), 8)
    verdict, pixels = decode_grey(content, promised, 8, 8)
    assert (verdict.status, pixels) == (Status.DECODE_FAILED, None)
    assert f"({made.HEIGHT}, {made.WIDTH})" in str(verdict.error)


@pytest.mark.parametrize(
    ("raised", "words"), [(MemoryError(), "memory"), (cv2.error("too large"), "OpenCV refused the image: too large")]
)
def test_exceptions_of_the_decoder_become_a_verdict(
    raised: Exception, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def imdecode(*_: object) -> None:
        raise raised

    monkeypatch.setattr(cv2, "imdecode", imdecode)
    content = good_files()["grey.png"]
    verdict, pixels = decode_grey(content, probe(content), 8, 8)
    assert (verdict.status, pixels) == (Status.DECODE_FAILED, None)
    assert words in str(verdict.error)


def test_damage_behind_a_whole_container_is_decode_failed() -> None:
    for name in ("no_zlib.png", "few_rows.png"):
        content, status = broken_files()[name]
        verdict, _ = decode_grey(content, probe(content), 8, 8)
        assert verdict.status is status is Status.DECODE_FAILED
        assert verdict.width == made.WIDTH


def test_version_is_opencvs() -> None:
    assert opencv_version() == cv2.__version__
    assert decoder_versions() == f"{cv2.__version__}, simplejpeg {importlib.metadata.version('simplejpeg')}"


def odd_colour_jpegs() -> dict[str, bytes]:
    """JPEGs whose colour space is told by Adobe's marker, or by nothing."""
    found = {}
    for name in ("colour.jpg", "progressive.jpg", "full_chroma.jpg", "cmyk.jpg", "grey.jpg"):
        content = good_files()[name]
        for transform in range(3):  # 0: RGB or CMYK, 1: YCbCr, 2: YCCK
            adobe = made.jpeg_segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))
            found[f"{name} adobe {transform}"] = content[:2] + adobe + content[2:]
            jfif_ends = 4 + int.from_bytes(content[4:6], "big")
            found[f"{name} adobe {transform} alone"] = content[:2] + adobe + content[jfif_ends:]
        found[f"{name} no marker"] = content[:2] + content[jfif_ends:]
    return found


def opencv_grey(content: bytes) -> NDArray[np.generic] | None:
    mode = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
    return cv2.imdecode(np.frombuffer(content, uint8), mode)


@pytest.mark.parametrize("name", sorted(odd_colour_jpegs()))
def test_jpeg_of_any_colour_space_has_opencvs_pixels(name: str) -> None:
    content = odd_colour_jpegs()[name]
    expected = opencv_grey(content)
    assert expected is not None
    assert differs_at_most(pixels_of(content), expected, name.startswith("cmyk"))


def differs_at_most(pixels: NDArray[np.generic], expected: NDArray[np.generic], inks: bool) -> bool:
    """Equal; of inks, OpenCV rounds two products down."""
    return bool(np.abs(pixels.astype(int) - expected.astype(int)).max() <= (2 if inks else 0))


def test_mutated_jpeg_is_refused_or_has_opencvs_pixels() -> None:
    jpegs = [content for content in good_files().values() if probe(content).format == "jpeg"]
    jpegs += odd_colour_jpegs().values()
    compared: Counter[Status] = Counter()
    for number in range(3000):
        content = mutated(jpegs, 0, number)
        verdict = probe(content, 4_000_000)
        if verdict.format != "jpeg" or verdict.status is not Status.OK or Flag.EXIF_ROTATED in verdict.flags:
            continue
        assert verdict.height is not None and verdict.width is not None
        final, pixels = decode_grey(content, verdict, verdict.height, verdict.width)
        expected = opencv_grey(content)
        compared[final.status] += 1
        if pixels is not None:
            inks = len(coding(content).components) == 4
            assert expected is not None and differs_at_most(pixels[..., 0], expected, inks), number
    assert compared[Status.OK] > 500 and compared[Status.DECODE_FAILED] > 50


def test_import_does_not_load_opencv() -> None:
    code = "import sys, mribatch.pipeline.decode.grey; sys.exit('cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=False).returncode == 0
