"""Unpacking piece by piece agrees with Python's gzip, and breaks off where it must."""

import gzip
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mribatch.pipeline.studies.gzip_stream import GzipError, GzipStream


@given(
    st.lists(st.binary(max_size=300), min_size=1, max_size=4), st.integers(1, 200), st.sampled_from([b"", b"\0" * 9])
)
def test_members_are_one_stream(parts: list[bytes], size: int, padding: bytes) -> None:
    packed = padding.join(gzip.compress(part) for part in parts) + padding
    stream = GzipStream(io.BytesIO(packed))
    read = b""
    while True:
        target = bytearray(size)
        got = stream.read_into(memoryview(target))
        read += target[:got]
        if got < size:
            break
    assert read == b"".join(parts) == gzip.decompress(packed)
    assert stream.position == len(read)
    assert stream.read_into(memoryview(bytearray(3))) == 0


def test_a_large_and_very_small_stream() -> None:
    stream = GzipStream(io.BytesIO(gzip.compress(bytes(50_000_000))))
    assert stream.skip(60_000_000) == 50_000_000


def test_bytes_after_the_last_member_are_ignored() -> None:
    stream = GzipStream(io.BytesIO(gzip.compress(b"abc") + b"junk"))
    assert stream.skip(10) == 3
    assert stream.skip(10) == 0


@given(st.integers(0, 39))
def test_a_cut_stream(kept: int) -> None:
    packed = gzip.compress(bytes(range(20)))[:kept]
    with pytest.raises(GzipError) as raised:
        GzipStream(io.BytesIO(packed)).skip(21)
    assert raised.value.cut


def test_a_wrong_check_sum() -> None:
    packed = bytearray(gzip.compress(b"abcdef"))
    packed[-6] ^= 1
    with pytest.raises(GzipError) as raised:
        GzipStream(io.BytesIO(packed)).skip(100)
    assert not raised.value.cut
