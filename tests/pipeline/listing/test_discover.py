"""Every file once, in a stable order, whatever the tree looks like."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mribatch.core.errors import MribatchError
from mribatch.pipeline.listing.discover import (
    Discovery,
    FoundFile,
    InputKind,
    SkipReason,
    has_candidate,
    resolve_inputs,
)


def found(
    *inputs: Path | str, from_file: str | None = None, excluded: Path | None = None, database: Path
) -> list[FoundFile]:
    with Discovery(resolve_inputs(inputs, from_file), database / "names.sqlite", excluded) as discovery:
        return list(discovery.files())


def listed(*inputs: Path | str, **options: object) -> list[bytes]:
    return [file.path for file in found(*inputs, **options) if file.skipped is None]  # type: ignore[arg-type]


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def test_order_is_the_raw_bytes_of_the_relative_path(tmp_path: Path) -> None:
    data = tmp_path / "data"
    make(data, "a/1.jpg", "a.jpg", "a0.jpg", "a-b/1.jpg", "B.jpg", "ä.jpg", "a/b/2.png")
    expected = sorted(["a/1.jpg", "a.jpg", "a0.jpg", "a-b/1.jpg", "B.jpg", "ä.jpg", "a/b/2.png"], key=str.encode)
    assert listed(data, database=tmp_path) == [name.encode() for name in expected]


@settings(max_examples=25, deadline=None)
@given(
    st.sets(
        st.lists(st.sampled_from(["a", "b", "a.jpg", "-", "Z", "é"]), min_size=1, max_size=3).map(tuple), max_size=12
    )
)
def test_any_tree_is_listed_sorted_and_whole(
    tmp_path_factory: pytest.TempPathFactory, tree: set[tuple[str, ...]]
) -> None:
    folder = tmp_path_factory.mktemp("tree")
    data = folder / "data"
    data.mkdir()
    for parts in tree:
        make(data, "/".join(parts[:-1] + (f"f_{parts[-1]}.jpg",)))
    walked = [os.fsencode(path.relative_to(data)) for path in data.rglob("f_*.jpg")]
    assert listed(data, database=folder) == sorted(walked)


def test_suffixes_in_any_case_are_candidates_and_others_are_skipped_with_a_reason(tmp_path: Path) -> None:
    data = tmp_path / "data"
    make(
        data,
        "a.JPG",
        "b.Jpeg",
        "c.jpe",
        "d.PNG",
        "e.bmp",
        "f.tif",
        "g.TIFF",
        "h.webp",
        "i.jp2",
        "notes.txt",
        "scan.dcm",
        "brain.nii.gz",
        "brain.NII",
        "README",
    )
    reasons = {file.path: file.skipped for file in found(data, database=tmp_path)}
    assert [name for name, reason in reasons.items() if reason is None] == [
        b"a.JPG",
        b"b.Jpeg",
        b"c.jpe",
        b"d.PNG",
        b"e.bmp",
        b"f.tif",
        b"g.TIFF",
        b"h.webp",
        b"i.jp2",
    ]
    assert reasons[b"scan.dcm"] is SkipReason.DICOM
    assert reasons[b"brain.nii.gz"] is reasons[b"brain.NII"] is SkipReason.NIFTI
    assert reasons[b"notes.txt"] is reasons[b"README"] is SkipReason.SUFFIX


def test_a_file_named_outright_is_a_candidate_whatever_its_name(tmp_path: Path) -> None:
    make(tmp_path, "scan.dat")
    assert listed(tmp_path / "scan.dat", database=tmp_path) == [b"scan.dat"]


def test_the_second_name_of_a_real_path_is_a_duplicate(tmp_path: Path) -> None:
    data = tmp_path / "data"
    make(data, "a.jpg", "sub/b.jpg")
    (data / "z.jpg").symlink_to("a.jpg")
    (data / "other").symlink_to("sub")
    files = found(data, data / "a.jpg", data / "sub", database=tmp_path)
    assert [(file.input, file.path) for file in files if file.skipped is None] == [(0, b"a.jpg"), (0, b"other/b.jpg")]
    assert [(file.input, file.path) for file in files if file.skipped is SkipReason.DUPLICATE] == [
        (0, b"sub/b.jpg"),
        (0, b"z.jpg"),
        (1, b"a.jpg"),
        (2, b"b.jpg"),
    ]


def test_hard_links_are_files_of_their_own(tmp_path: Path) -> None:
    data = tmp_path / "data"
    make(data, "a.jpg")
    (data / "b.jpg").hardlink_to(data / "a.jpg")
    assert listed(data, database=tmp_path) == [b"a.jpg", b"b.jpg"]


def test_symlink_loops_end(tmp_path: Path) -> None:
    data = tmp_path / "data"
    make(data, "a/x.jpg")
    (data / "a" / "self").symlink_to(".")
    (data / "a" / "up").symlink_to("..")
    (data / "loop.jpg").symlink_to("loop.jpg")
    files = found(data, database=tmp_path)
    assert [file.path for file in files if file.skipped is None] == [b"a/x.jpg", b"loop.jpg"]
    assert {file.path for file in files if file.skipped is SkipReason.SYMLINK_LOOP} == {b"a/self/", b"a/up/"}


def test_folders_linked_to_each_other_do_not_explode(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for level in range(12):
        (data / f"d{level:02d}").mkdir(parents=True)
        if level:
            for name in ("left", "right"):
                (data / f"d{level - 1:02d}" / name).symlink_to(f"../d{level:02d}")
    make(data, "d11/x.jpg")
    files = found(data, database=tmp_path)
    assert sum(file.skipped is None for file in files) == 1
    assert len(files) < 1000  # 2**11 ways lead to x.jpg


def test_the_output_folder_inside_the_input_is_left_out(tmp_path: Path) -> None:
    data = tmp_path / "data"
    make(data, "a.jpg", "out/figures/curve.png")
    assert listed(data, database=tmp_path, excluded=data / "out") == [b"a.jpg"]


def test_patterns_match_below_their_fixed_folder(tmp_path: Path) -> None:
    data = tmp_path / "data"
    make(data, "p1/a.jpg", "p2/a.jpg", "p2/notes.txt", "q/a.jpg")
    assert listed(str(data / "p*"), database=tmp_path) == [b"p1/a.jpg", b"p2/a.jpg"]
    assert listed(str(data / "p?" / "*"), database=tmp_path) == [b"p1/a.jpg", b"p2/a.jpg"]
    assert listed(str(data / "**" / "*.jpg"), database=tmp_path) == [b"p1/a.jpg", b"p2/a.jpg", b"q/a.jpg"]


def test_an_existing_name_with_brackets_is_no_pattern(tmp_path: Path) -> None:
    make(tmp_path, "image[1].jpg", "image1.jpg")
    (item,) = resolve_inputs([tmp_path / "image[1].jpg"])
    assert item.kind is InputKind.FILE


def test_a_list_keeps_its_order_and_its_missing_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path, "data/b.jpg", "data/a.jpg", "more/c.jpg", "more/d.txt")
    (tmp_path / "list").write_text("data/b.jpg\r\n\ndata/gone.jpg\ndata/a.jpg\nmore\n")
    assert listed(from_file="list", database=tmp_path) == [
        b"data/b.jpg",
        b"data/gone.jpg",
        b"data/a.jpg",
        b"more/c.jpg",
    ]


def test_a_list_with_nul_bytes_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"a.jpg\nb.jpg\0c.jpg\n")
    with pytest.raises(MribatchError, match=r"line 2 of the list .* holds a NUL byte\. Fix: give one path per line"):
        listed(from_file=str(tmp_path / "list"), database=tmp_path)


def test_names_that_are_not_utf_8_are_listed_as_they_are(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with open(bytes(data) + b"/\xff\xe9.jpg", "wb"):
        pass
    assert listed(data, database=tmp_path) == [b"\xff\xe9.jpg"]


def test_an_unreadable_folder_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    make(data, "a.jpg", "locked/b.jpg")
    really = os.scandir

    # Root may read everything, so the refusal is simulated.
    def refuse(path: bytes) -> AbstractContextManager[Iterator[os.DirEntry[bytes]]]:
        if path.endswith(b"locked"):
            raise PermissionError(13, "Permission denied")
        return really(path)

    monkeypatch.setattr(os, "scandir", refuse)
    files = found(data, database=tmp_path)
    assert [(file.path, file.skipped, file.detail) for file in files] == [
        (b"a.jpg", None, None),
        (b"locked/", SkipReason.UNREADABLE_FOLDER, "Permission denied"),
    ]


def test_the_database_is_gone_afterwards_and_an_old_one_does_not_matter(tmp_path: Path) -> None:
    make(tmp_path, "data/a.jpg")
    (tmp_path / "names.sqlite").write_bytes(b"left by a killed process")
    assert listed(tmp_path / "data", database=tmp_path) == [b"a.jpg"]
    assert not (tmp_path / "names.sqlite").exists()


@pytest.mark.parametrize(
    ("inputs", "from_file", "text"),
    [
        ([], None, "there is nothing to classify. Fix: name a folder, files or a pattern, or give a list of files"),
        (["gone"], None, "there is no file or folder 'gone'. Fix: check the path and the current folder"),
        (
            ["gone/*.jpg"],
            None,
            "the pattern 'gone/*.jpg' matches nothing. Fix: check the pattern and the current folder",
        ),
        ([], "gone.txt", "there is no list 'gone.txt'. Fix: give a text file with one path per line, or -"),
    ],
)
def test_inputs_that_are_not_there_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: list[str], from_file: str | None, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MribatchError) as caught:
        resolve_inputs(inputs, from_file)
    assert str(caught.value) == text


def test_too_many_inputs_name_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(
        MribatchError, match=r"32,768 inputs are more than the 32,767 allowed\. Fix: give the names in a list"
    ):
        resolve_inputs([tmp_path] * 32_768)


def test_has_candidate_looks_for_one_image(tmp_path: Path) -> None:
    make(tmp_path, "empty/notes.txt", "full/deep/a.jpg", "out/a.jpg")
    assert not has_candidate(resolve_inputs([tmp_path / "empty"]), None)
    assert has_candidate(resolve_inputs([tmp_path / "full"]), None)
    assert not has_candidate(resolve_inputs([tmp_path / "out"]), tmp_path / "out")
