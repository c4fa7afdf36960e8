"""Every file once, in a stable order, whatever the tree looks like."""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mribatch.core.errors import MribatchError
from mribatch.pipeline.listing.discover import (
    RANGE_SAMPLES,
    Discovery,
    FoundFile,
    InputKind,
    count_by_name,
    has_candidate,
    is_sampled,
    other_files,
    resolve_inputs,
)
from mribatch.pipeline.listing.entry import SkipReason
from mribatch.pipeline.listing.headers import HeaderReader, Look
from mribatch.pipeline.listing.patterns import PathPatterns
from mribatch.pipeline.studies.options import HeaderOptions
from mribatch.pipeline.studies.pseudonyms import Pseudonyms

APPLE_DOUBLE = bytes.fromhex("00051607") + b"\0" * 4092


def found(
    *inputs: Path | str,
    from_file: str | None = None,
    null: bool = False,
    excluded: Path | None = None,
    patterns: Sequence[str] = (),
    database: Path,
) -> list[FoundFile]:
    resolved = resolve_inputs(inputs, from_file, null=null)
    headers = HeaderReader(HeaderOptions(max_pixels=10**8), Pseudonyms(b"k" * 32), threads=2, timeout_s=60)
    with Discovery(resolved, database / "names.sqlite", excluded, PathPatterns(patterns), headers) as discovery:
        return list(discovery.files())


def skipped(*inputs: Path | str, **options: object) -> dict[bytes, tuple[str, str | None]]:
    files = found(*inputs, **options)  # type: ignore[arg-type]
    return {file.path: (file.skipped.value, file.detail) for file in files if file.skipped is not None}


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
        "scan.dcm",  # not DICOM by its content, but named like it: it earns a row that says so
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
        b"scan.dcm",
    ]
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


def test_a_list_may_come_through_a_pipe_and_is_the_same_input_next_time(tmp_path: Path) -> None:
    """As from `--from-file <(find …)`, which is /dev/fd/63 now and maybe /dev/fd/62 next time."""
    make(tmp_path, "a.jpg", "b.jpg")
    identities = set()
    for _ in range(2):
        reading, writing = os.pipe()
        os.write(writing, b"".join(bytes(tmp_path / name) + b"\n" for name in ("b.jpg", "a.jpg")))
        os.close(writing)
        (item,) = inputs = resolve_inputs([], f"/dev/fd/{reading}")
        os.dup(reading)  # the next pipe has another number
        assert has_candidate(inputs, None) and not list(other_files(inputs, None))  # neither reads it
        with Discovery(inputs, tmp_path / "names.sqlite") as discovery:
            assert [os.path.basename(file.path) for file in discovery.files()] == [b"b.jpg", b"a.jpg"]
        identities.add(item.identity)
    assert len(identities) == 1


def test_a_list_with_nul_bytes_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"a.jpg\nb.jpg\0c.jpg\n")
    with pytest.raises(
        MribatchError, match=r"line 2 of the list .* holds a NUL byte, and --null is not given\. Fix: give"
    ):
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
        ([], "gone.txt", "there is no list 'gone.txt'. Fix: give a text file or a pipe with one path per line, or -"),
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


def test_files_are_counted_by_their_names_no_further_than_asked(tmp_path: Path) -> None:
    make(tmp_path, "full/deep/a.jpg", "full/b.png", "full/c.dcm", "full/IM1", "full/notes.txt", "out/a.jpg")
    both = resolve_inputs([tmp_path / "full", tmp_path / "out"])
    assert [count_by_name(both, None, most=most) for most in (1, 4, 5, 6)] == [1, 4, 5, 5]
    assert count_by_name(both, tmp_path / "out", PathPatterns(["*.png"]), most=9) == 3
    assert count_by_name(resolve_inputs([], "-"), None, most=7) == 7


# ------------------------------------------------------------------------------------ what other programs leave behind


def test_names_of_images_as_browsers_and_windows_write_them_are_candidates(tmp_path: Path) -> None:
    names = ["a.jfif", "b.pjpeg", "c.jpg_large", "d.JPG-large", "e.jpg:orig", "f.pjp", "g.dib", "h.j2k", "i.jif"]
    make(tmp_path / "data", *names, "notes.jpg.txt")
    assert listed(tmp_path / "data", database=tmp_path) == [name.encode() for name in sorted(names)]


