"""Figures of other protocols for a model card, read from the metrics.parquet of other runs, never typed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mribatch.errors import MribatchError
from mribatch.pipeline.metrics import Metric
from mribatch.training.tables import METRICS


@dataclass(frozen=True)
class Cited:
    """What another run measured; `name` is its folder's."""

    name: str
    metrics: tuple[Metric, ...]


def read_cited(folders: Sequence[Path]) -> tuple[Cited, ...]:
    """The metrics of training's work folders and of `mribatch report`'s outputs; both write the same table.

    Raises:
        MribatchError: A folder has no such table.
    """
    return tuple(Cited(folder.name, _read(folder / METRICS)) for folder in folders)


def _read(path: Path) -> tuple[Metric, ...]:
    import pyarrow
    from pyarrow import parquet

    fix = "name the work folder of another training run, or the output of mribatch report"
    try:
        rows = parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise MribatchError(f"cannot read {path}: {error}", fix) from error
    try:
        found = tuple(
            Metric(row["metric"], row["class"], row["value"], row["low"], row["high"], row["n"], row["protocol"],
                   row.get("note"))
            for row in rows
        )  # fmt: skip
    except KeyError as error:
        raise MribatchError(f"{path} has no column {error}", fix) from error
    if not any(row.name == "accuracy" for row in found):
        raise MribatchError(f"{path} has no accuracy", fix)
    return found
