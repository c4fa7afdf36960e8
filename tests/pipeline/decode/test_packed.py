"""LZW, PackBits and Deflate against the encoders of imagecodecs; and that hostile pieces neither crash nor grow."""

import zlib

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mribatch.core.synthetic import draw_slice
from mribatch.pipeline.decode.packed import Damaged, OldLzw, unpack_deflate, unpack_lzw, unpack_packbits

few_values = st.lists(st.sampled_from([0, 1, 255]), max_size=3000).map(bytes)
contents = st.one_of(st.binary(max_size=3000), few_values)


@given(content=contents)
def test_what_was_packed_is_unpacked(content: bytes) -> None:
    size = len(content)
    if content:  # imagecodecs packs nothing to nothing
        assert unpack_lzw(bytes(imagecodecs.lzw_encode(content)), size).tobytes() == content
        assert unpack_packbits(bytes(imagecodecs.packbits_encode(content)), size, size).tobytes() == content
    assert unpack_deflate(zlib.compress(content), size).tobytes() == content


@pytest.mark.parametrize("kind", ["slice", "noise", "flat", "ramp"])
def test_pieces_of_many_tables(kind: str) -> None:
    """A table of LZW ends after 3,837 codes; flat pictures have strings of up to that many bytes."""
    pixels = {
        "slice": draw_slice(0, 300, 300),
        "noise": np.random.default_rng(0).integers(0, 256, (300, 300)).astype(np.uint8),
        "flat": np.zeros((700, 700), np.uint8),
        "ramp": np.tile(np.arange(250, dtype=np.uint8), (300, 1)),
    }[kind]
    packed = bytes(imagecodecs.lzw_encode(pixels.tobytes()))
    assert unpack_lzw(packed, pixels.size).tobytes() == pixels.tobytes()


@given(piece=st.binary(max_size=600), most=st.integers(0, 5000))
def test_any_bytes_are_unpacked_or_refused(piece: bytes, most: int) -> None:
    for begun in (piece, b"\x80" + piece, b"\x80\0" + piece, b"\x78\x9c" + piece):
        for unpack in (unpack_lzw, unpack_deflate, lambda data, limit: unpack_packbits(data, limit, 50)):
            try:
                assert len(unpack(begun, most)) <= most
            except (Damaged, OldLzw):
                continue


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    zeros = bytes(1_000_000)
    for unpack, packed in (
        (unpack_lzw, imagecodecs.lzw_encode(zeros)),
        (unpack_deflate, zlib.compress(zeros)),
        (lambda data, most: unpack_packbits(data, most, most), imagecodecs.packbits_encode(zeros)),
    ):
        with pytest.raises(Damaged, match="more than its 1,000 bytes"):
            unpack(bytes(packed), 1000)


def test_more_codes_than_a_table_can_have() -> None:
    codes = np.full(6000, 7)
    widths = [9] * 254 + [10] * 512 + [11] * 1024 + [12] * (6000 - 1790)
    bits = "100000000" + "".join(f"{code:0{width}b}" for code, width in zip(codes, widths, strict=True))
    piece = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
    with pytest.raises(Damaged, match="without a new table"):
        unpack_lzw(piece, 10**6)
