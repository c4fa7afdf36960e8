"""Tar and zip files: members are found and read in place, and archives of strangers do no harm."""

import io
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mribatch.pipeline.storage import content as content_module
from mribatch.pipeline.storage.address import Member, of_member
from mribatch.pipeline.storage.archive import ArchiveDamage, ArchiveEntry, list_archive
from mribatch.pipeline.storage.content import MemberError, has_changed, read_beginning, read_content
from tests.pipeline.storage.archives import write_tar, write_zip

FILES = {"glioma_tumor/a.jpg": b"first" * 300, "no_tumor/b.png": b"", "c.bmp": bytes(range(256)) * 9}
WRITERS = {"x.tar": write_tar, "x.zip": write_zip}


def read_all(archive: Path) -> dict[str, bytes]:
    name = str(archive).encode()
    return {
        entry.name.decode(): read_content(of_member(name, entry.member)).data
        for entry in list_archive(name)
        if entry.member is not None
    }


def entries(archive: Path) -> dict[bytes, ArchiveEntry]:
    return {entry.name: entry for entry in list_archive(str(archive).encode())}


@pytest.mark.parametrize("name", WRITERS)
def test_members_are_read_in_place(tmp_path: Path, name: str) -> None:
    assert read_all(WRITERS[name](tmp_path / name, FILES)) == FILES
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_zip_file_without_compression_is_read(tmp_path: Path) -> None:
    assert read_all(write_zip(tmp_path / "x.zip", FILES, zipfile.ZIP_STORED)) == FILES


