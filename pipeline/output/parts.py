"""Predictions as Parquet: the schema, part files that are whole or absent, and the check that none is missing.

A part's existence is its done marker: it is written under a dotted name, fsynced, then renamed. The rows of a part that
a signal interrupted are kept in a partial file (`partial.py`) and become the beginning of that part later.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mribatch.core.errors import RunError
from mribatch.core.files import publishing
from mribatch.core.local_paths import arrow_path
from mribatch.core.regular_file import check_regular, read_file
from mribatch.core.system_errors import reading
from mribatch.pipeline.output.layout import MOST_PART_ROWS, PART_ROWS, PartLayout
from mribatch.pipeline.output.part_hashes import differs_from_record, record_part, recorded_hashes
from mribatch.pipeline.parquet_file import ParquetProblem, open_parquet, read_groups
from mribatch.pipeline.records import Flag, Prediction, Status

SCHEMA_VERSION = 2
PARTS_FOLDER = "predictions"
_PART_NAME = re.compile(r"part-([0-9]{5,15})\.parquet")
_MAX_BYTES = 1 << 28
_METADATA_PREFIX = "mribatch."
_PART_KEY = b"mribatch.part"
_CHANGED = "has changed since it was published: its SHA-256 is not the one in parts.sha256"
_DOUBTFUL = 3  # rows that a summary names
_CLASSIFY_AGAIN = "classify the images again, into a new folder"

# Beside sha256: equal or nearly equal where two pictures are nearly the same. Runs of earlier versions lack it.
PICTURE_FIELD = pa.field("perceptual_hash", pa.string())

# Since schema version 2: which slice of which study a row is of; all null for a plain image.
STUDY_FIELDS = (
    pa.field("slice", pa.int32()),
    pa.field("patient", pa.string()),
    pa.field("study", pa.string()),
    pa.field("series", pa.string()),
    pa.field("instance", pa.int32()),
    pa.field("plane", pa.string()),
)


def predictions_schema(classes: Sequence[str]) -> pa.Schema:
    """Columns of a part file; documented in docs/reference/parquet-schema.md, which a test compares with this."""
    return pa.schema(
        [
            pa.field("index", pa.int64(), nullable=False),
            pa.field("input", pa.int16(), nullable=False),
            pa.field("path", pa.string(), nullable=False),
            *STUDY_FIELDS,
            pa.field("label", pa.string()),
            pa.field("status", pa.string(), nullable=False),
            pa.field("error", pa.string()),
            pa.field("flags", pa.list_(pa.string()), nullable=False),
            pa.field("predicted", pa.string()),
            pa.field("confidence", pa.float32()),
            pa.field("margin", pa.float32()),
            pa.field("entropy", pa.float32()),
            *(pa.field(f"p_{name}", pa.float32()) for name in classes),
            pa.field("width", pa.int32()),
            pa.field("height", pa.int32()),
            pa.field("bytes", pa.int64()),
            pa.field("sha256", pa.string()),
            PICTURE_FIELD,
        ]
    )


def part_path(run: Path, part: int) -> Path:
    return run / PARTS_FOLDER / f"part-{part:05d}.parquet"


def partial_path(run: Path, part: int) -> Path:
    """Return where the first rows of an unfinished part are kept; no reader of Parquet folders takes it for a part."""
    return run / PARTS_FOLDER / f".part-{part:05d}.partial"


@dataclass(frozen=True)
class PartFacts:
    """Written into every part's metadata, so that a single file says where it comes from."""

    classes: tuple[str, ...]
    facts: Mapping[str, Any]  # JSON values, e.g. model_sha256, backend, decoder, tool_version, run
    run_id: str  # hash of the run's fingerprint: parts of different runs do not mix

    def metadata(self, part: int) -> dict[str, str]:
        values = {"schema_version": SCHEMA_VERSION, "classes": list(self.classes), "run_id": self.run_id, "part": part}
        return {_METADATA_PREFIX + key: _as_text(value) for key, value in (values | dict(self.facts)).items()}


