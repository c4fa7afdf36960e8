"""DICOM and NIfTI in tar and zip files and in an S3 store: the rows of the same files in a folder."""

import os
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.output.summary import RunSummary
from mribatch.pipeline.run import classify
from mribatch.report.verify import verify_run
from tests.folders import draw_images, rows
from tests.pipeline.storage.archives import read_folder, write_tar, write_zip
from tests.storage_server import S3Server
from tests.studies import UID, drawn_values, write_report, write_series, write_slice, write_volume

Run = Callable[..., RunSummary]
write_stored_zip = partial(write_zip, method=zipfile.ZIP_STORED)


@pytest.fixture
def run(tiny_model: Path, key: Path) -> Run:
    def call(inputs: object, out: object, **changes: Any) -> RunSummary:
        fixed: dict[str, Any] = {"model": str(tiny_model), "precision": "fp32", "batch_size": 8, "threads": 2}
        options = ClassifyOptions(**fixed | {"pseudonym_key": str(key)} | changes)
        return classify([str(inputs)], str(out), options)

    return call


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key that all runs share, so that they agree on pseudonyms."""
    path = tmp_path_factory.mktemp("key") / "key"
    path.write_text("0123456789abcdef0123456789abcdef\n")
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, DICOM with and without suffixes, frames, volumes, damage, and what is no image to classify."""
    folder = tmp_path_factory.mktemp("export") / "data"
    draw_images(folder, 2)
    write_series(folder / "PAT1" / "SER2", 20)
    frames = np.stack([drawn_values(50 + place) for place in range(6)])
    write_slice(folder / "PAT1" / "frames", frames, SeriesInstanceUID=f"{UID}.3")
    write_slice(folder / "windowed.dcm", WindowCenter=500, WindowWidth=1000, SeriesInstanceUID=f"{UID}.4")
    write_slice(folder / "wide", drawn_values(9, side=200), SeriesInstanceUID=f"{UID}.5")
    write_report(folder / "PAT1" / "SR1")
    write_slice(folder / "ct.dcm", Modality="CT")
    write_volume(folder / "brain.nii.gz", 7, blanks=2)
    write_volume(folder / "plain.nii", 5)
    whole = (folder / "windowed.dcm").read_bytes()
    (folder / "cut.dcm").write_bytes(whole[:-400])
    (folder / "cut-early.dcm").write_bytes(whole[:300])
    (folder / "cut.nii.gz").write_bytes((folder / "brain.nii.gz").read_bytes()[:-400])
    (folder / "empty.dcm").write_bytes(b"")
    (folder / "words.dcm").write_text("no picture at all, only words")
    (folder / "README").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def local(data: Path, key: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of the folder itself."""
    out = tmp_path_factory.mktemp("local") / "run"
    options = ClassifyOptions(model=str(tiny_model), precision="fp32", batch_size=8, threads=2, pseudonym_key=str(key))
    classify([data], out, options)
    return out


def comparable(found: list[dict[str, Any]], prefix: str = "") -> list[dict[str, Any]]:
    """Rows without what a path decides: the path, and the series of a volume, which is named after it."""
    named = [row | {"path": row["path"].removeprefix(prefix)} for row in found]
    return [row | ({"series": None} if ".nii" in row["path"] else {}) for row in named]


def skipped(run_folder: Path, prefix: str = "") -> list[tuple[str, str, str]]:
    table = pq.read_table(run_folder / "skipped.parquet").to_pylist()
    return [(row["path"].removeprefix(prefix), row["reason"], row["detail"]) for row in table]


def series(run_folder: Path, prefix: str = "") -> list[dict[str, Any]]:
    table = pq.read_table(run_folder / "series.parquet").to_pylist()
    without = [row | {name: row[name].removeprefix(prefix) for name in ("path", "top_path") if row[name]} for row in table]
    return sorted(comparable(without), key=lambda row: str(row["path"]))


def check_same(run_folder: Path, local: Path, prefix: str = "") -> None:
    assert comparable(rows(run_folder), prefix) == comparable(rows(local))
    assert skipped(run_folder, prefix) == skipped(local)
    assert series(run_folder, prefix) == series(local)
    verified = verify_run(run_folder, inputs=True)
    assert verified.problems == 0 and verified.input_files > 25


def test_the_folder_has_what_these_tests_are_about(local: Path) -> None:
    statuses = {row["status"] for row in rows(local)}
    assert statuses == {"ok", "blank", "truncated", "empty", "unsupported"}, statuses
    assert {reason for _, reason, _ in skipped(local)} == {"dicom_no_pixels", "dicom_modality", "suffix"}


@pytest.mark.parametrize("changes", [{}, {"workers": 2}], ids=["in process", "workers"])
@pytest.mark.parametrize(
    ("name", "write"), [("a.tar", write_tar), ("a.zip", write_zip), ("b.zip", write_stored_zip)]
)
def test_an_archive_has_the_rows_of_its_folder(
    run: Run, data: Path, local: Path, tmp_path: Path, name: str, write: Callable[..., Path], changes: dict[str, Any]
) -> None:
    write(tmp_path / name, read_folder(data))
    summary = run(tmp_path / name, tmp_path / "run", **changes)
    check_same(tmp_path / "run", local, f"{name}/")
    assert summary.files == len({row["path"] for row in rows(local)})
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, "run"]


@pytest.mark.parametrize("name", [None, "a.zip", "a.tar"], ids=["objects", "a zip", "a tar"])
def test_a_store_has_the_rows_of_the_folder(
    run: Run, s3: S3Server, bucket: str, data: Path, local: Path, tmp_path: Path, name: str | None
) -> None:
    if name is None:
        s3.upload(data, bucket, "data")
    else:
        (tmp_path / "up").mkdir()
        (write_zip if name == "a.zip" else write_tar)(tmp_path / "up" / name, read_folder(data))
        s3.upload(tmp_path / "up", bucket, "data")
    run(f"s3://{bucket}/data" + (f"/{name}" if name else ""), tmp_path / "run")
    check_same(tmp_path / "run", local, f"{name}/" if name else "")
