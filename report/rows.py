"""The rows of a finished run as arrays, for the report; the counts are checked."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import float32, int64, uint64
from numpy.typing import NDArray

from mribatch.core.errors import MribatchError
from mribatch.core.local_paths import arrow_path
from mribatch.core.regular_file import check_regular
from mribatch.pipeline.output.parts import PARTS_FOLDER, has_flag, read_parts
from mribatch.pipeline.output.run_file import RUN_FILE
from mribatch.pipeline.records import Flag, Status
from mribatch.report.run_facts import RESTORE, RunFacts

if TYPE_CHECKING:
    import pyarrow as pa


_COLUMNS = (
    *("input", "path", "label", "status", "error", "flags", "sha256", "perceptual_hash"),
    *("slice", "instance", "patient", "series"),
)


@dataclass(frozen=True)
class RunRows:
    """Every row of the predictions, in listing order.

    labels: int64 (rows,), positions in the classes, -1 where unknown. readable: bool (rows,), where status is ok.
    probabilities: float32 (rows, classes), zero where not readable.
    """

    paths: list[str]
    inputs: NDArray[int64]
    labels: NDArray[int64]
    statuses: list[str]
    errors: list[str | None]
    readable: NDArray[np.bool_]
    blank: NDArray[np.bool_]  # (rows,): slices of nothing but background
    probabilities: NDArray[float32]
    seen: NDArray[np.bool_]  # (rows,): the model was trained on the image
    near: NDArray[np.bool_]  # (rows,): of these, only nearly the same picture was found
    hashes: list[str | None]  # SHA-256 of each row's file; None where it could not be read
    slices: list[int | None]  # position in a file that holds several images
    patients: list[str | None]  # pseudonym, or the series of a file that names no patient; None for a plain image
    unlike: NDArray[np.bool_]  # (rows,): the image does not look like those of training
    pictures: NDArray[uint64]  # (rows,): perceptual hashes; 0 where a row has none
    series: list[str | None]  # pseudonym; None for a plain image
    instances: list[int | None]  # place in the series
    extra: list[Any] | None = None  # one more column, where one was named

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def scored(self) -> NDArray[np.bool_]:
        """bool (rows,): readable and labelled; metrics are over these."""
        return self.readable & (self.labels >= 0)


def read_rows(run: Path, columns: Sequence[str]) -> "pa.Table":
    """Read columns of the predictions, in listing order.

    Raises:
        MribatchError: No part, a damaged part, or a column that is not there.
    """
    import pyarrow as pa

    parts = list(read_parts(run, columns))
    if not parts:
        raise MribatchError(f"{run / PARTS_FOLDER} holds no part-*.parquet", RESTORE)
    for part in parts:
        if lacking := sorted(set(columns) - set(part.column_names)):
            raise MribatchError(f"the predictions in {run} have no column '{lacking[0]}'", RESTORE)
    return pa.concat_tables(parts)


def list_group_columns(run: Path) -> list[str]:
    """List the columns of the predictions that can name a group: those of text or whole numbers."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for part in sorted((run / PARTS_FOLDER).glob("part-*.parquet")):
        try:
            check_regular(os.fsencode(part))
            schema = pq.read_schema(arrow_path(part))
        except (OSError, pa.ArrowException) as error:
            raise MribatchError(f"{part} is damaged: {str(error).splitlines()[0]}", RESTORE) from error
        return [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_integer(field.type)]
    return []


def load_rows(run: Path, facts: RunFacts, extra: str | None = None) -> RunRows:
    """Read all rows and check them against the counts of run.json; `extra` names one more column to read.

    Raises:
        MribatchError: Rows are missing, or hold what a run never writes.
    """
    import pyarrow.compute as pc

    classes = facts.classes
    columns = [*_COLUMNS, *(f"p_{name}" for name in classes)]
    table = read_rows(run, columns if extra is None or extra in columns else [*columns, extra])
    statuses = table["status"].to_pylist()
    _check_counts(run, facts.by_status, Counter(statuses))
    readable = np.array([status == Status.OK for status in statuses], dtype=np.bool_)
    scores = [pc.fill_null(table[f"p_{name}"], np.nan).to_numpy() for name in classes]
    probabilities = np.stack(scores, axis=1).astype(float32).clip(0, 1)  # a softmax may round to just above 1
    if not np.isfinite(probabilities[readable]).all():
        raise MribatchError(f"a row in {run} is ok and has no probabilities", RESTORE)
    probabilities[~readable] = 0
    return RunRows(
        paths=table["path"].to_pylist(),
        inputs=table["input"].to_numpy().astype(int64),
        labels=_find_positions(run, table["label"], classes),
        statuses=statuses,
        errors=table["error"].to_pylist(),
        readable=readable,
        blank=np.array([status == Status.BLANK for status in statuses], dtype=np.bool_),
        probabilities=probabilities,
        seen=has_flag(table["flags"], Flag.SEEN_IN_TRAINING).to_numpy(),
        near=has_flag(table["flags"], Flag.NEAR_MATCH).to_numpy(),
        hashes=table["sha256"].to_pylist(),
        slices=table["slice"].to_pylist(),
        patients=pc.coalesce(table["patient"], table["series"]).to_pylist(),
        unlike=has_flag(table["flags"], Flag.UNLIKE_TRAINING).to_numpy(),
        pictures=np.array([int(value or "0", 16) for value in table["perceptual_hash"].to_pylist()], uint64),
        series=table["series"].to_pylist(),
        instances=table["instance"].to_pylist(),
        extra=None if extra is None else table[extra].to_pylist(),
    )


def format_counts(counts: Mapping[str, int]) -> str:
    """E.g. "empty 5, truncated 7", the most frequent first."""
    ordered = sorted(((n, name) for name, n in counts.items() if n), key=lambda pair: (-pair[0], pair[1]))
    return ", ".join(f"{name} {n:,}" for n, name in ordered) or "none"


def _check_counts(run: Path, by_status: Mapping[str, int], found: Counter[str]) -> None:
    written = Counter(by_status)
    if +written != found:  # unary plus drops zeros
        raise MribatchError(
            f"{run} holds {found.total():,} rows ({format_counts(found)}), its {RUN_FILE} counts "
            f"{written.total():,} ({format_counts(written)})",
            RESTORE,
        )


def _find_positions(run: Path, labels: "pa.ChunkedArray", classes: Sequence[str]) -> NDArray[int64]:
    import pyarrow as pa
    import pyarrow.compute as pc

    known = pc.index_in(labels, value_set=pa.array(classes, pa.string()))
    foreign = labels.filter(pc.and_(pc.is_valid(labels), pc.is_null(known)))
    if len(foreign):
        raise MribatchError(f"{run} holds the label '{foreign[0].as_py()}', which is not a class of its model", RESTORE)
    positions: NDArray[int64] = pc.fill_null(known, -1).to_numpy().astype(int64)
    return positions
