"""The demo's study through the whole pipeline."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from mribatch import classify
from mribatch.pipeline.demo_study import DemoStudy, draw_demo_study

CLASSES = ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[DemoStudy, Path]:
    folder = tmp_path_factory.mktemp("demo")
    drawn = draw_demo_study(folder / "study", seed=3)
    return drawn, classify(folder / "study", folder / "run", window="auto", progress=False).path


def by_series(run: Path) -> dict[str, pd.DataFrame]:
    """Name of a folder or file -> its rows."""
    rows = pq.read_table(run / "predictions").to_pandas()
    return {str(name): group for name, group in rows.groupby(rows.path.str.split("/").str[0])}


def test_what_was_drawn_is_what_is_found(study: tuple[DemoStudy, Path]) -> None:
    drawn, run = study
    statuses = pq.read_table(run / "predictions")["status"].to_pylist()
    assert (statuses.count("ok"), statuses.count("blank")) == (drawn.images, drawn.blank)
    assert pq.read_table(run / "skipped.parquet")["reason"].to_pylist() == ["dicom_no_pixels"] * drawn.others


def test_the_same_study_has_the_same_bytes(study: tuple[DemoStudy, Path], tmp_path: Path) -> None:
    first, second = study[0].folder, draw_demo_study(tmp_path / "again", seed=3).folder
    names = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(names) == 35
    assert [name for name in names if (first / name).read_bytes() != (second / name).read_bytes()] == []


@pytest.mark.parametrize("other", ["series-2", "brain.nii.gz"])
def test_the_same_head_gives_the_same_rows(study: tuple[DemoStudy, Path], other: str) -> None:
    """Inverted (MONOCHROME1), or in NIfTI: what is shown is the same."""
    rows = by_series(study[1])
    first, second = rows["series-1"], rows[other]
    assert list(first.instance) == list(second.instance) == list(range(1, 17))
    assert list(first.status) == list(second.status) == ["blank", *["ok"] * 14, "blank"]
    columns = [f"p_{name}" for name in CLASSES]
    difference = first[columns].to_numpy() - second[columns].to_numpy()
    assert np.nanmax(np.abs(difference)) <= 0.02
    assert list(first.predicted) == list(second.predicted)


def test_every_series_has_its_answer(study: tuple[DemoStudy, Path]) -> None:
    series = pq.read_table(study[1] / "series.parquet").to_pylist()
    assert [(row["images"], row["blank"], row["plane"]) for row in series] == [
        (16, 2, "axial"),
        (16, 2, "axial"),
        (16, 2, "axial"),
        (1, 0, "sagittal"),
    ]
    assert "localizer" in series[3]["flags"]
    assert not {"missing_positions", "doubled_positions"} & {flag for row in series for flag in row["flags"]}


def test_the_report_knows_the_patients(study: tuple[DemoStudy, Path]) -> None:
    """The DICOM files are of one patient; the volume, which names none, is one of its own."""
    from mribatch.report.measure import ReportOptions, report

    found = report(ReportOptions(run=study[1], html=False))
    patients = pq.read_table(study[1] / "patients.parquet").to_pylist()
    assert sorted(row["images"] for row in patients) == [16, 33]
    assert found.file.levels == ()
