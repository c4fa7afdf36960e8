"""A finished run folder without a run: real Parquet parts with the schema of the predictions, and a run.json."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mribatch.core.about import RESEARCH_NOTICE
from mribatch.pipeline.output.parts import SCHEMA_VERSION, predictions_schema

CLASSES = ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")


@dataclass(frozen=True)
class Row:
    """One row to be; `scores` are probabilities in class order, None where the file is not ok."""

    path: str
    label: str | None = None
    scores: tuple[float, ...] | None = None
    status: str = "ok"
    error: str | None = None
    flags: tuple[str, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)  # other columns


def write_run(
    run: Path, rows: Sequence[Row], classes: Sequence[str] = CLASSES, part_rows: int = 3, **facts: Any
) -> Path:
    """Write `rows` as a complete run; `facts` replace keys of run.json, or keys of its objects."""
    schema = predictions_schema(classes)
    (run / "predictions").mkdir(parents=True)
    for part, start in enumerate(range(0, len(rows), part_rows)):
        records = [_record(i, rows[i], classes) for i in range(start, min(start + part_rows, len(rows)))]
        pq.write_table(pa.Table.from_pylist(records, schema=schema), run / "predictions" / f"part-{part:05d}.parquet")
    content = _run_file(rows, classes)
    for key, value in facts.items():
        merged = isinstance(value, dict) and isinstance(content[key], dict)
        content[key] = content[key] | value if merged else value
    (run / "run.json").write_text(json.dumps(content), encoding="utf-8")
    return run


def scores_for(predicted: int, confidence: float, classes: int = len(CLASSES)) -> tuple[float, ...]:
    """Probabilities with `confidence` on one class and the rest spread evenly."""
    rest = (1 - confidence) / (classes - 1)
    return tuple(confidence if k == predicted else rest for k in range(classes))


def _run_file(rows: Sequence[Row], classes: Sequence[str]) -> dict[str, Any]:
    """Every key that a run writes."""
    by_status = Counter(row.status for row in rows)
    labelled = [row for row in rows if row.label]
    predicted = [classes[int(np.argmax(row.scores))] for row in rows if row.scores]
    return {
        "tool": "mribatch",
        "tool_version": "0.1.0",
        "schema_version": SCHEMA_VERSION,
        "research_notice": RESEARCH_NOTICE,
        "notice": None,
        "inputs": [{"path": "slices", "kind": "folder", "root": "/data/set/slices"}],
        "bundle": {
            "name": "tiny",
            "folder": "/models/tiny",
            "bundle_sha256": "0" * 64,
            "model_sha256": "1" * 64,
            "classes": list(classes),
            "trained": True,
        },
        "backend": "onnxruntime",
        "decoder": "opencv",
        "precision": "fp32",
        "batch_size": 64,
        "threads": 2,
        "reasons": {"backend": "no GPU", "decoder": "no GPU"},
        "versions": {"python": "3.11"},
        "machine": {"system": "Linux", "processor": "x86_64", "cores": 2},
        "listing": {
            "files": len(rows),
            "labelled": len(labelled),
            "sha256": "2" * 64,
            "skipped": 0,
            "skipped_by_reason": {},
            "skipped_by_suffix": {},
            "skipped_first": [],
            "unknown_labels": {},
        },
        "labels": "auto",
        "counts": {
            "rows": len(rows),
            "by_status": dict(by_status),
            "by_class": dict(Counter(predicted)),
            "labelled": len(labelled),
            "correct": sum(row.scores is not None and row.label == classes[int(np.argmax(row.scores))] for row in rows),
        },
        "attempts": [],
        "fingerprint": {},
        "run_id": "3" * 32,
        "state": "complete",
    }


def _record(index: int, row: Row, classes: Sequence[str]) -> dict[str, Any]:
    record: dict[str, Any] = {
        "index": index,
        "input": 0,
        "path": row.path,
        "label": row.label,
        "status": row.status,
        "error": row.error,
        "flags": list(row.flags),
        "bytes": 10,
        "sha256": f"{index:064x}",
    }
    if row.scores is not None:
        scores = np.array(row.scores, dtype=np.float32)
        best = int(scores.argmax())
        record |= {f"p_{name}": float(scores[k]) for k, name in enumerate(classes)}
        record |= {"predicted": classes[best], "confidence": float(scores[best]), "width": 8, "height": 8}
    return record | dict(row.more)
