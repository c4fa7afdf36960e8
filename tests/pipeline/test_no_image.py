"""Where nothing can be classified, the error says what there is."""

import os
from pathlib import Path

import pytest

from mribatch.core.errors import MribatchError
from mribatch.pipeline.listing.discover import resolve_inputs
from mribatch.pipeline.listing.headers import HeaderReader
from mribatch.pipeline.listing.patterns import PathPatterns
from mribatch.pipeline.no_image import no_image_error
from mribatch.pipeline.studies.options import HeaderOptions
from mribatch.pipeline.studies.pseudonyms import Pseudonyms
from tests.folders import draw_images
from tests.studies import write_report, write_slice


def error_of(folder: Path, *patterns: str) -> MribatchError:
    headers = HeaderReader(HeaderOptions(max_pixels=10**8), Pseudonyms(b"k" * 32), threads=2, timeout_s=60)
    return no_image_error(resolve_inputs([folder]), None, PathPatterns(patterns), headers)


def test_dicom_without_a_picture_and_of_another_modality_is_counted(tmp_path: Path) -> None:
    write_report(tmp_path / "IM000001")  # as a PACS exports them
    for number in range(3):
        write_slice(tmp_path / f"ct{number}.dcm", Modality="CT")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "README").write_text("x")
    error = error_of(tmp_path)
    assert error.problem == (
        "there is no image in the inputs: 3 DICOM files (of another modality than MR), 1 DICOM file (without a "
        "picture, such as reports), 2 other files (.txt 1, no suffix 1)"
    )
    assert error.fix == "add --any-modality to classify them all the same"


def test_images_under_other_names_are_told(tmp_path: Path) -> None:
    (image,) = draw_images(tmp_path / "data", 1)
    image.rename(image.with_suffix(".dat"))
    error = error_of(tmp_path / "data")
    assert "1 image (without a suffix that says so)" in error.problem and "--from-file" in error.fix


def test_what_was_left_out_is_told(tmp_path: Path) -> None:
    draw_images(tmp_path / "data", 3)
    (tmp_path / "data" / "@eaDir").mkdir()
    error = error_of(tmp_path / "data", "*.jpg")
    assert "3 files or folders (excluded), 1 entry (of other programs, such as thumbnails" in error.problem
    assert error.fix == "check the patterns of --exclude"


def test_an_empty_folder_and_many_suffixes_are_short(tmp_path: Path) -> None:
    assert str(error_of(tmp_path)).startswith("there is no image in the inputs: no file at all. Fix: check the folder")
    for number in range(9):
        (tmp_path / f"x.s{number}").touch()
    assert error_of(tmp_path).problem.endswith("9 other files (.s0 1, .s1 1, .s2 1, .s3 1, ...)")


@pytest.mark.parametrize("kind", ["fifo", "link"])
def test_what_cannot_be_opened_is_counted_too(tmp_path: Path, kind: str) -> None:
    os.mkfifo(tmp_path / "x") if kind == "fifo" else (tmp_path / "x").symlink_to("nowhere")
    assert "1 other file (no suffix 1)" in error_of(tmp_path).problem
