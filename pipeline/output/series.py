"""One answer per series: series.parquet, made from the rows of a complete run.

The rule: a series is answered by the mean probability of its slices that were classified, the mean operator of
multiple-instance learning (Ilse, Tomczak and Welling 2018, section 2). Beside the mean stands the maximum of each
class, since a tumor shows in a few slices of a head, and the slice that shows it most.
"""

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy import float64
from numpy.typing import NDArray

from mribatch.core.about import RESEARCH_NOTICE, __version__
from mribatch.core.errors import RunError
from mribatch.core.files import publishing
from mribatch.core.local_paths import arrow_path
from mribatch.core.model_spec import find_no_tumor_class
from mribatch.core.system_errors import reading
from mribatch.pipeline.listing.table import LISTING_FILE, open_listing
from mribatch.pipeline.output.parts import STUDY_FIELDS, read_parts
from mribatch.pipeline.parquet_file import ParquetProblem, open_parquet, read_groups
from mribatch.pipeline.records import Status

SERIES_FILE = "series.parquet"
_MOST_SERIES = 1 << 22  # that are read
RULE = "the class with the highest mean probability over the classified slices; ties take the first class"
MISSING, DOUBLED = "missing_positions", "doubled_positions"
MIXED_SIZES, MIXED_PLANES, MIXED_LABELS = "mixed_sizes", "mixed_planes", "mixed_labels"
_COLUMNS = ("index", "path", "label", "status", "flags", "predicted", "width", "height")
_STUDY_COLUMNS = tuple(field.name for field in STUDY_FIELDS)
_SAME_POSITION = 0.01  # mm; DICOM writes positions as decimal text
_GAP = 1.5  # of the median spacing: more between two neighbours, and a slice is missing
_MAX_SIZES = 2  # of which it is only asked whether there is more than one
_MAX_INSTANCE = 1 << 16  # instance numbers that are checked for gaps; a header may name any number


def series_schema(classes: Sequence[str]) -> pa.Schema:
    """Columns of series.parquet; documented in docs/reference/parquet-schema.md, which a test compares with this."""
    return pa.schema(
        [
            pa.field("series", pa.string(), nullable=False),
            pa.field("study", pa.string()),
            pa.field("patient", pa.string()),
            pa.field("path", pa.string(), nullable=False),
            pa.field("plane", pa.string()),
            pa.field("label", pa.string()),
            pa.field("images", pa.int32(), nullable=False),
            pa.field("ok", pa.int32(), nullable=False),
            pa.field("blank", pa.int32(), nullable=False),
            pa.field("failed", pa.int32(), nullable=False),
            pa.field("predicted", pa.string()),
            pa.field("confidence", pa.float32()),
            *(pa.field(f"mean_{name}", pa.float32()) for name in classes),
            *(pa.field(f"max_{name}", pa.float32()) for name in classes),
            *(pa.field(f"share_{name}", pa.float32()) for name in classes),
            pa.field("top_index", pa.int64()),
            pa.field("top_path", pa.string()),
            pa.field("top_slice", pa.int32()),
            pa.field("top_instance", pa.int32()),
            pa.field("top_probability", pa.float32()),
            pa.field("flags", pa.list_(pa.string()), nullable=False),
        ]
    )


@dataclass(frozen=True, slots=True)
class TopSlice:
    """The slice of a series that shows a tumor most: the highest probability of all classes but `no_tumor`.

    For a model without such a class it is the slice with the highest probability of any class.
    """

    index: int
    path: str
    slice: int | None
    instance: int | None
    probability: float