@given(
    st.dictionaries(
        st.from_regex(r"[a-zäöü0-9 _-]{1,60}(/[a-zäöü0-9 _-]{1,120}){0,2}\.(jpg|png)", fullmatch=True),
        st.binary(max_size=3000),
        max_size=6,
    )
)
@settings(max_examples=40, deadline=None)
def test_what_is_packed_is_read(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    folder = tmp_path_factory.mktemp("packed")
    for name, write in WRITERS.items():
        assert read_all(write(folder / name, files)) == files


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_of_every_kind_of_tar_are_read(tmp_path: Path, kind: int) -> None:
    name = "/".join(["folder" * 5] * 4) + "/slice.jpg"
    with tarfile.open(tmp_path / "x.tar", "w", format=kind) as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    assert read_all(tmp_path / "x.tar") == {name: b""}


def test_a_tar_file_that_begins_its_names_with_a_dot_has_the_names_of_its_folder(tmp_path: Path) -> None:
    assert list(entries(write_tar(tmp_path / "x.tar", {"./a/b.jpg": b"1"}))) == [b"a/b.jpg"]


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("evil", ["../out.jpg", "a/../../out.jpg", "/etc/out.jpg", "C:/out.jpg", "..\\out.jpg"])
def test_a_name_that_leads_out_of_the_archive_is_no_member(tmp_path: Path, name: str, evil: str) -> None:
    (found,) = entries(WRITERS[name](tmp_path / name, {evil: b"x"})).values()
    assert found.member is None and found.problem == "a name that leads out of the archive"
    assert not found.name.startswith(b"/")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_are_not_followed(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        info = tarfile.TarInfo("link.jpg")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    assert entries(tmp_path / "x.tar")[b"link.jpg"].problem == "a link in an archive, which is not followed"


def test_a_link_in_a_zip_file_is_not_followed(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        info = zipfile.ZipInfo("link.jpg")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    assert entries(tmp_path / "x.zip")[b"link.jpg"].problem == "a link in an archive, which is not followed"


def test_devices_are_no_members(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        info = tarfile.TarInfo("zero.jpg")
        info.type = tarfile.CHRTYPE
        archive.addfile(info)
    assert entries(tmp_path / "x.tar")[b"zero.jpg"].problem == "neither a file nor a folder"


def cut(keep: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:keep]


def flip(place: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("x.tar", cut(700), "ends inside a member|unexpected end"),
        ("x.tar", flip(100), "bad checksum|invalid header"),
        ("x.tar", flip(2048 + 150), "no header where one should be"),
        ("x.tar", lambda content: b"", "empty"),
        ("x.tar", lambda content: b"hello", "truncated|header"),
        ("x.zip", cut(200), "not a zip file"),
        ("x.zip", lambda content: b"", "not a zip file"),
        ("x.zip", lambda content: content[:-22] + bytes(22), "not a zip file"),
    ],
)
def test_damage_ends_the_list_with_a_reason(
    tmp_path: Path, name: str, damage: Callable[[bytes], bytes], reason: str
) -> None:
    path = WRITERS[name](tmp_path / name, FILES)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ArchiveDamage, match=reason) as caught:
        list(list_archive(str(path).encode()))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_members_before_the_damage_are_read_and_the_last_is_cut(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", FILES)
    path.write_bytes(path.read_bytes()[:1000])
    name, found = str(path).encode(), list[ArchiveEntry]()
    with pytest.raises(ArchiveDamage):
        found.extend(list_archive(name))
    first = next(list_archive(name))
    assert first.member is not None
    assert read_content(of_member(name, first.member)).data == FILES["glioma_tumor/a.jpg"][:488]


def test_a_header_that_claims_a_gigabyte_does_not_fill_the_memory(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    with (tmp_path / "x.tar").open("wb") as stream:
        stream.write(info.tobuf(tarfile.GNU_FORMAT))
        stream.truncate(2 << 30)
    with pytest.raises(ArchiveDamage, match=r"a header claims 1,073,741,824 bytes"):
        list(list_archive(str(tmp_path / "x.tar").encode()))


def test_headers_of_headers_end(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 512
    (tmp_path / "x.tar").write_bytes((info.tobuf(tarfile.GNU_FORMAT) + b"x" * 512) * 3000)
    with pytest.raises(ArchiveDamage):
        list(list_archive(str(tmp_path / "x.tar").encode()))


def zip_member(path: Path) -> Member:
    (entry,) = entries(path).values()
    assert entry.member is not None
    return entry.member


def test_a_member_that_grows_beyond_what_it_claims_is_not_unpacked(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"bomb.bmp": bytes(50 << 20)})
    member = zip_member(path)
    liar = Member(member.kind, member.offset, 1000, member.stored, member.method, member.crc)
    with pytest.raises(MemberError, match="not those that its archive was made of"):
        read_content(of_member(str(path).encode(), liar))


def test_a_member_that_claims_too_much_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_module, "MAX_MEMBER_BYTES", 1 << 20)
    path = write_zip(tmp_path / "x.zip", {"bomb.bmp": bytes((1 << 20) + 1)})
    with pytest.raises(OSError, match="the limit in an archive is 1,048,576"):
        read_content(of_member(str(path).encode(), zip_member(path)))


def test_an_encrypted_member_says_so(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"a.jpg": b"secret"})
    content = bytearray(path.read_bytes())
    directory = content.index(b"PK\x01\x02")
    for place in (6, directory + 8):  # the flags of the local header and of the directory
        content[place] |= 1
    path.write_bytes(content)
    with pytest.raises(MemberError, match="it is encrypted in its archive"):
        read_content(of_member(str(path).encode(), zip_member(path)))


def test_a_method_that_is_not_read_is_named(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"a.jpg": b"x" * 100}, zipfile.ZIP_LZMA)
    with pytest.raises(MemberError, match="a method that is not read"):
        read_content(of_member(str(path).encode(), zip_member(path)))


@pytest.mark.parametrize("place", [35, 60])
def test_damage_inside_a_zip_member_is_found(tmp_path: Path, place: int) -> None:
    path = write_zip(tmp_path / "x.zip", {"a.jpg": bytes(range(256)) * 4})
    path.write_bytes(flip(place)(path.read_bytes()))
    with pytest.raises(MemberError):
        read_content(of_member(str(path).encode(), zip_member(path)))


def test_a_directory_that_points_elsewhere_is_found(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"a.jpg": b"x" * 100})
    content = bytearray(path.read_bytes())
    struct.pack_into("<L", content, content.index(b"PK\x01\x02") + 42, 7)
    path.write_bytes(content)
    with pytest.raises(MemberError, match="no such member where the directory says"):
        read_content(of_member(str(path).encode(), zip_member(path)))


def test_a_local_header_longer_than_usual_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        info = zipfile.ZipInfo("a.jpg")
        info.extra = struct.pack("<HH", 0xCAFE, 4000) + bytes(4000)
        archive.writestr(info, b"content")
    assert read_all(tmp_path / "x.zip") == {"a.jpg": b"content"}


def test_a_zip_file_after_other_bytes_is_read(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", FILES)
    path.write_bytes(b"#!/bin/sh\n" * 50 + path.read_bytes())
    assert read_all(path) == FILES


def test_the_beginning_of_a_member_is_read(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"a.jpg": b"0123456789"})
    assert read_beginning(of_member(str(path).encode(), zip_member(path)), 4) == b"0123"


def test_an_archive_that_was_written_again_is_seen(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", {"a.jpg": b"1"})
    (entry,) = entries(path).values()
    assert entry.member is not None
    location, listed = of_member(str(path).encode(), entry.member), (1, path.stat().st_mtime_ns)
    assert not has_changed(location, listed)
    assert has_changed(location, (1, listed[1] - 1))