class PartWriter:
    """A Sink: collects rows in listing order and publishes each part when its last row has come.

    Args:
        run: The run folder.
        layout: Which rows belong to which part.
        facts: For every part's metadata.
        heads: Part -> its first rows, kept by an earlier process; the rows to be written continue them.
        published: Called with the number of a part and of its rows once its file is there.
    """

    def __init__(
        self,
        run: Path,
        layout: PartLayout,
        facts: PartFacts,
        heads: Mapping[int, pa.Table] | None = None,
        published: Callable[[int, int], None] | None = None,
    ) -> None:
        self._run = run
        self._layout = layout
        self._facts = facts
        self._schema = predictions_schema(facts.classes)
        self._heads = dict(heads or {})
        self._published = published
        self._rows: list[Prediction] = []
        (run / PARTS_FOLDER).mkdir(exist_ok=True)

    @property
    def unpublished(self) -> int:
        """Rows that were written and are not in a part file yet."""
        return len(self._rows)

    def write(self, rows: Sequence[Prediction]) -> None:
        """Take rows of one part.

        Raises:
            WriteError: The file system refused; no half part is left.
            ValueError: The rows do not continue the part: a bug, never a result.
        """
        for row in rows:
            self._check_order(row.decoded.file.index)
            self._rows.append(row)
        if self._rows and self._rows[-1].decoded.file.index == self._layout.rows(self._part)[-1]:
            self._publish()

    def keep(self) -> None:
        """Put the rows of an unfinished part into its partial file, from which a later process continues.

        Raises:
            WriteError: The file system refused; nothing else is lost.
        """
        if self._rows:
            write_table(partial_path(self._run, self._part), self._table())

    @property
    def _part(self) -> int:
        return self._layout.part_of(self._rows[0].decoded.file.index)

    def _check_order(self, index: int) -> None:
        if self._rows:
            expected = self._rows[-1].decoded.file.index + 1
        else:
            part = self._layout.part_of(index)
            expected = self._layout.rows(part)[0] + (self._heads[part].num_rows if part in self._heads else 0)
        if index != expected:
            raise ValueError(f"row {index} where row {expected} was due")

    def _table(self) -> pa.Table:
        """The rows of the part so far, with those that were kept; the same bytes however they came together."""
        columns = _columns(self._rows, self._facts.classes)
        if (
            self._part in self._heads
        ):  # as Python values again: Arrow arrays from a file are not written as the same bytes
            head = self._heads[self._part].to_pydict()
            columns = {name: head[name] + values for name, values in columns.items()}
        arrays = [pa.array(columns[field.name], field.type) for field in self._schema]
        return pa.Table.from_arrays(arrays, schema=self._schema.with_metadata(self._facts.metadata(self._part)))

    def _publish(self) -> None:
        part = self._part
        with publishing(part_path(self._run, part)) as temporary:
            _write(temporary, self._table())
            record_part(self._run, part, temporary.read_bytes())
        partial_path(self._run, part).unlink(missing_ok=True)
        self._heads.pop(part, None)
        self._rows.clear()
        if self._published is not None:
            self._published(part, len(self._layout.rows(part)))


def write_table(path: Path, table: pa.Table) -> None:
    """Write rows of one part, whole or not at all."""
    with publishing(path) as temporary:
        _write(temporary, table)


def _write(path: Path, table: pa.Table) -> None:
    pq.write_table(table, arrow_path(path), row_group_size=PART_ROWS, write_page_checksum=True)


def done_parts(run: Path, layout: PartLayout, run_id: str) -> set[int]:
    """Find the parts that are there and whole.

    Raises:
        RunError: A part file is damaged, has changed since it was published, is of another run, or is beyond the
            listing; names it.
    """
    done, hashes = set(), recorded_hashes(run)
    for path in sorted((run / PARTS_FOLDER).glob("part-*.parquet")):
        number = part_number(path)
        part = -1 if number is None else number
        problem = _part_problem(path, part, layout, run_id) or _change(path, part, hashes)
        if problem:
            raise RunError(f"{path} {problem}", "delete that file and type the same command again")
        done.add(part)
    return done


