"""One answer per series, from real part files."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mribatch.pipeline.output.parts import predictions_schema
from mribatch.pipeline.output.row_table import format_series
from mribatch.pipeline.output.series import SERIES_FILE, measure_suspicion, read_series, series_schema, write_series

CLASSES = ("glioma", "no_tumor")
STUDY_COLUMNS = {
    "slice": pa.int32(),
    "patient": pa.string(),
    "study": pa.string(),
    "series": pa.string(),
    "instance": pa.int32(),
    "plane": pa.string(),
}


def row(index: int, series: str | None, glioma: float | None = None, **facts: Any) -> dict[str, Any]:
    """A row of the predictions; ok where it has a probability."""
    content: dict[str, Any] = {"index": index, "input": 0, "path": f"IM{index:04d}", "series": series, "flags": []}
    content |= {"status": "ok" if glioma is not None else "blank", "study": "S", "patient": "P", "plane": "axial"}
    content |= {"width": 8, "height": 8, "instance": index + 1}
    if glioma is not None:
        content |= {"p_glioma": glioma, "p_no_tumor": 1 - glioma, "predicted": CLASSES[int(glioma < 0.5)]}
    return content | facts


def write_parts(run: Path, rows: list[dict[str, Any]], part_rows: int = 3) -> Path:
    """Part files with the columns of a run of studies."""
    schema = predictions_schema(CLASSES)
    for name, kind in STUDY_COLUMNS.items():
        schema = schema if name in schema.names else schema.append(pa.field(name, kind))
    (run / "predictions").mkdir(parents=True, exist_ok=True)
    for part, start in enumerate(range(0, len(rows), part_rows)):
        table = pa.Table.from_pylist(rows[start : start + part_rows], schema=schema)
        pq.write_table(table, run / "predictions" / f"part-{part:05d}.parquet")
    return run


def answers(run: Path) -> dict[str, dict[str, Any]]:
    """Series -> its row, from the file."""
    assert write_series(run, CLASSES)
    table = read_series(run)
    assert table is not None
    assert table.schema.equals(series_schema(CLASSES))
    return {each["series"]: each for each in table.to_pylist()}


def test_a_series_is_answered_by_the_mean_of_its_classified_slices(tmp_path: Path) -> None:
    run = write_parts(tmp_path, [row(0, "A"), row(1, "A", 0.9), row(2, "B", 0.1), row(3, "A", 0.4), row(4, "A", 0.5)])
    found = answers(run)
    series = found["A"]
    assert (series["images"], series["ok"], series["blank"], series["failed"]) == (4, 3, 1, 0)
    assert series["predicted"] == "glioma"
    assert series["confidence"] == series["mean_glioma"] == pytest.approx(0.6)
    assert series["max_glioma"] == pytest.approx(0.9)
    assert series["max_no_tumor"] == pytest.approx(0.6)
    assert (series["share_glioma"], series["share_no_tumor"]) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert (series["top_path"], series["top_index"], series["top_instance"]) == ("IM0001", 1, 2)
    assert series["top_probability"] == pytest.approx(0.9)
    assert found["B"]["predicted"] == "no_tumor"


def test_a_series_of_blank_or_broken_slices_has_no_answer(tmp_path: Path) -> None:
    run = write_parts(tmp_path, [row(0, "A"), row(1, "A", status="truncated")])
    series = answers(run)["A"]
    assert (series["images"], series["blank"], series["failed"]) == (2, 1, 1)
    assert series["predicted"] is None
    assert series["mean_glioma"] is None
    assert series["top_index"] is None


def test_what_is_odd_about_a_series_is_flagged(tmp_path: Path) -> None:
    rows = [row(0, "gap", 0.5, instance=1), row(1, "gap", 0.5, instance=3)]
    rows += [row(2, "twice", 0.5, instance=1), row(3, "twice", 0.5, instance=1)]
    rows += [row(4, "mixed", 0.5, width=4, label="glioma"), row(5, "mixed", 0.5, plane="coronal", label="no_tumor")]
    rows += [row(6, "fine", 0.5, flags=["localizer"]), row(7, "fine", 0.5, instance=None)]
    rows += [row(8, "huge", 0.5, instance=2**31 - 1)]
    flags = {name: series["flags"] for name, series in answers(write_parts(tmp_path, rows)).items()}
    assert flags == {
        "gap": ["missing_positions"],
        "twice": ["doubled_positions"],
        "mixed": ["mixed_labels", "mixed_planes", "mixed_sizes"],
        "fine": ["localizer"],
        "huge": [],
    }


def test_plain_images_have_no_series_and_leave_no_file(tmp_path: Path) -> None:
    run = write_parts(tmp_path, [row(0, None, 0.5)])
    (run / SERIES_FILE).write_bytes(b"of an earlier run")
    assert write_series(run, CLASSES) == 0
    assert read_series(run) is None


def test_a_run_of_the_first_schema_has_no_series(tmp_path: Path) -> None:
    schema = pa.schema([field for field in predictions_schema(CLASSES) if field.name not in STUDY_COLUMNS])
    (tmp_path / "predictions").mkdir()
    plain = {key: value for key, value in row(0, None, 0.5).items() if key not in STUDY_COLUMNS}
    pq.write_table(pa.Table.from_pylist([plain], schema=schema), tmp_path / "predictions" / "part-00000.parquet")
    assert write_series(tmp_path, CLASSES) == 0


def test_the_table_names_the_slice_that_shows_a_tumor_most(tmp_path: Path) -> None:
    run = write_parts(tmp_path, [row(0, "A", 0.25, path="v.nii", slice=4), row(1, "B"), row(2, "B")])
    text = format_series(list(answers(run).values()))
    assert text.splitlines()[0].split() == [
        "series",
        "images",
        "ok",
        "blank",
        "plane",
        "class",
        "mean",
        "top",
        "top",
        "slice",
    ]
    assert "v.nii [4]" in text
    assert text.splitlines()[2].split() == ["B", "2", "0", "2", "axial", "-", "-", "-", "-"]


def test_without_a_class_for_no_tumor_any_class_is_suspicious() -> None:
    found = measure_suspicion(np.array([[0.2, 0.5, 0.3]]), ("a", "b", "c"))
    assert found.tolist() == [0.5]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ABC"), st.floats(0, 1)), min_size=1, max_size=20), st.integers(1, 7))
def test_the_answer_does_not_depend_on_the_parts(
    tmp_path_factory: pytest.TempPathFactory, slices: list[tuple[str, float]], part_rows: int
) -> None:
    rows = [row(index, series, float(np.float32(p))) for index, (series, p) in enumerate(slices)]
    whole, split = (answers(write_parts(tmp_path_factory.mktemp("run"), rows, size)) for size in (len(rows), part_rows))
    assert whole == split
    for name, series in whole.items():
        own = [p for each, p in slices if each == name]
        assert series["mean_glioma"] == pytest.approx(np.mean(own), abs=1e-6)
        assert series["share_glioma"] + series["share_no_tumor"] == pytest.approx(1)
