"""One way to open a file, an object or a member: whatever is read of it, in whatever order, are its bytes."""

import io
import random
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mribatch.pipeline.storage.address import of_member
from mribatch.pipeline.storage.archive import list_archive
from mribatch.pipeline.storage.content import MAX_MEMBER_BYTES, MemberError, digest_content, read_content
from mribatch.pipeline.storage.source import ByteSource, HeldSource, LocalSource, as_a_whole, in_pieces
from tests.pipeline.storage.archives import write_tar, write_zip
from tests.storage_server import S3Server, misbehaving

WRITERS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "x.tar": write_tar,
    "x.zip": write_zip,
    "stored.zip": lambda path, files: write_zip(path, files, zipfile.ZIP_STORED),
}
BORDER = 64 << 10  # the first piece


def members(archive: bytes) -> dict[str, bytes]:
    """Name -> location of each member."""
    return {one.name.decode(): of_member(archive, one.member) for one in list_archive(archive) if one.member}


def check(source: ByteSource, content: bytes, places: list[tuple[int, int]]) -> None:
    """Reading at these places, in this order, gives what is there."""
    with source.open() as stream:
        assert stream.seek(0, io.SEEK_END) == len(content)
        for place, size in places:
            stream.seek(place)
            assert stream.read(size) == content[place : place + size]
    with source.open() as stream:
        assert stream.read() == content
    for size in (0, 10, BORDER, BORDER + 1, len(content) + 1):
        assert source.beginning(size) == content[:size]


@given(
    size=st.sampled_from([0, 1, 1000, BORDER - 1, BORDER, BORDER + 1, 3 * BORDER + 7]),
    places=st.lists(st.tuples(st.integers(0, 4 * BORDER), st.integers(0, 2 * BORDER)), max_size=6),
    compressible=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_any_place_of_a_member_can_be_read(
    tmp_path_factory: pytest.TempPathFactory, size: int, places: list[tuple[int, int]], compressible: bool
) -> None:
    folder = tmp_path_factory.mktemp("archives")
    content = bytes(range(256)) * (size // 256 + 1) if compressible else random.Random(size).randbytes(size)
    files = {"before": b"x" * 700, "it": content[:size], "behind": b"y" * 700}
    for name, write in WRITERS.items():
        location = members(str(write(folder / name, files)).encode())["it"]
        for source in (in_pieces(location), as_a_whole(location)):
            check(source, files["it"], places)
            assert source.size_and_sha256() == digest_content(location)
    (folder / "it").write_bytes(files["it"])
    for source in (in_pieces(bytes(folder / "it")), as_a_whole(bytes(folder / "it"))):
        assert isinstance(source, LocalSource)
        check(source, files["it"], places)


@pytest.mark.parametrize("name", [None, *WRITERS])
def test_of_an_object_no_more_is_read_than_is_asked_for(
    s3: S3Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    content = random.Random(1).randbytes(40 * BORDER)
    if name is None:
        (tmp_path / "it").write_bytes(content)
    else:
        WRITERS[name](tmp_path / name, {"before": b"x" * 700, "it": content})
    s3.upload(tmp_path, bucket)
    location = f"s3://{bucket}/it".encode() if name is None else members(f"s3://{bucket}/{name}".encode())["it"]
    with misbehaving(s3) as (proxy, faults):
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        source = in_pieces(location)
        assert source.beginning(100) == content[:100]
        with source.open() as stream:
            assert stream.read(BORDER) == content[:BORDER]
        assert [method for method, _ in faults.requests].count("GET") == 1
        check(source, content, [(30 * BORDER, 50), (5, 2 * BORDER)])
        faults.requests.clear()
        whole = as_a_whole(location)
        check(whole, content, [(30 * BORDER, 50), (5, 2 * BORDER)])
        assert [method for method, _ in faults.requests].count("GET") == 1
    assert isinstance(whole, HeldSource) and whole.facts is not None


def test_the_header_of_a_large_member_takes_little_memory(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"it": bytes(100 << 20)})
    tracemalloc.start()
    assert in_pieces(members(bytes(path))["it"]).beginning(BORDER) == bytes(BORDER)
    assert tracemalloc.get_traced_memory()[1] < 2 << 20
    tracemalloc.stop()


def test_what_a_member_claims_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"it": b"content"})
    directory = bytearray(path.read_bytes())
    place = directory.index(b"PK\x01\x02") + 24  # the unpacked size
    directory[place : place + 4] = (MAX_MEMBER_BYTES + 1).to_bytes(4, "little")
    path.write_bytes(directory)
    source = in_pieces(members(bytes(path))["it"])
    assert source.beginning(3) == b"con", "which tells what it is"
    with pytest.raises(OSError, match="the limit in an archive is 268,435,456"):
        source.open()


def test_damage_is_an_error_of_the_system_whatever_it_hits(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"it": random.Random(1).randbytes(3000) + bytes(3000)})
    whole, location = path.read_bytes(), members(bytes(path))["it"]
    refused = 0
    for place in range(0, len(whole) - 200, 7):
        broken = bytearray(whole)
        broken[place] ^= 0x55
        path.write_bytes(broken if place % 2 else whole[:place])
        try:
            with in_pieces(location).open() as stream:
                stream.read()
        except OSError:
            refused += 1
    assert refused > 5
    path.write_bytes(b"other" + whole)
    with pytest.raises(MemberError, match="no such member where the directory says"):
        in_pieces(location)
    path.unlink()
    for ask in (in_pieces, as_a_whole, read_content):
        with pytest.raises(FileNotFoundError):
            ask(location)


@pytest.mark.parametrize("read", [read_content, digest_content, in_pieces, as_a_whole])
def test_a_location_that_somebody_made_up_gives_no_bytes(read: Callable[[bytes], object]) -> None:
    """As from a run.json whose root has a NUL byte: `verify --inputs` ended in a traceback."""
    with pytest.raises(MemberError, match="'b/slice.jpg' is no place in an archive"):
        read(b"/data/a\0b/slice.jpg")