def test_folders_of_other_programs_are_not_entered(tmp_path: Path) -> None:
    data = tmp_path / "data"
    make(
        data,
        "glioma/a.png",
        "glioma/@eaDir/a.png/SYNOPHOTO_THUMB_XL.png",
        "glioma/.ipynb_checkpoints/a-checkpoint.png",
        "$RECYCLE.BIN/$R1.png",
        "$Recycle.Bin/S-1-5/$R2.png",
        ".Trash-1000/files/b.png",
        "__MACOSX/glioma/a.png",
        "#recycle/c.png",
    )
    assert listed(data, database=tmp_path) == [b"glioma/a.png"]
    assert skipped(data, database=tmp_path) == {
        b"#recycle/": ("other_program", "a recycle bin of a Synology NAS"),
        b"$RECYCLE.BIN/": ("other_program", "a recycle bin of Windows"),
        b"$Recycle.Bin/": ("other_program", "a recycle bin of Windows"),
        b".Trash-1000/": ("other_program", "a recycle bin of Linux"),
        b"__MACOSX/": ("other_program", "companions of macOS in an archive"),
        b"glioma/.ipynb_checkpoints/": ("other_program", "checkpoints of Jupyter"),
        b"glioma/@eaDir/": ("other_program", "thumbnails of a Synology NAS"),
    }


def test_companions_are_told_by_their_content_and_other_files_by_name(tmp_path: Path) -> None:
    data = tmp_path / "data"
    make(data, "a.png", "._b.png", ".DS_Store", "Thumbs.db", "desktop.ini")  # ._b.png is a user's, by its content
    for name in ("._a.png", "._scan.dcm", "._notes.txt"):
        (data / name).write_bytes(APPLE_DOUBLE)
    os.mkfifo(data / "._pipe.png")  # opening it would wait for ever
    assert listed(data, database=tmp_path) == [b"._b.png", b"._pipe.png", b"a.png"]
    reasons = skipped(data, database=tmp_path)
    assert {reason for reason, _ in reasons.values()} == {"other_program"} and len(reasons) == 6
    assert reasons[b"._a.png"][1] == "an AppleDouble companion of macOS"


def test_patterns_meet_what_other_programs_left_as_well(tmp_path: Path) -> None:
    data = tmp_path / "data"
    make(data, "g/a.png", "g/@eaDir/a.png/T.png", "$RECYCLE.BIN/b.png")
    (data / "g" / "._a.png").write_bytes(APPLE_DOUBLE)
    for pattern in ("*", "*/*.png", "**/*.png"):
        assert listed(str(data / pattern), database=tmp_path) == [b"g/a.png"]
    assert listed(str(data / "*" / "@eaDir" / "*" / "*.png"), database=tmp_path) == [b"g/@eaDir/a.png/T.png"]


def test_what_is_named_outright_is_read_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path, "@eaDir/a.png", "list")
    (tmp_path / "._a.png").write_bytes(APPLE_DOUBLE)
    (tmp_path / "list").write_text("@eaDir/a.png\n._a.png\n")
    assert listed("@eaDir", "._a.png", database=tmp_path) == [b"a.png", b"._a.png"]
    assert listed(from_file="list", database=tmp_path) == [b"@eaDir/a.png", b"._a.png"]


# ------------------------------------------------------------------------------------------------------ lists of names


@pytest.mark.parametrize(
    ("content", "null"),
    [
        (b"\xef\xbb\xbfa.jpg\r\nb \xc3\xa4.jpg\r\n", False),
        (b"a.jpg\nb \xc3\xa4.jpg", False),
        ("\ufeffa.jpg\r\nb ä.jpg\r\n".encode("utf-16-le"), False),  # PowerShell
        ("\ufeffa.jpg\nb ä.jpg".encode("utf-16-be"), False),
        (b"a.jpg\0b \xc3\xa4.jpg\0", True),
        (b"a.jpg\0\0b \xc3\xa4.jpg", True),
    ],
)
def test_lists_as_editors_shells_and_find_write_them(tmp_path: Path, content: bytes, null: bool) -> None:
    (tmp_path / "list").write_bytes(content)
    names = listed(from_file=str(tmp_path / "list"), null=null, database=tmp_path)
    assert names == [b"a.jpg", "b ä.jpg".encode()]


