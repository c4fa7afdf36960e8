"""Figures of other protocols for a model card, read from other runs' own files, never typed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mribatch.core.errors import MribatchError
from mribatch.report.metrics import Metric, find
from mribatch.training.evaluation import CLEAN, LEAKED, Share, share_protocol
from mribatch.training.work_folder.tables import METRICS

SUMMARY_FILE = "training.json"
_FIX = "name the work folder of another training run, or the output of mribatch report"


@dataclass(frozen=True)
class Cited:
    """What another run measured."""

    name: str  # of its folder
    metrics: tuple[Metric, ...]
    leak: str  # for people
    apart: tuple[Share, ...] = ()

    @property
    def protocol(self) -> str:
        """Of all its test images."""
        return self.metrics[0].protocol


def read_cited(folders: Sequence[Path]) -> tuple[Cited, ...]:
    """The figures of training's work folders, and of `mribatch report`'s outputs, which know no leak rate.

    Raises:
        MribatchError: A folder holds neither.
    """
    return tuple(
        _of_training(folder) if (folder / SUMMARY_FILE).is_file() else _of_report(folder) for folder in folders
    )


def _of_training(folder: Path) -> Cited:
    path = folder / SUMMARY_FILE
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        rows, leak = [_metric(row) for row in facts["metrics"]], str(facts["training"]["leak"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MribatchError(f"cannot read {path}: {type(error).__name__} {error}", _FIX) from error
    whole = tuple(row for row in rows if row.protocol == rows[0].protocol)
    return _checked(path, Cited(folder.resolve().name, whole, leak, _shares(rows)))


def _of_report(folder: Path) -> Cited:
    import pyarrow
    from pyarrow import parquet

    path = folder / METRICS
    try:
        rows = parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise MribatchError(f"cannot read {path}: {error}", _FIX) from error
    try:
        metrics = tuple(_metric(row) for row in rows)
    except KeyError as error:
        raise MribatchError(f"{path} has no column {error}", _FIX) from error
    return _checked(path, Cited(folder.resolve().name, metrics, "not known to a report"))


def _metric(row: Mapping[str, Any]) -> Metric:
    return Metric(
        row["metric"], row["class"], row["value"], row["low"], row["high"], row["n"], row["protocol"], row.get("note")
    )


def _shares(rows: Sequence[Metric]) -> tuple[Share, ...]:
    """The leaked and the clean images' own rows."""
    found = []
    for name in (LEAKED, CLEAN):
        own = tuple(row for row in rows if row.protocol == share_protocol(rows[0].protocol, name))
        if own:
            found.append(Share(name, find(own, "accuracy").n, own))
    return tuple(found)


def _checked(path: Path, run: Cited) -> Cited:
    if not any(row.name == "accuracy" for row in run.metrics):
        raise MribatchError(f"{path} has no accuracy", _FIX)
    return run
