"""Damage inside the data of every format is a verdict, and whole files of every kind raise no alarm."""

import io
import struct
from collections import Counter
from itertools import product
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy import uint8
from numpy.typing import NDArray
from PIL import Image

from mribatch.core.synthetic import draw_slice
from mribatch.pipeline.decode.formats.container import Refused
from mribatch.pipeline.decode.grey import decode_grey
from mribatch.pipeline.decode.jpeg2000_data import check_bare_packets, check_packets
from mribatch.pipeline.decode.probe import probe
from mribatch.pipeline.records import Flag, Status, Verdict
from tests.broken_files import patched
from tests.container_matrix import bits_reversed, tiff_of, with_tag
from tests.damaged_files import KINDS, damaged, data_of, in_colour

# Of these some damage leaves data that no check can tell from whole ones.
SOME_MISSED = {"jpeg-baseline": 2, "tiff-packbits": 2}


def verdict_of(content: bytes) -> Verdict:
    return decode_grey(content, probe(content), 40, 40)[0]


def saved(pixels: NDArray[Any], **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_damage_is_found_and_whole_files_are_ok(kind: str) -> None:
    statuses: Counter[Status] = Counter()
    for seed in range(6):
        grey = draw_slice(seed, 150 + 3 * seed, 170 - seed)
        for name, pixels in ((f"{seed}_grey", grey), (f"{seed}_colour", in_colour(grey))):
            whole = KINDS[kind](pixels)
            assert verdict_of(whole).status is Status.OK, name
            for file in damaged(f"{kind}_{name}", whole):
                assert file.damaged != whole
                verdict = verdict_of(file.damaged)
                statuses[verdict.status] += 1
                assert verdict.error is None or (verdict.error.endswith(".") and any(map(str.isdigit, verdict.error)))
    assert sum(statuses.values()) == 48 and statuses[Status.OK] <= SOME_MISSED.get(kind, 0), statuses
    assert set(statuses) <= {Status.OK, Status.DECODE_FAILED, Status.TRUNCATED}


# --------------------------------------------------------------------------------------------------------------- TIFF


def one_strip(compression: str) -> tuple[bytes, bytes]:
    """A TIFF of one strip and its data."""
    tiff = KINDS[f"tiff-{compression}"](draw_slice(1, 60, 50))
    return tiff, data_of(tiff).packed


@pytest.mark.parametrize("compression", ["lzw", "deflate", "packbits"])
def test_a_strip_has_the_very_size_of_its_rows(compression: str) -> None:
    tiff, _ = one_strip(compression)
    make = data_of(tiff).with_packed
    pack = {
        "lzw": imagecodecs.lzw_encode,
        "deflate": imagecodecs.zlib_encode,
        "packbits": imagecodecs.packbits_encode,
    }[compression]
    pixels = draw_slice(1, 60, 50).tobytes()
    assert verdict_of(make(bytes(pack(pixels)))).status is Status.OK
    short, long = verdict_of(make(bytes(pack(pixels[:-1])))), verdict_of(make(bytes(pack(pixels + b"\1"))))
    assert (short.status, long.status) == (Status.TRUNCATED, Status.DECODE_FAILED)
    assert "2,999 bytes of 3,000" in str(short.error) and "more than its 3,000 bytes" in str(long.error)


def test_the_last_strip_may_have_rows_below_the_image() -> None:
    grey = draw_slice(1, 60, 50)
    for compression in ("lzw", "zlib", "packbits"):
        tall = tiff_of(np.vstack([grey, grey[:4]]), compression=compression, rowsperstrip=16)
        content = with_tag(tall, 257, 60)
        verdict, pixels = decode_grey(content, probe(content), 60, 50)
        assert verdict.status is Status.OK, verdict.error
        assert pixels is not None and np.array_equal(pixels[..., 0], grey)
        middle = with_tag(tall, 257, 50)  # needs two rows of the last strip, which has all sixteen
        assert verdict_of(middle).status is Status.OK


def test_lzw_before_tiff_5_is_told_from_damage() -> None:
    tiff, data = one_strip("lzw")
    verdict = verdict_of(data_of(tiff).with_packed(b"\0\1" + data))
    assert verdict.status is Status.UNSUPPORTED and "LZW as before TIFF 5.0" in str(verdict.error)


def test_a_deflate_strip_without_its_checksum_is_ok_and_with_a_wrong_one_is_not() -> None:
    tiff, data = one_strip("deflate")
    make = data_of(tiff).with_packed
    assert verdict_of(make(data[:-4])).status is Status.OK, "all bytes are there"
    wrong = verdict_of(make(data[:-1] + bytes([data[-1] ^ 1])))
    assert wrong.status is Status.DECODE_FAILED and "incorrect data check" in str(wrong.error)


def test_packbits_runs_over_the_ends_of_rows_are_damage_only_after_rows_without() -> None:
    tiff, _ = one_strip("packbits")
    make, rows = data_of(tiff).with_packed, [row.tobytes() for row in draw_slice(1, 60, 50)]
    separate = [imagecodecs.packbits_encode(row) for row in rows]
    together = bytes(imagecodecs.packbits_encode(b"".join(rows)))
    assert verdict_of(make(together)).status is Status.OK
    begun = b"".join(separate[:40]) + imagecodecs.packbits_encode(b"".join(rows[40:]))
    assert verdict_of(make(begun)).status is Status.DECODE_FAILED


def test_bits_in_the_other_order_are_checked_alike() -> None:
    for compression in ("lzw", "zlib", "packbits"):
        tiff = tiff_of(draw_slice(1, 60, 50), compression=compression, rowsperstrip=60)
        content = bits_reversed(tiff)
        assert verdict_of(content).status is Status.OK
        start = len(content) // 3
        holed = patched(content, start, bytes(len(content) // 4))
        assert verdict_of(holed).status in (Status.DECODE_FAILED, Status.TRUNCATED)


# --------------------------------------------------------------------------------------------------------------- WebP


def test_small_and_flat_webps_raise_no_alarm() -> None:
    """Where data are a few bytes, those that libwebp leaves unread are a large share of them."""
    dice = np.random.default_rng(0)
    for (width, height), quality, lossless in product(
        ((1, 1), (2, 2), (3, 1), (1, 9), (8, 8), (16, 16), (17, 5), (60, 7)), (0, 40, 75, 100), (False, True)
    ):
        for pixels in (
            np.zeros((height, width, 3), uint8),
            np.full((height, width, 3), (10, 200, 77), uint8),
            dice.integers(0, 256, (height, width, 3)).astype(uint8),
            dice.integers(0, 256, (height, width, 4)).astype(uint8),
        ):
            content = saved(pixels, format="WEBP", quality=quality, lossless=lossless, method=4)
            assert verdict_of(content).status is Status.OK, (width, height, quality, lossless, len(content))


def test_padding_behind_webp_data_is_no_damage() -> None:
    for lossless in (False, True):
        content = saved(draw_slice(1, 60, 50), format="WEBP", lossless=lossless)
        data = data_of(content)
        for padding in (bytes(1), bytes(8), b"\xff" * 40):
            assert verdict_of(data.with_packed(data.packed + padding)).status is Status.OK
        more = data.with_packed(data.packed + np.random.default_rng(1).bytes(500))
        assert verdict_of(more).status is Status.DECODE_FAILED


# ---------------------------------------------------------------------------------------------------------- JPEG 2000


@pytest.mark.parametrize("progression", ["LRCP", "RLCP", "RPCL", "PCRL", "CPRL"])
def test_packets_are_followed_in_every_order(progression: str) -> None:
    """With tiles, precincts, code-blocks and layers of odd sizes; one byte more or less in a tile breaks the chain."""
    for colour, size in product((False, True), ((97, 130), (64, 64), (33, 200))):
        grey = draw_slice(3, *size)
        content = saved(
            in_colour(grey) if colour else grey,
            format="JPEG2000",
            no_jp2=True,
            progression=progression,
            tile_size=(96, 96),
            precinct_size=(32, 64),
            codeblock_size=(16, 8),
            num_resolutions=4,
            irreversible=True,
            quality_mode="rates",
            quality_layers=[30, 10, 3],
        )
        check_packets(content)
        part = content.index(b"\xff\x90")
        (length,) = struct.unpack_from(">I", content, part + 6)
        for change in (-1, 1):
            end = part + length + min(change, 0)
            moved = content[:end] + bytes(max(change, 0)) + content[part + length :]
            verdict = verdict_of(patched(moved, part + 6, struct.pack(">I", length + change)))
            assert verdict.status in (Status.TRUNCATED, Status.DECODE_FAILED)
            assert "packet" in str(verdict.error)


@pytest.mark.parametrize("size", [0x50, 0x05, 0x00])
def test_precincts_of_one_sample_above_the_lowest_resolution_are_damage(size: int) -> None:
    """The standard allows them for the lowest one only (T.800, A.6.1). Fuzzing found that a file of them ended a run."""
    content = saved(
        draw_slice(3, 64, 64), format="JPEG2000", no_jp2=True, precinct_size=(32, 32), codeblock_size=(16, 16)
    )
    sizes = content.index(b"\xff\x52") + 14
    assert verdict_of(content).status is Status.OK
    verdict = verdict_of(patched(content, sizes + 1, bytes([size])))
    assert verdict.status is Status.DECODE_FAILED and "precincts of one sample" in str(verdict.error)
    with pytest.raises(Refused, match="precincts of one sample"):
        check_bare_packets(patched(content, sizes + 1, bytes([size])))


def test_zeros_between_two_packet_headers_are_told() -> None:
    content = saved(draw_slice(3, 200, 200), format="JPEG2000")
    data = data_of(content)
    middle = len(data.packed) * 2 // 3
    verdict = verdict_of(data.with_packed(patched(data.packed, middle, bytes(100))))
    assert verdict.status is Status.DECODE_FAILED and "stretch of 64 zero bytes" in str(verdict.error)


# --------------------------------------------------------------------------------------------------- JPEG and BMP


def test_a_progressive_jpeg_without_its_last_scans_is_truncated() -> None:
    """With an end marker behind each of its scans; only the last end is the image's own."""
    whole = KINDS["jpeg-progressive"](in_colour(draw_slice(1, 60, 50)))
    scans = []
    at = whole.find(b"\xff\xda")
    while at >= 0:
        scans.append(at)
        at = whole.find(b"\xff\xda", at + 2)
    tables = [whole.rfind(b"\xff\xc4", 0, scan) for scan in scans]
    assert len(scans) > 5
    for scan, table in zip(scans[1:], tables[1:], strict=True):
        before = table if table > scans[scans.index(scan) - 1] else scan
        verdict = verdict_of(whole[:before] + b"\xff\xd9")
        assert verdict.status is Status.TRUNCATED and "unfinished" in str(verdict.error)
    assert verdict_of(whole).status is Status.OK


def test_a_bmp_with_a_colour_that_its_palette_lacks_is_damaged() -> None:
    content = saved(draw_slice(1, 60, 50), format="BMP")
    used = struct.pack("<I", 40)
    offset = 14 + 40 + 4 * 40
    small = patched(patched(content[: 54 + 160] + content[54 + 1024 :], 46, used), 10, struct.pack("<I", offset))
    verdict = verdict_of(small)
    assert verdict.status is Status.DECODE_FAILED and "palette of 40 colours" in str(verdict.error)
    assert verdict_of(content).flags == ()


def test_flags_stay_with_a_refusal() -> None:
    tiff = tiff_of(draw_slice(1, 60, 50).astype(np.uint16), compression="lzw", rowsperstrip=60)
    verdict = verdict_of(patched(tiff, len(tiff) // 2, bytes(300)))
    assert verdict.status is not Status.OK
    assert (verdict.flags, verdict.bits, verdict.width) == ((Flag.SCALED_TO_8_BIT,), 16, 50)
