"""Whether a finished run still says what was written: every part against its hash, its listing, and itself.

hash -> schema, run, bundle -> rows against listing.parquet -> each row against itself -> counts of run.json and
series.parquet against a recomputation -> on demand, the input files against the hashes in their rows
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import bool_, float64
from numpy.typing import NDArray

from mribatch.core.errors import RunError
from mribatch.core.system_errors import reading
from mribatch.pipeline.listing.discover import Input, InputKind
from mribatch.pipeline.listing.table import LISTING_FILE, PATHS_FILE, Listing
from mribatch.pipeline.output.part_hashes import HASHES_FILE, differs_from_record, recorded_hashes
from mribatch.pipeline.output.parts import (
    PARTS_FOLDER,
    PICTURE_FIELD,
    STUDY_FIELDS,
    count_rows,
    is_of_run,
    parse_part,
    part_number,
    part_path,
    predictions_schema,
    read_part,
)
from mribatch.pipeline.output.run_file import RUN_FILE, RunFile, read_finished_run
from mribatch.pipeline.output.series import SERIES_FILE, read_series, tabulate_series
from mribatch.pipeline.progress import Track, track_silently
from mribatch.pipeline.records import Flag, ImageFile, Status
from mribatch.pipeline.storage.content import digest_content

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 1
_SHOWN = 10  # findings
_RESULTS = ("predicted", "confidence", "margin", "entropy")
_SUM = 0.01  # a softmax in float16 adds up to 1 within this
_ROUNDING = 1e-4  # of figures that are computed again from float32
_PAIR = (".hdr", ".hdr.gz")  # the row's hash is of the other file, which holds the voxels


@dataclass(frozen=True, kw_only=True)
class RunVerification:
    """What was checked, and what was found."""

    schema_version: int
    run: str
    rows: int
    parts: int
    parts_without_hash: int  # of a run that an earlier version wrote: changed bytes go unnoticed there
    input_files: int | None  # that were hashed again; None where that was not asked for
    problems: int
    findings: tuple[str, ...]  # the first ten


@dataclass
class _Findings:
    problems: int = 0
    first: list[str] = field(default_factory=list)

    def take(self, found: Iterable[str]) -> None:
        for text in found:
            self.problems += 1
            if len(self.first) < _SHOWN:
                self.first.append(text)


@dataclass(frozen=True)
class _Run:
    """What the parts must agree with."""

    path: Path
    file: RunFile
    hashes: Mapping[int, str]

    @property
    def schema(self) -> "pa.Schema":
        import pyarrow as pa

        schema = predictions_schema(self.file.bundle.classes)
        later = {one.name for one in STUDY_FIELDS} if self.file.schema_version == 1 else set()
        return pa.schema([one for one in schema if one.name not in later])

    def has_columns(self, schema: "pa.Schema") -> bool:
        """Whether a part has the columns of this run; those of earlier versions lack the perceptual hash."""
        expected = self.schema
        place = expected.get_field_index(PICTURE_FIELD.name)
        return bool(schema.equals(expected) or schema.equals(expected.remove(place)))


def verify_run(path: Path, *, inputs: bool = False, track: Track = track_silently) -> RunVerification:
    """Check a finished run; one part is in memory at a time.

    Args:
        path: The run folder.
        inputs: Also hash the input files again, and compare with the hashes in the rows.
        track: Shows how far it is.

    Raises:
        RunError: There is no finished run, its listing cannot be read, or the input files are asked for and hidden.
    """
    file = read_finished_run(path)
    run = _Run(path, file, recorded_hashes(path))
    if inputs and (path / PATHS_FILE).exists():
        raise RunError(f"the run in {path} hides where its files are", "verify it without the input files")
    found, hashed = _Findings(), 0
    found.take(_find_strays(run))
    for part, files in enumerate(track(_read_listing(run), "verifying parts", file.layout.parts)):
        table = _read_part(run, part, found)
        if table is None:
            continue
        found.take(_compare_with_listing(table, files, part))
        found.take(_check_rows(table, file.bundle.classes, part))
        if inputs:
            hashed += _hash_inputs(table, files, found)
    if not found.problems:  # what is found already would be found again
        found.take(_check_counts(run))
        found.take(_check_series(run))
    return RunVerification(
        schema_version=SCHEMA_VERSION,
        run=str(path),
        rows=file.listing.rows,
        parts=file.layout.parts,
        parts_without_hash=len(set(range(file.layout.parts)) - run.hashes.keys()),
        input_files=hashed if inputs else None,
        problems=found.problems,
        findings=tuple(found.first),
    )


def _read_listing(run: _Run) -> Iterator[list[ImageFile]]:
    """The images of each part, as the listing has them."""
    import pyarrow as pa

    layout = run.file.layout
    roots = [Input(InputKind.FOLDER, one.path, one.root.encode()) for one in run.file.inputs]
    try:
        listing = Listing(run.path, roots)
        if listing.files != layout.files:
            raise RunError(
                f"{run.path / LISTING_FILE} has {listing.files:,} rows, {RUN_FILE} counts {layout.files:,}",
                "restore the folder",
            )
        yield from listing.slices(layout.rows(part) for part in range(layout.parts))
    except (OSError, ValueError, IndexError, pa.ArrowException) as error:
        raise RunError(
            f"{run.path / LISTING_FILE} is damaged: {str(error).splitlines()[0]}", "restore the folder"
        ) from error


def _find_strays(run: _Run) -> Iterator[str]:
    """Files that readers would take for parts and that are none."""
    for path in sorted((run.path / PARTS_FOLDER).glob("*.parquet")):
        part = part_number(path)
        if part is None or part >= run.file.layout.parts or path != part_path(run.path, part):
            yield f"{path.name} is no part of this run"


def _read_part(run: _Run, part: int, found: _Findings) -> "pa.Table | None":
    """The rows of a part whose file, metadata and schema are right; None where they cannot be checked further."""
    import pyarrow as pa

    path, facts = part_path(run.path, part), run.file
    try:
        with reading(path):
            content = read_part(path)
        if differs_from_record(content, part, run.hashes):
            found.take([f"{path.name}: its SHA-256 is not the one in {HASHES_FILE}"])
            return None
        table = parse_part(content)
    except FileNotFoundError:
        found.take([f"{path.name} is missing"])
        return None
    except (OSError, ValueError, pa.ArrowException) as error:
        found.take([f"{path.name} is damaged: {str(error).splitlines()[0]}"])
        return None
    metadata = table.schema.metadata or {}
    if not is_of_run(metadata, facts.run_id) or metadata.get(b"mribatch.part") != str(part).encode():
        found.take([f"{path.name} says that it is of another run or another part"])
    if metadata.get(b"mribatch.bundle_sha256") != facts.bundle.bundle_sha256.encode():
        found.take([f"{path.name} was made with another model bundle than {RUN_FILE} says"])
    if not run.has_columns(table.schema):
        found.take([f"{path.name} has other columns than a run of this model"])
        return None
    return table


def _compare_with_listing(table: "pa.Table", files: Sequence[ImageFile], part: int) -> Iterator[str]:
    if table.num_rows != len(files):
        yield f"part {part} has {table.num_rows:,} rows for {len(files):,} images"
        return
    for name in ("index", "input", "path", "label"):
        for file, value in zip(files, table.column(name).to_pylist(), strict=True):
            if value != getattr(file, name):
                yield f"row {file.index}: {name} is {value!r}, the listing has {getattr(file, name)!r}"
                break


def _check_rows(table: "pa.Table", classes: Sequence[str], part: int) -> Iterator[str]:
    """The first row of a part that breaks each rule."""
    rows = table.column("index").to_pylist()
    for broken, text in _broken_rules(table, classes):
        if broken.any():
            yield f"part {part}, row {rows[int(broken.argmax())]}: {text}"


def _broken_rules(table: "pa.Table", classes: Sequence[str]) -> Iterator[tuple[NDArray[bool_], str]]:
    """For each rule of docs/reference/parquet-schema.md: bool (rows,), where it is broken; and what is wrong."""
    import pyarrow.compute as pc

    def missing(name: str) -> NDArray[bool_]:
        return np.asarray(pc.is_null(table.column(name)).to_numpy(), dtype=bool_)

    statuses, flags = table.column("status").to_pylist(), table.column("flags").to_pylist()
    ok = np.array([status == Status.OK for status in statuses], dtype=bool_)
    yield np.array([status not in set(Status) for status in statuses], dtype=bool_), "no such status"
    yield np.array([not set(Flag) >= set(these) for these in flags], dtype=bool_), "no such flag"
    yield missing("error") != ok, "an error, and the status is ok, or none, and it is not"
    labels = table.column("label").to_pylist()
    yield np.array([label not in (None, *classes) for label in labels], dtype=bool_), "the label is no class"
    digest = pc.fill_null(pc.match_substring_regex(table.column("sha256"), "^[0-9a-f]{64}$"), True)
    yield ~np.asarray(digest.to_numpy(), dtype=bool_), "sha256 is no hash"
    scores = [f"p_{name}" for name in classes]
    for name in (*_RESULTS, *scores):
        yield missing(name) == ok, f"{name} is null and the status ok, or it is not"
    if table.num_rows and ok.any():
        yield from _broken_results(table, np.stack([_numbers(table, name) for name in scores], axis=1), ok, classes)


def _broken_results(
    table: "pa.Table", scores: NDArray[float64], ok: NDArray[bool_], classes: Sequence[str]
) -> Iterator[tuple[NDArray[bool_], str]]:
    """Of the rows that are ok. scores: (rows, classes), NaN where null."""
    safe = np.where(np.isfinite(scores), scores, 0)
    ordered = np.sort(safe, axis=1)
    entropy = -(safe * np.log(np.where(safe > 0, safe, 1))).sum(axis=1)
    outside = (~np.isfinite(scores) | (scores < 0) | (scores > 1 + _ROUNDING)).any(axis=1)
    yield ok & outside, "a probability is not between 0 and 1"
    yield ok & (np.abs(safe.sum(axis=1) - 1) > _SUM), "the probabilities do not add up to 1"
    best = np.array(classes, dtype=object)[safe.argmax(axis=1)]
    predicted = np.array(table.column("predicted").to_pylist(), dtype=object)
    yield ok & (predicted != best), "predicted is not the class with the highest probability"
    for name, expected in (
        ("confidence", ordered[:, -1]),
        ("margin", ordered[:, -1] - ordered[:, -2]),
        ("entropy", entropy),
    ):
        yield ok & ~(np.abs(_numbers(table, name) - expected) <= _ROUNDING), f"{name} does not fit the probabilities"


def _numbers(table: "pa.Table", name: str) -> NDArray[float64]:
    """A column as float64 (rows,), NaN where null."""
    import pyarrow.compute as pc

    return np.asarray(pc.fill_null(table.column(name), float("nan")).to_numpy(), dtype=float64)


def _check_counts(run: _Run) -> Iterator[str]:
    counts, written = count_rows(run.path, range(run.file.layout.files)), run.file.counts
    assert written is not None, "the run is finished"
    pairs: dict[str, tuple[Any, Any]] = {
        "rows": (counts.rows, written.rows),
        "by_status": (dict(counts.by_status), _without_zeros(written.by_status)),
        "by_class": (dict(counts.by_class), _without_zeros(written.by_class)),
        "labelled": (counts.labelled, written.labelled),
        "correct": (counts.correct, written.correct),
    }
    for name, (counted, said) in pairs.items():
        if counted != said:
            yield f"{RUN_FILE} has {name} {said}, the rows give {counted}"


def _without_zeros(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


def _check_series(run: _Run) -> Iterator[str]:
    expected = tabulate_series(run.path, run.file.bundle.classes)
    try:
        written = read_series(run.path)
    except RunError as error:
        yield error.problem
        return
    if (0 if written is None else written.num_rows) != expected.num_rows:
        yield f"{SERIES_FILE} has {0 if written is None else written.num_rows:,} series of {expected.num_rows:,}"
    elif written is not None and not written.equals(expected):
        yield f"{SERIES_FILE} is not what the rows give"


def _hash_inputs(table: "pa.Table", files: Sequence[ImageFile], found: _Findings) -> int:
    """Hash each file of these rows once; return how many there were."""
    digests: dict[bytes, tuple[str, str]] = {}
    for file, digest in zip(files, table.column("sha256").to_pylist(), strict=True):
        if digest is not None and not file.path.lower().endswith(_PAIR):
            digests.setdefault(file.file, (file.path, digest))
    found.take(_changed_inputs(digests))
    return len(digests)


def _changed_inputs(digests: Mapping[bytes, tuple[str, str]]) -> Iterator[str]:
    for file, (shown, expected) in digests.items():
        try:
            if digest_content(file)[1] != expected:
                yield f"input {shown} has changed since it was classified"
        except OSError as error:
            yield f"input {shown} cannot be read: {error.strerror or error}"
