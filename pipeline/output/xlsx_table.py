"""predictions.xlsx, for people with a spreadsheet. The Parquet files are the result; this is a copy."""

from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from mribatch.core.errors import MribatchError
from mribatch.core.files import publishing
from mribatch.pipeline.output.csv_table import flatten
from mribatch.pipeline.output.parts import read_parts

SHEET_ROWS = 1_048_575  # below the header; the format's limit


def require_openpyxl() -> None:
    """Raises MribatchError where openpyxl, the extra `xlsx`, is not installed."""
    if find_spec("openpyxl") is None:
        raise MribatchError(
            "--xlsx needs openpyxl, which is not installed", "pip install openpyxl, or write a CSV file instead"
        )


def write_xlsx(run: Path, target: Path, model: str, sheet_rows: int = SHEET_ROWS) -> None:
    """Write all rows of a run as an Excel workbook, in sheets of at most `sheet_rows`; columns as in predictions.csv.

    Text that a spreadsheet would run as a formula gets a leading apostrophe; control characters are escaped.

    Raises:
        MribatchError: The file system refused.
    """
    from openpyxl import Workbook

    book = Workbook(write_only=True)
    header: list[str] = []
    sheet: Any = None
    left = 0
    for table in read_parts(run):
        flat = flatten(table, model)
        header = flat.column_names
        rows = zip(*(column.to_pylist() for column in flat.columns), strict=True)
        while chunk := list(islice(rows, left or sheet_rows)):
            if not left:
                sheet, left = book.create_sheet("predictions"), sheet_rows
                sheet.append(header)
            for row in chunk:
                sheet.append(row)
            left -= len(chunk)
    with publishing(target) as temporary:
        book.save(temporary)
