"""DICOM and NIfTI studies: series and patients are known from headers, under pseudonyms."""

import csv
import shutil
from pathlib import Path

import pyarrow.parquet as pq

from mribatch.pipeline.demo_folder import add_demo_study
from mribatch.report.audit.audit import audit
from mribatch.report.audit.options import AuditOptions
from tests.report.audit.data_set import draw


def test_patients_and_series_of_headers_are_used(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "train").mkdir(parents=True)
    add_demo_study(data / "train")
    draw(data / "test/plain.jpg", 3, 64)
    first = next(path for path in sorted(data.rglob("*")) if path.is_file() and b"DICM" in path.read_bytes()[:132])
    shutil.copy(first, data / "test/again.dcm")
    found = audit([data], tmp_path / "out", AuditOptions(labels="none", html=False))
    rows = pq.read_table(found.out / "audit.parquet").to_pylist()
    assert found.file.series.known >= 3 and found.file.series.estimated == 1 and found.file.series.patients
    (leak,) = found.file.leaks
    copied = sum(row["path"] == "test/again.dcm" and row["status"] == "ok" for row in rows)
    assert (leak.images, leak.patients) == (copied + 1, copied)
    of_a_series = [row for row in rows if row["series_known"]]
    assert all(row["series_id"] for row in of_a_series)
    assert all((row["patient"] is not None) == (row["format"] == "dicom") for row in of_a_series)
    with (found.out / "groups.csv").open(encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    assert list(lines[0]) == ["path", "group_id", "series_id", "patient_id"]
    assert len({line["path"] for line in lines}) == len(lines) < len(rows)
    assert next(line for line in lines if line["path"] == "test/plain.jpg")["patient_id"] == ""
