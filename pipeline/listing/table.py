"""listing.parquet and skipped.parquet: what a run was asked to do, streamed to disk and read back in pieces.

The listing has one row per image: per file, or per slice of a file that holds several. Where paths are hidden, both
files show pseudonyms, and paths.parquet has the paths, row by row of the listing, for its owner only.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mribatch.core.errors import RunError
from mribatch.core.files import publishing
from mribatch.core.local_paths import arrow_path
from mribatch.core.system_errors import reading
from mribatch.core.text import decode_name
from mribatch.pipeline.listing.discover import Discovery, FoundFile, Input, ListingProgress
from mribatch.pipeline.listing.entry import SkipReason
from mribatch.pipeline.listing.headers import write_entry
from mribatch.pipeline.listing.labels import Labels
from mribatch.pipeline.parquet_file import ParquetProblem, open_parquet, read_groups
from mribatch.pipeline.records import Flag, ImageFile, SliceSource, Status, StudyImage, Verdict
from mribatch.pipeline.storage.address import locate
from mribatch.pipeline.studies.pseudonyms import Pseudonyms

LISTING_FILE, SKIPPED_FILE = "listing.parquet", "skipped.parquet"
PATHS_FILE = "paths.parquet"  # only where paths are hidden

LISTING_SCHEMA = pa.schema(
    [
        pa.field("index", pa.int64(), nullable=False),
        pa.field("input", pa.int16(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("bytes", pa.int64()),
        pa.field("mtime_ns", pa.int64()),
        pa.field("label", pa.string()),
        pa.field("raw_path", pa.binary()),
        pa.field("format", pa.string()),
        pa.field("slice", pa.int32()),
        pa.field("patient", pa.string()),
        pa.field("study", pa.string()),
        pa.field("series", pa.string()),
        pa.field("instance", pa.int32()),
        pa.field("plane", pa.string()),
        pa.field("position", pa.float64()),
        pa.field("flags", pa.string()),
        pa.field("sampled", pa.bool_()),
        pa.field("status", pa.string()),
        pa.field("error", pa.string()),
        pa.field("member", pa.string()),
    ]
)
PATHS_SCHEMA = pa.schema(
    [pa.field("path", pa.string(), nullable=False), pa.field("real_path", pa.binary(), nullable=False)]
)
SKIPPED_SCHEMA = pa.schema(
    [
        pa.field("input", pa.int16(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string()),
    ]
)
PLAIN = "image"  # beside "dicom" and "nifti", in counts by format
_ROW_GROUP = 4_096  # rows held in memory at once
_MOST_TOGETHER = 1 << 17  # rows of a row group that are read; earlier versions wrote more of them together
_SAMPLE_COLUMNS = ("input", "path", "raw_path", "series", "slice", "sampled", "member")
_MAX_SUFFIXES, _OTHERS = 100, "(others)"
_FIRST_NAMES = 20
_UNREAD = (SkipReason.UNREADABLE_FOLDER, SkipReason.UNREADABLE_FILE)


@dataclass(frozen=True, kw_only=True)
class ListingFacts:
    """What run.json says of the listing."""

    files: int
    labelled: int  # images whose label is known
    sha256: str  # hex, over all that the rows say of the files, in order
    skipped: int
    skipped_by_reason: Mapping[str, int]
    skipped_by_suffix: Mapping[str, int]  # of the files that were skipped for their name
    skipped_first: tuple[str, ...]  # the first names, at most 20
    unknown_labels: Mapping[str, int]  # folder or label that is not a class of the model -> files
    unmatched_lines: int | None = None  # lines of the labels table whose path is no listed file's; None without a table
    unmatched_first: tuple[str, ...] | None = None  # the first paths of those, at most 5
    images: int | None = None  # rows; None in runs of schema version 1, where every file is one
    files_by_format: Mapping[str, int] | None = None  # "dicom", "nifti" and "image"; None where all are plain images
    images_by_format: Mapping[str, int] | None = None  # likewise
    incomplete: int | None = (
        None  # folders and files that the file system gave no answer for; None where there are none
    )

    @property
    def rows(self) -> int:
        """Rows of the listing."""
        return self.files if self.images is None else self.images


class _ListedCounts:
    """Counts the files and images that are listed."""

    def __init__(self) -> None:
        self.labelled = 0
        self.unanswered = 0
        self.files: Counter[str] = Counter()
        self.images: Counter[str] = Counter()

    def add(self, found: FoundFile, label: str | None) -> None:
        kind = PLAIN if found.study is None else found.study.header.format.value
        self.files[kind] += 1
        self.images[kind] += found.images
        self.labelled += found.images * (label is not None)
        unread = found.study is not None and found.study.header.status is Status.UNREADABLE
        self.unanswered += found.fault is not None or unread


class _SkippedCounts:
    """Counts the files that are not listed."""

    def __init__(self) -> None:
        self.by_reason: Counter[str] = Counter()
        self.by_suffix: Counter[str] = Counter()
        self.first: list[str] = []

    def add(self, reason: SkipReason, path: str, shown: str) -> None:
        self.by_reason[reason.value] += 1
        if reason is SkipReason.SUFFIX:
            suffix = os.path.splitext(path)[1].lower() or "(none)"
            known = suffix in self.by_suffix or len(self.by_suffix) < _MAX_SUFFIXES
            self.by_suffix[suffix if known else _OTHERS] += 1
        if len(self.first) < _FIRST_NAMES:
            self.first.append(shown)


class TableWriter:
    """Rows of one schema to one Parquet file, a row group at a time."""

    def __init__(self, path: Path, schema: pa.Schema, *, private: bool = False) -> None:
        if private:
            path.unlink(missing_ok=True)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        self._writer = pq.ParquetWriter(arrow_path(path), schema)
        self._schema = schema
        self._rows: list[tuple[Any, ...]] = []

    def add(self, *row: Any) -> None:
        self._rows.append(row)
        if len(self._rows) == _ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        columns = list(zip(*self._rows, strict=True)) or [()] * len(self._schema)
        arrays = [pa.array(values, type=column.type) for values, column in zip(columns, self._schema, strict=True)]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._rows.clear()

    def close(self) -> None:
        if self._rows:
            self._flush()
        self._writer.close()


def write_listing(
    folder: Path,
    inputs: Sequence[Input],
    discovery: Discovery,
    labels: Labels,
    *,
    hidden_by: Pseudonyms | None = None,
    progress: ListingProgress | None = None,
) -> ListingFacts:
    """Walk the inputs and write listing.parquet and skipped.parquet into `folder`, each whole or not at all.

    Args:
        folder: Of the run, or one to be moved there.
        inputs: As the discovery walks them.
        discovery: Entered.
        labels: Of the files.
        hidden_by: Where given, only pseudonyms of paths are written, and paths.parquet says which is which.
        progress: Told how far the walk has come.

    Raises:
        WriteError: The folder cannot be written to.
    """
    listed, skipped, digest = _ListedCounts(), _SkippedCounts(), sha256()
    with publishing(folder / SKIPPED_FILE) as skipped_path, ListingWriter(folder, hidden_by is not None) as listing:
        left_out = TableWriter(skipped_path, SKIPPED_SCHEMA)
        for found in discovery.files(progress):
            path, escaped = decode_name(found.path)
            shown = path if hidden_by is None else hidden_by.of_path(found.path)
            if found.skipped is not None:
                left_out.add(found.input, shown, found.skipped.value, None if hidden_by else found.detail)
                skipped.add(found.skipped, path, shown)
                continue
            label = labels.of(inputs[found.input], found.path)
            raw = found.path if escaped and hidden_by is None else None
            begin = (found.input, shown, found.size, found.mtime_ns, label, raw)
            for row in _study_columns(found):
                listing.add(found.path, *begin, *row, found.member)
            digest.update(_describe(found, label))
            listed.add(found, label)
        left_out.close()
    return _make_facts(listed, skipped, labels, digest.hexdigest(), hidden_by)


_NO_STUDY = (None,) * 12  # and `member` follows


def _study_columns(found: FoundFile) -> Iterator[tuple[Any, ...]]:
    """The columns from `format` on, for each image of a file."""
    if found.study is None:
        yield _NO_STUDY
        return
    header = found.study.header
    ok = header.status is Status.OK
    flags = ";".join(header.flags) or None
    for one, sampled in zip(header.slices, found.study.sampled, strict=True):
        yield (
            header.format.value,
            one.slice,
            header.ids.patient,
            header.ids.study,
            header.ids.series,
            one.instance,
            one.plane and one.plane.value,
            one.position,
            flags,
            sampled,
            None if ok else header.status.value,
            header.error,
        )


def _describe(found: FoundFile, label: str | None) -> bytes:
    """What a resumed run must find unchanged."""
    facts: tuple[object, ...] = (found.input, found.path, found.size, found.mtime_ns, label)
    if found.study is not None:
        facts = (*facts, write_entry(found.study.header).text)
    return repr(facts).encode()


def _make_facts(
    listed: _ListedCounts, skipped: _SkippedCounts, labels: Labels, digest: str, hidden_by: Pseudonyms | None
) -> ListingFacts:
    unread = sum(skipped.by_reason[reason.value] for reason in _UNREAD)
    unmatched, unknown, plain = labels.unmatched(), labels.unknown, listed.files.keys() <= {PLAIN}
    if hidden_by is not None:  # a folder may be named after a patient
        unknown = Counter({hidden_by.of_path(os.fsencode(name)): count for name, count in unknown.items()})
    return ListingFacts(
        files=listed.files.total(),
        labelled=listed.labelled,
        sha256=digest,
        skipped=skipped.by_reason.total(),
        skipped_by_reason=skipped.by_reason,
        skipped_by_suffix=skipped.by_suffix,
        skipped_first=tuple(skipped.first),
        unknown_labels=unknown,
        unmatched_lines=unmatched.count if unmatched else None,
        unmatched_first=unmatched.first if unmatched and hidden_by is None else None,
        images=listed.images.total(),
        files_by_format=None if plain else listed.files,
        images_by_format=None if plain else listed.images,
        incomplete=listed.unanswered + unread or None,
    )


class ListingWriter:
    """A Sink for rows of the listing; with hidden paths, also for paths.parquet.

    Both have the same rows in the same row groups. Leaving this context without an error publishes them.

    Args:
        folder: Where they go.
        hidden: Whether paths are hidden.
        name: Of the listing.
    """

    def __init__(self, folder: Path, hidden: bool, name: str = LISTING_FILE) -> None:
        self._folder = folder
        self._hidden = hidden
        self._name = name
        self._stack = contextlib.ExitStack()
        self._paths: TableWriter | None = None
        self._rows = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            if self._hidden:
                path = stack.enter_context(publishing(self._folder / PATHS_FILE))
                self._paths = TableWriter(path, PATHS_SCHEMA, private=True)
                stack.enter_context(contextlib.closing(self._paths))
            path = stack.enter_context(publishing(self._folder / self._name))
            self._listing = TableWriter(path, LISTING_SCHEMA)
            stack.enter_context(contextlib.closing(self._listing))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def add(self, real_path: bytes, *row: Any) -> None:
        """Add a row: the columns of the listing after `index`."""
        self._listing.add(self._rows, *row)
        if self._paths is not None:
            self._paths.add(row[1], real_path)
        self._rows += 1


def open_listing(path: Path) -> pq.ParquetFile:
    """Open a listing.parquet, which may be anyone's; a context.

    Raises:
        ParquetProblem: It is of another make.
        OSError: There is no regular file; also pa.ArrowException.
    """
    table = open_parquet(path, LISTING_SCHEMA, most=_MOST_TOGETHER)
    needed = {field.name for field in LISTING_SCHEMA if not field.nullable} | {"label", "raw_path"}
    if lacking := sorted(needed - set(table.schema_arrow.names)):
        table.close()
        raise ParquetProblem(f"it has no column '{lacking[0]}'")
    return table


class Listing:
    """The listing of a run, read in pieces of one part or less.

    Args:
        folder: That holds listing.parquet and, where paths are hidden, paths.parquet.
        inputs: Of the run.
    """

    def __init__(self, folder: Path, inputs: Sequence[Input]) -> None:
        self._path, self._paths = folder / LISTING_FILE, folder / PATHS_FILE
        self._roots = [item.root for item in inputs]
        with self._refusing(), reading(self._path), open_listing(self._path) as table:
            self.files: int = table.metadata.num_rows
        self._samples: dict[str, tuple[SliceSource, ...]] | None = None

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        """Turn what a damaged listing, or one of another make, makes of its readers into an error about it."""
        try:
            yield
        except (OSError, ValueError, IndexError, KeyError, pa.ArrowException) as error:
            problem = f"{self._path} is damaged: {str(error).splitlines()[0]}"
            raise RunError(problem, "restore the folder, or classify the images again") from error

    def slices(self, wanted: Iterable[range]) -> Iterator[list[ImageFile]]:
        """Yield the images of the wanted row numbers, which must ascend. One piece is in memory at a time.

        Raises:
            RunError: The listing is damaged.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._refusing())
            stack.enter_context(reading(self._path))
            table = stack.enter_context(open_listing(self._path))
            paths = self._open_paths(stack)
            starts = [0]
            for group in range(table.metadata.num_row_groups):
                starts.append(starts[-1] + table.metadata.row_group(group).num_rows)
            loaded, rows, names = -1, LISTING_SCHEMA.empty_table(), PATHS_SCHEMA.empty_table()
            for span in wanted:
                files: list[ImageFile] = []
                for group, (begin, end) in enumerate(pairwise(starts)):
                    if end <= span.start or begin >= span.stop:
                        continue
                    if group != loaded:
                        loaded, rows = group, read_groups(table, [group])
                        names = names if paths is None else read_groups(paths, [group])
                    low, high = max(span.start, begin) - begin, min(span.stop, end) - begin
                    files += self._image_files(rows.slice(low, high - low), names.slice(low, high - low))
                yield files

    def _open_paths(self, stack: contextlib.ExitStack) -> pq.ParquetFile | None:
        if not self._paths.exists():
            return None
        return stack.enter_context(open_parquet(self._paths, PATHS_SCHEMA, most=_MOST_TOGETHER))

    def _image_files(self, rows: pa.Table, names: pa.Table) -> Iterator[ImageFile]:
        real = names.column("real_path").to_pylist() or [None] * rows.num_rows
        for row, name in zip(rows.to_pylist(), real, strict=True):
            yield self._image_file(row, name)

    def _image_file(self, row: dict[str, Any], real: bytes | None) -> ImageFile:
        raw: bytes | None = row["raw_path"]
        name = raw if raw is not None else row["path"].encode() if real is None else real
        if b"\0" in name:
            raise ValueError(f"row {row['index']} has a path with a NUL byte")
        file = locate(self._roots[row["input"]], name, row.get("member"))
        study = self._study_image(row) if row.get("format") is not None else None
        facts = (row["bytes"], row["mtime_ns"])
        return ImageFile(
            index=row["index"],
            input=row["input"],
            path=row["path"],
            file=file,
            label=row["label"],
            name_escaped=raw is not None,
            study=study,
            listed=None if None in facts else facts,
        )

    def _study_image(self, row: dict[str, Any]) -> StudyImage:
        status = row["status"]
        return StudyImage(
            format=row["format"],
            slice=row["slice"],
            patient=row["patient"],
            study=row["study"],
            series=row["series"],
            instance=row["instance"],
            plane=row["plane"],
            flags=tuple(map(Flag, (row["flags"] or "").split(";"))) if row["flags"] else (),
            refused=None if status is None else Verdict(Status(status), row["error"], row["format"]),
            range_from=self._range_samples().get(row["series"], ()),
        )

    def _range_samples(self) -> dict[str, tuple[SliceSource, ...]]:
        """Series -> the images that its range of values is taken from. Reads the listing once, when first asked."""
        if self._samples is None:
            found: dict[str, list[SliceSource]] = {}
            with contextlib.ExitStack() as stack:
                table = stack.enter_context(open_listing(self._path))
                paths = self._open_paths(stack)
                for group in range(table.metadata.num_row_groups):
                    rows = read_groups(table, [group], _SAMPLE_COLUMNS)
                    names = None if paths is None else read_groups(paths, [group], ["real_path"])
                    self._add_samples(found, rows, names)
            self._samples = {series: tuple(sources) for series, sources in found.items()}
        return self._samples

    def _add_samples(self, found: dict[str, list[SliceSource]], rows: pa.Table, names: pa.Table | None) -> None:
        sampled = pc.fill_null(rows.column("sampled"), False)
        kept = rows.filter(sampled).to_pylist()
        real = [None] * len(kept) if names is None else names.filter(sampled).column("real_path").to_pylist()
        for row, name in zip(kept, real, strict=True):
            written = name if name is not None else row["raw_path"] or row["path"].encode()
            file = locate(self._roots[row["input"]], written, row.get("member"))
            found.setdefault(row["series"], []).append(SliceSource(file, row["slice"]))
