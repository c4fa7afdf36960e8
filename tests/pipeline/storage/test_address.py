"""Addresses, members of archives, and how names are joined."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mribatch.core.errors import OptionError
from mribatch.pipeline.storage.address import (
    Address,
    Member,
    is_address,
    join,
    local_path,
    locate,
    of_member,
    place_in_archive,
    split_member,
)

LETTERS = st.characters(exclude_characters="/\0?", codec="utf-8")
NAMES = st.text(LETTERS, min_size=1).filter(lambda name: name not in (".", ".."))
KEYS = st.lists(NAMES, max_size=4).map("/".join)
BUCKETS = st.from_regex(r"[a-z0-9][a-z0-9.-]{1,20}[a-z0-9]", fullmatch=True)
LOCAL_NAMES = st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name and not name.startswith(b"/"))
MEMBERS = st.builds(
    Member,
    st.sampled_from(["tar", "zip"]),
    st.integers(0, 1 << 60),
    st.integers(0, 1 << 60),
    st.integers(0, 1 << 60),
    st.sampled_from(["stored", "deflated", "encrypted", "unknown"]),
    st.integers(0, (1 << 32) - 1),
)


@given(st.sampled_from(["s3", "gs", "hdfs", "abfs"]), BUCKETS, KEYS)
def test_an_address_is_written_as_it_was_read(scheme: str, bucket: str, key: str) -> None:
    address = Address(scheme, bucket, key)
    assert Address.parse(str(address)) == address
    assert is_address(str(address))


@given(BUCKETS, KEYS, KEYS.filter(bool))
def test_names_below_an_address_are_joined_as_text_and_as_bytes_alike(bucket: str, key: str, name: str) -> None:
    root = Address("s3", bucket, key)
    joined = join(str(root).encode(), name.encode())
    assert Address.parse(joined) == root / name
    assert (root / name).name == name.rpartition("/")[2]
    assert (root / name).parent / (root / name).name == root / name


@given(LOCAL_NAMES.filter(lambda name: not is_address(name)))
def test_local_names_are_joined_as_the_system_does(name: bytes) -> None:
    assert join(b"/data", name) == os.path.join(b"/data", name)


@given(MEMBERS, LOCAL_NAMES, LOCAL_NAMES)
def test_a_member_is_found_again_from_what_the_listing_says(member: Member, archive: bytes, inside: bytes) -> None:
    if is_address(archive):
        return
    place = place_in_archive(archive, member)
    location = locate(b"/data", archive + b"/" + inside, place)
    assert location == of_member(os.path.join(b"/data", archive), member)
    assert split_member(location) == (os.path.join(b"/data", archive), member)


@pytest.mark.parametrize(
    "place", ["", "x tar 0 1 1 stored 0", "99 tar 0 1 1 stored 0", "1 rar 0 1 1 stored 0", "1 tar -1"]
)
def test_a_place_that_no_listing_of_ours_holds_is_refused(place: str) -> None:
    with pytest.raises(ValueError, match="no place in an archive"):
        locate(b"/data", b"a.tar/x", place)


def test_what_pathlib_makes_of_an_address_is_the_same_address() -> None:
    assert Address.parse("s3:/bucket/a/b") == Address.parse("s3://bucket/a/b/") == Address("s3", "bucket", "a/b")
    assert str(Address.parse("hdfs:///data/x")) == "hdfs:///data/x"


@pytest.mark.parametrize("path", ["/data/x", "data/x", "C:/data", "C:\\data", "run:1/a", "file:///data/x", "x.tar"])
def test_paths_are_no_addresses(path: str) -> None:
    assert not is_address(path)


def test_an_address_of_a_file_is_a_path() -> None:
    assert local_path("file:///data/x") == "/data/x"
    assert local_path("data/x") == "data/x"
    with pytest.raises(OptionError, match="another host"):
        local_path("file://server/data")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("s3://key:secret@bucket/x", "a password, which would be recorded"),
        ("s3://bucket/x?endpoint_override=http://y", "parameters, which are not read"),
        ("s3://", "names no bucket"),
    ],
)
def test_addresses_that_would_mislead_are_refused(text: str, problem: str) -> None:
    with pytest.raises(OptionError, match=problem) as caught:
        Address.parse(text)
    assert "secret" not in str(caught.value)
