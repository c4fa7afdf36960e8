"""One request at a time against a real S3 server, also where it throttles, hangs, refuses or is not there."""

import io
import threading
import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mribatch.pipeline.storage import store
from mribatch.pipeline.storage.address import Address, Member, of_member
from mribatch.pipeline.storage.archive import list_archive
from mribatch.pipeline.storage.content import differs, digest_content, read_beginning, read_content
from mribatch.pipeline.storage.store import (
    StoreError,
    check_bucket,
    delete_object,
    list_folder,
    look_up,
    open_object,
    put_object,
    read_object,
    walk_files,
)
from tests.pipeline.storage.archives import write_tar, write_zip
from tests.storage_server import DENIED, REDIRECT, SLOW_DOWN, S3Server, misbehaving


def put(bucket: str, key: str, content: bytes) -> Address:
    address = Address("s3", bucket, key)
    put_object(address, content)
    return address


def test_what_is_put_is_found_listed_read_and_deleted(bucket: str) -> None:
    address = put(bucket, "a/b.jpg", b"0123456789")
    facts = look_up(address)
    assert facts is not None and (facts.size, facts.is_folder) == (10, False)
    assert read_object(address).data == b"0123456789"
    assert read_object(address, 3, 4).data == b"3456"
    assert read_object(address, 8, 100).data == b"89"
    assert read_object(address, 20, 100).data == b""
    assert [(name, one.is_folder) for name, one in list_folder(Address("s3", bucket, ""))] == [("a", True)]
    assert [name for name, _ in walk_files(Address("s3", bucket, ""))] == ["a/b.jpg"]
    delete_object(address)
    delete_object(address)
    assert look_up(address) is None


@given(key=st.text(st.characters(exclude_characters="/\\?", min_codepoint=32, exclude_categories=("Cs", "Cc")), min_size=1, max_size=30))  # fmt: skip
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_key_of_any_letters_is_found_again(bucket: str, key: str) -> None:
    if key in (".", ".."):
        return
    address = put(bucket, f"keys/{key}", key.encode())
    assert read_content(str(address).encode()).data == key.encode()
    assert key in dict(list_folder(address.parent))
    delete_object(address)


def test_an_object_says_whether_it_is_the_one_that_was_listed(bucket: str) -> None:
    address = put(bucket, "a.jpg", b"first")
    ((_, facts),) = walk_files(Address("s3", bucket, ""))
    assert facts.mtime_ns is not None
    location, listed = str(address).encode(), (facts.size, facts.mtime_ns)
    assert not differs(read_content(location).facts, location, listed)
    put_object(address, b"second")
    assert differs(read_content(location).facts, location, listed)


def test_an_object_is_read_as_a_stream(bucket: str) -> None:
    address = put(bucket, "names.txt", b"one\ntwo\n" * 1000)
    with open_object(address) as stream:
        assert stream.readline() == b"one\n"
        stream.seek(-4, io.SEEK_END)
        assert stream.read() == b"two\n"


@pytest.mark.parametrize("write", [write_tar, write_zip])
def test_members_of_an_archive_in_a_store_are_read_in_place(bucket: str, tmp_path: Path, write: object) -> None:
    files = {"a/1.jpg": b"x" * 5000, "b/2.jpg": bytes(range(256))}
    path = write(tmp_path / ("x.tar" if write is write_tar else "x.zip"), files)  # type: ignore[operator]
    location = str(put(bucket, path.name, path.read_bytes())).encode()
    found = {entry.name.decode(): entry.member for entry in list_archive(location)}
    assert {name: read_content(of_member(location, member)).data for name, member in found.items() if member} == files


