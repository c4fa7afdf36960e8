"""The files of a report, in the folder of the run: metrics.parquet, metrics.json, report.md, and those of patients."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mribatch.core.files import publishing, write_json
from mribatch.core.local_paths import arrow_path
from mribatch.core.text import one_line
from mribatch.pipeline.output.csv_table import BYTE_ORDER_MARK, make_safe
from mribatch.report.metrics_file import METRICS_JSON, MetricsFile
from mribatch.report.patient_table import SEVERAL, PatientTable
from mribatch.report.text.page import format_page

if TYPE_CHECKING:
    import pyarrow as pa

METRICS_PARQUET, PAGE = "metrics.parquet", "report.md"
PATIENTS_PARQUET, PATIENTS_CSV = "patients.parquet", "patients.csv"


def write_files(run: Path, content: MetricsFile, patients: PatientTable | None = None) -> None:
    """Replace the files, each atomically; metrics.json is the last. Without patients, theirs are deleted.

    Raises:
        MribatchError: The folder of the run cannot be written to.
    """
    import pyarrow.parquet as pq

    with publishing(run / METRICS_PARQUET) as temporary:
        pq.write_table(_to_table(content), arrow_path(temporary))
    with publishing(run / PAGE) as temporary:
        temporary.write_text(format_page(content), encoding="utf-8")
    if patients is None:
        for name in (PATIENTS_PARQUET, PATIENTS_CSV):  # of an earlier report, whose figures are gone
            (run / name).unlink(missing_ok=True)
    else:
        _write_patients(run, patients, _list_metadata(content))
    write_json(run / METRICS_JSON, content.to_json())


def _to_table(content: MetricsFile) -> "pa.Table":
    """metrics.parquet: metric, class, value, low, high, n, protocol; no rows where nothing could be measured."""
    import pyarrow as pa

    metrics = content.metrics
    columns = {
        pa.field("metric", pa.string(), nullable=False): [row.metric for row in metrics],
        pa.field("class", pa.string()): [row.class_ for row in metrics],
        pa.field("value", pa.float64()): [row.value for row in metrics],
        pa.field("low", pa.float64()): [row.low for row in metrics],
        pa.field("high", pa.float64()): [row.high for row in metrics],
        pa.field("n", pa.int64(), nullable=False): [row.n for row in metrics],
        pa.field("protocol", pa.string(), nullable=False): [row.protocol for row in metrics],
    }
    arrays = [pa.array(values, field.type) for field, values in columns.items()]
    return pa.Table.from_arrays(arrays, schema=pa.schema(list(columns), metadata=_list_metadata(content)))


def _list_metadata(content: MetricsFile) -> dict[str, str]:
    """The metadata of the Parquet files."""
    return {
        "mribatch.schema_version": json.dumps(content.schema_version),
        "mribatch.tool_version": content.tool_version,
        "mribatch.research_notice": content.research_notice,
        "mribatch.notices": json.dumps(content.notices),
        "mribatch.model": one_line(content.run.model),
    }


def _write_patients(run: Path, patients: PatientTable, metadata: Mapping[str, str]) -> None:
    import pyarrow as pa
    import pyarrow.csv as pacsv
    import pyarrow.parquet as pq

    table = patients_to_arrow(patients)
    with publishing(run / PATIENTS_PARQUET) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), arrow_path(temporary))
    texts = {i: field.name for i, field in enumerate(table.schema) if pa.types.is_string(field.type)}
    for i, name in texts.items():
        table = table.set_column(i, name, make_safe(table[name]))
    with publishing(run / PATIENTS_CSV) as temporary, temporary.open("wb") as stream:
        stream.write(BYTE_ORDER_MARK)
        pacsv.write_csv(table.rename_columns([one_line(name) for name in table.column_names]), stream)


def patients_to_arrow(patients: PatientTable) -> "pa.Table":
    """One row per patient, null where a value is not defined; the columns are those of patients.parquet."""
    import pyarrow as pa

    classes, blank = pa.array(patients.classes, pa.string()), patients.readable == 0
    predicted, judged = patients.predicted, patients.judged
    columns: dict[pa.Field, pa.Array] = {
        pa.field("patient", pa.string(), nullable=False): pa.array(patients.names, pa.string()),
        pa.field("images", pa.int64(), nullable=False): pa.array(patients.images),
        pa.field("ok", pa.int64(), nullable=False): pa.array(patients.readable),
        pa.field("seen_in_training", pa.int64(), nullable=False): pa.array(patients.seen),
        pa.field("predicted", pa.string()): classes.take(pa.array(predicted, mask=predicted < 0)),
        pa.field("label", pa.string()): classes.take(pa.array(patients.labels, mask=patients.labels < 0)),
        pa.field("several_labels", pa.bool_(), nullable=False): pa.array(patients.labels == SEVERAL),
        pa.field("correct", pa.bool_()): pa.array(predicted == patients.labels, mask=~judged),
    }
    for prefix, values in (("p", patients.mean), ("share", patients.shares)):
        for k, name in enumerate(patients.classes):
            columns[pa.field(f"{prefix}_{name}", pa.float32())] = pa.array(values[:, k], mask=blank)
    return pa.Table.from_arrays(list(columns.values()), schema=pa.schema(list(columns)))
