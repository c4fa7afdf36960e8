"""The tables that a training run leaves in its work folder, as Parquet."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from numpy import float32, int64
from numpy.typing import NDArray

from mribatch.files import publishing
from mribatch.pipeline.metrics import Metric
from mribatch.training.data import DataSet
from mribatch.training.fit import Epoch
from mribatch.training.split import PARTS, Grouping

HISTORY, PARTS_TABLE, METRICS = "history.parquet", "parts.parquet", "metrics.parquet"
TEST_PREDICTIONS, TEST_FILES = "test_predictions.parquet", "test_files.txt"
LEFT_OUT = "left_out"


def write_history(work: Path, history: Sequence[Epoch]) -> None:
    """history.parquet: one row per epoch; columns as in `Epoch`."""
    _write(work / HISTORY, _columns([asdict(row) for row in history]))


def write_parts(work: Path, data: DataSet, grouping: Grouping, parts: NDArray[int64]) -> None:
    """parts.parquet: path, label, part, unit, near_duplicates, error; files that were left out come last."""
    rows: list[dict[str, Any]] = [
        {"path": path, "label": data.classes.names[label], "part": PARTS[part], "unit": unit,
         "near_duplicates": close, "error": None}
        for path, label, part, unit, close in zip(
            data.paths, data.labels, parts.tolist(), grouping.units.tolist(), grouping.near_duplicates.tolist(),
            strict=True)
    ]  # fmt: skip
    empty = dict.fromkeys(("label", "unit", "near_duplicates"))
    rows += [
        {**empty, "path": item.path, "part": LEFT_OUT, "error": f"{item.status.value}: {item.error}"}
        for item in data.left_out
    ]
    _write(work / PARTS_TABLE, _columns(rows))


def write_test_predictions(work: Path, data: DataSet, tested: NDArray[int64], probabilities: NDArray[float32]) -> None:
    """test_predictions.parquet: path, label, predicted, confidence, p_<class> of the test part, from Keras."""
    names = data.classes.names
    best = probabilities.argmax(axis=1)
    columns: dict[str, Any] = {
        "path": [data.paths[position] for position in tested],
        "label": [names[data.labels[position]] for position in tested],
        "predicted": [names[position] for position in best],
        "confidence": probabilities.max(axis=1),
    }
    columns |= {f"p_{name}": probabilities[:, index].copy() for index, name in enumerate(names)}
    _write(work / TEST_PREDICTIONS, columns)


def write_metrics(work: Path, metrics: Sequence[Metric]) -> None:
    """metrics.parquet: the test part's metrics in long form, as `mribatch report` writes them."""
    rows = [{("class" if key == "class_" else key): value for key, value in asdict(row).items()} for row in metrics]
    _write(work / METRICS, _columns(rows))


def write_test_files(work: Path, files: Sequence[bytes]) -> None:
    """test_files.txt: the test part's files, one absolute path per line, for `mribatch classify --from-file`."""
    with publishing(work / TEST_FILES) as temporary:
        temporary.write_bytes(b"".join(file + b"\n" for file in files))


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def _write(path: Path, columns: Mapping[str, Any]) -> None:
    import pyarrow
    from pyarrow import parquet

    with publishing(path) as temporary:
        parquet.write_table(pyarrow.table(dict(columns)), temporary, compression="zstd")