def _part_problem(path: Path, part: int, layout: PartLayout, run_id: str) -> str | None:
    if not 0 <= part < layout.parts:
        return "is no part of this run"
    try:
        with reading(path):
            check_regular(os.fsencode(path))
            found = pq.read_metadata(arrow_path(path))
    except (OSError, pa.ArrowException) as error:
        return f"is damaged: {str(error).splitlines()[0]}"
    if not is_of_run(found.metadata, run_id):
        return "belongs to another run"
    if found.num_rows != len(layout.rows(part)):
        return f"has {found.num_rows} rows instead of {len(layout.rows(part))}"
    return None


def _change(path: Path, part: int, hashes: Mapping[int, str]) -> str | None:
    with reading(path):
        return _CHANGED if differs_from_record(read_part(path), part, hashes) else None


def is_of_run(metadata: Mapping[bytes, bytes] | None, run_id: str) -> bool:
    """Whether the metadata of a part file name this run."""
    return (metadata or {}).get(f"{_METADATA_PREFIX}run_id".encode()) == run_id.encode()


@dataclass(frozen=True)
class RowCounts:
    """What a finished run's rows add up to."""

    rows: int
    by_status: Counter[str]
    by_class: Counter[str]  # predicted, of the rows that are ok
    labelled: int
    labelled_ok: int
    correct: int  # of the labelled rows that are ok
    training_exact: int = 0  # rows that are ok and whose image the model was trained on
    training_near: int = 0  # likewise, where only nearly the same picture was found
    new_labelled_ok: int = 0  # of labelled_ok, rows whose image was not in training
    new_correct: int = 0  # of these
    doubtful: tuple["DoubtfulRow", ...] = ()  # the rows with the smallest margins
    unlike_training: int = 0  # rows that are ok and do not look like the images that the model was trained on


@dataclass(frozen=True)
class DoubtfulRow:
    """A classified image whose two best classes are close."""

    path: str
    slice: int | None
    predicted: str
    margin: float


def count_rows(run: Path, rows: range) -> RowCounts:
    """Read every part once and check that there is exactly one row per image, in order.

    Args:
        run: The run folder.
        rows: Of the listing that the parts must hold: all, or those of a shard.

    Raises:
        RunError: Rows are missing, doubled or out of order; says where.
    """
    counts = RowCounts(0, Counter(), Counter(), 0, 0, 0)
    for table in read_parts(run, ["index", "path", "slice", "status", "predicted", "margin", "label", "flags"]):
        indices = table.column("index").to_pylist()
        due = rows.start + counts.rows
        if indices != list(range(due, due + len(indices))):
            raise RunError(f"{run / PARTS_FOLDER} lacks row {due} or has it twice", _CLASSIFY_AGAIN)
        counts = _add_part(counts, table)
    if counts.rows != len(rows):
        raise RunError(
            f"{run / PARTS_FOLDER} holds {counts.rows} rows for {len(rows)} images", "type the same command again"
        )
    return counts


