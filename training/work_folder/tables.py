"""The tables that a training leaves in its work folder, as Parquet."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy import float32, int64
from numpy.typing import NDArray

from mribatch.core.files import publishing
from mribatch.core.local_paths import arrow_path
from mribatch.report.metrics import Metric
from mribatch.training.data.images import DataSet
from mribatch.training.data.split import Grouping
from mribatch.training.fit.history import Epoch

HISTORY, PARTS_TABLE, METRICS = "history.parquet", "parts.parquet", "metrics.parquet"
TEST_PREDICTIONS, TEST_FILES = "test_predictions.parquet", "test_files.txt"
OUT_OF_FOLD, LEFT_OUT = "out_of_fold.parquet", "left_out"


def write_history(work: Path, history: Sequence[Epoch]) -> None:
    """Write history.parquet: one row per epoch; columns as in `Epoch`."""
    _write(work / HISTORY, _to_columns([asdict(row) for row in history]))


def write_parts(work: Path, data: DataSet, grouping: Grouping, parts: Sequence[str]) -> None:
    """Write parts.parquet: path, label, part, unit, near_duplicates, error; files that were left out come last."""
    rows: list[dict[str, Any]] = [
        {
            "path": path,
            "label": data.classes.names[label],
            "part": part,
            "unit": unit,
            "near_duplicates": close,
            "error": None,
        }
        for path, label, part, unit, close in zip(
            data.paths, data.labels, parts, grouping.units.tolist(), grouping.near_duplicates.tolist(), strict=True
        )
    ]
    empty = dict.fromkeys(("label", "unit", "near_duplicates"))
    rows += [
        {**empty, "path": item.path, "part": LEFT_OUT, "error": f"{item.status.value}: {item.error}"}
        for item in data.left_out
    ]
    _write(work / PARTS_TABLE, _to_columns(rows))


def write_test_predictions(work: Path, data: DataSet, tested: NDArray[int64], probabilities: NDArray[float32]) -> None:
    """Write test_predictions.parquet: path, label, predicted, confidence, p_<class> of the test part, from Keras."""
    _write(work / TEST_PREDICTIONS, _prediction_columns(data, tested, probabilities))


def write_out_of_fold(
    work: Path,
    data: DataSet,
    grouping: Grouping,
    *,
    dealt: NDArray[int64],
    logits: NDArray[float32],
    probabilities: NDArray[float32],
) -> None:
    """Write out_of_fold.parquet: each image's prediction by the network that was trained without its fold.

    Columns: path, label, fold (from 1), unit, predicted, confidence, p_<class> (calibrated), logit_<class> (before).

    Args:
        work: The work folder.
        data: All images.
        grouping: Their units.
        dealt: (n,), fold of each image, from 0.
        logits: (n, classes).
        probabilities: (n, classes), calibrated.
    """
    columns = _prediction_columns(data, np.arange(len(data.labels)), probabilities)
    columns |= {f"logit_{name}": logits[:, index].copy() for index, name in enumerate(data.classes.names)}
    first = {name: columns.pop(name) for name in ("path", "label")}
    _write(work / OUT_OF_FOLD, {**first, "fold": dealt + 1, "unit": grouping.units, **columns})


def write_metrics(work: Path, metrics: Sequence[Metric]) -> None:
    """Write metrics.parquet: the metrics of the test part in long form, as `mribatch report` writes them.

    If leaked and clean images are scored separately, their rows come last, each with a protocol of its own.
    """
    rows = [{("class" if key == "class_" else key): value for key, value in asdict(row).items()} for row in metrics]
    _write(work / METRICS, _to_columns(rows))


def write_test_files(work: Path, files: Sequence[bytes]) -> None:
    """Write test_files.txt: the files of the test part, one absolute path per line, for `classify --from-file`."""
    with publishing(work / TEST_FILES) as temporary:
        temporary.write_bytes(b"".join(file + b"\n" for file in files))


def _prediction_columns(data: DataSet, tested: NDArray[int64], probabilities: NDArray[float32]) -> dict[str, Any]:
    names = data.classes.names
    best = probabilities.argmax(axis=1)
    columns: dict[str, Any] = {
        "path": [data.paths[position] for position in tested],
        "label": [names[data.labels[position]] for position in tested],
        "predicted": [names[position] for position in best],
        "confidence": probabilities.max(axis=1),
    }
    return columns | {f"p_{name}": probabilities[:, index].copy() for index, name in enumerate(names)}


def _to_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def _write(path: Path, columns: Mapping[str, Any]) -> None:
    import pyarrow
    from pyarrow import parquet

    with publishing(path) as temporary:
        table = pyarrow.table(dict(columns))
        parquet.write_table(table, arrow_path(temporary), compression="zstd")