def test_with_nul_bytes_every_other_byte_belongs_to_the_name(tmp_path: Path) -> None:
    names = [b"a\nb.jpg", b"c.jpg\r", b" d.jpg", b"\xff\xfe.jpg", b"x" * 70_000]
    (tmp_path / "list").write_bytes(b"\0".join(names[:4]) + b"\0")
    assert listed(from_file=str(tmp_path / "list"), null=True, database=tmp_path) == names[:4]


@pytest.mark.parametrize("content", [b"a.jpg\nb.jpg\n", b"a.jpg\n" * 40_000])
def test_a_list_without_nul_bytes_is_not_one_long_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "list").write_bytes(content)
    with pytest.raises(MribatchError, match=r"has no NUL byte.*Fix: separate the names by NUL bytes"):
        listed(from_file=str(tmp_path / "list"), null=True, database=tmp_path)


def test_half_a_letter_at_the_end_of_a_list_in_utf_16_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes("\ufeffa.jpg\n".encode("utf-16-le") + b"b")
    with pytest.raises(MribatchError, match="is not in UTF-16, as it begins"):
        listed(from_file=str(tmp_path / "list"), database=tmp_path)


# ------------------------------------------------------------------------------------------------------------- exclude


def test_excluded_files_and_folders_are_left_out_with_their_pattern(tmp_path: Path) -> None:
    data = tmp_path / "data"
    make(data, "a.png", "a_mask.png", "sub/b.png", "sub/b_mask.png", "masks/c.png", "masks.png")
    patterns = ["*_mask.png", "masks/"]
    assert listed(data, patterns=patterns, database=tmp_path) == [b"a.png", b"masks.png", b"sub/b.png"]
    assert skipped(data, patterns=patterns, database=tmp_path) == {
        b"a_mask.png": ("excluded", "*_mask.png"),
        b"masks/": ("excluded", "masks/"),
        b"sub/b_mask.png": ("excluded", "*_mask.png"),
    }


def test_exclude_counts_for_every_kind_of_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path, "data/a.png", "data/masks/b.png", "c_mask.png")
    (tmp_path / "list").write_text(f"{tmp_path}/data/masks/b.png\n./c_mask.png\ndata\ndata/masks\n")
    patterns = ["masks/", "/c_mask.png"]
    assert listed(from_file="list", patterns=patterns, database=tmp_path) == [b"data/a.png"]
    inputs = ["c_mask.png", "data/*", "data/**/*.png"]  # a shell expands patterns itself, so files count as well
    assert listed(*inputs, patterns=patterns, database=tmp_path) == [b"a.png"]
    assert not has_candidate(resolve_inputs(["data/masks", "c_mask.png"]), None, PathPatterns(["*.png"]))


def test_other_files_are_named_with_their_reason(tmp_path: Path) -> None:
    make(tmp_path / "data", "a.png", "b.png", "scan.dcm", "x/notes.txt", "x/IM1")
    others = other_files(resolve_inputs([tmp_path / "data"]), None, PathPatterns(["a.png"]))
    data = bytes(tmp_path / "data")
    assert {file.location: (file.reason, file.look) for file in others} == {
        data + b"/a.png": (SkipReason.EXCLUDED, Look.NO),
        data + b"/scan.dcm": (None, Look.EXPECTED),
        data + b"/x/notes.txt": (SkipReason.SUFFIX, Look.NO),
        data + b"/x/IM1": (SkipReason.SUFFIX, Look.UNKNOWN),
    }


# ------------------------------------------------------------------------------------------------------ ranges of series


@given(st.integers(1, 3000))
def test_a_range_is_taken_from_images_spread_over_the_series(images: int) -> None:
    places = [place for place in range(images) if is_sampled(place, images)]
    assert len(places) == min(images, RANGE_SAMPLES)
    assert places[0] == 0 and places[-1] == images - 1
    steps = [after - before for before, after in pairwise(places)]
    assert not steps or max(steps) - min(steps) <= 1