def _add_part(before: RowCounts, part: pa.Table) -> RowCounts:
    label, predicted = part.column("label"), part.column("predicted")
    labelled, classified = pc.is_valid(label), pc.is_valid(predicted)
    scored = pc.and_(labelled, classified)
    correct = pc.fill_null(pc.equal(label, predicted), False)
    seen, near = has_flag(part.column("flags"), Flag.SEEN_IN_TRAINING), has_flag(part.column("flags"), Flag.NEAR_MATCH)
    unlike = has_flag(part.column("flags"), Flag.UNLIKE_TRAINING)
    return RowCounts(
        rows=before.rows + part.num_rows,
        by_status=before.by_status + Counter(part.column("status").to_pylist()),
        by_class=before.by_class + Counter(name for name in predicted.to_pylist() if name is not None),
        labelled=before.labelled + _count_true(labelled),
        labelled_ok=before.labelled_ok + _count_true(scored),
        correct=before.correct + _count_true(correct),
        training_exact=before.training_exact + _count_true(pc.and_not(pc.and_(classified, seen), near)),
        training_near=before.training_near + _count_true(pc.and_(classified, near)),
        new_labelled_ok=before.new_labelled_ok + _count_true(pc.and_not(scored, seen)),
        new_correct=before.new_correct + _count_true(pc.and_not(correct, seen)),
        unlike_training=before.unlike_training + _count_true(pc.and_(classified, unlike)),
        doubtful=_keep_doubtful(before.doubtful, part),
    )


def _keep_doubtful(before: Sequence[DoubtfulRow], part: pa.Table) -> tuple[DoubtfulRow, ...]:
    """The rows with the smallest margins; of equal ones the earlier."""
    names = ["path", "slice", "predicted", "margin", "index"]
    known = part.select(names).filter(pc.is_valid(part.column("margin")))
    order = pc.select_k_unstable(known, _DOUBTFUL, [("margin", "ascending"), ("index", "ascending")])
    found = [DoubtfulRow(*(row[name] for name in names[:-1])) for row in known.take(order).to_pylist()]
    return tuple(sorted([*before, *found], key=lambda row: row.margin)[:_DOUBTFUL])


def has_flag(flags: pa.ChunkedArray, flag: Flag) -> pa.ChunkedArray:
    """Say for each row of the column `flags` whether the flag is among them."""
    joined = pc.binary_join(flags, ";")  # a flag has no semicolon, and none is part of another one's name
    return pc.match_substring(joined, flag.value)


def _count_true(values: pa.ChunkedArray) -> int:
    return int(pc.sum(values).as_py() or 0)


def read_table(run: Path) -> pa.Table:
    """Read all rows of a run into memory, in listing order; what the parts' metadata have in common is kept.

    Raises:
        RunError: There is no part, or one is damaged.
    """
    parts = list(read_parts(run))
    if not parts:
        raise RunError(f"{run / PARTS_FOLDER} holds no part-*.parquet", _CLASSIFY_AGAIN)
    metadata = {key: value for key, value in (parts[0].schema.metadata or {}).items() if key != _PART_KEY}
    return pa.concat_tables(part.replace_schema_metadata(metadata) for part in parts)


