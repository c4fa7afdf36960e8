"""A finished run folder without a run: real Parquet parts with the schema of the predictions, and a run.json."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mribatch.pipeline.output.parts import predictions_schema

CLASSES = ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")


@dataclass(frozen=True)
class Row:
    """One row to be; `scores` are probabilities in class order, None where the file is not ok."""

    path: str
    label: str | None = None
    scores: tuple[float, ...] | None = None
    status: str = "ok"
    error: str | None = None


def write_run(
    run: Path, rows: Sequence[Row], classes: Sequence[str] = CLASSES, part_rows: int = 3, **facts: Any
) -> Path:
    """Write `rows` as a complete run; `facts` replace keys of run.json."""
    schema = predictions_schema(classes)
    (run / "predictions").mkdir(parents=True)
    for part, start in enumerate(range(0, len(rows), part_rows)):
        records = [_record(i, rows[i], classes) for i in range(start, min(start + part_rows, len(rows)))]
        pq.write_table(pa.Table.from_pylist(records, schema=schema), run / "predictions" / f"part-{part:05d}.parquet")
    content = {
        "state": "complete",
        "tool_version": "0.1.0",
        "notice": None,
        "bundle": {"name": "tiny", "classes": list(classes), "trained": True},
        "backend": "onnxruntime",
        "decoder": "opencv",
        "precision": "fp32",
        "inputs": [{"path": "slices", "kind": "folder", "root": "/data/set/slices"}],
        "counts": {"rows": len(rows), "by_status": dict(Counter(row.status for row in rows))},
        "labels": "auto",
        "listing": {"unknown_labels": {}},
    }
    (run / "run.json").write_text(json.dumps(content | facts), encoding="utf-8")
    return run


def scores_for(predicted: int, confidence: float, classes: int = len(CLASSES)) -> tuple[float, ...]:
    """Probabilities with `confidence` on one class and the rest spread evenly."""
    rest = (1 - confidence) / (classes - 1)
    return tuple(confidence if k == predicted else rest for k in range(classes))


def _record(index: int, row: Row, classes: Sequence[str]) -> dict[str, Any]:
    record: dict[str, Any] = {
        "index": index,
        "input": 0,
        "path": row.path,
        "label": row.label,
        "status": row.status,
        "error": row.error,
        "flags": [],
        "bytes": 10,
        "sha256": f"{index:064x}",
    }
    if row.scores is not None:
        scores = np.array(row.scores, dtype=np.float32)
        best = int(scores.argmax())
        record |= {f"p_{name}": float(scores[k]) for k, name in enumerate(classes)}
        record |= {"predicted": classes[best], "confidence": float(scores[best]), "width": 8, "height": 8}
    return record
