"""predictions.xlsx has the rows of predictions.csv, runs no formula, and begins a new sheet where one is full."""

import csv
import importlib.util
from pathlib import Path

import pytest

from mribatch.core.errors import MribatchError
from mribatch.pipeline.options import ClassifyOptions
from mribatch.pipeline.output.xlsx_table import write_xlsx
from mribatch.pipeline.run import classify
from tests.folders import draw_images

HAS_OPENPYXL = importlib.util.find_spec("openpyxl") is not None


@pytest.mark.skipif(not HAS_OPENPYXL, reason="needs openpyxl")
def test_the_workbook_has_the_rows_of_the_csv_copy(tiny_model: Path, tmp_path: Path) -> None:
    from openpyxl import load_workbook

    draw_images(tmp_path / "data", 5)
    (tmp_path / "data" / "=cmd|' C calc'!A0.jpg").write_bytes(b"")
    (tmp_path / "data" / "dark\x01.jpg").write_bytes(b"")
    out = tmp_path / "out"
    classify([tmp_path / "data"], out, ClassifyOptions(model=str(tiny_model), csv=True, xlsx=True))
    rows = list(load_workbook(out / "predictions.xlsx")["predictions"].iter_rows(values_only=True))
    with (out / "predictions.csv").open(encoding="utf-8-sig", newline="") as stream:
        expected = list(csv.reader(stream))
    assert [len(row) for row in rows] == [len(row) for row in expected]
    assert list(rows[0]) == expected[0] and [row[2] for row in rows] == [row[2] for row in expected]
    assert rows[1][2] == "'=cmd|' C calc'!A0.jpg" and rows[2][2] == "dark\\x01.jpg"
    column = expected[0].index("confidence")
    assert rows[-1][column] == pytest.approx(float(expected[-1][column]))
    write_xlsx(out, tmp_path / "small.xlsx", "tiny", sheet_rows=3)
    sheets = load_workbook(tmp_path / "small.xlsx").worksheets
    assert [sheet.max_row for sheet in sheets] == [4, 4, 2]


@pytest.mark.skipif(HAS_OPENPYXL, reason="openpyxl is installed")
def test_without_openpyxl_nothing_is_begun(tiny_model: Path, tmp_path: Path) -> None:
    draw_images(tmp_path / "data", 1)
    with pytest.raises(MribatchError, match="needs openpyxl"):
        classify([tmp_path / "data"], tmp_path / "out", ClassifyOptions(model=str(tiny_model), xlsx=True))
    assert not (tmp_path / "out").exists()
