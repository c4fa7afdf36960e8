"""A small run, and its report after every file of it was checked."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mribatch.report.measure import ReportOptions, report
from mribatch.report.metrics_file import metrics_schema, read_metrics
from tests.finished_run import CLASSES, Row, scores_for

GLIOMA, MENINGIOMA, NO_TUMOR, PITUITARY = CLASSES


def made(run: Path, **options: Any) -> dict[str, Any]:
    """Report on `run`; what metrics.json holds, after it was found valid, finite and equal to the Parquet file."""
    import jsonschema

    result = report(ReportOptions(run=run, html=False, **options))
    text = (run / "metrics.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text, parse_constant=pytest.fail)
    schema = metrics_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(content, schema)
    table = pq.read_table(run / "metrics.parquet")
    assert table.column_names == ["metric", "class", "value", "low", "high", "n", "protocol"]
    rows = [row | {"protocol": level["protocol"]} for level in content["levels"] for row in level["metrics"]]
    assert table.to_pylist() == [{key: row[key] for key in table.column_names} for row in rows]
    assert result.content == content
    assert read_metrics(run / "metrics.json", fix="") == result.file
    assert [(row.name, row.value, row.protocol) for row in result.metrics] == [
        (row["metric"] + (f"[{row['class']}]" if row["class"] else ""), row["value"], row["protocol"]) for row in rows
    ]
    assert not [path.name for path in run.iterdir() if path.name.startswith(".")]
    return content


def value(content: dict[str, Any], metric: str, class_: str | None = None, level: str = "image") -> dict[str, Any]:
    found = next(each for each in content["levels"] if each["level"] == level)["metrics"]
    return next(row for row in found if row["metric"] == metric and row["class"] == class_)


def page_of(run: Path) -> str:
    return (run / "report.md").read_text(encoding="utf-8")


def eight_rows() -> list[Row]:
    """Two slices of each class, the second pituitary one wrong, then two broken files and one without a label."""
    rows = [Row(f"{name}/P{k}{i}.png", name, scores_for(k, 0.9)) for k, name in enumerate(CLASSES) for i in range(2)]
    rows[7] = Row("pituitary_tumor/P31.png", PITUITARY, scores_for(0, 0.6))
    broken = [Row("no_tumor/cut|off.jpg", NO_TUMOR, None, "truncated", "ends early"), Row("x.png", None, None, "empty")]
    return [*rows, *broken, Row("odd/P40.png", None, scores_for(1, 0.7))]
