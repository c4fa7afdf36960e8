"""A listing that the file system did not answer in full: told, and completed by the same command another day."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from mribatch.core.errors import ExitCode
from tests.faults.server import Server
from tests.faults.shim import Control, Fault
from tests.folders import draw_images, rows
from tests.studies import write_series, write_volume

Disturbed = tuple[Control, Server]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six images in two folders, three DICOM files without a suffix, and a volume of two slices."""
    data = tmp_path.resolve() / "data"
    draw_images(data, 6, classes=("glioma_tumor", "no_tumor"))
    write_series(data / "study", 3)
    write_volume(data / "volume.nii", 2)
    return data


def classify(server: Server, data: Path, out: Path, model: Path, *more: object) -> tuple[int, str]:
    ended = server.run(["classify", data, "--out", out, "--model", model, "--quiet", *more])
    return ended.code, ended.stderr


def listing_of(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "run.json").read_text())["listing"]
    return content


@pytest.mark.parametrize(
    ("hidden", "fault", "missing", "reason"),
    [
        ("no_tumor", Fault("list", 1, errno.EIO, sticky=True), 3, "unreadable_folder"),
        ("study", Fault("list", 2, errno.ESTALE, sticky=True), 3, "unreadable_folder"),
        ("study/IM000001", Fault("open", 1, errno.EIO, sticky=True), 1, "unreadable_file"),
    ],
    ids=["a folder that does not open", "a folder that fails while it is read", "a file whose name says nothing"],
)
def test_what_could_not_be_listed_is_added_by_the_same_command(
    hidden: str,
    fault: Fault,
    missing: int,
    reason: str,
    data: Path,
    tmp_path: Path,
    tiny_model: Path,
    disturbed: Disturbed,
) -> None:
    control, server = disturbed
    out, whole = tmp_path / "out", tmp_path / "whole"
    control.watch([data / hidden], fault)
    assert classify(server, data, out, tiny_model) == (ExitCode.ROWS_NOT_OK, "")
    assert listing_of(out)["incomplete"] == 1 and listing_of(out)["skipped_by_reason"][reason] == 1
    before = rows(out)
    control.watch([])
    assert classify(server, data, out, tiny_model) == (ExitCode.OK, "")
    assert "incomplete" not in listing_of(out)
    assert rows(out)[: len(before)] == before
    assert classify(server, data, whole, tiny_model) == (ExitCode.OK, "")
    assert len(before) == len(rows(whole)) - missing
    assert sorted(row["path"] for row in rows(out)) == sorted(row["path"] for row in rows(whole))
    assert classify(server, data, out, tiny_model) == (ExitCode.OK, "")
    assert server.run(["verify", out, "--inputs"]).code == ExitCode.OK


def test_a_folder_that_fails_today_does_not_make_it_another_run(
    data: Path, tmp_path: Path, tiny_model: Path, disturbed: Disturbed
) -> None:
    control, server = disturbed
    control.watch([])
    assert classify(server, data, tmp_path / "out", tiny_model) == (ExitCode.OK, "")
    control.watch([data / "no_tumor"], Fault("list", 1, errno.ESTALE, sticky=True))
    code, stderr = classify(server, data, tmp_path / "out", tiny_model)
    assert code == ExitCode.USER_ERROR and stderr.count("\n") == 1
    assert "the file system gave no answer for 1 of their folders and files. Fix: check the disk" in stderr
    control.watch([])
    assert classify(server, data, tmp_path / "out", tiny_model) == (ExitCode.OK, "")


def test_a_file_whose_size_was_not_told_is_the_same_file_later(
    data: Path, tmp_path: Path, tiny_model: Path, disturbed: Disturbed
) -> None:
    control, server = disturbed
    out = tmp_path / "out"
    control.watch([data / "glioma_tumor" / "slice_00002.jpg"], Fault("stat", 1, errno.EIO, sticky=True))
    assert classify(server, data, out, tiny_model)[0] in (ExitCode.OK, ExitCode.ROWS_NOT_OK)
    assert listing_of(out)["incomplete"] == 1
    control.watch([])
    code, stderr = classify(server, data, out, tiny_model)
    assert stderr == "" and code in (ExitCode.OK, ExitCode.ROWS_NOT_OK)
    assert "incomplete" not in listing_of(out)
    assert len(rows(out)) == 11


def test_one_failure_of_a_disk_is_asked_again(
    data: Path, tmp_path: Path, tiny_model: Path, disturbed: Disturbed
) -> None:
    control, server = disturbed
    control.watch([data], Fault("read", 1, errno.EIO))
    assert classify(server, data, tmp_path / "out", tiny_model) == (ExitCode.OK, "")
    assert control.injected == 1