@dataclass(slots=True)
class _Series:
    """What is known of one series so far; its rows come in listing order."""

    first: dict[str, Any]  # its first row
    sums: NDArray[float64]  # (classes,), over the slices that are ok
    highest: NDArray[float64]  # (classes,)
    statuses: Counter[str] = field(default_factory=Counter)
    predicted: Counter[str] = field(default_factory=Counter)
    labels: set[str] = field(default_factory=set)
    planes: set[str] = field(default_factory=set)
    sizes: set[tuple[int, int]] = field(default_factory=set)
    instances: int = 0  # bit i is set where a slice has the instance number i
    numbered: int = 0  # slices that such a bit stands for
    positions: "array[float]" = field(default_factory=lambda: array("d"))  # mm along the normal
    flags: set[str] = field(default_factory=set)
    top: TopSlice | None = None

    def add(self, row: dict[str, Any], probabilities: NDArray[float64] | None, suspicion: float) -> None:
        """Count one row. probabilities: (classes,), None where the row is not ok."""
        self.statuses[row["status"]] += 1
        self.flags.update(row["flags"])
        if row["label"] is not None:
            self.labels.add(row["label"])
        if row["plane"] is not None:
            self.planes.add(row["plane"])
        if row["width"] is not None and len(self.sizes) < _MAX_SIZES:
            self.sizes.add((row["width"], row["height"]))
        if row["position"] is not None:
            self.positions.append(row["position"])
        if row["instance"] is not None and 0 <= row["instance"] < _MAX_INSTANCE:
            self.instances |= 1 << row["instance"]
            self.numbered += 1
        if probabilities is None:
            return
        self.predicted[row["predicted"]] += 1
        self.sums += probabilities
        np.maximum(self.highest, probabilities, out=self.highest)
        if self.top is None or suspicion > self.top.probability:
            self.top = TopSlice(row["index"], row["path"], row["slice"], row["instance"], suspicion)

    def list_flags(self) -> list[str]:
        """Flags of its rows, and what is odd about the series as a whole."""
        complete = len(self.positions) == self.statuses.total()
        found = self.flags | (self._check_positions() if complete else self._check_instances())
        odd = ((MIXED_SIZES, self.sizes), (MIXED_PLANES, self.planes), (MIXED_LABELS, self.labels))
        return sorted(found | {name for name, values in odd if len(values) > 1})

    def _check_positions(self) -> set[str]:
        steps = np.diff(np.sort(np.array(self.positions)))
        found = {DOUBLED} if (steps < _SAME_POSITION).any() else set()
        steps = steps[steps >= _SAME_POSITION]
        return found | ({MISSING} if len(steps) > 1 and steps.max() > _GAP * np.median(steps) else set())

    def _check_instances(self) -> set[str]:
        """By the numbers that the scanner gave, where the header does not say where the slices lie."""
        bits = self.instances
        lowest = (bits & -bits).bit_length()
        missing = bits.bit_length() - lowest + 1 > bits.bit_count() > 0
        return ({MISSING} if missing else set()) | ({DOUBLED} if self.numbered > bits.bit_count() else set())


def write_series(run: Path, classes: Sequence[str]) -> int:
    """Write series.parquet from the rows of a run; without a single series there is no file.

    Memory grows by about 2 kB for each series and 16 bytes for each image.

    Returns:
        The number of series.

    Raises:
        WriteError: The file system refused.
    """
    table = tabulate_series(run, classes)
    if not table.num_rows:
        (run / SERIES_FILE).unlink(missing_ok=True)
        return 0
    metadata = {
        "mribatch.rule": RULE,
        "mribatch.tool_version": __version__,
        "mribatch.research_notice": RESEARCH_NOTICE,
    }
    with publishing(run / SERIES_FILE) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), arrow_path(temporary), write_page_checksum=True)
    return int(table.num_rows)


def tabulate_series(run: Path, classes: Sequence[str]) -> pa.Table:
    """Compute the rows of series.parquet from the rows of a run."""
    rows = [_to_row(name, series, classes) for name, series in _collect(run, classes).items()]
    return pa.Table.from_pylist(rows, schema=series_schema(classes))


def read_series(run: Path) -> pa.Table | None:
    """Read series.parquet of a run; None where the run has no series.

    Raises:
        RunError: The file is damaged, or of another make.
    """
    path = run / SERIES_FILE
    if not path.exists():
        return None
    try:
        with reading(path), open_parquet(path, series_schema(()), most=_MOST_SERIES) as file:
            lacking = sorted({field.name for field in series_schema(())} - set(file.schema_arrow.names))
            if lacking or file.metadata.num_rows > _MOST_SERIES:
                raise ParquetProblem(f"it has no column '{lacking[0]}'" if lacking else "it has too many rows")
            return read_groups(file, range(file.metadata.num_row_groups))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise RunError(f"{path} is damaged: {str(error).splitlines()[0]}", "restore the folder") from error