def test_the_listing_of_a_tar_file_does_not_ask_for_each_header(
    s3: S3Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tar(tmp_path / "x.tar", {f"{number}.jpg": b"x" * 2000 for number in range(400)})
    put(bucket, "x.tar", path.read_bytes())
    with misbehaving(s3) as (proxy, faults):
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        assert len(list(list_archive(f"s3://{bucket}/x.tar".encode()))) == 400
        assert len(faults.requests) < 12


def test_a_folder_that_is_not_there_is_nothing(bucket: str) -> None:
    assert look_up(Address("s3", bucket, "none")) is None
    with pytest.raises(StoreError, match="there is no such object") as caught:
        read_object(Address("s3", bucket, "none"))
    assert caught.value.fix == "check the address"


def test_a_bucket_that_does_not_exist_is_named(s3: S3Server) -> None:
    with pytest.raises(StoreError, match="the bucket s3://no-such-bucket does not exist"):
        check_bucket(Address("s3", "no-such-bucket", "x"))
    with pytest.raises(StoreError):
        put_object(Address("s3", "no-such-bucket", "x"), b"")


def test_an_object_that_is_too_large_is_not_read(bucket: str) -> None:
    with pytest.raises(StoreError, match="it has 100 bytes; the limit is 99"):
        read_object(put(bucket, "x", bytes(100)), limit=99)


def test_the_hash_and_the_beginning_of_an_object(bucket: str) -> None:
    location = str(put(bucket, "x", b"abc")).encode()
    assert digest_content(location) == (3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    assert read_beginning(location, 2) == b"ab"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(store, "_LONGEST_PAUSE_S", 0.05)


def test_a_store_that_throttles_is_asked_again(
    s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    address = put(bucket, "x", b"content")
    with misbehaving(s3) as (proxy, faults):
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        refusals = iter(range(6))
        faults.answer = lambda method, path: (503, SLOW_DOWN) if next(refusals, None) is not None else None
        assert read_object(address).data == b"content"
        assert len(faults.requests) == 8
        refusals = iter(range(6))
        put_object(address, b"new")
    assert read_object(address).data == b"new"


def test_a_store_that_hangs_is_asked_again(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_REQUEST_S", 1)
    address = put(bucket, "x", b"content")
    with misbehaving(s3) as (proxy, faults):
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        hanging = iter([30.0])
        faults.delay_s = lambda method, path: next(hanging, 0.0)
        begin = time.monotonic()
        assert read_object(address).data == b"content"
        assert time.monotonic() - begin < 25, "it waited for the answer that did not come"


def test_a_store_that_never_answers_is_given_up(
    s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    with misbehaving(s3) as (proxy, faults):
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        faults.answer = lambda method, path: (503, SLOW_DOWN)
        with pytest.raises(StoreError, match="does not answer as it should") as caught:
            look_up(Address("s3", bucket, "x"), patience_s=0.3)
    assert caught.value.may_pass


@pytest.mark.parametrize(
    ("status", "body", "headers", "reason", "fix"),
    [
        (403, DENIED, {}, "refuses access", "check the credentials"),
        (301, REDIRECT, {"x-amz-bucket-region": "eu-west-1"}, "region", "set AWS_REGION"),
    ],
)
def test_what_does_not_pass_is_said_at_once(
    s3: S3Server,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    body: bytes,
    headers: dict[str, str],
    reason: str,
    fix: str,
) -> None:
    with misbehaving(s3) as (proxy, faults):
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        faults.answer, faults.headers = lambda method, path: (status, body), headers
        for ask in (look_up, read_object, lambda address: list(list_folder(address))):
            with pytest.raises(StoreError, match=reason) as caught:
                ask(Address("s3", bucket, "x"))
            assert caught.value.fix.startswith(fix) and not caught.value.may_pass
        assert len(faults.requests) <= 6


def test_a_scheme_that_nobody_knows_is_named() -> None:
    with pytest.raises(StoreError, match="nonsense:// cannot be opened"):
        look_up(Address("nonsense", "host", "x"))


def test_hadoop_without_its_libraries_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JAVA_HOME", "HADOOP_HOME", "ARROW_LIBHDFS_DIR"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StoreError) as caught:
        look_up(Address("hdfs", "namenode:8020", "data"), patience_s=1)
    assert "Hadoop" in str(caught.value) and "HADOOP_HOME" in caught.value.fix


def test_another_scheme_goes_through_fsspec() -> None:
    pytest.importorskip("fsspec")
    address = Address("memory", "box", "a/b.jpg")
    put_object(address, b"abc")
    assert read_object(address).data == b"abc"
    assert [name for name, _ in walk_files(Address("memory", "box", ""))] == ["a/b.jpg"]
    delete_object(address)
    assert look_up(address) is None


def test_an_object_is_put_as_it_is_whatever_its_name(bucket: str) -> None:
    for name in ("a.gz", "a.nii.gz", "a.bz2", "a.zst"):
        assert read_object(put(bucket, name, b"content")).data == b"content"


def test_many_threads_read_at_once(bucket: str) -> None:
    addresses = [put(bucket, str(number), b"%d" % number) for number in range(20)]
    found: dict[int, bytes] = {}

    def read(number: int) -> None:
        found[number] = read_object(addresses[number]).data

    threads = [threading.Thread(target=read, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: b"%d" % number for number in range(20)}


def test_a_member_of_an_archive_that_was_replaced_is_seen(bucket: str, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"a.jpg": b"abc"}, zipfile.ZIP_STORED)
    address = put(bucket, "x.zip", path.read_bytes())
    facts = look_up(address)
    (entry,) = list_archive(str(address).encode())
    assert facts is not None and facts.mtime_ns is not None and isinstance(entry.member, Member)
    location = of_member(str(address).encode(), entry.member)
    assert not differs(read_content(location).facts, location, (3, facts.mtime_ns))
    assert differs(read_content(location).facts, location, (3, facts.mtime_ns - 1))
