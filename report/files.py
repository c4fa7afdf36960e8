"""The three files of a report: metrics.parquet, metrics.json and report.md, in the folder of the run."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from mribatch.core.files import publishing, write_json
from mribatch.core.local_paths import arrow_path
from mribatch.report.metrics_file import METRICS_JSON, MetricsFile
from mribatch.report.text.page import format_page

if TYPE_CHECKING:
    import pyarrow as pa

METRICS_PARQUET, PAGE = "metrics.parquet", "report.md"


def write_files(run: Path, content: MetricsFile) -> None:
    """Replace the three files, each atomically; metrics.json is the last.

    Raises:
        MribatchError: The folder of the run cannot be written to.
    """
    import pyarrow.parquet as pq

    with publishing(run / METRICS_PARQUET) as temporary:
        pq.write_table(_to_table(content), arrow_path(temporary))
    with publishing(run / PAGE) as temporary:
        temporary.write_text(format_page(content), encoding="utf-8")
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
    metadata = {
        "mribatch.schema_version": json.dumps(content.schema_version),
        "mribatch.tool_version": content.tool_version,
        "mribatch.research_notice": content.research_notice,
        "mribatch.notices": json.dumps(content.notices),
        "mribatch.model": str(content.run.model),
    }
    arrays = [pa.array(values, field.type) for field, values in columns.items()]
    return pa.Table.from_arrays(arrays, schema=pa.schema(list(columns), metadata=metadata))
