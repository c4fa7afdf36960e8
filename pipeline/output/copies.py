"""What is made from all rows of a complete run for other readers: series.parquet, predictions.csv, predictions.xlsx."""

from pathlib import Path

from mribatch.pipeline.output.csv_table import write_csv
from mribatch.pipeline.output.folder import CSV_FILE, XLSX_FILE
from mribatch.pipeline.output.run_file import RunFile
from mribatch.pipeline.output.series import SERIES_FILE, write_series
from mribatch.pipeline.output.xlsx_table import write_xlsx


def write_copies(run: Path, content: RunFile, *, csv: bool, xlsx: bool) -> None:
    """Write what is wanted and not there yet; series.parquet wherever there are studies.

    Raises:
        WriteError: The file system refused.
    """
    if content.listing.files_by_format is not None and not (run / SERIES_FILE).exists():
        write_series(run, content.bundle.classes)
    if csv and not (run / CSV_FILE).exists():
        write_csv(run, run / CSV_FILE, content.model_name)
    if xlsx and not (run / XLSX_FILE).exists():
        write_xlsx(run, run / XLSX_FILE, content.model_name)
