import os
from pathlib import Path

import click.testing
import cv2
import pytest

from mribatch.cli.demo import demo
from mribatch.core.errors import MribatchError
from mribatch.pipeline.demo_folder import CLASS_FOLDERS, MARKER, broken_files, draw_demo_folder


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parent") / "deep" / "demo"
    result = draw_demo_folder(folder)
    assert (result.folder, result.slices, result.broken) == (folder, 24, len(broken_files()))
    return folder


def test_every_class_has_readable_slices_of_several_sizes_in_both_formats(drawn: Path) -> None:
    sizes = set()
    for name in CLASS_FOLDERS:
        slices = sorted((drawn / name).glob("slice-*"))
        assert len(slices) == 6
        assert {path.suffix for path in slices} == {".jpg", ".png"}
        for path in slices:
            pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            assert pixels is not None
            assert pixels.ndim == 2
            sizes.add(pixels.shape)
    assert len(sizes) >= 5


def test_the_texts_say_that_these_are_drawings(drawn: Path) -> None:
    readme = (drawn / "README.txt").read_text(encoding="utf-8")
    assert readme.splitlines()[0] == MARKER
    assert "no patient" in readme
    assert (drawn / "notes.txt").is_file()


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("glioma_tumor/broken-empty.jpg", "empty"),
        ("glioma_tumor/broken-half.jpg", "truncated"),
        ("meningioma_tumor/broken-text.jpg", "unsupported"),
        ("meningioma_tumor/broken-half.png", "truncated"),
        ("no_tumor/broken-gif.png", "unsupported"),
        ("no_tumor/broken-header.png", "decode_failed"),
        ("pituitary_tumor/broken-huge.png", "too_large"),
    ],
)
def test_each_broken_file_has_its_own_verdict(drawn: Path, name: str, status: str) -> None:
    from mribatch.pipeline.decode.probe import probe

    verdict = probe((drawn / name).read_bytes())
    assert (verdict.status, bool(verdict.error)) == (status, True)


def test_the_broken_files_are_all_there(drawn: Path) -> None:
    content = _content(drawn)
    assert {name for name in content if "broken" in name} == broken_files().keys()
    assert len(content) == 24 + len(broken_files()) + 2


def test_the_same_arguments_draw_the_same_and_another_seed_does_not(tmp_path: Path, drawn: Path) -> None:
    draw_demo_folder(tmp_path / "again")
    assert _content(tmp_path / "again") == _content(drawn)
    draw_demo_folder(tmp_path / "other", count=4, seed=1)
    other = _content(tmp_path / "other")
    assert all(other[name] != _content(drawn)[name] for name in other if "slice" in name)


def test_drawing_anew_replaces_its_own_files_and_keeps_others(tmp_path: Path) -> None:
    draw_demo_folder(tmp_path, count=8)
    (tmp_path / "no_tumor" / "mine.png").write_bytes(b"mine")
    draw_demo_folder(tmp_path, count=4)
    content = _content(tmp_path)
    assert content["no_tumor/mine.png"] == b"mine"
    assert len([name for name in content if "slice" in name]) == 4


def test_a_folder_of_somebody_else_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "README.txt").write_text("My scans\n" + MARKER)
    before = _content(tmp_path)
    with pytest.raises(MribatchError) as caught:
        draw_demo_folder(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} is not empty and was not drawn by mribatch demo. "
        "Fix: name a folder that is empty or does not exist yet"
    )
    assert _content(tmp_path) == before
    assert os.listdir(tmp_path) == ["README.txt"]


def test_a_file_in_its_place_and_a_path_through_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(MribatchError, match="file is not a folder"):
        draw_demo_folder(tmp_path / "file")
    with pytest.raises(MribatchError, match=r"cannot draw into .*: Not a directory"):
        draw_demo_folder(tmp_path / "file" / "demo")


@pytest.mark.parametrize(
    ("count", "seed", "problem"), [(0, 0, "--count 0 is"), (100_001, 0, "--count"), (1, -1, "--seed")]
)
def test_values_out_of_range_write_nothing(tmp_path: Path, count: int, seed: int, problem: str) -> None:
    with pytest.raises(MribatchError, match=problem):
        draw_demo_folder(tmp_path / "demo", count, seed)
    assert not (tmp_path / "demo").exists()


def test_the_command_says_what_it_made_and_what_to_type_next(tmp_path: Path) -> None:
    folder = tmp_path / "my slices"
    result = click.testing.CliRunner().invoke(demo, [str(folder), "--count", "4"], catch_exceptions=False)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"Drew 4 synthetic slices and 7 broken files in {folder}",
        f"Drew a head of 49 slices in DICOM and NIfTI files in {folder / 'study'}",
        f"Next: mribatch classify '{folder}' --out '{folder}-results'",
    ]
    assert len(list(folder.rglob("slice-*"))) == 4