def read_parts(run: Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield the part files of a run as tables, in order, one in memory at a time; all columns, or those named.

    Columns that a run of an earlier version lacks are null.

    Raises:
        RunError: A part has changed since it was published, or is damaged.
    """
    hashes = recorded_hashes(run)
    for part, path in sorted(_number_parts(run)):
        try:
            with reading(path):
                content = read_part(path)
            if differs_from_record(content, part, hashes):
                raise RunError(f"{path} {_CHANGED}", _CLASSIFY_AGAIN)
            table = parse_part(content, columns)
            _check_columns(table, columns)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise RunError(f"{path} is damaged: {str(error).splitlines()[0]}", _CLASSIFY_AGAIN) from error
        yield _with_later_columns(table, columns)


def _check_columns(table: pa.Table, columns: Sequence[str] | None) -> None:
    """Raises ParquetProblem where the columns that every part has are not there, or hold what no part holds."""
    always = {field.name for field in predictions_schema(())} - {field.name for field in (*STUDY_FIELDS, PICTURE_FIELD)}
    if lacking := sorted((always if columns is None else always & set(columns)) - set(table.column_names)):
        raise ParquetProblem(f"it has no column '{lacking[0]}'")
    for field in table.schema:
        if field.name.startswith("p_") and field.type != pa.float32():
            raise ParquetProblem(f"column '{field.name}' is {field.type}, not float")
    if "status" in table.column_names:
        unknown = set(table["status"].to_pylist()) - set(Status)
        if unknown:
            raise ParquetProblem(f"the status '{min(map(str, unknown))[:80]}' does not exist")


def _number_parts(run: Path) -> Iterator[tuple[int, Path]]:
    for path in (run / PARTS_FOLDER).glob("part-*.parquet"):
        part = part_number(path)
        if part is None:
            raise RunError(f"{path} is no part of this run", "delete that file")
        yield part, path


def part_number(path: Path) -> int | None:
    """The number in a part file's name; None where it has none."""
    found = _PART_NAME.fullmatch(path.name)
    return int(found[1]) if found else None


def read_part(path: Path) -> bytes:
    """The bytes of a part file.

    Raises:
        OSError: Missing, forbidden, no regular file, or larger than any part.
    """
    return read_file(os.fsencode(path), _MAX_BYTES)


def parse_part(content: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the bytes of a part file; all columns, or those named. Checksums of pages are verified where there are any.

    Raises:
        OSError: The bytes are damaged; also pa.ArrowException and ValueError.
    """
    with open_parquet(content, predictions_schema(()), most=PART_ROWS) as part:
        if part.metadata.num_rows > MOST_PART_ROWS:
            raise ParquetProblem(f"it has {part.metadata.num_rows:,} rows, a part has at most {MOST_PART_ROWS:,}")
        names = (
            part.schema_arrow.names if columns is None else [one for one in part.schema_arrow.names if one in columns]
        )
        return read_groups(part, range(part.metadata.num_row_groups), names)


def _with_later_columns(table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    if PICTURE_FIELD.name not in table.column_names and (columns is None or PICTURE_FIELD.name in columns):
        table = table.append_column(PICTURE_FIELD, pa.nulls(table.num_rows, PICTURE_FIELD.type))
    for field in STUDY_FIELDS:
        if field.name not in table.column_names and (columns is None or field.name in columns):
            place = table.column_names.index("label") if "label" in table.column_names else table.num_columns
            table = table.add_column(place, field, pa.nulls(table.num_rows, field.type))
    return table


def table_of_rows(rows: Sequence[Prediction], classes: Sequence[str]) -> pa.Table:
    """Return rows that belong to no run as a table with the columns of a part file."""
    columns, schema = _columns(rows, classes), predictions_schema(classes)
    return pa.Table.from_arrays([pa.array(columns[field.name], field.type) for field in schema], schema=schema)


def _columns(rows: Sequence[Prediction], classes: Sequence[str]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {
        "index": [row.decoded.file.index for row in rows],
        "input": [row.decoded.file.input for row in rows],
        "path": [row.decoded.file.path for row in rows],
        **{field.name: [getattr(row.decoded.file.study, field.name, None) for row in rows] for field in STUDY_FIELDS},
        "label": [row.decoded.file.label for row in rows],
        "status": [row.status.value for row in rows],
        "error": [row.error for row in rows],
        "flags": [_flags(row) for row in rows],
        "predicted": [row.predicted for row in rows],
        "confidence": [row.confidence for row in rows],
        "margin": [row.margin for row in rows],
        "entropy": [row.entropy for row in rows],
        "width": [row.decoded.verdict.width for row in rows],
        "height": [row.decoded.verdict.height for row in rows],
        "bytes": [row.decoded.bytes for row in rows],
        "sha256": [row.decoded.sha256 for row in rows],
        PICTURE_FIELD.name: [_as_hex(row.decoded.perceptual_hash) for row in rows],
    }
    for column, name in enumerate(classes):
        columns[f"p_{name}"] = [row.probabilities[column] if row.probabilities else None for row in rows]
    return columns


def _flags(row: Prediction) -> list[str]:
    flags = [flag.value for flag in row.decoded.verdict.flags]
    return [Flag.NAME_ESCAPED.value, *flags] if row.decoded.file.name_escaped else flags


def _as_hex(value: int | None) -> str | None:
    return None if value is None else f"{value:016x}"


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
