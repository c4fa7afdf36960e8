"""One row per patient, with labels and without."""

from pathlib import Path

import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

import mribatch
from mribatch.core.errors import MribatchError
from mribatch.core.tables import Screen
from mribatch.report.measure import ReportOptions, report
from mribatch.report.text.patients import format_patients
from tests.finished_run import CLASSES, Row, scores_for, write_run
from tests.report.reports import GLIOMA, NO_TUMOR, PITUITARY, page_of

BY_LETTER = "patient=^([A-Z])_"
ROWS = [
    Row("A_1.png", GLIOMA, (0.6, 0.1, 0.2, 0.1)),
    Row("A_2.png", None, (0.3, 0.1, 0.5, 0.1)),
    Row("B_1.png", NO_TUMOR, scores_for(0, 0.7)),
    Row("B_2.png", NO_TUMOR, None, "empty"),
    Row("C_1.png", GLIOMA, scores_for(0, 0.9)),
    Row("C_2.png", PITUITARY, scores_for(0, 0.9)),
    Row("D_1.png", NO_TUMOR, None, "truncated"),
    Row("odd.png", GLIOMA, scores_for(0, 0.9)),
]


def test_by_hand(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", ROWS)
    report(ReportOptions(run=run, group_by=BY_LETTER, html=False))
    table = pq.read_table(run / "patients.parquet")
    rows = {row["patient"]: row for row in table.to_pylist()}
    assert list(rows) == ["A", "B", "C", "D"]
    assert rows["A"] | {f"p_{name}": None for name in CLASSES} == {
        "patient": "A",
        "images": 2,
        "ok": 2,
        "seen_in_training": 0,
        "predicted": GLIOMA,
        "label": GLIOMA,
        "several_labels": False,
        "correct": True,
        **{f"p_{name}": None for name in CLASSES},
        **dict(zip((f"share_{name}" for name in CLASSES), (0.5, 0, 0.5, 0), strict=True)),
    }
    assert [rows["A"][f"p_{name}"] for name in CLASSES] == pytest.approx([0.45, 0.1, 0.35, 0.1])
    assert (rows["B"]["images"], rows["B"]["ok"], rows["B"]["correct"]) == (2, 1, False)
    assert (rows["C"]["label"], rows["C"]["several_labels"], rows["C"]["correct"]) == (None, True, None)
    assert (rows["D"]["ok"], rows["D"]["label"]) == (0, NO_TUMOR)
    assert [rows["D"][key] for key in ("predicted", "correct", "p_no_tumor", "share_no_tumor")] == [None] * 4
    assert table.schema.metadata[b"mribatch.model"] == b"tiny"
    assert pacsv.read_csv(run / "patients.csv").column_names == table.column_names


def test_without_labels(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [Row(row.path, None, row.scores, row.status) for row in ROWS])
    made = report(ReportOptions(run=run, group_by=BY_LETTER, html=False))
    table = pq.read_table(run / "patients.parquet")
    assert table["predicted"].to_pylist() == [GLIOMA, GLIOMA, GLIOMA, None]
    assert table["label"].null_count == table["correct"].null_count == 4
    assert "No accuracy: no label is known" in made.table
    assert "4 patients: classified/all images" in made.table
    assert "## Patients\n\nOne row per patient is in patients.csv" in page_of(run)
    assert "label" not in next(line for line in made.table.splitlines() if line.startswith("patient "))


def test_the_figures_fit_those_of_the_metrics(tmp_path: Path) -> None:
    """Every image has a label here, so the two cover the same images."""
    rows = [
        Row(f"{patient}_{i}.png", GLIOMA, scores_for((i + n) % 4, 0.7))
        for n, patient in enumerate("ABC")
        for i in range(3)
    ]
    run = write_run(tmp_path / "run", rows)
    made = report(ReportOptions(run=run, group_by=BY_LETTER, html=False))
    level = next(level for level in made.file.levels if level.level == "patient_mean")
    correct = pq.read_table(run / "patients.parquet")["correct"].to_pylist()
    assert level.find("accuracy").value == pytest.approx(sum(correct) / len(correct))


def test_narrow_and_wide_terminals(tmp_path: Path) -> None:
    found = report(ReportOptions(run=write_run(tmp_path / "run", ROWS), group_by=BY_LETTER, html=False)).patients
    assert found is not None
    wide = format_patients(found)
    assert wide[1].splitlines()[1].split() == [
        *("A", "2/2", GLIOMA, GLIOMA, "0.4500", "(50", "%)", "0.1000", "(0", "%)", "0.3500", "(50", "%)"),
        *("0.1000", "(0", "%)"),
    ]
    narrow = "\n".join(format_patients(found, Screen(width=60)))
    assert max(map(len, narrow.splitlines()[1:])) <= 60
    assert "B\n    1/2 images: glioma_tumor 0.7000 (100 %)," in narrow
    assert "label no_tumor, wrong" in " ".join(narrow.split()) and "label several" in narrow
    assert "D\n    0/1 images; label no_tumor\n" in narrow


def test_twenty_are_printed_and_names_of_strangers_are_harmless(tmp_path: Path) -> None:
    rows = [Row(f"=P{i:02d}\n_1.png", None, scores_for(0, 0.9)) for i in range(23)]
    run = write_run(tmp_path / "run", rows)
    text = report(ReportOptions(run=run, group_by="patient=(?s)^(.*)_1", html=False)).table
    assert "=P19\\n" in text and "=P20" not in text and "... and 3 more" in text
    assert "'=P00" in (run / "patients.csv").read_text(encoding="utf-8-sig")


def test_a_report_without_patients_leaves_none_of_an_earlier_one(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", ROWS)
    report(ReportOptions(run=run, group_by=BY_LETTER, html=False))
    report(ReportOptions(run=run, html=False))
    assert not list(run.glob("patients.*"))


def test_in_python(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", ROWS)
    assert mribatch.report(run, group_by=BY_LETTER).patients_to_arrow()["patient"].to_pylist() == list("ABCD")
    with pytest.raises(MribatchError, match="has no patients"):
        mribatch.report(run).patients_to_arrow()
