"""Figures of other runs for a model card, read from the files of those runs, never typed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mribatch.core.errors import MribatchError
from mribatch.core.local_paths import arrow_path
from mribatch.report.metrics import Metric, find
from mribatch.training.evaluation.scores import CLEAN, LEAKED, Share, share_protocol
from mribatch.training.work_folder.summary import SUMMARY_FILE, TrainingSummary
from mribatch.training.work_folder.tables import METRICS

_FIX = "name the work folder of another training run, or the output of mribatch report"


@dataclass(frozen=True)
class CitedRun:
    """What another run measured."""

    name: str  # of its folder
    metrics: tuple[Metric, ...]
    leak: str  # for people
    shares: tuple[Share, ...] = ()  # leaked and clean images, if there are both

    @property
    def protocol(self) -> str:
        """The protocol of all its test images."""
        return self.metrics[0].protocol


def read_citations(folders: Sequence[Path]) -> tuple[CitedRun, ...]:
    """Read the figures of trainings' work folders and of reports, which have no leak rate.

    Raises:
        MribatchError: A folder holds neither.
    """
    return tuple(
        _of_training(folder) if (folder / SUMMARY_FILE).is_file() else _of_report(folder) for folder in folders
    )


def _of_training(folder: Path) -> CitedRun:
    path = folder / SUMMARY_FILE
    try:
        summary = TrainingSummary.read(folder)
    except (OSError, ValueError) as error:
        raise MribatchError(f"cannot read {path}: {error}", _FIX) from error
    rows = [row.metric for row in summary.metrics]
    whole = tuple(row for row in rows if row.protocol == rows[0].protocol)
    return _check_accuracy(path, CitedRun(folder.resolve().name, whole, summary.training.leak, _collect_shares(rows)))


def _of_report(folder: Path) -> CitedRun:
    import pyarrow
    from pyarrow import parquet

    path = folder / METRICS
    try:
        rows = parquet.read_table(arrow_path(path)).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise MribatchError(f"cannot read {path}: {error}", _FIX) from error
    try:
        metrics = tuple(_metric(row) for row in rows)
    except KeyError as error:
        raise MribatchError(f"{path} has no column {error}", _FIX) from error
    return _check_accuracy(path, CitedRun(folder.resolve().name, metrics, "not known to a report"))


def _metric(row: Mapping[str, Any]) -> Metric:
    return Metric(
        row["metric"], row["class"], row["value"], row["low"], row["high"], row["n"], row["protocol"], row.get("note")
    )


def _collect_shares(rows: Sequence[Metric]) -> tuple[Share, ...]:
    """Collect the rows of the leaked and of the clean images."""
    found = []
    for name in (LEAKED, CLEAN):
        own = tuple(row for row in rows if row.protocol == share_protocol(rows[0].protocol, name))
        if own:
            found.append(Share(name, find(own, "accuracy").n, own))
    return tuple(found)


def _check_accuracy(path: Path, run: CitedRun) -> CitedRun:
    if not any(row.name == "accuracy" for row in run.metrics):
        raise MribatchError(f"{path} has no accuracy", _FIX)
    return run
