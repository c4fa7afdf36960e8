"""Where nothing can be classified, the error says what there is."""

import os
from pathlib import Path

import pytest

from mribatch.core.errors import MribatchError
from mribatch.pipeline.listing.discover import resolve_inputs
from mribatch.pipeline.listing.patterns import PathPatterns
from mribatch.pipeline.no_image import no_image_error
from tests.folders import draw_images

DICOM = b"\0" * 128 + b"DICM" + b"\0" * 100


def error_of(folder: Path, *patterns: str) -> MribatchError:
    return no_image_error(resolve_inputs([folder]), None, PathPatterns(patterns))


def test_dicom_and_nifti_are_counted_by_name_and_by_content(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"scan{number}.dcm").write_bytes(b"x")
    for number in range(3):
        (tmp_path / f"IM{number:06d}").write_bytes(DICOM)  # as a PACS exports them
    (tmp_path / "brain.nii.gz").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "README").write_text("x")
    error = error_of(tmp_path)
    assert error.problem == (
        "there is no image in the inputs: 12 DICOM files (not supported yet), 1 NIfTI file (not supported yet), "
        "2 other files (.txt 1, no suffix 1)"
    )
    assert error.fix == "convert the DICOM files to PNG or TIFF"


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