def select_suspicious(series: pa.Table, top: int | None) -> list[dict[str, Any]]:
    """The first `top` series, all with None, those that show a tumor most first; series without an answer come last."""
    rows: list[dict[str, Any]] = series.sort_by([("top_probability", "descending")]).slice(0, top).to_pylist()
    return rows


def _collect(run: Path, classes: Sequence[str]) -> dict[str, _Series]:
    found: dict[str, _Series] = {}
    positions = _read_positions(run)
    for part in _read_study_rows(run, classes):
        scores = np.stack([part[f"p_{name}"].to_numpy().astype(float64) for name in classes], axis=1)
        suspicion = measure_suspicion(scores, classes)
        rows = part.select([*_COLUMNS, *_STUDY_COLUMNS]).to_pylist()
        for row, probabilities, suspected in zip(rows, scores, suspicion.tolist(), strict=True):
            name, row["position"] = row["series"], _find_position(positions, row["index"])
            if name not in found:
                nothing = np.zeros(len(classes))
                found[name] = _Series(first=row, sums=nothing.copy(), highest=nothing)
            found[name].add(row, probabilities if row["status"] == Status.OK else None, suspected)
    return found


def measure_suspicion(probabilities: NDArray[float64], classes: Sequence[str]) -> NDArray[float64]:
    """How much each image shows a tumor: 1 minus the probability of the class without one.

    Args:
        probabilities: float64, shape (images, classes).
        classes: In the order of the columns.

    Returns:
        float64, shape (images,). The highest probability of any class where no class means that there is no tumor.
    """
    without = find_no_tumor_class(classes)
    if without is None:
        return np.asarray(probabilities.max(axis=1, initial=0.0))
    return np.asarray(1 - probabilities[:, list(classes).index(without)])


def _read_study_rows(run: Path, classes: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the rows that belong to a series, part by part; runs of plain images, also of old versions, have none."""
    for part in read_parts(run, [*_COLUMNS, *_STUDY_COLUMNS, *(f"p_{name}" for name in classes)]):
        rows = part.filter(pc.is_valid(part["series"]))
        if rows.num_rows:
            yield rows


def _read_positions(run: Path) -> NDArray[float64] | None:
    """Where each image of the listing lies, in mm, NaN where it is not known; None without a listing that says so."""
    path = run / LISTING_FILE
    if not path.exists():
        return None
    with open_listing(path) as listing:
        if "position" not in listing.schema_arrow.names:
            return None
        column = read_groups(listing, range(listing.metadata.num_row_groups), ["position"])["position"]
    return np.asarray(column.to_numpy(), float64)


def _find_position(positions: NDArray[float64] | None, index: int) -> float | None:
    if positions is None or np.isnan(positions[index]):
        return None
    return float(positions[index])


def _to_row(name: str, series: _Series, classes: Sequence[str]) -> dict[str, Any]:
    images, ok, blank = series.statuses.total(), series.statuses[Status.OK], series.statuses[Status.BLANK]
    only_plane, only_label = (
        next(iter(values)) if len(values) == 1 else None for values in (series.planes, series.labels)
    )
    row: dict[str, Any] = {"series": name, "study": series.first["study"], "patient": series.first["patient"]}
    row |= {"path": series.first["path"], "plane": only_plane, "label": only_label}
    row |= {"images": images, "ok": ok, "blank": blank, "failed": images - ok - blank, "flags": series.list_flags()}
    if not ok:
        return row
    means = series.sums / ok
    best = int(means.argmax())
    row |= {"predicted": classes[best], "confidence": means[best]}
    for column, each in enumerate(classes):
        row |= {f"mean_{each}": means[column], f"max_{each}": series.highest[column]}
        row[f"share_{each}"] = series.predicted[each] / ok
    assert series.top is not None, "a slice that is ok was offered"
    top = series.top
    row |= {"top_index": top.index, "top_path": top.path, "top_slice": top.slice, "top_instance": top.instance}
    return row | {"top_probability": top.probability}
